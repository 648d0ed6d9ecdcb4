//! Who a request comes from, for whoever answers and whoever counts.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::House;
use crate::provider::Caller;

/// There is one key, and this is its name.
const KEY_NAME: &str = "AICHAT_API_KEY";
/// Ids longer than this are not kept.
const MOST_ID_BYTES: usize = 128;

/// The caller as a request's headers tell it. Who may come in at all is `access`'s business.
pub(super) struct Asker(pub(super) Caller);

impl FromRequestParts<Arc<House>> for Asker {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, house: &Arc<House>) -> Result<Self, Self::Rejection> {
        let id = parts.headers.get("x-request-id").and_then(|id| id.to_str().ok());
        Ok(Self(Caller {
            key: house.state.access.api_key.as_ref().map(|_| KEY_NAME.into()),
            request_id: id.filter(|id| id.len() <= MOST_ID_BYTES).map(Into::into),
            ..Caller::default()
        }))
    }
}
