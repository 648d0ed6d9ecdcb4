//! The REST doors, `/api`: one file per resource, its wire types and its routes.

mod providers;
mod usage;

use std::sync::Arc;

use axum::Router;

use super::House;

/// Every route under `/api`.
pub(super) fn routes() -> Router<Arc<House>> {
    Router::new().merge(providers::routes()).merge(usage::routes())
}
