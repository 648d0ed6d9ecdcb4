//! `/api/conversations`: conversations, who takes part in them, and, in files of their own, their messages, search,
//! export and import.
//!
//! A call that has the conversation open hears of every change from the store (`ws/call/news`).

mod messages;
mod metadata;
mod search;
mod shape;
mod transfer;

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path as Segment, Query, State as Extract};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::entity::{Entity, IfMatch};
use super::list::{List, ListQuery};
use crate::api::House;
use crate::api::asker::Asker;
use crate::api::body::JsonBody;
use crate::api::problem::{Problem, ProblemBody};
use crate::api::rest::sound::recordings;
use crate::session::record::RecordError;
use crate::store::{
    CastChange, ConversationChange, ConversationFilter, ConversationSort, NewConversation, StoredConversation,
};
pub(super) use shape::Message;
use shape::{Conversation, ConversationSettings, Kind, Status};
pub(in crate::api) use shape::{shown_conversation, shown_message};
pub(in crate::api) use transfer::{IMPORT_BYTES, IMPORTS};

/// What a list may be sorted by; the latest come first.
const SORTS: [(&str, ConversationSort); 3] = [
    ("-updated_at", ConversationSort::UpdatedAt),
    ("created_at", ConversationSort::CreatedAt),
    ("title", ConversationSort::Title),
];

pub(super) fn routes() -> OpenApiRouter<Arc<House>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(read, change, delete))
        .routes(routes!(set_characters))
        .routes(routes!(add_character, remove_character))
        .merge(messages::routes())
        .merge(search::routes())
        .merge(transfer::routes())
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Only those that are so. Without it: all that are not deleted.
    #[param(inline)]
    status: Option<Status>,
    /// Only those in which this character takes part.
    character_id: Option<String>,
}

/// A new conversation.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewConversation)]
struct Create {
    /// Null or empty: it gets one of what is said.
    #[schema(max_length = 200)]
    title: Option<String>,
    #[serde(rename = "type")]
    kind: Option<Kind>,
    private: Option<bool>,
    /// Who takes part, in order. Null: the default character.
    #[schema(max_items = 32)]
    character_ids: Option<Vec<String>>,
    #[schema(value_type = Option<ConversationSettings>)]
    settings: Option<Value>,
}

/// What of a conversation changes. What is null or left out stays.
#[derive(Deserialize, ToSchema)]
#[schema(as = ConversationChange)]
struct Change {
    #[schema(max_length = 200)]
    title: Option<String>,
    status: Option<Status>,
    private: Option<bool>,
    /// All of them: what is left out is the server's again.
    #[schema(value_type = Option<ConversationSettings>)]
    settings: Option<Value>,
    #[schema(max_items = 32)]
    character_ids: Option<Vec<String>>,
}

/// Who takes part from now on, in order.
#[derive(Deserialize, ToSchema)]
#[schema(as = ConversationCharacters)]
struct Characters {
    #[schema(max_items = 32)]
    character_ids: Vec<String>,
}

/// The conversations, the latest changed first
#[utoipa::path(
    get,
    path = "/conversations",
    tag = "Conversations",
    params(ListQuery, Which),
    responses(
        (status = 200, body = List<Conversation>),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn list(
    asker: Asker,
    query: Result<Query<ListQuery>, QueryRejection>,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<List<Conversation>>, Problem> {
    let (query, which) = (asked(query)?, asked(which)?);
    if let Some(id) = &which.character_id {
        shape::check_id("character_id", id)?;
    }
    let filter = ConversationFilter { status: which.status.map(Status::into), character_id: which.character_id };
    let page = asker.rows.conversations(&filter, &query.ask(&SORTS)?).await?;
    Ok(Json(List::of(page, &query, &SORTS, Conversation::from)))
}

/// One conversation, also a deleted one that can still be restored
#[utoipa::path(
    get,
    path = "/conversations/{id}",
    tag = "Conversations",
    params(("id" = String, Path)),
    responses(
        (status = 200, body = Conversation),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn read(asker: Asker, Segment(id): Segment<String>) -> Result<Entity<Conversation>, Problem> {
    check_path("conversation", &id)?;
    Ok(entity(asker.rows.conversation(&id).await?))
}

/// Begin a conversation
#[utoipa::path(
    post,
    path = "/conversations",
    tag = "Conversations",
    request_body = Create,
    responses(
        (status = 201, body = Conversation, headers(("Location" = String))),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn create(Extract(house): Extract<Arc<House>>, asker: Asker, body: JsonBody) -> Result<Response, Problem> {
    let sent: Create = body.read()?;
    let title = sent.title.unwrap_or_default();
    shape::check_title("title", &title)?;
    shape::check_characters("character_ids", sent.character_ids.as_deref().unwrap_or_default())?;
    let settings = sent.settings.unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    let new = NewConversation {
        title,
        kind: sent.kind.unwrap_or(Kind::Text).into(),
        private: sent.private.unwrap_or(false),
        character_ids: sent.character_ids,
        settings: kept_settings(&house, settings)?,
    };
    let stored = asker.rows.new_conversation(new).await.map_err(|error| unknown_character(error, "character_ids"))?;
    Ok(created(stored))
}

/// Change a conversation, put it into the bin, take it out again
#[utoipa::path(
    put,
    path = "/conversations/{id}",
    tag = "Conversations",
    params(("id" = String, Path), ("If-Match" = Option<String>, Header, description = "The ETag it must still have")),
    request_body = Change,
    responses(
        (status = 200, body = Conversation),
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
) -> Result<Entity<Conversation>, Problem> {
    check_path("conversation", &id)?;
    let sent: Change = body.read()?;
    shape::check_title("title", sent.title.as_deref().unwrap_or_default())?;
    shape::check_characters("character_ids", sent.character_ids.as_deref().unwrap_or_default())?;
    let change = ConversationChange {
        title: sent.title,
        status: sent.status.map(Status::into),
        private: sent.private,
        settings: sent.settings.map(|settings| kept_settings(&house, settings)).transpose()?,
        cast: sent.character_ids.map(CastChange::Set),
    };
    let stored = asker.rows.change_conversation(&id, if_match.versions(), change).await;
    Ok(entity(stored.map_err(|error| unknown_character(error, "character_ids"))?))
}

fn kept_settings(house: &House, settings: Value) -> Result<Value, Problem> {
    shape::settings("settings", settings, Some(&house.state.parts.stt.languages()))
}

/// Delete a conversation for good, with its messages and files
#[utoipa::path(
    delete,
    path = "/conversations/{id}",
    tag = "Conversations",
    params(("id" = String, Path), ("If-Match" = Option<String>, Header, description = "The ETag it must still have")),
    responses(
        (status = 204),
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
    check_path("conversation", &id)?;
    let files = asker.rows.delete_conversation(&id, if_match.versions()).await?;
    recordings::remove(&house.state.data_dir, &files).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Say who takes part
#[utoipa::path(
    put,
    path = "/conversations/{id}/characters",
    tag = "Conversations",
    params(("id" = String, Path), ("If-Match" = Option<String>, Header, description = "The ETag it must still have")),
    request_body = Characters,
    responses(
        (status = 200, body = Conversation),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn set_characters(
    asker: Asker,
    Segment(id): Segment<String>,
    if_match: IfMatch,
    body: JsonBody,
) -> Result<Entity<Conversation>, Problem> {
    check_path("conversation", &id)?;
    let Characters { character_ids } = body.read()?;
    shape::check_characters("character_ids", &character_ids)?;
    let change = ConversationChange { cast: Some(CastChange::Set(character_ids)), ..ConversationChange::default() };
    let stored = asker.rows.change_conversation(&id, if_match.versions(), change).await;
    Ok(entity(stored.map_err(|error| unknown_character(error, "character_ids"))?))
}

/// Let a character take part
#[utoipa::path(
    post,
    path = "/conversations/{id}/characters/{char_id}",
    tag = "Conversations",
    params(("id" = String, Path), ("char_id" = String, Path)),
    responses(
        (status = 200, body = Conversation),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn add_character(
    asker: Asker,
    Segment((id, char_id)): Segment<(String, String)>,
) -> Result<Entity<Conversation>, Problem> {
    recast(&asker, &id, &char_id, CastChange::Add(char_id.clone())).await.map(entity)
}

/// Let a character take part no longer
#[utoipa::path(
    delete,
    path = "/conversations/{id}/characters/{char_id}",
    tag = "Conversations",
    params(("id" = String, Path), ("char_id" = String, Path)),
    responses(
        (status = 204),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn remove_character(
    asker: Asker,
    Segment((id, char_id)): Segment<(String, String)>,
) -> Result<StatusCode, Problem> {
    recast(&asker, &id, &char_id, CastChange::Remove(char_id.clone())).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn recast(asker: &Asker, id: &str, char_id: &str, cast: CastChange) -> Result<StoredConversation, Problem> {
    check_path("conversation", id)?;
    check_path("character", char_id)?;
    let change = ConversationChange { cast: Some(cast), ..ConversationChange::default() };
    Ok(asker.rows.change_conversation(id, None, change).await?)
}

fn entity(stored: StoredConversation) -> Entity<Conversation> {
    Entity::ok(stored.version, stored.into())
}

fn created(stored: StoredConversation) -> Response {
    let location = format!("/api/conversations/{}", stored.id);
    located(&location, Entity::created(stored.version, Conversation::from(stored)))
}

fn located(location: &str, entity: impl IntoResponse) -> Response {
    let mut response = entity.into_response();
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// An id of a path that cannot be one is nobody's.
fn check_path(what: &'static str, id: &str) -> Result<(), Problem> {
    shape::check_id("id", id).map_err(|_| RecordError::NotFound { what, id: id.to_owned() }.into())
}

/// A character that a body names is a field that is wrong; whatever else is not found is what the path names.
fn unknown_character(error: RecordError, field: &str) -> Problem {
    match error {
        RecordError::NotFound { what: "character", id } => {
            Problem::bad_field(field, format!("there is no character \"{id}\""))
        }
        error => error.into(),
    }
}

/// What a query asks for, by the names of its type.
fn asked<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    query.map(|Query(asked)| asked).map_err(|rejection| {
        let text = rejection.body_text();
        let reason = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
        match reason.split_once(": ") {
            Some((field, message)) if !field.contains(' ') => Problem::bad_field(field, message),
            _ => Problem::bad_field("query", reason),
        }
    })
}

#[cfg(test)]
mod tests;
