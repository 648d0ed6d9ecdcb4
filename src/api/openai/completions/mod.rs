//! `POST /v1/completions`: texts to go on with as they stand, without a chat template.
//!
//! What looks like one of the model's markers in a prompt is text, as everywhere; a prompt has no other power over the
//! model than its words.

mod answer;
mod request;

use std::sync::Arc;

use axum::extract::State as Extract;
use axum::response::Response;

use self::answer::{Choice, TextChunks};
use super::described::TextAsked;
use super::error::Refusal;
use super::head::Answer;
use super::replies::{Replies, Rules};
use super::{refusal, served_by, stream};
use crate::api::House;
use crate::api::asker::Asker;
use crate::api::body::JsonBody;
use crate::api::openapi::SentEvent;
use crate::api::problem::Problem;

const RULES: Rules = Rules { thoughts: false, one_call: false };

/// Go on with a text
///
/// Answers once the first token is there, so that what fails before it has a status.
#[utoipa::path(
    post,
    path = "/completions",
    tag = "OpenAI",
    request_body = TextAsked,
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
    let asked = request::read(&body.fields(), &house.state.settings.session(), &caller)?;
    let count = asked.requests.len();
    let replies = Replies::ask(&*house.state.parts.chat, asked.requests, RULES).await.map_err(refusal)?;
    let name = Arc::clone(&replies.served_by);
    let response = if asked.stream {
        stream::respond(replies, TextChunks::new(&name, count, asked.choices, asked.include_usage))
    } else {
        answer::whole(replies, count, asked.choices, asked.logprobs).await.map_err(refusal)?
    };
    Ok(served_by(response, &name))
}
