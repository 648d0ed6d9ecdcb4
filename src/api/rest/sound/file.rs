//! A sound's file: written under another name until it is whole, and served whole or in part.

use std::io::{ErrorKind, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;
use uuid::Uuid;

use crate::api::problem::Problem;
use crate::audio::Format;

/// What a file is called while it is written.
const UNFINISHED: &str = "part";

pub(super) fn name(id: Uuid, format: Format) -> String {
    format!("{id}.{}", format.name())
}

/// What a name of [`name`]'s is made of. Built anew from that, no name leads out of a folder.
pub(super) fn parse_name(name: &str) -> Option<(Uuid, Format)> {
    let (id, format) = name.split_once('.')?;
    Some((Uuid::try_parse(id).ok()?, Format::named(format)?))
}

/// A file of the future, after a clock was set back, is new.
pub(super) fn age(made: SystemTime) -> Duration {
    made.elapsed().unwrap_or_default()
}

pub(super) fn disk(error: &std::io::Error) -> Problem {
    tracing::error!(%error, "a sound file cannot be read or written");
    if error.kind() == ErrorKind::StorageFull {
        return Problem::new(StatusCode::INSUFFICIENT_STORAGE, "storage_full", "the disk has no space left");
    }
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "storage_failed", "the sound file cannot be read or written")
}

/// The file, or the part of it that the request wants. None: there is no such file.
///
/// # Errors
/// The disk failed.
pub(super) async fn serve(path: &Path, format: Format, headers: &HeaderMap) -> Result<Option<Response>, Problem> {
    let found = async {
        let file = File::open(path).await?;
        let bytes = file.metadata().await?.len();
        Ok::<_, std::io::Error>((file, bytes))
    };
    let (mut file, bytes) = match found.await {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        found => found.map_err(|error| disk(&error))?,
    };
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let (status, first, length) = match range.map_or(Range::Whole, |range| Range::read(range, bytes)) {
        Range::Whole => (StatusCode::OK, 0, bytes),
        Range::Part { first, last } => (StatusCode::PARTIAL_CONTENT, first, last - first + 1),
        Range::Outside => {
            let detail = format!("the file has {bytes} bytes");
            let problem = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "range_not_satisfiable", detail);
            let mut response = problem.into_response();
            insert(&mut response, header::CONTENT_RANGE, &format!("bytes */{bytes}"));
            return Ok(Some(response));
        }
    };
    file.seek(SeekFrom::Start(first)).await.map_err(|error| disk(&error))?;
    let mut response = (status, Body::from_stream(ReaderStream::new(file.take(length)))).into_response();
    insert(&mut response, header::CONTENT_TYPE, format.content_type());
    insert(&mut response, header::CONTENT_LENGTH, &length.to_string());
    insert(&mut response, header::ACCEPT_RANGES, "bytes");
    insert(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    insert(&mut response, header::CACHE_CONTROL, "private, max-age=3600");
    if status == StatusCode::PARTIAL_CONTENT {
        insert(&mut response, header::CONTENT_RANGE, &format!("bytes {first}-{}/{bytes}", first + length - 1));
    }
    Ok(Some(response))
}

fn insert(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// A file that is being written. It is gone with its request, unless it was kept.
pub(super) struct Unfinished {
    pub(super) file: File,
    path: PathBuf,
    name: String,
}

impl Unfinished {
    /// Makes the folder, too.
    pub(super) async fn new(folder: &Path, format: Format) -> std::io::Result<Self> {
        tokio::fs::create_dir_all(folder).await?;
        let name = name(Uuid::new_v4(), format);
        let path = folder.join(format!("{name}.{UNFINISHED}"));
        Ok(Self { file: File::create_new(&path).await?, path, name })
    }

    /// Gives the file its name, and says it.
    pub(super) async fn keep(self) -> std::io::Result<String> {
        tokio::fs::rename(&self.path, self.path.with_extension("")).await?;
        Ok(self.name.clone())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After it was kept there is nothing of this name.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What a client wants of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Range {
    Whole,
    /// Both included.
    Part {
        first: u64,
        last: u64,
    },
    Outside,
}

impl Range {
    /// Reads one range of RFC 9110. What is no range, or several, asks for all of it, as the RFC allows.
    pub(super) fn read(text: &str, bytes: u64) -> Self {
        let Some((first, last)) = text.trim().strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
            return Self::Whole;
        };
        let end = bytes.saturating_sub(1);
        let (first, last) = match (first.parse::<u64>(), last.parse::<u64>()) {
            (Ok(first), Ok(last)) if first <= last => (first, last.min(end)),
            (Ok(first), Err(_)) if last.is_empty() => (first, end),
            (Err(_), Ok(length)) if first.is_empty() => {
                let first = if length == 0 { bytes } else { bytes.saturating_sub(length) };
                (first, end)
            }
            _ => return Self::Whole,
        };
        if first < bytes { Self::Part { first, last } } else { Self::Outside }
    }
}
