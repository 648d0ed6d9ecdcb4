//! The REST doors, `/api`: one file per resource, its wire types and its routes.

mod characters;
mod entity;
mod file;
mod list;
mod providers;
mod speech;
mod text;
mod usage;
mod voices;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;

use super::House;
pub(super) use speech::sweep_for_ever as sweep_speech;
pub(super) use voices::sweep_for_ever as sweep_voices;

/// Every route under `/api`, with its description.
pub(super) fn routes() -> OpenApiRouter<Arc<House>> {
    OpenApiRouter::new()
        .merge(characters::routes())
        .merge(providers::routes())
        .merge(speech::routes())
        .merge(usage::routes())
        .merge(voices::routes())
}
