//! The OpenAI-compatible doors, `/v1`: any OpenAI client works by changing its base URL.
//!
//! One file per endpoint: its wire types, its route, and nothing that decides. Errors have OpenAI's shape, which its
//! clients turn into exceptions by status.

mod error;

use std::sync::Arc;

use axum::Router;

use super::House;
pub(super) use error::reshape;

/// Every route under `/v1`.
pub(super) fn routes() -> Router<Arc<House>> {
    Router::new()
}
