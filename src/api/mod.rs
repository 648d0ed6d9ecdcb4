//! The doors: axum routes, wire types, and nothing that decides.
//!
//! [`serve`] takes connections until it is told to stop, then drains. Who may come in is `access`'s business, what a
//! client's JSON means is `wire`'s, and what happens in a conversation is `session`'s. `openai` has the doors that any
//! OpenAI client knows, `rest` our own.

mod access;
mod asker;
#[cfg(test)]
mod binary_tests;
mod body;
mod defaults;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod full_tests;
mod health;
mod idempotent;
mod narration;
mod openai;
mod openapi;
#[cfg(test)]
mod packing_tests;
mod problem;
mod rest;
mod server;
#[cfg(test)]
mod settings_tests;
#[cfg(test)]
mod storm_tests;
mod tls;
mod upload;
mod wire;
mod ws;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::get;
use time::OffsetDateTime;
use tokio::sync::{Semaphore, watch};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::trace::TraceLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

use crate::provider::{Roster, TextEmbedder};
use crate::session::{Bounds, Parts};
use crate::store::{Store, StoredLedger};
pub use access::{Access, ApiKey};
use access::{Entrance, Seats};
pub use defaults::{Defaults, MODEL_SETTINGS, Saved};
pub use health::{PartReport, PartState};
pub use server::serve;
pub use tls::{Tls, TlsError, own_names};
pub use ws::describe_metrics;

/// JSON bodies are small; uploads set a limit of their own on their routes.
const BODY_BYTES: usize = 2 * 1024 * 1024;

/// All that the doors need. The composition root builds it.
#[derive(Clone)]
pub struct State {
    /// What sessions are made of.
    pub parts: Parts,
    pub embedder: Arc<dyn TextEmbedder>,
    /// Who could answer, for lists.
    pub roster: Arc<dyn Roster>,
    /// For `/readyz`; the sessions' own records are in `parts`.
    pub store: Store,
    /// What requests took and cost.
    pub ledger: StoredLedger,
    /// The folder for files that outlive a request.
    pub data_dir: PathBuf,
    /// Whether what is said is kept as sound. Settings that are saved may change it.
    pub recordings: Arc<AtomicBool>,
    /// How the engines are, for `/readyz`. Its sender changes it while they load or after one has failed.
    pub engines: watch::Receiver<Vec<PartReport>>,
    /// Renders the metrics in Prometheus' text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// What a new session begins with.
    pub settings: Defaults,
    pub access: Access,
    /// None: connections are not encrypted.
    pub tls: Option<Tls>,
    pub limits: Limits,
}

/// How much of everything. The defaults are those of docs/PROTOCOL.md.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Open TCP connections; more wait in the kernel's queue.
    pub connections: usize,
    /// Of these, what one address may have; of this machine, where proxies are, twice as many.
    pub connections_per_address: usize,
    /// For a TLS handshake, for a request's whole header, and between two requests of a connection.
    pub header_timeout: Duration,
    /// For a request's whole body, however it comes; JSON has less.
    pub body_timeout: Duration,
    /// WebSocket sessions at once.
    pub sessions: usize,
    /// WebSockets that may wait for a session. 0: who finds none is sent away.
    pub queue: usize,
    /// WebSocket sessions of one key at once, where a key is needed.
    pub sessions_per_key: usize,
    /// How long a stopping server waits for replies under way.
    pub drain: Duration,
    /// A WebSocket client is pinged so often.
    pub ping_every: Duration,
    /// A WebSocket client that sent no packet for so long is gone.
    pub silent_after: Duration,
    /// A WebSocket client that does not take a frame for so long is too slow.
    pub write_timeout: Duration,
    /// Length of a WebSocket message.
    pub message_bytes: usize,
    /// Seconds of microphone that a client may send in a second.
    pub microphone_speed: f64,
    /// And so many at once after a pause.
    pub microphone_burst: Duration,
    /// Of a session.
    pub bounds: Bounds,
    /// WebSocket messages that cost a reply or a write, per minute.
    pub requests_per_minute: u32,
    /// A session whose last client has left without a goodbye goes on for so long.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_address: 384,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_mins(15),
            sessions: 64,
            queue: 16,
            sessions_per_key: 4,
            drain: Duration::from_secs(30),
            ping_every: Duration::from_secs(20),
            silent_after: Duration::from_secs(45),
            write_timeout: Duration::from_secs(5),
            message_bytes: 256 * 1024,
            microphone_speed: 2.0,
            microphone_burst: Duration::from_secs(5),
            bounds: Bounds::default(),
            requests_per_minute: 100,
            grace: Duration::from_secs(30),
        }
    }
}

/// [`State`] and what counts while it is served.
struct House {
    state: State,
    entrance: Entrance,
    seats: Arc<Seats>,
    hall: ws::Hall,
    /// The conversations that are replied to over REST.
    replying: Arc<rest::Busy>,
    /// Those that wait for their title.
    titling: Semaphore,
    importing: Semaphore,
    draining: Draining,
    /// Unix time in seconds.
    started: i64,
}

impl House {
    fn new(state: State, draining: Draining, listens_on: SocketAddr) -> Arc<Self> {
        let entrance = Entrance::new(&state.access, state.store.clone(), listens_on);
        let seats = Seats::new(state.limits.sessions, state.limits.queue);
        let started = OffsetDateTime::now_utc().unix_timestamp();
        let replying = Arc::default();
        let titling = Semaphore::new(rest::TITLING);
        let hall = ws::Hall::default();
        let importing = Semaphore::new(rest::IMPORTS);
        Arc::new(Self { state, entrance, seats, hall, replying, titling, importing, draining, started })
    }
}

/// Whether the server is stopping. It turns true once, or when whoever serves is gone.
#[derive(Clone)]
struct Draining(watch::Receiver<bool>);

impl Draining {
    fn has_begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it has.
    async fn begins(&mut self) {
        // An error says that the sender is gone, and with it the server.
        let _ = self.0.wait_for(|draining| *draining).await;
    }
}

/// Every route. `access::check` stands before all of them and knows the few that need no key.
fn router(house: &Arc<House>) -> Router {
    let (described, description) = OpenApiRouter::with_openapi(openapi::Description::openapi())
        .merge(health::routes())
        .nest("/v1", openai::routes())
        .nest("/api", idempotent::routes(house, rest::routes()).merge(access::routes()))
        .split_for_parts();
    let routes = Router::new()
        .route("/ws", get(ws::open))
        .merge(described)
        .merge(SwaggerUi::new("/docs").url("/openapi.json", openapi::readable(description)))
        .fallback(problem::no_such_route)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(house), access::check))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(axum::middleware::from_fn_with_state(house.state.limits.body_timeout, body::within))
        .layer(axum::middleware::from_fn(problem::in_shape))
        .layer(CatchPanicLayer::custom(problem::after_panic))
        .layer(axum::middleware::from_fn(openai::reshape));
    // Around all that refuse, so that pages can read why.
    access::with_cors(routes, &house.state.access.allowed_origins)
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(TraceLayer::new_for_http().make_span_with(server::span))
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
        .layer(axum::middleware::from_fn(server::drop_odd_id))
        .with_state(Arc::clone(house))
}

#[cfg(test)]
#[path = "scripted_tests.rs"]
mod scripted;
#[cfg(test)]
mod tests;
