//! Taking connections, and stopping well.
//!
//! Not `axum::serve`: that has no timer, so a client that sends its header a byte a minute would hold its connection
//! for ever, and it bounds neither connections nor the time of a drain. HTTP/1.1 only, which WebSockets need; what
//! HTTP/2 gains is little for few requests at once.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::Instrument;

use super::access::{Peer, Share, Shares};
use super::{Draining, House, State, Tls, idempotent, rest, router, ws};
use crate::provider::task::Task;

/// A request's header. hyper notices up to one read beyond it.
const HEADER_BYTES: usize = 64 * 1024;
const REQUEST_ID: &str = "x-request-id";
/// Ids that clients choose: longer ones are not kept.
const MOST_ID_BYTES: usize = 128;
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
    let _forgetter = Task::spawn("idempotency sweeper", idempotent::sweep_for_ever(state.store.clone()));
    let _ledger = Task::spawn("ledger sweeper", rest::sweep_usage(state.ledger.clone()));
    let _voices = Task::spawn("voice sweeper", rest::sweep_voices(state.data_dir.clone(), state.store.clone()));
    let address = listener.local_addr().unwrap_or_else(|error| {
        tracing::warn!(%error, "the server does not know its own address, and takes it for public");
        SocketAddr::from(([0; 4], 0))
    });
    let house = House::new(state, draining.clone(), address);
    let swept = Arc::clone(&house);
    if let Err(error) = ws::mend(&house.state.store, true).await {
        tracing::error!(%error, "replies that were cut off are not mended");
    }
    let kept = Arc::clone(&house);
    let _journals = Task::spawn("journals", async move { kept.hall.keep_journals(&kept.state.store).await });
    let _forgotten = Task::spawn("journal sweeper", ws::sweep_for_ever(house.state.store.clone()));
    let _entrance = Task::spawn("entrance sweeper", async move { swept.entrance.sweep_for_ever().await });
    let connections = Arc::new(Semaphore::new(limits.connections));
    let routes = router(&house);
    tokio::select! {
        () = stop => {}
        () = accept_all(&listener, &routes, &connections, &draining, &house.state) => {}
    }
    drop(listener);
    drain.send_replace(true);
    tracing::info!("draining");
    if timeout(limits.drain + LAST_FRAMES + limits.write_timeout, all_gone(&house, &connections)).await.is_err() {
        tracing::warn!("some sessions did not end in time");
    }
    tracing::info!("drained");
}

/// Waits for every call to be stored, every seat and every connection to be free.
async fn all_gone(house: &House, connections: &Semaphore) {
    house.hall.all_ended().await;
    house.seats.all_free().await;
    let all = u32::try_from(house.state.limits.connections).unwrap_or(u32::MAX);
    // The semaphore is never closed.
    let _ = timeout(LAST_FRAMES, connections.acquire_many(all)).await;
}

async fn accept_all(
    listener: &TcpListener,
    routes: &Router,
    connections: &Arc<Semaphore>,
    draining: &Draining,
    state: &State,
) {
    let shares = Arc::new(Shares::default());
    while let Ok(permit) = Arc::clone(connections).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let address = peer.ip().to_canonical();
                // A proxy brings many clients.
                let most = state.limits.connections_per_address * if address.is_loopback() { 2 } else { 1 };
                let Some(share) = shares.take(address, most) else {
                    tracing::debug!(%address, "an address has too many connections");
                    continue;
                };
                let connection = Connection {
                    routes: routes.clone().layer(Extension(Peer(peer.ip()))),
                    draining: draining.clone(),
                    header_timeout: state.limits.header_timeout,
                    _places: (permit, share),
                };
                let served = connection.take(stream, state.tls.as_ref().map(Tls::acceptor));
                tokio::spawn(served.instrument(tracing::info_span!("task", name = "connection")));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection that was taken. It has its places until it ends or becomes a WebSocket, which has one of its own.
struct Connection {
    routes: Router,
    draining: Draining,
    header_timeout: Duration,
    _places: (OwnedSemaphorePermit, Share<IpAddr>),
}

impl Connection {
    async fn take(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        // Speech is many small frames: each leaves at once.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection was gone before it began");
            return;
        }
        let Some(tls) = tls else { return self.serve(stream).await };
        match timeout(self.header_timeout, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.serve(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    async fn serve(mut self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(self.header_timeout).max_buf_size(HEADER_BYTES);
        let service = TowerToHyperService::new(self.routes.clone());
        let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let mut connection = std::pin::pin!(connection);
        let outcome = tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = self.draining.begins() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        match outcome {
            Ok(()) => tracing::debug!("the connection ended"),
            Err(error) => tracing::debug!(%error, "the connection ended early"),
        }
    }
}

/// Before a request gets an id: one that is too long, or that no log should hold, is as none.
pub(super) async fn drop_odd_id(mut request: Request, next: Next) -> Response {
    let is_fine = |id: &HeaderValue| {
        let bytes = id.as_bytes();
        (1..=MOST_ID_BYTES).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    };
    if request.headers().get(REQUEST_ID).is_some_and(|id| !is_fine(id)) {
        request.headers_mut().remove(REQUEST_ID);
    }
    next.run(request).await
}

/// A request's span: its id, method and path, never its query or headers.
pub(super) fn span(request: &Request) -> tracing::Span {
    let id = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
    tracing::info_span!("request", id, method = %request.method(), path = request.uri().path())
}
