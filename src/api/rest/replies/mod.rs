//! Replies over REST: what a socket's session does for one text, told as server-sent events.
//!
//! `POST /api/conversations/{id}/replies` has characters answer a text, or speak up by themselves, and
//! `POST /api/messages/{id}/regenerate` has a reply written again. A conversation takes one such request at a time, since
//! each answers what the one before it said: a second one is refused with 409 `conversation_busy`.

mod busy;
mod event;
mod exchange;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequest, Path as Segment, Request as HttpRequest, State as Extract};
use axum::http::{StatusCode, header};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::StreamExt;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::text;
use crate::api::House;
use crate::api::asker::Asker;
use crate::api::body::JsonBody;
use crate::api::openai::COMMENT_EVERY;
use crate::api::openapi::{self, SentEvent};
use crate::api::problem::{Problem, ProblemBody};
use crate::api::wire::Packer;
use crate::provider::ProviderError;
use crate::provider::task;
use crate::session::event::Input;
use crate::session::settings::{AudioFormat, OutputKind, Settings, SettingsPatch};
use crate::session::{self, Opening, StartError};
pub(in crate::api) use busy::Busy;
use exchange::Exchange;

/// More than fits the window of any model of ours.
const MOST_TEXT: usize = 32_768;
const MOST_MODEL: usize = 200;
/// Characters of one conversation, as the socket has it.
const MOST_CHARACTERS: usize = 8;
/// Requests of one key that are answered at once, so that others find room.
const REPLIES_PER_KEY: usize = 16;
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// Conversations that wait for their title at once, beside those that are replied to.
pub(in crate::api) const TITLING: usize = 8;

pub(super) fn routes() -> OpenApiRouter<Arc<House>> {
    OpenApiRouter::new().routes(routes!(create)).routes(routes!(regenerate))
}

/// What to answer, and how.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ReplyRequest)]
struct Ask {
    /// What the user says. Without it characters speak up by themselves.
    #[schema(min_length = 1, max_length = 32768)]
    text: Option<String>,
    /// Who answers, in this order; who is no member takes part this once. Without it turns are taken as the settings say.
    #[schema(max_items = 8)]
    character_ids: Option<Vec<String>>,
    /// The language model, for this request only; else each character's own.
    #[schema(min_length = 1, max_length = 200, pattern = "^[!-~]+$")]
    model: Option<String>,
    /// For this request only; what is not said is as each character's own settings say.
    parameters: Option<Parameters>,
    /// `text` (the default) or `audio`, which is spoken too.
    #[schema(value_type = Option<String>, pattern = "^(text|audio)$")]
    output: Option<OutputKind>,
}

/// How a reply is made again.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = ReplyOptions)]
struct How {
    /// The language model, for this request only; else the character's own.
    #[schema(min_length = 1, max_length = 200, pattern = "^[!-~]+$")]
    model: Option<String>,
    parameters: Option<Parameters>,
    /// `text` (the default) or `audio`, which is spoken too.
    #[schema(value_type = Option<String>, pattern = "^(text|audio)$")]
    output: Option<OutputKind>,
}

/// How text is chosen and spoken.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ReplyParameters)]
struct Parameters {
    #[schema(minimum = 0, maximum = 2)]
    temperature: Option<f32>,
    #[schema(minimum = 0, maximum = 1)]
    top_p: Option<f32>,
    #[schema(minimum = 0, maximum = 1_000_000)]
    top_k: Option<usize>,
    #[schema(minimum = 1, maximum = 8192)]
    max_tokens: Option<usize>,
    #[schema(schema_with = openapi::seed)]
    seed: Option<u64>,
    #[schema(max_items = 4)]
    stop: Option<Vec<String>>,
    system_prompt: Option<String>,
    #[schema(minimum = 0.5, maximum = 2)]
    speed: Option<f32>,
    /// `pcm` (the default), `wav`, where every chunk is a whole file, `mp3`, where those of a sentence together are one,
    /// or `opus`, where every chunk is a packet of 20 ms.
    #[schema(value_type = Option<String>, pattern = "^(pcm|wav|mp3|opus)$")]
    audio_format: Option<AudioFormat>,
}

impl How {
    /// # Errors
    /// Names the field that is wrong.
    fn terms(self) -> Result<SettingsPatch, Problem> {
        if let Some(model) = &self.model {
            text::check("model", model, 1..=MOST_MODEL)?;
        }
        let parameters = self.parameters.unwrap_or_default();
        let settings = SettingsPatch {
            model: self.model.map(Some),
            temperature: parameters.temperature,
            top_p: parameters.top_p,
            top_k: parameters.top_k,
            max_tokens: parameters.max_tokens,
            seed: parameters.seed.map(Some),
            stop: parameters.stop,
            system_prompt: parameters.system_prompt.map(Some),
            speed: parameters.speed,
            audio_format: parameters.audio_format,
            output: Some(self.output.unwrap_or(OutputKind::Text)),
            ..SettingsPatch::default()
        };
        let wrong = |error: session::settings::BadField| {
            let place = if error.field == "model" { error.field } else { format!("parameters.{}", error.field) };
            Problem::bad_field(place, error.message)
        };
        Settings::default().patched(&settings).map_err(wrong)?;
        Ok(settings)
    }
}

impl Ask {
    /// # Errors
    /// Names the field that is wrong.
    fn input(self) -> Result<(Vec<String>, Input), Problem> {
        if let Some(text) = &self.text {
            text::check("text", text, 1..=MOST_TEXT)?;
        }
        let mut character_ids = Vec::new();
        for id in self.character_ids.unwrap_or_default() {
            text::check("character_ids", &id, 1..=MOST_MODEL)?;
            if !character_ids.contains(&id) {
                character_ids.push(id);
            }
        }
        if character_ids.len() > MOST_CHARACTERS {
            let message = format!("must name at most {MOST_CHARACTERS} characters");
            return Err(Problem::bad_field("character_ids", message));
        }
        let how = How { model: self.model, parameters: self.parameters, output: self.output };
        let terms = how.terms()?;
        let guests = character_ids.clone();
        let input = match self.text {
            Some(text) => Input::Text { text, client_message_id: None, terms, character_ids },
            None => Input::SpeakUp { character_ids, terms },
        };
        Ok((guests, input))
    }
}

/// Say something in a conversation and hear the answers as they are written
///
/// The events are `message` (what the user said, stored), then for each character who answers `delta` (more text), with
/// `output` `audio` also `audio` (a chunk of its sound), `error` where the reply fails, and `message` (the reply, stored,
/// `completed` or `failed`), and in the end `done`. The stored reply is `pending` from its beginning and `processing` from
/// its first word. A client that goes away ends the replies; what was said stays. A second request for the same
/// conversation before `done` is answered with 409 `conversation_busy`.
#[utoipa::path(
    post,
    path = "/conversations/{id}/replies",
    tag = "Conversations",
    params(("id" = String, Path, description = "The conversation's id")),
    request_body = Ask,
    responses(
        (status = 200, body = SentEvent, content_type = "text/event-stream", description = "One event after the other"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn create(
    Extract(house): Extract<Arc<House>>,
    asker: Asker,
    Segment(id): Segment<String>,
    body: JsonBody,
) -> Result<Response, Problem> {
    let (guests, input) = body.read::<Ask>()?.input()?;
    begin(house, asker, id, guests, input).await
}

/// Write a reply again and hear it as it is written
///
/// The reply keeps its id; what there was stands until the new one is complete, and where that fails. The id of a
/// message of the user's means the reply to it. The events are those of a conversation's `replies`.
#[utoipa::path(
    post,
    path = "/messages/{id}/regenerate",
    tag = "Messages",
    params(("id" = String, Path, description = "The id of the reply, or of what it answers")),
    request_body(content = How, description = "May be left out"),
    responses(
        (status = 200, body = SentEvent, content_type = "text/event-stream", description = "One event after the other"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn regenerate(
    Extract(house): Extract<Arc<House>>,
    asker: Asker,
    Segment(id): Segment<String>,
    request: HttpRequest,
) -> Result<Response, Problem> {
    let how: How = if request.headers().contains_key(header::CONTENT_TYPE) {
        JsonBody::from_request(request, &house).await?.read()?
    } else {
        How::default()
    };
    let terms = how.terms()?;
    let place = asker.rows.reply_place(&id).await?;
    let place = place.ok_or_else(|| not_found("message", &id))?;
    let guests = place.character_id.into_iter().collect();
    begin(house, asker, place.conversation_id, guests, Input::Regenerate { item_id: id, terms }).await
}

/// Opens a session for one request, and answers once it is clear that the request was taken.
async fn begin(
    house: Arc<House>,
    asker: Asker,
    conversation_id: String,
    guests: Vec<String>,
    input: Input,
) -> Result<Response, Problem> {
    if house.draining.has_begun() {
        let detail = "the server is shutting down";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "server_draining", detail));
    }
    let share = match &asker.identity.proof {
        Some(proof) => {
            let share = house.entrance.replies.take(Arc::clone(&proof.key), REPLIES_PER_KEY);
            Some(share.ok_or_else(|| {
                let detail = format!("{REPLIES_PER_KEY} requests of this key are being answered; wait for one of them");
                Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail).later(RETRY_AFTER)
            })?)
        }
        None => None,
    };
    let full = || ProviderError::Overloaded { what: "the server".to_owned(), retry_after: house.seats.last().wait };
    let seat = house.seats.try_place().ok_or_else(full)?;
    let pass = house.replying.enter(asker.rows.owner(), &conversation_id).ok_or_else(|| {
        let detail = "another request is being answered in this conversation; wait for its end";
        Problem::new(StatusCode::CONFLICT, "conversation_busy", detail)
    })?;
    let opening = Opening {
        conversation_id: Some(conversation_id.clone()),
        character_ids: Vec::new(),
        guests,
        settings: house.state.settings.session(),
        paced: false,
        bounds: house.state.limits.bounds,
        caller: asker.caller.clone(),
    };
    let handle = session::start(asker.parts(&house), opening).await.map_err(refuse)?;
    let (events, told) = mpsc::channel(exchange::EVENTS);
    let (taken, answer) = oneshot::channel();
    let (rows, taken, packer) = (asker.rows, Some(taken), Packer::default());
    let exchange = Exchange { house, rows, conversation_id, events, taken, pass, seat: (seat, share), packer };
    // It outlives its client until all is stored.
    tokio::spawn(task::named("replies", exchange.run(handle, input)));
    let lost = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the session ended early");
    answer.await.map_err(lost)??;
    let events = ReceiverStream::new(told).map(Ok::<_, Infallible>);
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(COMMENT_EVERY)).into_response())
}

fn refuse(error: StartError) -> Problem {
    match error {
        StartError::ConversationNotFound(id) => not_found("conversation", &id),
        StartError::CharacterNotFound(_) => {
            Problem::new(StatusCode::NOT_FOUND, "character_not_found", error.to_string()).about("character_ids")
        }
        StartError::NoCharacter(_) => Problem::new(StatusCode::CONFLICT, "no_character", error.to_string()),
        StartError::Records(error) => error.into(),
    }
}

fn not_found(what: &str, id: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", format!("the {what} {id} was not found"))
}

#[cfg(test)]
mod tests;
