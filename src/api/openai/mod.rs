//! The OpenAI-compatible doors, `/v1`: any OpenAI client works by changing its base URL.
//!
//! One file per endpoint: its wire types, its route, and nothing that decides. Errors have OpenAI's shape, which its
//! clients turn into exceptions by status.

mod embeddings;
mod error;
mod transcriptions;
mod upload;

use std::sync::Arc;

use axum::Router;
use axum::http::HeaderValue;
use axum::response::Response;
use axum::routing::post;

use super::House;
pub(super) use error::reshape;

/// OpenAI's names for what every server has.
const ALIASES: &[&str] =
    &["local", "whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "tts-1", "tts-1-hd", "gpt-4o-mini-tts"];
/// Stands for the whole chain that is loaded, whatever follows it.
const REALTIME: &str = "gpt-realtime";

/// Every route under `/v1`.
pub(super) fn routes() -> Router<Arc<House>> {
    Router::new()
        .route("/audio/transcriptions", transcriptions::transcriptions())
        .route("/audio/translations", transcriptions::translations())
        .route("/embeddings", post(embeddings::create))
}

/// The model that a name on the wire means. None: the server's own.
fn alias(name: &str) -> Option<String> {
    let is_own = name.is_empty() || name.starts_with(REALTIME) || ALIASES.contains(&name);
    (!is_own).then(|| name.to_owned())
}

/// Adds who served it.
fn served_by(mut response: Response, name: &str) -> Response {
    // A local model may be named by any path; a name that is no header is left out.
    if let Ok(name) = HeaderValue::from_bytes(name.as_bytes()) {
        response.headers_mut().insert("x-served-by", name);
    }
    response
}
