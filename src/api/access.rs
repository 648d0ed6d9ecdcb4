//! Who may come in: the one key, where one is set, and the origins of web pages.
//!
//! Every route is closed by default; [`OPEN`] names the few that are not, and [`LOCAL`] what is for this machine. A
//! browser sends `Origin` with a WebSocket whether or not it may, so that a foreign page cannot talk to a server on its
//! reader's own machine.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State as Extract};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::House;
use super::problem::Problem;
use crate::store::{LOCAL_OWNER, Scope};

/// Routes that need no key: whoever watches over the process has none.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

/// For whoever has the key, and otherwise only on this machine: with no key set, too.
const LOCAL: &str = "/metrics";
/// What proxies add: behind one on this machine every client seems to be here.
const PROXIED: [&str; 2] = ["forwarded", "x-forwarded-for"];

/// The other end of the connection that a request came on.
#[derive(Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// Who a request is from. Every request that was let in carries one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Whose rows it may read and change.
    pub(super) owner: Arc<str>,
    /// The key's name. None: no key is needed.
    pub(super) key: Option<Arc<str>>,
    pub(super) scope: Scope,
}

/// The name of the server's own key.
const SERVER_KEY: &str = "AICHAT_API_KEY";

/// Who may come in.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// None: whoever reaches the port.
    pub api_key: Option<ApiKey>,
    /// Origins of web pages beside the server's own, as `https://chat.example.org`; `*` is all.
    pub allowed_origins: Vec<String>,
}

/// A key, kept as its digest: it cannot be logged, and comparing takes the same time for every guess.
#[derive(Clone)]
pub struct ApiKey([u8; 32]);

impl ApiKey {
    pub fn new(key: &str) -> Self {
        Self(Sha256::digest(key).into())
    }

    fn is(&self, guess: &str) -> bool {
        let guess: [u8; 32] = Sha256::digest(guess).into();
        self.0.iter().zip(guess).fold(0, |differences, (ours, theirs)| differences | (ours ^ theirs)) == 0
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ApiKey(…)")
    }
}

/// Stands before every route.
pub(super) async fn check(Extract(house): Extract<Arc<House>>, mut request: Request, next: Next) -> Response {
    let access = &house.state.access;
    let path = request.uri().path();
    if OPEN.contains(&path) {
        return next.run(request).await;
    }
    if path == LOCAL && is_local(&request) {
        return next.run(request).await;
    }
    if path == LOCAL && access.api_key.is_none() {
        let detail = "only this machine may read this; set AICHAT_API_KEY and send it to read it from another";
        return Problem::new(StatusCode::FORBIDDEN, "local_only", detail).into_response();
    }
    if !access.knows(request.headers()) {
        let detail = "send the server's key as \"Authorization: Bearer KEY\"";
        return Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail).into_response();
    }
    if path == "/ws" && !access.welcomes(request.headers()) {
        let detail = "pages of this origin may not connect; add it to ALLOWED_ORIGINS";
        return Problem::new(StatusCode::FORBIDDEN, "origin_not_allowed", detail).into_response();
    }
    let key = access.api_key.as_ref().map(|_| SERVER_KEY.into());
    request.extensions_mut().insert(Identity { owner: LOCAL_OWNER.into(), key, scope: Scope::Admin });
    next.run(request).await
}

fn is_local(request: &Request) -> bool {
    let here = request.extensions().get::<Peer>().is_some_and(|peer| peer.0.to_canonical().is_loopback());
    here && !PROXIED.iter().any(|name| request.headers().contains_key(*name))
}

impl Access {
    fn knows(&self, headers: &HeaderMap) -> bool {
        let Some(key) = &self.api_key else { return true };
        let sent = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let guess = sent.and_then(|value| {
            let (scheme, guess) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| guess.trim())
        });
        guess.is_some_and(|guess| !guess.is_empty() && key.is(guess))
    }

    /// No origin: not a browser. The same host and port: our own page.
    fn welcomes(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(header::ORIGIN) else { return true };
        let Ok(origin) = origin.to_str() else { return false };
        let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
        let own = origin.split_once("://").map(|(_, authority)| authority);
        (own.is_some() && own == host)
            || self.allowed_origins.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
    }
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
