//! Errors over HTTP: RFC 9457's `application/problem+json`. What went wrong inside stays inside.

use std::any::Any;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::audio::AudioError;
use crate::provider::ProviderError;
use crate::session::record::RecordError;

/// In bytes, of a refusal that is not ours.
const LONGEST_DETAIL: usize = 1000;

/// A refusal as it is told.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct ProblemBody {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    /// For programs.
    #[schema(example = "bad_field")]
    code: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldProblem>,
}

/// A field of the request that is wrong.
#[derive(Serialize, ToSchema)]
pub(super) struct FieldProblem {
    /// Its path, as `messages[0].role`.
    field: String,
    message: String,
}

/// One refusal. Its response carries it as an extension too, for doors with a shape of their own.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    /// For programs; `title` is for people.
    pub(super) code: &'static str,
    pub(super) detail: String,
    /// The field of the request that is wrong, as `messages[0].role`.
    pub(super) field: Option<String>,
    /// When to come back.
    retry_after: Option<Duration>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), field: None, retry_after: None }
    }

    /// The same, about a field of the request.
    pub(super) fn about(self, field: &str) -> Self {
        Self { field: Some(field.to_owned()), ..self }
    }

    /// The same, to be tried again after a while.
    pub(super) fn later(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// As JSON.
    pub(super) fn told(&self) -> String {
        serde_json::to_string(&self.body()).unwrap_or_default()
    }

    /// As it is told.
    pub(super) fn body(&self) -> ProblemBody {
        let errors = self.field.iter().map(|field| FieldProblem { field: field.clone(), message: self.detail.clone() });
        ProblemBody {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: self.detail.clone(),
            code: self.code,
            errors: errors.collect(),
        }
    }

    /// A field of the request that is wrong.
    pub(super) fn bad_field(field: impl Into<String>, message: impl std::fmt::Display) -> Self {
        let field = field.into();
        let detail = format!("{field}: {message}");
        Self { field: Some(field), ..Self::new(StatusCode::BAD_REQUEST, "bad_field", detail) }
    }
}

impl Problem {
    /// Why a sound file that was sent gives no audio.
    pub(super) fn unreadable(error: &AudioError) -> Self {
        let (status, code) = match error {
            AudioError::TooLong { .. } | AudioError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            AudioError::Io(_) => {
                tracing::error!(%error, "an upload cannot be read");
                (StatusCode::INTERNAL_SERVER_ERROR, "internal")
            }
            _ => (StatusCode::BAD_REQUEST, "bad_audio"),
        };
        Self::new(status, code, error.to_string()).about("file")
    }
}

impl From<ProviderError> for Problem {
    fn from(error: ProviderError) -> Self {
        let (status, code) = match &error {
            ProviderError::Overloaded { .. } => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
            ProviderError::Unavailable { .. } => (StatusCode::SERVICE_UNAVAILABLE, "model_unavailable"),
            ProviderError::UnknownModel { .. } => (StatusCode::NOT_FOUND, "model_not_found"),
            ProviderError::VoiceUnavailable { .. } => (StatusCode::BAD_REQUEST, "voice_unavailable"),
            ProviderError::LanguageUnsupported { .. } => (StatusCode::BAD_REQUEST, "language_unsupported"),
            ProviderError::InvalidRequest { .. } => (StatusCode::BAD_REQUEST, "bad_field"),
            ProviderError::TimedOut { .. } => (StatusCode::GATEWAY_TIMEOUT, "timed_out"),
            ProviderError::OutOfMemory { .. } => (StatusCode::SERVICE_UNAVAILABLE, "out_of_memory"),
            ProviderError::Refused { .. } => (StatusCode::BAD_GATEWAY, "provider_refused"),
            // OpenAI's own code and status for it.
            ProviderError::OverBudget { .. } => (StatusCode::TOO_MANY_REQUESTS, "insufficient_quota"),
            ProviderError::Filtered { .. } => (StatusCode::BAD_REQUEST, "content_filter"),
            ProviderError::Failed { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "provider_failed"),
        };
        let mut problem = Self::new(status, code, error.to_string());
        problem.field = match &error {
            ProviderError::InvalidRequest { field, .. } => Some((*field).to_owned()),
            ProviderError::UnknownModel { .. } => Some("model".to_owned()),
            ProviderError::VoiceUnavailable { .. } => Some("voice".to_owned()),
            ProviderError::LanguageUnsupported { .. } => Some("language".to_owned()),
            _ => None,
        };
        if let ProviderError::Overloaded { retry_after, .. } = error {
            problem.retry_after = Some(retry_after);
        }
        problem
    }
}

impl From<RecordError> for Problem {
    fn from(error: RecordError) -> Self {
        let (status, code) = match &error {
            RecordError::NotFound { .. } => (StatusCode::NOT_FOUND, "not_found"),
            RecordError::Changed => (StatusCode::PRECONDITION_FAILED, "changed"),
            RecordError::UnderWay => (StatusCode::CONFLICT, "under_way"),
            RecordError::Full => (StatusCode::INSUFFICIENT_STORAGE, "insufficient_storage"),
            RecordError::Failed => (StatusCode::SERVICE_UNAVAILABLE, "database_failed"),
        };
        Self::new(status, code, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs_f64().ceil().max(1.0) as u64));
        }
        response.extensions_mut().insert(self);
        response
    }
}

pub(super) async fn no_such_route(uri: Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", format!("there is nothing at {}", uri.path()))
}

pub(super) async fn no_such_method(uri: Uri) -> Problem {
    let detail = format!("{} does not take this method", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}

/// What a layer or an extractor refuses in plain text: a body over its limit, a path that is not UTF-8.
pub(super) async fn in_shape(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let plain = |kind: &HeaderValue| kind.as_bytes().starts_with(b"text/plain");
    if !response.headers().get(header::CONTENT_TYPE).is_none_or(plain) {
        return response;
    }
    match response.status() {
        status @ StatusCode::PAYLOAD_TOO_LARGE => Problem::new(status, "too_large", "the request is too large"),
        status @ StatusCode::BAD_REQUEST => {
            let told = to_bytes(response.into_body(), LONGEST_DETAIL).await.unwrap_or_default();
            Problem::new(status, "bad_request", String::from_utf8_lossy(&told))
        }
        _ => return response,
    }
    .into_response()
}

/// The panic itself is in the log, by the panic hook.
pub(super) fn after_panic(_: Box<dyn Any + Send + 'static>) -> axum::http::Response<Body> {
    tracing::error!("a handler panicked");
    let detail = "the server met a fault of its own; its log says more";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail).into_response()
}
