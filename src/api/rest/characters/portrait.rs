//! `/api/characters/{id}/image`: what a character looks like.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, Path as Segment, Query, Request, State as Extract};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::time::timeout;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::files::{self, Size};
use super::picture::{self, PictureError};
use super::wire::Character;
use super::{asked, known};
use crate::api::House;
use crate::api::asker::Asker;
use crate::api::openapi::Binary;
use crate::api::problem::{Problem, ProblemBody};
use crate::api::rest::entity::{Entity, IfMatch};
use crate::api::upload;
use crate::store::{CharacterChange, Scope};

const FILE_BYTES: u64 = 20 * 1024 * 1024;
/// For a whole file, on a slow line.
const UPLOAD_TIME: Duration = Duration::from_mins(2);

/// The form with a picture.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `upload` reads")]
struct PictureForm {
    /// A PNG, JPEG or WebP of at most 20 MB, 8192 pixels a side and 40 million pixels.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// `full` (at most 512 pixels a side, the default) or `thumbnail` (at most 96).
    #[serde(default)]
    #[param(value_type = Option<String>, pattern = "^(full|thumbnail)$")]
    size: Size,
}

pub(super) fn routes() -> OpenApiRouter<Arc<House>> {
    OpenApiRouter::new()
        .routes(routes!(send, fetch))
        // The upload counts for itself.
        .layer(DefaultBodyLimit::disable())
}

/// Where a character's picture is.
pub(super) fn address(id: &str) -> String {
    format!("/api/characters/{id}/image")
}

/// Give a character a picture
#[utoipa::path(
    post,
    path = "/characters/{id}/image",
    tag = "Characters",
    params(
        ("id" = String, Path, description = "The character's id"),
        ("If-Match" = Option<String>, Header, description = "The ETag it must still have"),
    ),
    request_body(content = PictureForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, body = Character),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn send(
    Extract(house): Extract<Arc<House>>,
    asker: Asker,
    Segment(id): Segment<String>,
    if_match: IfMatch,
    request: Request,
) -> Result<Entity<Character>, Problem> {
    asker.needs(Scope::User)?;
    let data_dir = &house.state.data_dir;
    // Nobody sends 20 MB to learn that there is no such character.
    asker.rows.character(known(&id)?).await?;
    let late = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "the file took too long to come");
    let form = timeout(UPLOAD_TIME, upload::read(request, data_dir, FILE_BYTES)).await.map_err(late)??;
    let file = form.file.ok_or_else(|| Problem::bad_field("file", "is missing"))?;
    let picture = picture::make(file).await?;
    let name = files::keep(data_dir, picture).await.map_err(|error| disk(&error))?;
    let change = CharacterChange { image_file: Some(name.clone()), ..CharacterChange::default() };
    let changed = asker.rows.change_character::<Problem>(&id, |version| if_match.check(version), change).await;
    let unused = if let Ok((before, _)) = &changed { before.image_file.clone() } else { Some(name) };
    files::remove(data_dir, unused.as_deref()).await;
    changed.map(|(_, after)| Entity::ok(after.version, after.into()))
}

/// A character's picture
#[utoipa::path(
    get,
    path = "/characters/{id}/image",
    tag = "Characters",
    params(("id" = String, Path, description = "The character's id"), Wanted),
    responses(
        (status = 200, description = "The picture", content(
            (inline(Binary) = "image/jpeg"),
            (inline(Binary) = "image/webp"),
        )),
        (status = 304, description = "It is what `If-None-Match` names"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn fetch(
    Extract(house): Extract<Arc<House>>,
    Asker { rows, .. }: Asker,
    Segment(id): Segment<String>,
    wanted: Result<Query<Wanted>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let size = asked(wanted)?.size;
    let none = || Problem::new(StatusCode::NOT_FOUND, "not_found", "this character has no picture here");
    let name = rows.character(known(&id)?).await?.image_file.ok_or_else(none)?;
    let kind = files::kind(&name).ok_or_else(none)?;
    // Another picture has another name.
    let tag = format!("\"{name}\"");
    let known_tags = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let is_known = known_tags.flat_map(|value| value.split(',')).any(|known| known.trim() == tag);
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let bytes = files::read(&house.state.data_dir, &name, size).await.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => none(),
            _ => disk(&error),
        })?;
        Body::from(bytes).into_response()
    };
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    };
    set(header::CONTENT_TYPE, kind.content_type());
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::ETAG, &tag);
    set(header::CACHE_CONTROL, "private, no-cache");
    Ok(response)
}

impl From<PictureError> for Problem {
    fn from(error: PictureError) -> Self {
        let (status, code) = match &error {
            PictureError::OtherType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_image"),
            PictureError::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "image_too_large"),
            PictureError::Damaged(_) => (StatusCode::BAD_REQUEST, "bad_image"),
        };
        Self::new(status, code, error.to_string()).about("file")
    }
}

fn disk(error: &std::io::Error) -> Problem {
    tracing::error!(%error, "a picture cannot be read or written");
    let (status, code) = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            (StatusCode::INSUFFICIENT_STORAGE, "insufficient_storage")
        }
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "storage_failed"),
    };
    Problem::new(status, code, "the picture's file cannot be read or written")
}
