//! One object over HTTP: its entity tag, and changes that ask for a certain one.

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::api::problem::Problem;

/// An object with its version as its `ETag`.
#[derive(Debug)]
pub(super) struct Entity<T> {
    pub(super) status: StatusCode,
    pub(super) version: i64,
    pub(super) body: T,
}

impl<T> Entity<T> {
    pub(super) fn ok(version: i64, body: T) -> Self {
        Self { status: StatusCode::OK, version, body }
    }

    pub(super) fn created(version: i64, body: T) -> Self {
        Self { status: StatusCode::CREATED, version, body }
    }
}

impl<T: Serialize> IntoResponse for Entity<T> {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", self.version)) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
}

/// The versions that `If-Match` allows a change of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum IfMatch {
    Any,
    OneOf(Vec<i64>),
}

impl IfMatch {
    /// # Errors
    /// 412, where the object was changed since its reader saw it.
    pub(super) fn check(&self, version: i64) -> Result<(), Problem> {
        match self {
            Self::OneOf(versions) if !versions.contains(&version) => {
                let detail = "it was changed in the meantime; read it again";
                Err(Problem::new(StatusCode::PRECONDITION_FAILED, "changed", detail))
            }
            _ => Ok(()),
        }
    }

    /// The versions that a change may be of. None: any.
    pub(super) fn versions(&self) -> Option<&[i64]> {
        match self {
            Self::Any => None,
            Self::OneOf(versions) => Some(versions),
        }
    }

    /// A tag that is none of ours matches nothing.
    fn read(headers: &HeaderMap) -> Self {
        let mut sent = headers.get_all(header::IF_MATCH).iter().peekable();
        if sent.peek().is_none() {
            return Self::Any;
        }
        let tags: Vec<&str> = sent.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).collect();
        if tags.iter().any(|tag| tag.trim() == "*") {
            return Self::Any;
        }
        let version = |tag: &&str| tag.trim().strip_prefix('"')?.strip_suffix('"')?.parse().ok();
        Self::OneOf(tags.iter().filter_map(version).collect())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::read(&parts.headers))
    }
}

#[cfg(test)]
#[path = "entity_tests.rs"]
mod tests;
