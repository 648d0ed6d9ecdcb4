//! Who does what here, in which order, and how each of them is.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Extract;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::House;
use crate::api::problem::ProblemBody;
use crate::provider::{ProviderReport, ProviderState};

pub(super) fn routes() -> OpenApiRouter<Arc<House>> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Who does what. A service's key is no part of it.
#[derive(Serialize, ToSchema)]
struct Providers {
    /// By capability, the first choice first.
    providers: Vec<Provider>,
}

/// A link of a capability's chain.
#[derive(Serialize, ToSchema)]
struct Provider {
    #[schema(example = "chat")]
    capability: &'static str,
    /// As `served_by` names it.
    name: String,
    /// Whether it runs elsewhere.
    remote: bool,
    state: State,
    /// How to get what is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ProviderState)]
enum State {
    /// Loaded, or configured and not known to fail.
    Ready,
    Missing,
    /// It failed too often lately and is left alone for a while.
    Open,
    /// It is being tried again.
    HalfOpen,
}

impl From<ProviderReport> for Provider {
    fn from(report: ProviderReport) -> Self {
        let (state, remedy) = match report.state {
            ProviderState::Ready => (State::Ready, None),
            ProviderState::Missing { remedy } => (State::Missing, Some(remedy)),
            ProviderState::Open => (State::Open, None),
            ProviderState::HalfOpen => (State::HalfOpen, None),
        };
        Self { capability: report.capability.as_str(), name: report.name, remote: report.remote, state, remedy }
    }
}

/// Who could answer, and how each of them is
#[utoipa::path(
    get,
    path = "/providers",
    tag = "Models",
    responses(
        (status = 200, body = Providers),
        (status = 401, body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn list(Extract(house): Extract<Arc<House>>) -> Json<Providers> {
    Json(Providers { providers: house.state.roster.providers().into_iter().map(Provider::from).collect() })
}
