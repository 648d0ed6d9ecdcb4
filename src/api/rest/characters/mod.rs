//! `/api/characters`: whom one can talk to.

mod files;
mod picture;
mod portrait;
mod wire;

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path as Segment, Query, State as Extract};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::entity::{Entity, IfMatch};
use super::list::{List, ListQuery};
use super::text;
use crate::api::House;
use crate::api::asker::Asker;
use crate::api::body::JsonBody;
use crate::api::problem::{Problem, ProblemBody};
use crate::store::{CharacterChange, CharacterSort, Page, PageAsk, Scope, StoredCharacter};
use wire::{Activity, ChangedCharacter, Character, NewCharacter};

const SORTS: [(&str, CharacterSort); 3] =
    [("created_at", CharacterSort::CreatedAt), ("name", CharacterSort::Name), ("updated_at", CharacterSort::UpdatedAt)];
/// Characters of a search.
const LONGEST_QUERY: usize = 200;

pub(super) fn routes() -> OpenApiRouter<Arc<House>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(active))
        .routes(routes!(search))
        .routes(routes!(one, change, delete))
        .routes(routes!(set_active))
        .merge(portrait::routes())
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Only those that are active, or that are not.
    is_active: Option<bool>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Sought {
    /// Words that name or description have, whole or in part, whatever their case and accents.
    #[param(min_length = 1, max_length = 200, pattern = "\\S")]
    query: String,
}

/// List the characters
#[utoipa::path(
    get,
    path = "/characters",
    tag = "Characters",
    params(ListQuery, Filter),
    responses(
        (status = 200, body = List<Character>),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn list(
    Asker { rows, .. }: Asker,
    query: Result<Query<ListQuery>, QueryRejection>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Json<List<Character>>, Problem> {
    let (query, filter) = (asked(query)?, asked(filter)?);
    let page = rows.list_characters(&query.ask(&SORTS)?, filter.is_active).await?;
    Ok(told(page, &query))
}

/// List the characters that are active
#[utoipa::path(
    get,
    path = "/characters/active",
    tag = "Characters",
    params(ListQuery),
    responses(
        (status = 200, body = List<Character>),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn active(
    Asker { rows, .. }: Asker,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<List<Character>>, Problem> {
    let query = asked(query)?;
    let page = rows.list_characters(&query.ask(&SORTS)?, Some(true)).await?;
    Ok(told(page, &query))
}

/// Find characters by name and description
#[utoipa::path(
    get,
    path = "/characters/search",
    tag = "Characters",
    params(Sought, ListQuery),
    responses(
        (status = 200, body = List<Character>),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn search(
    Asker { rows, .. }: Asker,
    sought: Result<Query<Sought>, QueryRejection>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<List<Character>>, Problem> {
    let sought = sought.map_err(|error| Problem::bad_field("query", error.body_text()))?.0.query;
    text::check("query", &sought, 1..=LONGEST_QUERY)?;
    let query = asked(query)?;
    let ask: PageAsk<CharacterSort> = query.ask(&SORTS)?;
    let page = rows.search_characters(&ask, &sought).await?;
    Ok(told(page, &query))
}

/// One character
#[utoipa::path(
    get,
    path = "/characters/{id}",
    tag = "Characters",
    params(("id" = String, Path, description = "The character's id")),
    responses(
        (status = 200, body = Character),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn one(Asker { rows, .. }: Asker, Segment(id): Segment<String>) -> Result<Entity<Character>, Problem> {
    let stored = rows.character(known(&id)?).await?;
    Ok(Entity::ok(stored.version, stored.into()))
}

/// Make a character
#[utoipa::path(
    post,
    path = "/characters",
    tag = "Characters",
    request_body = NewCharacter,
    responses(
        (status = 201, body = Character, headers(("Location" = String, description = "Its address"))),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn create(asker: Asker, body: JsonBody) -> Result<Response, Problem> {
    asker.needs(Scope::User)?;
    let change = ChangedCharacter::from(body.read::<NewCharacter>()?).checked(None)?;
    let stored = asker.rows.create_character(change).await?;
    let location = HeaderValue::from_str(&format!("/api/characters/{}", stored.character.id)).ok();
    let mut response = Entity::created(stored.version, Character::from(stored)).into_response();
    if let Some(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Change a character
#[utoipa::path(
    put,
    path = "/characters/{id}",
    tag = "Characters",
    params(
        ("id" = String, Path, description = "The character's id"),
        ("If-Match" = Option<String>, Header, description = "The ETag it must still have"),
    ),
    request_body = ChangedCharacter,
    responses(
        (status = 200, body = Character),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn change(
    Extract(house): Extract<Arc<House>>,
    asker: Asker,
    Segment(id): Segment<String>,
    if_match: IfMatch,
    body: JsonBody,
) -> Result<Entity<Character>, Problem> {
    let change = body.read::<ChangedCharacter>()?.checked(Some(&id))?;
    changed(&house, &asker, &id, &if_match, change).await
}

/// Turn a character on or off
#[utoipa::path(
    put,
    path = "/characters/{id}/active",
    tag = "Characters",
    params(
        ("id" = String, Path, description = "The character's id"),
        ("If-Match" = Option<String>, Header, description = "The ETag it must still have"),
    ),
    request_body = Activity,
    responses(
        (status = 200, body = Character),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn set_active(
    Extract(house): Extract<Arc<House>>,
    asker: Asker,
    Segment(id): Segment<String>,
    if_match: IfMatch,
    body: JsonBody,
) -> Result<Entity<Character>, Problem> {
    let activity: Activity = body.read()?;
    let change = CharacterChange { is_active: Some(activity.is_active), ..CharacterChange::default() };
    changed(&house, &asker, &id, &if_match, change).await
}

/// Delete a character; its messages keep its name
#[utoipa::path(
    delete,
    path = "/characters/{id}",
    tag = "Characters",
    params(
        ("id" = String, Path, description = "The character's id"),
        ("If-Match" = Option<String>, Header, description = "The ETag it must still have"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn delete(
    Extract(house): Extract<Arc<House>>,
    asker: Asker,
    Segment(id): Segment<String>,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    asker.needs(Scope::User)?;
    let gone = asker.rows.delete_character(known(&id)?, |version| if_match.check(version)).await?;
    files::remove(&house.state.data_dir, gone.image_file.as_deref()).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Changes a character, and removes the picture that it no longer has.
async fn changed(
    house: &House,
    asker: &Asker,
    id: &str,
    if_match: &IfMatch,
    change: CharacterChange,
) -> Result<Entity<Character>, Problem> {
    asker.needs(Scope::User)?;
    let (before, after) = asker.rows.change_character(known(id)?, |version| if_match.check(version), change).await?;
    if before.image_file != after.image_file {
        files::remove(&house.state.data_dir, before.image_file.as_deref()).await;
    }
    Ok(Entity::ok(after.version, after.into()))
}

/// An id that could be one; no database takes another.
fn known(id: &str) -> Result<&str, Problem> {
    if id.contains('\0') {
        return Err(Problem::new(StatusCode::NOT_FOUND, "not_found", "there is no such character"));
    }
    Ok(id)
}

fn asked<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    query
        .map(|Query(query)| query)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, "bad_query", error.body_text()))
}

fn told(page: Page<StoredCharacter>, query: &ListQuery) -> Json<List<Character>> {
    Json(List::of(page, query, &SORTS, Character::from))
}

#[cfg(test)]
mod tests;
