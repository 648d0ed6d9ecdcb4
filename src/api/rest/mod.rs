//! The REST doors, `/api`: one file per resource, its wire types and its routes.

mod characters;
mod conversations;
mod entity;
mod list;
mod models;
mod providers;
mod settings;
mod speech;
mod text;
mod usage;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;

use super::House;
pub(super) use conversations::IMPORT_BYTES;
pub(super) use speech::sweep_for_ever as sweep_speech;

/// Every route under `/api`, with its description.
pub(super) fn routes() -> OpenApiRouter<Arc<House>> {
    OpenApiRouter::new()
        .merge(characters::routes())
        .merge(conversations::routes())
        .merge(models::routes())
        .merge(providers::routes())
        .merge(settings::routes())
        .merge(speech::routes())
        .merge(usage::routes())
}
