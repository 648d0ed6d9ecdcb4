//! The REST doors, `/api`: one file per resource, its wire types and its routes.

mod usage;

use std::sync::Arc;

use axum::Router;

use super::House;

/// Every route under `/api`.
pub(super) fn routes() -> Router<Arc<House>> {
    Router::new().merge(usage::routes())
}
