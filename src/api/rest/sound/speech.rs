//! `/api/speech`: a text as a sound file with an address of its own, for players that take no bytes.
//!
//! Files lie in one folder under names that only the server makes. They are kept for a day, or until newer ones need
//! their room; [`sweep_for_ever`] sees to it.

use std::io::{ErrorKind, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path as Segment, State as Extract};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::time::interval;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::unfinished::{self, Unfinished, age, parse_name};
use crate::api::House;
use crate::api::asker::Asker;
use crate::api::body::JsonBody;
use crate::api::narration::{self, Narration, Script};
use crate::api::problem::{Problem, ProblemBody};
use crate::api::rest::file::{self, disk};
use crate::audio::{Encoder, Format, Samples};
use crate::provider::Urgency;

const KEPT: Duration = Duration::from_hours(24);
/// All files together; the oldest go first.
const FOLDER_BYTES: u64 = 2 * 1024 * 1024 * 1024;
const SWEPT_EVERY: Duration = Duration::from_mins(10);

/// What to speak, and how.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = SpeechRequest)]
struct Request {
    #[schema(min_length = 1)]
    text: String,
    /// Null: the server's default voice.
    voice: Option<String>,
    /// `mp3` (the default), `opus`, `aac`, `flac`, `wav` or `pcm`.
    format: Option<String>,
    #[schema(minimum = 0.25, maximum = 4.0, default = 1.0)]
    speed: Option<f32>,
}

/// Where a text's sound is, for a day.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Speech)]
struct Made {
    url: String,
    seconds: f64,
    #[schema(value_type = String)]
    format: Format,
}

pub(in crate::api::rest) fn routes() -> OpenApiRouter<Arc<House>> {
    OpenApiRouter::new().routes(routes!(create)).routes(routes!(fetch))
}

/// Speak a text into a file with an address of its own
#[utoipa::path(
    post,
    path = "/speech",
    tag = "Speech",
    request_body = Request,
    responses(
        (status = 200, body = Made),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn create(
    Extract(house): Extract<Arc<House>>,
    Asker { caller, rows, .. }: Asker,
    body: JsonBody,
) -> Result<Response, Problem> {
    let request: Request = body.read()?;
    let wanted = request.format.as_deref().unwrap_or(Format::default().name());
    let format = Format::named(wanted).ok_or_else(|| {
        let known = Format::ALL.map(Format::name).join(", ");
        Problem::bad_field("format", format!("\"{wanted}\" is none of {known}"))
    })?;
    let script = Script {
        text: request.text,
        voice: request.voice,
        speed: request.speed.unwrap_or(1.0),
        model: None,
        urgency: Urgency::Later,
        caller,
    };
    let encoder = format.encoder().map_err(|error| Problem::bad_field("format", error))?;
    let narration = narration::narrate(&house.state.parts.speech, script, "text").await?;
    let folder = folder(&house.state.data_dir);
    let mut unfinished =
        Unfinished::new(&folder, own_id(rows.owner(), Uuid::new_v4()), format).await.map_err(|error| disk(&error))?;
    let served_by = HeaderValue::from_str(&narration.served_by).ok();
    let length = write(&mut unfinished.file, narration, encoder).await?;
    let name = unfinished.keep().await.map_err(|error| disk(&error))?;
    sweep_once(folder).await;
    let seconds = (length.seconds() * 1000.0).round() / 1000.0;
    let mut response = Json(Made { url: format!("/api/speech/{name}"), seconds, format }).into_response();
    if let Some(name) = served_by {
        response.headers_mut().insert("x-served-by", name);
    }
    Ok(response)
}

/// What was spoken, whole or in part
#[utoipa::path(
    get,
    path = "/speech/{file}",
    tag = "Speech",
    params(("file" = String, Path, description = "The last part of the address")),
    responses(
        (status = 200, description = "The sound", content_type = "audio/*"),
        (status = 206, description = "A part of it", content_type = "audio/*"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn fetch(
    Extract(house): Extract<Arc<House>>,
    Asker { rows, .. }: Asker,
    Segment(name): Segment<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let gone = || Problem::new(StatusCode::NOT_FOUND, "not_found", "there is no such speech; it is kept for a day");
    let is_own = |(id, _): &(Uuid, Format)| *id == own_id(rows.owner(), *id);
    let (id, format) = parse_name(&name).filter(is_own).ok_or_else(gone)?;
    let path = folder(&house.state.data_dir).join(unfinished::name(id, format));
    let made = tokio::fs::metadata(&path).await.and_then(|metadata| metadata.modified()).map_err(|_| gone())?;
    if age(made) > KEPT {
        return Err(gone());
    }
    file::send(&path, format.content_type(), &headers).await?.ok_or_else(gone)
}

/// A random id with its last six bytes told by its owner and the others, so that a file's name says whose it is.
fn own_id(owner: &str, id: Uuid) -> Uuid {
    let mut bytes = *id.as_bytes();
    let (free, bound) = bytes.split_at_mut(10);
    bound.copy_from_slice(&Sha256::new().chain_update(&*free).chain_update(owner).finalize()[..6]);
    Uuid::from_bytes(bytes)
}

/// Removes what is too old, and what is too much, as long as the server runs.
pub(crate) async fn sweep_for_ever(data_dir: PathBuf) {
    let mut times = interval(SWEPT_EVERY);
    loop {
        times.tick().await;
        sweep_once(folder(&data_dir)).await;
    }
}

fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("speech")
}

async fn sweep_once(folder: PathBuf) {
    let swept = tokio::task::spawn_blocking(move || sweep(&folder, KEPT, FOLDER_BYTES)).await;
    match swept {
        Ok(Ok(0)) => {}
        Ok(Ok(count)) => tracing::info!(count, "speech files removed"),
        Ok(Err(error)) => tracing::warn!(%error, "the folder of speech files cannot be swept"),
        Err(error) => tracing::error!(%error, "sweeping the speech files failed"),
    }
}

/// Removes files older than `kept`, then the oldest until the rest have `room`. Says how many.
fn sweep(folder: &Path, kept: Duration, room: u64) -> std::io::Result<usize> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let file = |entry: std::fs::DirEntry| {
        let metadata = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
        Some((metadata.modified().ok()?, metadata.len(), entry.path()))
    };
    let mut files: Vec<_> = entries.filter_map(|entry| file(entry.ok()?)).collect();
    files.sort();
    let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
    let mut removed = 0;
    for (made, size, path) in files {
        if age(made) <= kept && bytes <= room {
            break;
        }
        std::fs::remove_file(path)?;
        bytes -= size;
        removed += 1;
    }
    Ok(removed)
}

/// Writes what is spoken as it comes, then the beginning that says how long it is.
async fn write(
    file: &mut File,
    mut narration: Narration,
    mut encoder: Box<dyn Encoder>,
) -> Result<Samples<24_000>, Problem> {
    let failed = |error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "encoding_failed", format!("{error}"));
    let mut length = Samples::default();
    while let Some(audio) = narration.audio.next().await {
        let audio = audio?;
        length += audio.len();
        let bytes = encoder.push(&audio).map_err(failed)?;
        file.write_all(&bytes).await.map_err(|error| disk(&error))?;
    }
    let ending = encoder.finish().map_err(failed)?;
    let write = async {
        file.write_all(&ending.bytes).await?;
        file.seek(SeekFrom::Start(0)).await?;
        file.write_all(&ending.head).await?;
        file.flush().await
    };
    write.await.map_err(|error| disk(&error))?;
    Ok(length)
}

#[cfg(test)]
#[path = "speech_tests.rs"]
mod tests;
