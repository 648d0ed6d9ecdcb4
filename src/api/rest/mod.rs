//! The REST doors, `/api`: one file per resource, its wire types and its routes.

mod entity;
mod list;
mod providers;
mod replies;
mod sound;
mod text;
mod usage;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;

use super::House;
pub(super) use replies::{Busy, TITLING};
pub(super) use sound::recordings::{Recorder, sweep_for_ever as sweep_recordings};
pub(super) use sound::speech::sweep_for_ever as sweep_speech;

/// Every route under `/api`, with its description.
pub(super) fn routes() -> OpenApiRouter<Arc<House>> {
    OpenApiRouter::new()
        .merge(providers::routes())
        .merge(replies::routes())
        .merge(sound::recordings::routes())
        .merge(sound::speech::routes())
        .merge(usage::routes())
}
