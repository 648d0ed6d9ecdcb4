//! Who does what here, in which order, and how each of them is.

use std::sync::Arc;

use axum::extract::State as Extract;
use axum::{Json, Router, routing::get};
use serde::Serialize;

use crate::api::House;
use crate::provider::ProviderReport;

pub(super) fn routes() -> Router<Arc<House>> {
    Router::new().route("/providers", get(list))
}

/// `GET /api/providers`. A service's key is no part of it.
#[derive(Serialize)]
struct Providers {
    /// By capability, the first choice first.
    providers: Vec<ProviderReport>,
}

async fn list(Extract(house): Extract<Arc<House>>) -> Json<Providers> {
    Json(Providers { providers: house.state.roster.providers() })
}
