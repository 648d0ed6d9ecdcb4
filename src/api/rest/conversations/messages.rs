//! `/api/messages`: what was said, in pages and one by one; writing, changing and deleting it.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path as Segment, Query, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::shape::{self, Attachment, ContentType, Message, Progress, Speaker};
use super::{asked, check_path, located};
use crate::api::House;
use crate::api::asker::Asker;
use crate::api::body::JsonBody;
use crate::api::problem::{Problem, ProblemBody};
use crate::api::rest::entity::{Entity, IfMatch};
use crate::api::rest::list::{List, ListQuery};
use crate::api::rest::sound::recordings;
use crate::provider::Role;
use crate::session::record::{MessageStatus, RecordError};
use crate::store::{NewMessage, PageAsk, Saved, StoredMessage};

/// Pages go back from the latest message, or forth from the first.
const SORTS: [(&str, ()); 1] = [("-created_at", ())];
const MOST_RECENT: usize = 200;
const RECENT: usize = 20;
const BATCH: usize = 500;

pub(super) fn routes() -> OpenApiRouter<Arc<House>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(recent))
        .routes(routes!(last))
        .routes(routes!(create_batch))
        .routes(routes!(read, change, delete))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Where {
    /// The conversation.
    #[param(required, value_type = String)]
    conversation_id: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Recent {
    /// So many, or as many as there are.
    #[param(minimum = 1, maximum = 200, default = 20)]
    n: Option<usize>,
}

/// A message that is written into a conversation. No model answers it.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewMessage)]
struct Create {
    conversation_id: String,
    role: Speaker,
    #[schema(max_length = 100_000)]
    content: String,
    content_type: Option<ContentType>,
    /// Who says it; its name is kept with the message.
    character_id: Option<String>,
    #[serde(default)]
    #[schema(max_items = 16)]
    attachments: Vec<Attachment>,
    /// `completed`, where it is left out.
    status: Option<Progress>,
    /// A message that is sent twice with the same one is stored once.
    #[schema(min_length = 1, max_length = 200)]
    client_message_id: Option<String>,
}

/// Messages that are written together: all or none.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewMessages)]
struct CreateBatch {
    #[schema(min_items = 1, max_items = 500)]
    messages: Vec<Create>,
}

/// What was written, in the order of the request.
#[derive(Serialize, ToSchema)]
struct Messages {
    messages: Vec<Message>,
}

/// What of a message changes.
#[derive(Deserialize, ToSchema)]
#[schema(as = MessageChange)]
struct Change {
    #[schema(max_length = 100_000)]
    content: String,
}

/// A conversation's messages, page by page
///
/// A page has its oldest message first and its newest last. The first page has the latest messages, and `next_cursor`
/// leads to older ones; with `sort=created_at` the first page has the first messages and leads to later ones.
#[utoipa::path(
    get,
    path = "/messages",
    tag = "Messages",
    params(ListQuery, Where),
    responses(
        (status = 200, body = List<Message>),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn list(
    asker: Asker,
    query: Result<Query<ListQuery>, QueryRejection>,
    at: Result<Query<Where>, QueryRejection>,
) -> Result<Json<List<Message>>, Problem> {
    let (query, conversation) = (asked(query)?, conversation(at)?);
    let page = asker.rows.messages(&conversation, &query.ask(&SORTS)?).await?;
    Ok(Json(List::of(page, &query, &SORTS, Message::from)))
}

/// A conversation's latest messages, the newest last
#[utoipa::path(
    get,
    path = "/messages/recent",
    tag = "Messages",
    params(Where, Recent),
    responses(
        (status = 200, body = Messages),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn recent(
    asker: Asker,
    at: Result<Query<Where>, QueryRejection>,
    recent: Result<Query<Recent>, QueryRejection>,
) -> Result<Json<Messages>, Problem> {
    let (conversation, recent) = (conversation(at)?, asked(recent)?);
    let limit = recent.n.unwrap_or(RECENT);
    if !(1..=MOST_RECENT).contains(&limit) {
        return Err(Problem::bad_field("n", format!("must be 1 to {MOST_RECENT}")));
    }
    let page = asker.rows.messages(&conversation, &latest(limit)).await?;
    Ok(Json(Messages { messages: page.items.into_iter().map(Message::from).collect() }))
}

/// A conversation's last message
#[utoipa::path(
    get,
    path = "/messages/last",
    tag = "Messages",
    params(Where),
    responses(
        (status = 200, body = Message),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn last(asker: Asker, at: Result<Query<Where>, QueryRejection>) -> Result<Entity<Message>, Problem> {
    let conversation = conversation(at)?;
    let page = asker.rows.messages(&conversation, &latest(1)).await?;
    let none = || Problem::new(StatusCode::NOT_FOUND, "not_found", "the conversation has no message yet");
    page.items.into_iter().next_back().map(entity).ok_or_else(none)
}

/// One message
#[utoipa::path(
    get,
    path = "/messages/{id}",
    tag = "Messages",
    params(("id" = String, Path)),
    responses(
        (status = 200, body = Message),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn read(asker: Asker, Segment(id): Segment<String>) -> Result<Entity<Message>, Problem> {
    check_path("message", &id)?;
    Ok(entity(asker.rows.message(&id).await?))
}

/// Write a message into a conversation
#[utoipa::path(
    post,
    path = "/messages",
    tag = "Messages",
    request_body = Create,
    responses(
        (status = 200, description = "It was written before, with this client_message_id", body = Message),
        (status = 201, body = Message, headers(("Location" = String))),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn create(asker: Asker, body: JsonBody) -> Result<Response, Problem> {
    let sent: Create = body.read()?;
    let new = sent.checked(str::to_owned)?;
    let refused = |error| unknown(error, |_| "character_id".to_owned());
    let saved = asker.rows.save_messages(vec![new]).await.map_err(refused)?;
    let failed = || Problem::from(RecordError::Failed);
    let Saved { message, is_new } = saved.into_iter().next().ok_or_else(failed)?;
    if !is_new {
        return Ok(entity(message).into_response());
    }
    let location = format!("/api/messages/{}", message.id);
    Ok(located(&location, Entity::created(message.version, Message::from(message))))
}

/// Write several messages, all or none
#[utoipa::path(
    post,
    path = "/messages/batch",
    tag = "Messages",
    request_body = CreateBatch,
    responses(
        (status = 201, body = Messages),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn create_batch(asker: Asker, body: JsonBody) -> Result<(StatusCode, Json<Messages>), Problem> {
    let sent: CreateBatch = body.read()?;
    if !(1..=BATCH).contains(&sent.messages.len()) {
        return Err(Problem::bad_field("messages", format!("must be 1 to {BATCH}")));
    }
    let checked = |(index, sent): (usize, Create)| sent.checked(|field| format!("messages[{index}].{field}"));
    let new: Vec<NewMessage> = sent.messages.into_iter().enumerate().map(checked).collect::<Result<_, _>>()?;
    let of: Vec<Option<String>> = new.iter().map(|message| message.character_id.clone()).collect();
    let saved = asker.rows.save_messages(new).await.map_err(|error| {
        unknown(error, |id| {
            let index = of.iter().position(|known| known.as_deref() == Some(id)).unwrap_or_default();
            format!("messages[{index}].character_id")
        })
    })?;
    let messages = saved.into_iter().map(|saved| saved.message.into()).collect();
    Ok((StatusCode::CREATED, Json(Messages { messages })))
}

/// Give a message another text
///
/// What the user heard of it is cut again: up to where nothing was changed, or to the end of what was put in place.
#[utoipa::path(
    put,
    path = "/messages/{id}",
    tag = "Messages",
    params(("id" = String, Path), ("If-Match" = Option<String>, Header, description = "The ETag it must still have")),
    request_body = Change,
    responses(
        (status = 200, body = Message),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn change(
    asker: Asker,
    Segment(id): Segment<String>,
    if_match: IfMatch,
    body: JsonBody,
) -> Result<Entity<Message>, Problem> {
    check_path("message", &id)?;
    let Change { content } = body.read()?;
    shape::check_message(str::to_owned, &content, &[], None)?;
    Ok(entity(asker.rows.edit_message(&id, if_match.versions(), content).await?))
}

/// Delete a message for good
#[utoipa::path(
    delete,
    path = "/messages/{id}",
    tag = "Messages",
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
    check_path("message", &id)?;
    let recording = asker.rows.delete_message(&id, if_match.versions()).await?;
    recordings::remove(&house.state.data_dir, recording.as_slice()).await;
    Ok(StatusCode::NO_CONTENT)
}

impl Create {
    /// `place` names a field of this message.
    fn checked(self, place: impl Fn(&str) -> String) -> Result<NewMessage, Problem> {
        shape::check_id(&place("conversation_id"), &self.conversation_id)?;
        if let Some(id) = &self.character_id {
            shape::check_id(&place("character_id"), id)?;
        }
        shape::check_message(place, &self.content, &self.attachments, self.client_message_id.as_deref())?;
        Ok(NewMessage {
            conversation_id: self.conversation_id,
            role: Role::from(self.role),
            character_id: self.character_id,
            content: self.content,
            content_type: self.content_type.unwrap_or(ContentType::Text).into(),
            attachments: self.attachments.into_iter().map(Attachment::into).collect(),
            status: self.status.map_or(MessageStatus::Completed, Progress::into),
            client_message_id: self.client_message_id,
        })
    }
}

/// The conversation that a query names.
fn conversation(at: Result<Query<Where>, QueryRejection>) -> Result<String, Problem> {
    let id = asked(at)?.conversation_id.ok_or_else(|| Problem::bad_field("conversation_id", "is missing"))?;
    shape::check_id("conversation_id", &id)?;
    Ok(id)
}

fn latest(limit: usize) -> PageAsk<()> {
    PageAsk { limit, sort: (), descending: true, after: None }
}

fn entity(stored: StoredMessage) -> Entity<Message> {
    Entity::ok(stored.version, stored.into())
}

/// `field` names where a character stands in the request.
fn unknown(error: RecordError, field: impl FnOnce(&str) -> String) -> Problem {
    let place = match &error {
        RecordError::NotFound { what: "character", id } => field(id),
        _ => String::new(),
    };
    super::unknown_character(error, &place)
}

#[cfg(test)]
#[path = "messages_tests.rs"]
mod tests;
