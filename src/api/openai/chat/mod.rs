//! `POST /v1/chat/completions`: a conversation in, replies out, whole or as they are written.

mod answer;
mod messages;
mod request;

use std::sync::Arc;

use axum::extract::State as Extract;
use axum::response::Response;

use self::answer::{ChatChunks, Choice};
use super::described::ChatAsked;
use super::error::Refusal;
use super::head::Answer;
use super::replies::Replies;
use super::{refusal, served_by, stream};
use crate::api::House;
use crate::api::asker::Asker;
use crate::api::body::JsonBody;
use crate::api::openapi::SentEvent;
use crate::api::problem::Problem;

/// Answer a conversation
///
/// Answers once the first token is there, so that what fails before it has a status.
#[utoipa::path(
    post,
    path = "/chat/completions",
    tag = "OpenAI",
    request_body = ChatAsked,
    responses(
        (status = 200, content(
            (Answer<Choice> = "application/json"),
            (SentEvent = "text/event-stream"),
        )),
        (status = "4XX", body = Refusal, description = "Refused"),
        (status = "5XX", body = Refusal, description = "Failed"),
    )
)]
pub(super) async fn create(
    Extract(house): Extract<Arc<House>>,
    Asker { caller, .. }: Asker,
    body: JsonBody,
) -> Result<Response, Problem> {
    let model = &house.state.parts.chat;
    let asked = request::read(&body.fields(), &house.state.settings.session(), model.window(), caller)?;
    let replies = Replies::ask(&**model, asked.requests, asked.rules).await.map_err(refusal)?;
    let name = Arc::clone(&replies.served_by);
    let response = if asked.stream {
        stream::respond(replies, ChatChunks::new(&name, asked.choices, asked.include_usage))
    } else {
        answer::whole(replies, asked.choices, asked.logprobs).await.map_err(refusal)?
    };
    Ok(served_by(response, &name))
}
