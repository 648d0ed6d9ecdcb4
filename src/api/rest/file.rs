//! A file of ours over HTTP, whole or in part, as players ask for it.

use std::io::{ErrorKind, SeekFrom};
use std::path::Path;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use crate::api::problem::Problem;

/// Sends what `headers` ask for of a file, as `kind` and nothing else. None: it is not there. Nothing of a request may
/// be in `path`.
///
/// # Errors
/// 416 as a response; what the disk says.
pub(super) async fn send(path: &Path, kind: &'static str, headers: &HeaderMap) -> Result<Option<Response>, Problem> {
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
    insert(&mut response, header::CONTENT_TYPE, kind);
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

/// What a disk says of a file.
pub(super) fn disk(error: &std::io::Error) -> Problem {
    tracing::error!(%error, "a file cannot be read or written");
    if error.kind() == ErrorKind::StorageFull {
        return Problem::new(StatusCode::INSUFFICIENT_STORAGE, "insufficient_storage", "the disk has no space left");
    }
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "storage_failed", "the file cannot be read or written")
}

/// What a client wants of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Range {
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
    fn read(text: &str, bytes: u64) -> Self {
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
