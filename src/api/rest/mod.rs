//! The REST doors, `/api`: one file per resource, its wire types and its routes.

mod characters;
mod conversations;
mod entity;
mod file;
mod list;
mod models;
mod providers;
mod replies;
mod settings;
mod sound;
mod text;
mod usage;
mod voices;

use std::sync::Arc;

use utoipa_axum::router::OpenApiRouter;

use super::House;
pub(super) use conversations::{IMPORT_BYTES, IMPORTS, shown_conversation, shown_message};
pub(super) use replies::{Busy, TITLING};
pub(super) use sound::recordings::{Recorder, sweep_for_ever as sweep_recordings};
pub(super) use sound::speech::sweep_for_ever as sweep_speech;
pub(super) use usage::sweep_for_ever as sweep_usage;
pub(super) use voices::sweep_for_ever as sweep_voices;

/// Every route under `/api`, with its description.
pub(super) fn routes() -> OpenApiRouter<Arc<House>> {
    OpenApiRouter::new()
        .merge(characters::routes())
        .merge(conversations::routes())
        .merge(models::routes())
        .merge(providers::routes())
        .merge(replies::routes())
        .merge(settings::routes())
        .merge(sound::recordings::routes())
        .merge(sound::speech::routes())
        .merge(usage::routes())
        .merge(voices::routes())
}
