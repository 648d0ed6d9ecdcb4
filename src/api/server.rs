//! Taking connections, and stopping well.
//!
//! Not `axum::serve`: that has no timer, so a client that sends its header a byte a minute would hold its connection
//! for ever, and it bounds neither connections nor the time of a drain. HTTP/1.1 only: what HTTP/2 gains needs TLS.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tracing::Instrument;

use super::access::Peer;
use super::{Draining, House, Limits, State, rest, router};
use crate::provider::task::Task;

/// A request's header. hyper notices up to one read beyond it.
const HEADER_BYTES: usize = 64 * 1024;
/// After an error of `accept` (too many open files, mostly): time for some to close.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What is written when a drain's time is up still has to leave, and connections have to close.
const LAST_FRAMES: Duration = Duration::from_secs(2);

/// Serves until `stop` completes, then drains: `/readyz` says 503, no connection is taken, every WebSocket hears
/// `server_draining`, replies under way are finished or, after [`Limits::drain`], cut off, and sockets close with 1001.
/// Returns when all that is done; the caller then checkpoints the store. Dropping the future stops at once.
pub async fn serve(listener: TcpListener, state: State, stop: impl Future<Output = ()> + Send) {
    let limits = state.limits.clone();
    let (drain, draining) = watch::channel(false);
    let draining = Draining(draining);
    let _sweeper = Task::spawn("speech sweeper", rest::sweep_speech(state.data_dir.clone()));
    let sweep = rest::sweep_recordings(state.data_dir.clone(), state.store.clone());
    let _recordings = Task::spawn("recordings sweeper", sweep);
    let house = House::new(state, draining.clone());
    let connections = Arc::new(Semaphore::new(limits.connections));
    let routes = router(&house);
    tokio::select! {
        () = stop => {}
        () = accept_all(&listener, &routes, &connections, &draining, &limits) => {}
    }
    drop(listener);
    drain.send_replace(true);
    tracing::info!("draining");
    if timeout(limits.drain + LAST_FRAMES + limits.write_timeout, all_gone(&house, &connections)).await.is_err() {
        tracing::warn!("some sessions did not end in time");
    }
    tracing::info!("drained");
}

/// Waits for every seat and every connection to be free. Neither semaphore is ever closed.
async fn all_gone(house: &House, connections: &Semaphore) {
    let limits = &house.state.limits;
    let all = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let _ = house.sessions.acquire_many(all(limits.sessions)).await;
    let _ = timeout(LAST_FRAMES, connections.acquire_many(all(limits.connections))).await;
}

async fn accept_all(
    listener: &TcpListener,
    routes: &Router,
    connections: &Arc<Semaphore>,
    draining: &Draining,
    limits: &Limits,
) {
    while let Ok(permit) = Arc::clone(connections).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let routes = routes.clone().layer(Extension(Peer(peer.ip())));
                let connection = serve_connection(stream, routes, draining.clone(), limits.header_timeout, permit);
                tokio::spawn(connection.instrument(tracing::info_span!("task", name = "connection")));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Holds its permit until the connection ends or becomes a WebSocket, which has a permit of its own.
async fn serve_connection(
    stream: TcpStream,
    routes: Router,
    mut draining: Draining,
    header_timeout: Duration,
    permit: OwnedSemaphorePermit,
) {
    // Speech is many small frames: each leaves at once.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection was gone before it began");
        return;
    }
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(header_timeout).max_buf_size(HEADER_BYTES);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes)).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = draining.begins() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    match outcome {
        Ok(()) => tracing::debug!("the connection ended"),
        Err(error) => tracing::debug!(%error, "the connection ended early"),
    }
    drop(permit);
}

/// A request's span: its id, method and path, never its query or headers.
pub(super) fn span(request: &Request) -> tracing::Span {
    let id = request.headers().get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    tracing::info_span!("request", id, method = %request.method(), path = request.uri().path())
}
