//! `/api/voices`: what characters can sound like. An engine's own voices can only be read; others are made of words or
//! of a recording, by an engine that learns voices.

mod making;
mod preview;
mod upload;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path as Segment, Query, State as Extract};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::time::interval;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::entity::{Entity, IfMatch};
use super::list::{List, ListQuery};
use crate::api::House;
use crate::api::asker::Asker;
use crate::api::body::JsonBody;
use crate::api::problem::{Problem, ProblemBody};
use crate::provider::VoiceInfo;
use crate::store::{Kept, Owned, Page, PageAsk, Place, Recordings, Scope, Store, StoredVoice, VoiceSort};
use making::{make, remove, uploaded};
use wire::{ChangedVoice, NewVoice, Voice};

const SORTS: [(&str, VoiceSort); 2] = [("name", VoiceSort::Name), ("created_at", VoiceSort::CreatedAt)];
/// Begins a place among the engines' own voices, which come after all others. No id begins so.
const BUILTIN: char = '~';
const SWEPT_EVERY: Duration = Duration::from_hours(1);

pub(super) fn routes() -> OpenApiRouter<Arc<House>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(one, change, delete))
        .merge(preview::routes())
        .merge(upload::routes())
}

/// Removes what nobody needs any more, as long as the server runs.
pub(crate) async fn sweep_for_ever(data_dir: PathBuf, store: Store) {
    let recordings = Recordings::new(&data_dir);
    // Details are in the log.
    let _ = recordings.release(&store).await;
    let mut times = interval(SWEPT_EVERY);
    loop {
        times.tick().await;
        match recordings.sweep(&store).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "files of voices removed"),
            Err(error) => tracing::warn!(%error, "the voices' folders cannot be swept"),
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Removal {
    /// Also where characters speak with it: they speak with the engine's default voice then.
    #[serde(default)]
    force: bool,
}

/// List the voices: those that were made here, then the engines' own
#[utoipa::path(
    get,
    path = "/voices",
    tag = "Voices",
    params(ListQuery),
    responses(
        (status = 200, body = List<Voice>),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn list(
    Extract(house): Extract<Arc<House>>,
    Asker { rows, .. }: Asker,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<List<Voice>>, Problem> {
    let query = asked(query)?;
    let page = page(&house, &rows, &query.ask(&SORTS)?).await?;
    Ok(Json(List::of(page, &query, &SORTS, |voice| voice)))
}

/// One voice
#[utoipa::path(
    get,
    path = "/voices/{voice}",
    tag = "Voices",
    params(("voice" = String, Path, description = "The voice's id, or the name of an engine's own")),
    responses(
        (status = 200, body = Voice),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn one(
    Extract(house): Extract<Arc<House>>,
    Asker { rows, .. }: Asker,
    Segment(id): Segment<String>,
) -> Result<Entity<Voice>, Problem> {
    Ok(match found(&house, &rows, &id).await? {
        Found::Builtin(voice) => Entity::ok(1, Voice::builtin(voice)),
        Found::Stored(voice) => Entity::ok(voice.version, told(&house, *voice)),
    })
}

/// Make a voice of words or of a recording
#[utoipa::path(
    post,
    path = "/voices",
    tag = "Voices",
    request_body = NewVoice,
    responses(
        (status = 201, body = Voice, headers(("Location" = String, description = "Its address"))),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn create(Extract(house): Extract<Arc<House>>, asker: Asker, body: JsonBody) -> Result<Response, Problem> {
    asker.needs(Scope::User)?;
    let new: NewVoice = body.read()?;
    new.check()?;
    let upload = match &new.upload_id {
        Some(id) => Some(uploaded(&asker.rows, id).await?),
        None => None,
    };
    let stored = make(&house, &asker.rows, new, upload).await?;
    let location = HeaderValue::from_str(&format!("/api/voices/{}", stored.id)).ok();
    let mut response = Entity::created(stored.version, told(&house, stored)).into_response();
    if let Some(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Change a voice
#[utoipa::path(
    put,
    path = "/voices/{voice}",
    tag = "Voices",
    params(
        ("voice" = String, Path, description = "The voice's id"),
        ("If-Match" = Option<String>, Header, description = "The ETag it must still have"),
    ),
    request_body = ChangedVoice,
    responses(
        (status = 200, body = Voice),
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
) -> Result<Entity<Voice>, Problem> {
    asker.needs(Scope::User)?;
    let id = of_ours(&house, &id)?;
    let changed: ChangedVoice = body.read()?;
    changed.check()?;
    if let Some(name) = &changed.name {
        check_free(&house, name)?;
    }
    let after = making::change(&house, &asker.rows, id, &if_match, changed).await?;
    Ok(Entity::ok(after.version, told(&house, after)))
}

/// Delete a voice
#[utoipa::path(
    delete,
    path = "/voices/{voice}",
    tag = "Voices",
    params(
        ("voice" = String, Path, description = "The voice's id"),
        ("If-Match" = Option<String>, Header, description = "The ETag it must still have"),
        Removal,
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
    removal: Result<Query<Removal>, QueryRejection>,
    if_match: IfMatch,
) -> Result<StatusCode, Problem> {
    asker.needs(Scope::User)?;
    let force = asked(removal)?.force;
    let id = of_ours(&house, &id)?;
    let gone = asker.rows.delete_voice::<Problem>(id, force, |version| if_match.check(version)).await?;
    match gone {
        Kept::Done(voice) => remove(&house, voice.recording).await,
        Kept::InUse(names) => {
            let detail = format!(
                "{} {} with this voice; give them another, or delete it with ?force=true",
                names.join(", "),
                if names.len() == 1 { "speaks" } else { "speak" }
            );
            return Err(Problem::new(StatusCode::CONFLICT, "voice_in_use", detail));
        }
        Kept::Full => {}
    }
    Ok(StatusCode::NO_CONTENT)
}

/// A voice, wherever it is from.
enum Found {
    Builtin(VoiceInfo),
    Stored(Box<StoredVoice>),
}

/// An engine's voice that has this name or answers to it, or the owner's.
async fn found(house: &House, rows: &Owned, id: &str) -> Result<Found, Problem> {
    if let Some(voice) = builtin(house, id) {
        return Ok(Found::Builtin(voice));
    }
    Ok(Found::Stored(Box::new(rows.voice(known(id)?).await?)))
}

fn builtin(house: &House, name: &str) -> Option<VoiceInfo> {
    let voices = house.state.parts.speech.voices();
    let answers = |voice: &VoiceInfo| voice.aliases.iter().any(|alias| alias == name);
    let at = voices.iter().position(|voice| voice.name == name).or_else(|| voices.iter().position(answers))?;
    voices.into_iter().nth(at)
}

/// An id that could be one; no database takes another.
fn known(id: &str) -> Result<&str, Problem> {
    if id.contains('\0') {
        return Err(Problem::new(StatusCode::NOT_FOUND, "not_found", "there is no such voice"));
    }
    Ok(id)
}

/// The id of a voice that may be changed.
fn of_ours<'a>(house: &House, id: &'a str) -> Result<&'a str, Problem> {
    if builtin(house, id).is_some() {
        let detail = format!("{id} came with its engine and cannot be changed");
        return Err(Problem::new(StatusCode::FORBIDDEN, "voice_read_only", detail));
    }
    known(id)
}

/// Whether a voice may have this name: none that an engine's own has, however it is written.
fn check_free(house: &House, name: &str) -> Result<(), Problem> {
    let plain =
        |name: &str| name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
    let wanted = plain(name);
    let voices = house.state.parts.speech.voices();
    let mut taken = voices.iter().flat_map(|voice| voice.aliases.iter().chain([&voice.name]));
    if !wanted.is_empty() && taken.any(|taken| plain(taken) == wanted) {
        let detail = format!("{name} is the name of an engine's own voice; choose another");
        return Err(Problem::new(StatusCode::CONFLICT, "voice_exists", detail).about("name"));
    }
    Ok(())
}

fn told(house: &House, voice: StoredVoice) -> Voice {
    Voice::stored(voice, house.state.parts.speech.studio().is_some())
}

/// A page of the owner's voices, then of the engines' own in the order of their names.
async fn page(house: &House, rows: &Owned, ask: &PageAsk<VoiceSort>) -> Result<Page<Voice>, Problem> {
    let mut own = house.state.parts.speech.voices();
    own.sort_by(|one, other| one.name.cmp(&other.name));
    let builtin_after = ask.after.as_ref().and_then(|place| place.id.strip_prefix(BUILTIN));
    let mut page = if builtin_after.is_some() {
        Page { items: Vec::new(), next: None, total: rows.count_voices().await? }
    } else {
        let Page { items, next, total } = rows.list_voices(ask).await?;
        Page { items: items.into_iter().map(|voice| told(house, voice)).collect(), next, total }
    };
    page.total += own.len();
    if page.next.is_some() {
        return Ok(page);
    }
    let after = builtin_after.unwrap_or_default();
    let mut rest = own.into_iter().filter(|voice| voice.name.as_str() > after).peekable();
    while page.items.len() < ask.limit
        && let Some(voice) = rest.next()
    {
        page.items.push(Voice::builtin(voice));
    }
    if rest.peek().is_some() {
        let last = page.items.last().filter(|voice| voice.method == wire::Method::Builtin);
        let id = format!("{BUILTIN}{}", last.map_or("", |voice| voice.voice.as_str()));
        page.next = Some(Place { key: String::new(), id });
    }
    Ok(page)
}

fn asked<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    query
        .map(|Query(query)| query)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, "bad_query", error.body_text()))
}

#[cfg(test)]
mod engine_tests;
#[cfg(test)]
mod tests;
