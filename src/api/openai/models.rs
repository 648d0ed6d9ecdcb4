//! `GET /v1/models` and `/v1/models/{id}`: every model that a request may name, the names of OpenAI's own included that
//! stand for the server's.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State as Extract};
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::ALIASES;
use super::error::Refusal;
use crate::api::House;
use crate::api::problem::Problem;

#[derive(Serialize, ToSchema)]
#[schema(as = OpenAiModels)]
pub(super) struct List {
    object: &'static str,
    data: Vec<Model>,
}

#[derive(Clone, Serialize, ToSchema)]
#[schema(as = OpenAiModel)]
pub(super) struct Model {
    id: String,
    object: &'static str,
    /// When the server was started, in seconds of Unix time: a model has no date of its own.
    created: i64,
    owned_by: String,
}

/// Every model that a request may name
#[utoipa::path(get, path = "/models", tag = "OpenAI", responses(
    (status = 200, body = List),
    (status = "4XX", body = Refusal, description = "Refused"),
))]
pub(super) async fn list(Extract(house): Extract<Arc<House>>) -> Json<List> {
    Json(List { object: "list", data: models(&house) })
}

/// One model; its name may hold slashes
#[utoipa::path(get, path = "/models/{*id}", tag = "OpenAI", params(("id" = String, Path, description = "Its name")), responses(
    (status = 200, body = Model),
    (status = "4XX", body = Refusal, description = "Refused"),
))]
pub(super) async fn one(Extract(house): Extract<Arc<House>>, Path(id): Path<String>) -> Result<Json<Model>, Problem> {
    let found = models(&house).into_iter().find(|model| model.id == id);
    found.map(Json).ok_or_else(|| {
        let detail = format!("there is no model \"{id}\"; GET /v1/models lists them");
        let mut problem = Problem::new(StatusCode::NOT_FOUND, "model_not_found", detail);
        problem.field = Some("model".to_owned());
        problem
    })
}

/// The roster's, each name once, then the aliases of what the roster can do.
fn models(house: &House) -> Vec<Model> {
    let cards = house.state.roster.models();
    let can = |wanted| cards.iter().any(|card| card.capability == wanted);
    let aliases = ALIASES.iter().filter(|(_, capability)| can(*capability)).map(|(name, _)| (*name, "aichat"));
    let mut models: Vec<Model> = Vec::new();
    for (name, owner) in cards.iter().map(|card| (card.name.as_str(), &*card.provider)).chain(aliases) {
        if !models.iter().any(|model| model.id == name) {
            let (id, owned_by) = (name.to_owned(), owner.to_owned());
            models.push(Model { id, object: "model", created: house.started, owned_by });
        }
    }
    models
}
