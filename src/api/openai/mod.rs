//! The OpenAI-compatible doors, `/v1`: any OpenAI client works by changing its base URL.
//!
//! One file per endpoint: its wire types, its route, and nothing that decides. Errors have OpenAI's shape, which its
//! clients turn into exceptions by status.

mod error;
mod speech;

use std::sync::Arc;

use axum::Router;
use axum::http::HeaderValue;
use axum::response::Response;
use axum::routing::post;

use super::House;
pub(super) use error::reshape;

/// OpenAI's names for the voice that every server has.
const ALIASES: [&str; 3] = ["tts-1", "tts-1-hd", "gpt-4o-mini-tts"];

/// Every route under `/v1`.
pub(super) fn routes() -> Router<Arc<House>> {
    Router::new().route("/audio/speech", post(speech::create))
}

/// The model that a name on the wire means. None: the server's own.
fn alias(name: &str) -> Option<String> {
    (!name.is_empty() && !ALIASES.contains(&name)).then(|| name.to_owned())
}

/// Adds who served it.
fn served_by(mut response: Response, name: &str) -> Response {
    // A local model may be named by any path; a name that is no header is left out.
    if let Ok(name) = HeaderValue::from_bytes(name.as_bytes()) {
        response.headers_mut().insert("x-served-by", name);
    }
    response
}
