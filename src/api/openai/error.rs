//! Errors as OpenAI's clients expect them: `{"error": {message, type, param, code}}`.

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::problem::Problem;

/// OpenAI's shape of an error.
#[derive(Serialize, ToSchema)]
#[schema(as = OpenAiError)]
pub(super) struct Refusal {
    error: Fault,
}

#[derive(Serialize, ToSchema)]
#[schema(as = OpenAiFault)]
struct Fault {
    message: String,
    r#type: &'static str,
    /// The field that is wrong.
    #[schema(required)]
    param: Option<String>,
    code: &'static str,
}

/// Turns every refusal of a `/v1` route, whoever made it, into OpenAI's shape.
pub(crate) async fn reshape(request: Request, next: Next) -> Response {
    let ours = request.uri().path().starts_with("/v1/");
    let mut response = next.run(request).await;
    let Some(problem) = response.extensions_mut().remove::<Problem>().filter(|_| ours) else { return response };
    let mut reshaped = (problem.status, body(&problem)).into_response();
    let headers = std::mem::take(response.headers_mut());
    reshaped.headers_mut().extend(headers.into_iter().filter_map(|(name, value)| {
        let name = name.filter(|name| *name != header::CONTENT_TYPE && *name != header::CONTENT_LENGTH)?;
        Some((name, value))
    }));
    reshaped.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reshaped
}

/// The JSON text of an error.
pub(super) fn body(problem: &Problem) -> String {
    let kind = match problem.status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "server_error",
    };
    let (message, param) = (problem.detail.clone(), problem.field.clone());
    let refusal = Refusal { error: Fault { message, r#type: kind, param, code: problem.code } };
    // Strings and options of them always serialise.
    serde_json::to_string(&refusal).unwrap_or_default()
}
