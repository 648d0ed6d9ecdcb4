//! The REST doors, `/api`: one file per resource, its wire types and its routes.

mod providers;
mod speech;
mod usage;

use std::sync::Arc;

use axum::Router;

use super::House;
pub(super) use speech::sweep_for_ever as sweep_speech;

/// Every route under `/api`.
pub(super) fn routes() -> Router<Arc<House>> {
    Router::new().merge(providers::routes()).merge(speech::routes()).merge(usage::routes())
}
