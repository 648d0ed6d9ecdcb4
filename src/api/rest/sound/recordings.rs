//! Recordings: what users and characters said, where the server is told to keep it. Off by default.
//!
//! [`Recorder`] is a session's records that keep sound, too: Opus in Ogg, one file a message, in one folder under names
//! that only the server makes. A file goes with its message ([`remove`]); [`sweep_for_ever`] removes what a crash left.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path as Segment, State as Extract};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::AsyncWriteExt;
use tokio::time::interval;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::unfinished::{self, Unfinished, age, parse_name};
use crate::api::House;
use crate::api::asker::Asker;
use crate::api::problem::{Problem, ProblemBody};
use crate::api::rest::file;
use crate::audio::{Format, MIC_HZ, SPEECH_HZ, Speech, resample};
use crate::session::record::{Character, Conversation, Message, OpenConversation, RecordError, Recording, Records};
use crate::store::{Owned, Store};

/// About 15 kB for ten seconds of speech.
const FORMAT: Format = Format::Opus;
const SWEPT_EVERY: Duration = Duration::from_hours(1);
/// A younger file may be one whose message does not know it yet.
const SETTLED: Duration = Duration::from_hours(1);

pub(in crate::api::rest) fn routes() -> OpenApiRouter<Arc<House>> {
    OpenApiRouter::new().routes(routes!(fetch))
}

/// What a message sounded like, where recordings are kept
#[utoipa::path(
    get,
    path = "/messages/{id}/audio",
    tag = "Messages",
    params(("id" = String, Path, description = "The message's id")),
    responses(
        (status = 200, description = "The sound: Opus in Ogg", content_type = "audio/ogg"),
        (status = 206, description = "The part of it that `Range` asks for", content_type = "audio/ogg"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn fetch(
    Extract(house): Extract<Arc<House>>,
    Asker { rows, .. }: Asker,
    Segment(id): Segment<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let none = || Problem::new(StatusCode::NOT_FOUND, "not_found", "there is no recording of such a message");
    let failed = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the database failed");
    let name = rows.recording(&id).await.map_err(failed)?.ok_or_else(none)?;
    let path = path_of(&house.state.data_dir, &name).ok_or_else(none)?;
    file::send(&path, FORMAT.content_type(), &headers).await?.ok_or_else(none)
}

/// Removes the recordings of messages that are gone, by the names of their files. One that is not there is as good as
/// removed.
pub(in crate::api) async fn remove(data_dir: &Path, files: &[String]) {
    for path in files.iter().filter_map(|name| path_of(data_dir, name)) {
        match tokio::fs::remove_file(&path).await {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(%error, path = %path.display(), "a recording cannot be removed; the sweep tries again");
            }
            _ => {}
        }
    }
}

/// Removes files that are no message's, as long as the server runs.
pub(crate) async fn sweep_for_ever(data_dir: PathBuf, store: Store) {
    let mut times = interval(SWEPT_EVERY);
    loop {
        times.tick().await;
        match sweep(&data_dir, &store, SETTLED).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "recordings of no message removed"),
            Err(error) => tracing::warn!(%error, "the folder of recordings cannot be swept"),
        }
    }
}

/// Removes files that have lain for `settled` and are no message's. Says how many.
async fn sweep(data_dir: &Path, store: &Store, settled: Duration) -> std::io::Result<usize> {
    let mut entries = match tokio::fs::read_dir(folder(data_dir)).await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut removed = 0;
    while let Some(entry) = entries.next_entry().await? {
        let metadata = entry.metadata().await?;
        if !metadata.is_file() || age(metadata.modified()?) < settled {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        let known = store.recordings_among(std::slice::from_ref(&name)).await.map_err(std::io::Error::other)?;
        if !known.contains(&name) {
            tokio::fs::remove_file(entry.path()).await?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("recordings")
}

/// None: no name of ours.
fn path_of(data_dir: &Path, name: &str) -> Option<PathBuf> {
    let (id, format) = parse_name(name)?;
    Some(folder(data_dir).join(unfinished::name(id, format)))
}

/// One owner's records, which keep what is said as sound.
#[derive(Clone)]
pub(in crate::api) struct Recorder {
    rows: Owned,
    data_dir: PathBuf,
}

impl Recorder {
    pub(in crate::api) fn new(rows: Owned, data_dir: &Path) -> Self {
        Self { rows, data_dir: data_dir.to_owned() }
    }

    async fn keep(self, message_id: String, sound: Recording) -> Result<(), RecordError> {
        let encoded = tokio::task::spawn_blocking(move || encode(sound)).await;
        let bytes = encoded.map_err(|error| failed(&error))??;
        let name = self.write(&bytes).await.map_err(|error| match error.kind() {
            ErrorKind::StorageFull => RecordError::Full,
            _ => failed(&error),
        })?;
        match self.rows.set_recording(&message_id, &name).await {
            Ok(earlier) => {
                remove(&self.data_dir, &Vec::from_iter(earlier)).await;
                Ok(())
            }
            Err(error) => {
                remove(&self.data_dir, &[name]).await;
                Err(error)
            }
        }
    }

    async fn write(&self, bytes: &[u8]) -> std::io::Result<String> {
        let mut unfinished = Unfinished::new(&folder(&self.data_dir), Uuid::new_v4(), FORMAT).await?;
        unfinished.file.write_all(bytes).await?;
        unfinished.file.flush().await?;
        unfinished.keep().await
    }
}

fn failed(error: &dyn std::fmt::Display) -> RecordError {
    tracing::error!(%error, "a recording cannot be made");
    RecordError::Failed
}

/// Milliseconds for a minute of sound.
fn encode(sound: Recording) -> Result<Vec<u8>, RecordError> {
    let audio: Speech = match sound {
        Recording::Heard(audio) => audio,
        Recording::Said(audio) => resample::<SPEECH_HZ>(audio.as_slice(), MIC_HZ).map_err(|error| failed(&error))?,
    };
    FORMAT.encode(&audio).map_err(|error| failed(&error))
}

impl Records for Recorder {
    fn create_conversation(&self, character_ids: Vec<String>) -> BoxFuture<'static, Result<Conversation, RecordError>> {
        self.rows.create_conversation(character_ids)
    }

    fn open_conversation(
        &self,
        id: String,
        history: usize,
    ) -> BoxFuture<'static, Result<OpenConversation, RecordError>> {
        self.rows.open_conversation(id, history)
    }

    fn characters(&self, ids: Vec<String>) -> BoxFuture<'static, Result<Vec<Character>, RecordError>> {
        Records::characters(&self.rows, ids)
    }

    fn set_characters(
        &self,
        conversation_id: String,
        ids: Vec<String>,
    ) -> BoxFuture<'static, Result<Vec<Character>, RecordError>> {
        Records::set_characters(&self.rows, conversation_id, ids)
    }

    fn save_message(&self, message: Message) -> BoxFuture<'static, Result<String, RecordError>> {
        self.rows.save_message(message)
    }

    fn forget_message(&self, conversation_id: String, id: String) -> BoxFuture<'static, Result<(), RecordError>> {
        self.rows.forget_message(conversation_id, id)
    }

    fn title_conversation(
        &self,
        id: String,
        title: String,
        instead_of: String,
    ) -> BoxFuture<'static, Result<bool, RecordError>> {
        self.rows.title_conversation(id, title, instead_of)
    }

    fn keeps_recordings(&self) -> bool {
        true
    }

    fn save_recording(&self, message_id: String, sound: Recording) -> BoxFuture<'static, Result<(), RecordError>> {
        self.clone().keep(message_id, sound).boxed()
    }
}

#[cfg(test)]
#[path = "recordings_tests.rs"]
mod tests;
