//! `/api/models`: which models there are, on the disk, in memory and elsewhere, and what brings them there.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path as Segment, State as Extract};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::House;
use crate::api::asker::Asker;
use crate::api::openapi::SentEvent;
use crate::api::problem::{Problem, ProblemBody};
use crate::provider::{Flow, LocalModel, ModelShelf, ModelState, ProviderError, PullProgress, RemoteModel};
use crate::store::Scope;

/// No more often is progress told.
const TOLD_EVERY: Duration = Duration::from_millis(200);

pub(super) fn routes() -> OpenApiRouter<Arc<House>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(pull)).routes(routes!(load)).routes(routes!(unload))
}

/// All models, those of this machine first.
#[derive(Serialize, ToSchema)]
struct ModelList {
    items: Vec<Model>,
    total: usize,
}

/// A model.
#[derive(Serialize, ToSchema)]
struct Model {
    /// As a request names it.
    name: String,
    /// `local`, or the service that has it.
    #[schema(example = "local")]
    provider: String,
    /// What it does: `transcription`, `chat`, `speech`, `embedding`, `voice_activity`, or `speech_codec`. Null: its
    /// service knows.
    #[schema(required)]
    kind: Option<&'static str>,
    #[schema(required)]
    summary: Option<String>,
    #[schema(required)]
    licence: Option<String>,
    state: State,
    /// Why it could not be loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Null: it is not on this machine's disk.
    #[schema(required)]
    disk_bytes: Option<u64>,
    /// What it takes when it is loaded, roughly. Null: nothing here.
    #[schema(required)]
    memory_bytes: Option<u64>,
    /// Null: it costs nothing, or nobody said what.
    #[schema(required)]
    price: Option<ModelPrice>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ModelState)]
enum State {
    Unloaded,
    Loading,
    /// Loaded, or its service is configured.
    Ready,
    Failed,
}

/// In US dollars.
#[derive(Serialize, ToSchema)]
struct ModelPrice {
    /// Per million tokens of the prompt.
    input: f64,
    /// Per million tokens of the prompt that the service found in its cache. Null: as any other.
    #[schema(required)]
    cached_input: Option<f64>,
    /// Per million tokens of the answer.
    output: f64,
    /// Per million characters spoken.
    characters: f64,
    /// Per minute of audio heard or spoken.
    minute: f64,
}

/// How far a pull is.
#[derive(Serialize, ToSchema)]
#[schema(as = PullProgress)]
struct Progress {
    model: String,
    #[schema(example = "fetching")]
    stage: String,
    /// Empty: the whole model is concerned.
    file: String,
    done_bytes: u64,
    #[schema(required)]
    total_bytes: Option<u64>,
}

impl From<LocalModel> for Model {
    fn from(model: LocalModel) -> Self {
        let (state, reason) = match model.state {
            ModelState::Unloaded => (State::Unloaded, None),
            ModelState::Loading => (State::Loading, None),
            ModelState::Ready => (State::Ready, None),
            ModelState::Failed { reason } => (State::Failed, Some(reason)),
        };
        Self {
            name: model.name,
            provider: "local".to_owned(),
            kind: Some(model.kind),
            summary: Some(model.summary),
            licence: Some(model.licence),
            state,
            reason,
            disk_bytes: model.disk_bytes,
            memory_bytes: Some(model.memory_bytes),
            price: None,
        }
    }
}

impl From<RemoteModel> for Model {
    fn from(model: RemoteModel) -> Self {
        let price = model.price.map(|price| ModelPrice {
            input: price.input,
            cached_input: price.cached_input,
            output: price.output,
            characters: price.characters,
            minute: price.minute,
        });
        Self {
            name: model.name,
            provider: model.provider,
            kind: None,
            summary: None,
            licence: None,
            state: State::Ready,
            reason: None,
            disk_bytes: None,
            memory_bytes: None,
            price,
        }
    }
}

/// List the models
#[utoipa::path(
    get,
    path = "/models",
    tag = "Models",
    responses(
        (status = 200, body = ModelList),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn list(Extract(house): Extract<Arc<House>>, _: Asker) -> Result<Json<ModelList>, Problem> {
    let shelf = Arc::clone(house.state.settings.shelf());
    let look = move || {
        let local = shelf.local().into_iter().map(Model::from);
        local.chain(shelf.remote().into_iter().map(Model::from)).collect::<Vec<_>>()
    };
    let failed = |_| ProviderError::Failed { what: "the list of models".to_owned() };
    let items = tokio::task::spawn_blocking(look).await.map_err(failed)?;
    Ok(Json(ModelList { total: items.len(), items }))
}

/// Bring a model onto this machine's disk
///
/// Events: `progress`, then `done`, or `error` with a problem. Whoever leaves stops it; what came is kept for the next time.
#[utoipa::path(
    post,
    path = "/models/{name}/pull",
    tag = "Models",
    params(("name" = String, Path, description = "The model's name")),
    responses(
        (status = 200, body = SentEvent, content_type = "text/event-stream"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn pull(
    Extract(house): Extract<Arc<House>>,
    asker: Asker,
    Segment(name): Segment<String>,
) -> Result<Response, Problem> {
    asker.needs(Scope::Admin)?;
    let progress = house.state.settings.shelf().pull(&name)?;
    Ok(Sse::new(events(progress)).keep_alive(KeepAlive::default()).into_response())
}

/// Load a model into memory; the answer comes when it is there
#[utoipa::path(
    post,
    path = "/models/{name}/load",
    tag = "Models",
    params(("name" = String, Path, description = "The model's name")),
    responses(
        (status = 200, body = Model),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn load(
    Extract(house): Extract<Arc<House>>,
    asker: Asker,
    Segment(name): Segment<String>,
) -> Result<Json<Model>, Problem> {
    asker.needs(Scope::Admin)?;
    let shelf = house.state.settings.shelf();
    shelf.load(&name).await.map_err(about)?;
    one(shelf, name).await
}

/// Give a model's memory back as soon as nobody uses it
#[utoipa::path(
    post,
    path = "/models/{name}/unload",
    tag = "Models",
    params(("name" = String, Path, description = "The model's name")),
    responses(
        (status = 200, body = Model),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn unload(
    Extract(house): Extract<Arc<House>>,
    asker: Asker,
    Segment(name): Segment<String>,
) -> Result<Json<Model>, Problem> {
    asker.needs(Scope::Admin)?;
    let shelf = house.state.settings.shelf();
    shelf.unload(&name).map_err(about)?;
    one(shelf, name).await
}

async fn one(shelf: &Arc<dyn ModelShelf>, name: String) -> Result<Json<Model>, Problem> {
    let shelf = Arc::clone(shelf);
    let what = name.clone();
    let look = move || shelf.local().into_iter().find(|model| model.name == name);
    let found = tokio::task::spawn_blocking(look).await.ok().flatten();
    found.map(|model| Json(model.into())).ok_or_else(|| ProviderError::Failed { what }.into())
}

/// The name is in the address.
fn about(error: ProviderError) -> Problem {
    Problem::from(error).about("name")
}

/// Progress as it is made, no more often than anybody could look at it, and its end.
fn events(progress: Flow<PullProgress>) -> impl futures::Stream<Item = Result<Event, std::convert::Infallible>> + Send {
    stream::unfold(Some((progress, None::<PullProgress>)), |state| async {
        let (mut progress, last) = state?;
        if last.is_some() {
            tokio::time::sleep(TOLD_EVERY).await;
        }
        let (name, data, next) = match progress.next().await {
            Some(Ok(step)) => ("progress", json(&told(step.clone())), Some((progress, Some(step)))),
            Some(Err(error)) => ("error", json(&Problem::from(error).body()), None),
            None => ("done", json(&last.map(told)), None),
        };
        Some((Ok(Event::default().event(name).data(data)), next))
    })
}

fn told(step: PullProgress) -> Progress {
    let PullProgress { model, stage, file, done_bytes, total_bytes } = step;
    Progress { model, stage, file, done_bytes, total_bytes }
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests;
