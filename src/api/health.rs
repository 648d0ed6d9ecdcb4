//! Whether the process lives, whether it can work, and its figures.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Extract;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::House;
use super::problem::ProblemBody;

/// One part of the server that must be ready before it can work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct PartReport {
    /// As `stt`, `llm`, `tts`, `vad`.
    pub part: String,
    /// What does the work, as `whisper-base`.
    pub name: String,
    #[serde(flatten)]
    pub state: PartState,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum PartState {
    Loading,
    Ready,
    Failed { reason: String },
}

pub(super) fn routes() -> OpenApiRouter<Arc<House>> {
    OpenApiRouter::new().routes(routes!(healthz)).routes(routes!(readyz)).routes(routes!(metrics))
}

#[derive(Serialize, ToSchema)]
struct Readiness {
    ready: bool,
    draining: bool,
    parts: Vec<PartReport>,
}

/// Whether the process answers
#[utoipa::path(get, path = "/healthz", tag = "Server", security(()), responses((status = 200, body = String)))]
async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the server can work
///
/// 200 where the database answers and every engine is ready, 503 otherwise, and always what each part says.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "Server",
    security(()),
    responses((status = 200, body = Readiness), (status = 503, body = Readiness))
)]
async fn readyz(Extract(house): Extract<Arc<House>>) -> Response {
    let draining = house.draining.has_begun();
    let mut parts = vec![database(&house).await];
    parts.extend(house.state.engines.borrow().iter().cloned());
    let ready = !draining && parts.iter().all(|report| report.state == PartState::Ready);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, draining, parts })).into_response()
}

async fn database(house: &House) -> PartReport {
    let state = if house.state.store.is_ready().await {
        PartState::Ready
    } else {
        PartState::Failed { reason: "the database does not answer".to_owned() }
    };
    PartReport { part: "database".to_owned(), name: house.state.store.kind().to_owned(), state }
}

/// Measurements in Prometheus' text format
///
/// For this machine, or with a key.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "Server",
    security((), ("key" = []), ("cookie" = [])),
    responses(
        (status = 200, body = String),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn metrics(Extract(house): Extract<Arc<House>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (house.state.metrics)()).into_response()
}
