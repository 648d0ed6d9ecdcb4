//! The OpenAI-compatible doors, `/v1`: any OpenAI client works by changing its base URL.
//!
//! One file per endpoint: its wire types, its route, and nothing that decides. Errors have OpenAI's shape, which its
//! clients turn into exceptions by status.

mod chat;
mod completions;
mod described;
mod error;
mod head;
mod models;
mod replies;
mod settings;
mod stream;
mod speech;
mod embeddings;
mod transcriptions;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::HeaderValue;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::House;
use super::problem::Problem;
use crate::provider::{Capability, ProviderError};
pub(super) use error::reshape;
pub(super) use stream::COMMENT_EVERY;

/// OpenAI's names for what every server has, and what they are asked for.
const ALIASES: &[(&str, Capability)] = &[
    ("local", Capability::Chat),
    ("whisper-1", Capability::Transcription),
    ("gpt-4o-transcribe", Capability::Transcription),
    ("gpt-4o-mini-transcribe", Capability::Transcription),
    ("tts-1", Capability::Speech),
    ("tts-1-hd", Capability::Speech),
    ("gpt-4o-mini-tts", Capability::Speech),
];
/// Stands for the whole chain that is loaded, whatever follows it.
const REALTIME: &str = "gpt-realtime";

/// Every route under `/v1`, with its description.
pub(super) fn routes() -> OpenApiRouter<Arc<House>> {
    let recordings = OpenApiRouter::new()
        .routes(routes!(transcriptions::transcribe))
        .routes(routes!(transcriptions::translate))
        // The upload counts for itself.
        .layer(DefaultBodyLimit::disable());
    OpenApiRouter::new()
        .routes(routes!(models::list))
        .routes(routes!(models::one))
        .routes(routes!(chat::create))
        .routes(routes!(completions::create))
        .routes(routes!(speech::create))
        .routes(routes!(embeddings::create))
        .merge(recordings)
}

/// The model that a name on the wire means. None: the server's own.
fn alias(name: &str) -> Option<String> {
    let is_own = name.is_empty() || name.starts_with(REALTIME) || ALIASES.iter().any(|(alias, _)| *alias == name);
    (!is_own).then(|| name.to_owned())
}

/// An error of the seam, its field named as the wire names it.
fn refusal(error: ProviderError) -> Problem {
    match error {
        ProviderError::InvalidRequest { field: "shape", message } => Problem::bad_field("response_format", message),
        other => other.into(),
    }
}

/// Adds who served it.
fn served_by(mut response: Response, name: &str) -> Response {
    // A local model may be named by any path; a name that is no header is left out.
    if let Ok(name) = HeaderValue::from_bytes(name.as_bytes()) {
        response.headers_mut().insert("x-served-by", name);
    }
    response
}

#[cfg(test)]
mod tests;
