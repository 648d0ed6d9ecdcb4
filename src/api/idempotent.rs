//! `Idempotency-Key`: a POST that is sent again is answered again, and done once.
//!
//! The answer to a request with such a header is kept for a day, by whose it is and the key. The same request with the
//! key gets that answer, another request a 422, and a request that is still being answered a 409. A request that began
//! is finished even where its client is gone, since that client will ask again. Answers that say to come back, or that the
//! server failed, are not kept; of a stream or a file only that there was one. Multipart bodies are different each time
//! they are sent, so they take no key.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State as Extract};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;
use tokio::time::{interval, timeout};
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Required};
use utoipa_axum::router::OpenApiRouter;

use super::House;
use super::access::Identity;
use super::problem::{self, Problem};
use super::rest::IMPORT_BYTES;
use crate::provider::task;
use crate::store::{Answer, Claim, Owned, Store};

const HEADER: &str = "idempotency-key";
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const MOST_KEY_BYTES: usize = 255;
/// For a whole body of the largest size, on a slow line.
const BODY_TIME: Duration = Duration::from_secs(30);
/// Longer answers are not kept: none of JSON is so long.
const ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// A request that is being answered says so this often, well within what its claim lasts.
const RENEWED_EVERY: Duration = Duration::from_secs(15);
/// When to ask again for an answer that is being made.
const COME_BACK: Duration = Duration::from_secs(1);
const SWEPT_EVERY: Duration = Duration::from_hours(1);
/// Headers of an answer that are kept with it.
const KEPT: [HeaderName; 3] = [header::CONTENT_TYPE, header::LOCATION, header::ETAG];

/// These routes, with this before each of them and in the description of each POST that it can be for.
pub(super) fn routes(house: &Arc<House>, mut routes: OpenApiRouter<Arc<House>>) -> OpenApiRouter<Arc<House>> {
    let posts = routes.get_openapi_mut().paths.paths.values_mut().filter_map(|item| item.post.as_mut());
    for post in posts.filter(|post| !takes_a_form(post)) {
        post.parameters.get_or_insert_default().push(RefOr::T(parameter()));
    }
    routes.layer(from_fn_with_state(Arc::clone(house), once))
}

fn takes_a_form(operation: &Operation) -> bool {
    let Some(RefOr::T(body)) = &operation.request_body else { return false };
    body.content.keys().any(|kind| kind.starts_with("multipart/"))
}

fn parameter() -> Parameter {
    let schema = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(MOST_KEY_BYTES))
        .pattern(Some("^[!-~]+$"));
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some("The same request with the same key is done once and answered again, for a day."))
        .schema(Some(schema))
        .build()
}

/// Stands before a route, behind whoever says whose a request is.
async fn once(Extract(house): Extract<Arc<House>>, request: Request, next: Next) -> Response {
    let key = request.headers().get(HEADER).cloned();
    let identity = request.extensions().get::<Identity>().cloned();
    match (key, identity) {
        (Some(key), Some(identity)) if request.method() == Method::POST => {
            let rows = house.state.store.of(&identity.owner);
            answer_once(&key, rows, request, next).await.unwrap_or_else(Problem::into_response)
        }
        _ => next.run(request).await,
    }
}

async fn answer_once(key: &HeaderValue, rows: Owned, request: Request, next: Next) -> Result<Response, Problem> {
    let key = readable(key)?;
    let (request, digest) = digested(request).await?;
    match rows.claim(&key, &digest).await? {
        Claim::Yours => {}
        Claim::Answered(answer) => return Ok(again(answer)),
        Claim::Other => {
            let detail = "this Idempotency-Key came with another request; make a new one for each";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail));
        }
        Claim::UnderWay => {
            let detail = "the request with this Idempotency-Key is still being answered";
            return Err(Problem::new(StatusCode::CONFLICT, "idempotency_under_way", detail).later(COME_BACK));
        }
    }
    let (tell, told) = oneshot::channel();
    let answering = answer(key, rows, request, next, tell);
    tokio::spawn(task::named("idempotent request", answering));
    told.await.map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the request was cut off"))
}

/// Answers a request to the end and keeps the answer, whether or not its client is still there.
async fn answer(key: String, rows: Owned, request: Request, next: Next, tell: oneshot::Sender<Response>) {
    let mut running = std::pin::pin!(AssertUnwindSafe(next.run(request)).catch_unwind());
    let mut times = interval(RENEWED_EVERY);
    times.tick().await;
    let response = loop {
        tokio::select! {
            response = &mut running => break response.unwrap_or_else(problem::after_panic),
            _ = times.tick() => {
                if let Err(error) = rows.renew_claim(&key).await {
                    tracing::warn!(%error, "the claim of an idempotency key was not renewed");
                }
            }
        }
    };
    let response = keep(&key, &rows, response).await;
    // A client that is gone asks again.
    let _ = tell.send(response);
}

/// Keeps an answer, or gives its key up.
async fn keep(key: &str, rows: &Owned, response: Response) -> Response {
    let status = response.status();
    let comes_back = [StatusCode::REQUEST_TIMEOUT, StatusCode::CONFLICT, StatusCode::TOO_MANY_REQUESTS];
    let (kept, response) = if status.is_server_error() || comes_back.contains(&status) {
        (rows.give_up_claim(key).await, response)
    } else if is_text(response.headers()) {
        let (parts, body) = response.into_parts();
        let Ok(bytes) = to_bytes(body, ANSWER_BYTES).await else {
            let _ = rows.keep_answer(key, not_kept(status)).await;
            let detail = "the answer is too long to be kept; send the request without Idempotency-Key";
            return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail).into_response();
        };
        let body = String::from_utf8_lossy(&bytes).into_owned();
        let answer = Answer { status: status.as_u16(), headers: kept_headers(&parts.headers), body };
        (rows.keep_answer(key, answer).await, Response::from_parts(parts, Body::from(bytes)))
    } else {
        (rows.keep_answer(key, not_kept(status)).await, response)
    };
    if let Err(error) = kept {
        tracing::error!(%error, "the answer to an idempotent request was not kept");
    }
    response
}

/// What a second request hears where the first was answered by a stream or a file.
fn not_kept(status: StatusCode) -> Answer {
    let detail = format!(
        "this request was answered before, with {status} and a stream or a file, which cannot be sent again; what came of \
         it is stored"
    );
    let problem = Problem::new(StatusCode::CONFLICT, "idempotency_answer_not_kept", detail);
    let headers = serde_json::json!({ "content-type": "application/problem+json" }).to_string();
    Answer { status: StatusCode::CONFLICT.as_u16(), headers, body: problem.told() }
}

fn is_text(headers: &HeaderMap) -> bool {
    match headers.get(header::CONTENT_TYPE).map(HeaderValue::to_str) {
        None => true,
        Some(Ok(kind)) => kind.starts_with("application/json") || kind.starts_with("application/problem+json"),
        Some(Err(_)) => false,
    }
}

fn kept_headers(headers: &HeaderMap) -> String {
    let kept = KEPT.iter().filter_map(|name| {
        let value = headers.get(name)?.to_str().ok()?;
        Some((name.to_string(), Value::String(value.to_owned())))
    });
    Value::Object(kept.collect::<Map<_, _>>()).to_string()
}

/// An answer that was kept, as a response.
fn again(answer: Answer) -> Response {
    let headers: Map<String, Value> = serde_json::from_str(&answer.headers).unwrap_or_default();
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        let value = value.as_str().and_then(|value| HeaderValue::from_str(value).ok());
        if let (Ok(name), Some(value)) = (HeaderName::try_from(name), value) {
            response.headers_mut().insert(name, value);
        }
    }
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

fn readable(key: &HeaderValue) -> Result<String, Problem> {
    let is_key =
        |key: &&str| (1..=MOST_KEY_BYTES).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    let key = key.to_str().ok().filter(is_key);
    let wrong = || {
        Problem::bad_field(
            "Idempotency-Key",
            format!("must be 1 to {MOST_KEY_BYTES} characters of ASCII, none of them a space"),
        )
    };
    key.map(str::to_owned).ok_or_else(wrong)
}

/// The request with its body read, and what tells it from others.
async fn digested(request: Request) -> Result<(Request, String), Problem> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.to_ascii_lowercase().starts_with("multipart/") {
        let detail = "a multipart body takes no Idempotency-Key, since it is different each time it is sent";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "idempotency_not_possible", detail));
    }
    let (parts, body) = request.into_parts();
    let late = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "the body took too long to come");
    let too_large = |_| Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the request is too large");
    let bytes: Bytes = timeout(BODY_TIME, to_bytes(body, IMPORT_BYTES)).await.map_err(late)?.map_err(too_large)?;
    let mut digest = Sha256::new();
    for part in [parts.method.as_str().as_bytes(), b"\n", parts.uri.to_string().as_bytes(), b"\n", &bytes] {
        digest.update(part);
    }
    let digest = digest.finalize().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    Ok((Request::from_parts(parts, Body::from(bytes)), digest))
}

/// Forgets old answers, as long as the server runs.
pub(super) async fn sweep_for_ever(store: Store) {
    let mut times = interval(SWEPT_EVERY);
    loop {
        times.tick().await;
        match store.sweep_answers().await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "answers to idempotent requests removed"),
            Err(error) => tracing::warn!(%error, "answers to idempotent requests cannot be swept"),
        }
    }
}

#[cfg(test)]
#[path = "idempotent_tests.rs"]
mod tests;
