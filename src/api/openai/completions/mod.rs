//! `POST /v1/completions`: texts to go on with as they stand, without a chat template.
//!
//! What looks like one of the model's markers in a prompt is text, as everywhere; a prompt has no other power over the
//! model than its words.

mod answer;
mod request;

use std::sync::Arc;

use axum::extract::State as Extract;
use axum::response::Response;

use self::answer::TextChunks;
use super::replies::{Replies, Rules};
use super::{refusal, served_by, stream};
use crate::api::House;
use crate::api::asker::Asker;
use crate::api::body::JsonBody;
use crate::api::problem::Problem;

const RULES: Rules = Rules { thoughts: false, one_call: false };

/// Answers once the first token is there, so that what fails before it has a status.
pub(super) async fn create(
    Extract(house): Extract<Arc<House>>,
    Asker { caller, .. }: Asker,
    body: JsonBody,
) -> Result<Response, Problem> {
    let asked = request::read(&body.fields(), &house.state.settings, &caller)?;
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
