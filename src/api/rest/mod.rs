//! The REST doors, `/api`: one file per resource, its wire types and its routes.

mod characters;
mod entity;
mod list;
mod providers;
mod speech;
mod text;
mod usage;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;

use super::House;
pub(super) use speech::sweep_for_ever as sweep_speech;

/// Every route under `/api`, with its description.
pub(super) fn routes() -> OpenApiRouter<Arc<House>> {
    OpenApiRouter::new()
        .merge(characters::routes())
        .merge(providers::routes())
        .merge(speech::routes())
        .merge(usage::routes())
}
