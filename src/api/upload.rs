//! Multipart uploads: small fields as text, the one file in an unnamed file on disk, which ends with its last handle.
//!
//! Bytes are counted while they come. Whoever sends too many is read on for a moment, so that it gets to read why.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::{StatusCode, header};
use futures::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::api::problem::Problem;

/// Of everything in a form but its file.
const TEXT_BYTES: usize = 1024 * 1024;
/// What may come in beyond what has become part of a field. More is a header without an end.
const PENDING_BYTES: u64 = 8 * 1024 * 1024;
/// How long one is listened to who sends too much.
const LINGER: Duration = Duration::from_secs(2);

/// A form that was sent.
pub(super) struct Form {
    /// In order, by name.
    pub(super) fields: Vec<(String, String)>,
    /// The field `file`, at its beginning.
    pub(super) file: Option<File>,
}

/// Reads the request to its end. The file, of at most `file_bytes`, lies in `folder`. A route that calls this has no other
/// limit of its body.
pub(super) async fn read(request: Request, folder: &Path, file_bytes: u64) -> Result<Form, Problem> {
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > file_bytes + TEXT_BYTES as u64) {
        // What is left unread is of no interest, nor how it ends.
        let _ = timeout(LINGER, request.into_body().into_data_stream().for_each(|_| async {})).await;
        return Err(too_large(file_bytes));
    }
    let taken = Arc::new(AtomicU64::new(0));
    let mut form = Multipart::from_request(bounded(request, Arc::clone(&taken)), &())
        .await
        .map_err(|_| bad_form("send it as multipart/form-data, with a boundary"))?;
    let (mut fields, mut file, mut left) = (Vec::new(), None, TEXT_BYTES);
    while let Some(mut field) = form.next_field().await.map_err(|error| broken(&error))? {
        let Some(name) = field.name().map(str::to_owned) else { continue };
        if name == "file" {
            file = Some(store(&mut field, folder, file_bytes, &taken).await?);
        } else {
            match text(&mut field, &taken, &mut left).await {
                Ok(text) => fields.push((name, text)),
                Err(problem) => return Err(problem.about(&name)),
            }
        }
    }
    Ok(Form { fields, file })
}

/// The same request, whose body fails where nobody takes in what comes.
fn bounded(request: Request, taken: Arc<AtomicU64>) -> Request {
    let (parts, body) = request.into_parts();
    let mut came = 0;
    let body = body.into_data_stream().map(move |chunk| {
        let chunk = chunk.map_err(std::io::Error::other)?;
        came += chunk.len() as u64;
        if came > taken.load(Ordering::Relaxed) + PENDING_BYTES {
            return Err(std::io::Error::other("a field's header has no end"));
        }
        Ok(chunk)
    });
    Request::from_parts(parts, Body::from_stream(body))
}

async fn text(field: &mut Field<'_>, taken: &AtomicU64, left: &mut usize) -> Result<String, Problem> {
    let mut bytes = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(|error| broken(&error))? {
        taken.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        *left = left.checked_sub(chunk.len()).ok_or_else(|| {
            let detail = format!("the form's text has more than {} KB", TEXT_BYTES / 1024);
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
        })?;
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes).map_err(|_| bad_form("a field is not UTF-8"))
}

async fn store(field: &mut Field<'_>, folder: &Path, most: u64, taken: &AtomicU64) -> Result<File, Problem> {
    let folder = folder.to_owned();
    let open = move || {
        std::fs::create_dir_all(&folder)?;
        tempfile::tempfile_in(folder)
    };
    let file = tokio::task::spawn_blocking(open).await.map_err(|error| lost(&error))?.map_err(|error| lost(&error))?;
    let mut file = tokio::fs::File::from_std(file);
    let mut size = 0;
    while let Some(chunk) = field.chunk().await.map_err(|error| broken(&error))? {
        taken.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        size += chunk.len() as u64;
        if size > most {
            let rest = async {
                while let Ok(Some(chunk)) = field.chunk().await {
                    taken.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                }
            };
            let _ = timeout(LINGER, rest).await;
            return Err(too_large(most));
        }
        file.write_all(&chunk).await.map_err(|error| lost(&error))?;
    }
    file.flush().await.map_err(|error| lost(&error))?;
    let mut file = file.into_std().await;
    file.seek(SeekFrom::Start(0)).map_err(|error| lost(&error))?;
    Ok(file)
}

fn too_large(most: u64) -> Problem {
    let detail = format!("the file has more than {} MB; send a part of it, or compress it", most / 1024 / 1024);
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail).about("file")
}

fn bad_form(detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad_form", format!("the form cannot be read: {detail}"))
}

fn broken(error: &MultipartError) -> Problem {
    bad_form(&error.body_text())
}

/// The disk is full, or the folder is not ours.
fn lost(error: &dyn std::fmt::Display) -> Problem {
    tracing::error!(%error, "an upload cannot be stored");
    Problem::new(
        StatusCode::INSUFFICIENT_STORAGE,
        "storage_failed",
        "the server cannot store the file; its log says why",
    )
}
