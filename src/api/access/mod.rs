//! Who may come in, and as whom.
//!
//! Every route is closed by default; [`OPEN`] names the few that are not, and [`LOCAL`] what is for this machine. A key
//! comes as `Authorization: Bearer`, in the shape of a login's cookie, or of a ticket for one socket. Where no key was
//! ever asked for, whoever reaches the port on this machine is the owner; then, and with a cookie, it is the browser that
//! vouches for a request, and pages of other origins are kept out.

mod key;
mod login;
mod origin;
mod rate;
mod seats;
mod share;
mod ticket;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request, State as Extract};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::{MissedTickBehavior, interval};
use utoipa_axum::router::OpenApiRouter;

use super::House;
use super::problem::Problem;
use crate::store::{LOCAL_OWNER, Scope, Store, digest};
pub use key::ApiKey;
use key::Keys;
use login::cookie_of;
pub(super) use origin::with_cors;
use origin::{Hosts, Origins};
use rate::Rates;
pub(super) use seats::{Place, Seat, Seats, Standing};
pub(super) use share::{Share, Shares};
use ticket::Tickets;

/// Routes that need no key: whoever watches over the process has none, the description is no secret, and whoever logs
/// in has shown nothing yet.
const OPEN: [&str; 5] = ["/healthz", "/readyz", "/openapi.json", "/docs", LOGIN];
/// The files of the description's page.
const OPEN_FOLDER: &str = "/docs/";
const LOGIN: &str = "/api/login";
/// What any key may do that changes something: end what it began.
const LOGOUT: &str = "/api/logout";
/// Talking is more than reading, though a socket begins with a GET.
const SOCKETS: [&str; 2] = ["/ws", "/v1/realtime"];

/// For whoever has a key, and otherwise only on this machine: with no key set, too.
const LOCAL: &str = "/metrics";
/// What proxies add: behind one on this machine every client seems to be here.
const FORWARDED_FOR: &str = "x-forwarded-for";
const PROXIED: [&str; 2] = ["forwarded", FORWARDED_FOR];

/// Of a request that asks for access.
const MOST_BODY: usize = 4096;

/// Between two looks at what has run out: tickets and the marks of rates.
const SWEEP_EVERY: Duration = Duration::from_mins(1);

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
    /// What it was shown with. None: no key is needed.
    pub(super) proof: Option<Proof>,
}

/// What an identity rests on, and ends with. Digests, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proof {
    pub(super) key: Arc<str>,
    /// None: the key itself was sent.
    pub(super) login: Option<Arc<str>>,
}

/// Who may come in, by the settings.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// A key beside those of the database. None, and none there: whoever reaches the port of this machine.
    pub api_key: Option<ApiKey>,
    /// Origins of web pages beside the server's own, as `https://chat.example.org`; `*` is all.
    pub allowed_origins: Vec<String>,
    /// What clients may call the server in `Host`, beside this machine's own names. Empty: those alone where only this
    /// machine can connect, anything elsewhere.
    pub allowed_hosts: Vec<String>,
    /// Requests of a key, and of an address of another machine. 0: any number.
    pub rate_limit_per_minute: u32,
}

/// What stands before every route.
pub(super) struct Entrance {
    pub(super) keys: Keys,
    pub(super) tickets: Tickets,
    hosts: Hosts,
    origins: Origins,
    rates: Rates,
    /// Sockets by key.
    pub(super) seats: Arc<Shares<Arc<str>>>,
    /// Requests for replies by key.
    pub(super) replies: Arc<Shares<Arc<str>>>,
}

impl Entrance {
    pub(super) fn new(access: &Access, store: Store, listens_on: SocketAddr) -> Self {
        Self {
            keys: Keys::new(access.api_key.clone(), store, !listens_on.ip().to_canonical().is_loopback()),
            tickets: Tickets::default(),
            hosts: Hosts::new(listens_on.ip(), &access.allowed_hosts),
            origins: Origins::new(&access.allowed_origins),
            rates: Rates::new(access.rate_limit_per_minute),
            seats: Arc::default(),
            replies: Arc::default(),
        }
    }

    /// Forgets what has run out, for ever.
    pub(super) async fn sweep_for_ever(&self) {
        let mut tick = interval(SWEEP_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.tickets.sweep();
            self.rates.sweep();
        }
    }
}

/// `/login`, `/logout` and `/ws-ticket`.
pub(super) fn routes() -> OpenApiRouter<Arc<House>> {
    let routes = OpenApiRouter::new().merge(login::routes()).merge(ticket::routes());
    // Whoever sends them need not have a key yet.
    routes.layer(DefaultBodyLimit::max(MOST_BODY))
}

/// Stands before every route.
pub(super) async fn check(Extract(house): Extract<Arc<House>>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    match admit(&house.entrance, &head).await {
        Ok(identity) => {
            if let Some(identity) = identity {
                head.extensions.insert(identity);
            }
            next.run(Request::from_parts(head, body)).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// Who it is. None: it is let in whoever it is.
async fn admit(entrance: &Entrance, request: &Parts) -> Result<Option<Identity>, Problem> {
    let (path, headers) = (request.uri.path(), &request.headers);
    entrance.hosts.check(headers)?;
    let client = client_of(request);
    entrance.rates.spend_address(client)?;
    if path == LOGIN {
        entrance.origins.check(headers, true)?;
        entrance.rates.spend_login(client)?;
    }
    if OPEN.contains(&path) || path.starts_with(OPEN_FOLDER) || path == LOCAL && is_local(request) {
        return Ok(None);
    }
    let is_needed = entrance.keys.are_needed().await?;
    if path == LOCAL && !is_needed {
        let detail = "only this machine may read this; set AICHAT_API_KEY and send it to read it from another";
        return Err(Problem::new(StatusCode::FORBIDDEN, "local_only", detail));
    }
    let identity = if is_needed {
        entrance.identify(request).await?.ok_or_else(unauthorized)?
    } else {
        Identity { owner: LOCAL_OWNER.into(), key: None, scope: Scope::Admin, proof: None }
    };
    entrance.rates.spend_key(&identity)?;
    entrance.welcome(request, &identity)?;
    Ok(Some(identity))
}

impl Entrance {
    /// Whom a request's key, cookie or ticket stands for. Whoever sends a key is asked for nothing else.
    async fn identify(&self, request: &Parts) -> Result<Option<Identity>, Problem> {
        let headers = &request.headers;
        if headers.contains_key(header::AUTHORIZATION) {
            let Some(key) = bearer(headers) else { return Ok(None) };
            return self.keys.identify(key).await;
        }
        if SOCKETS.contains(&request.uri.path())
            && let Some(ticket) = ticket::of_query(request.uri.query())
        {
            return match self.tickets.take(ticket) {
                Some(identity) if self.keys.stands(&identity).await => Ok(Some(identity)),
                _ => Ok(None),
            };
        }
        match cookie_of(headers) {
            Some(cookie) => self.keys.identify_login(&digest(&cookie)).await,
            None => Ok(None),
        }
    }

    /// Whether whoever it is may do that, from the page that it comes from.
    fn welcome(&self, request: &Parts, identity: &Identity) -> Result<(), Problem> {
        let (path, headers) = (request.uri.path(), &request.headers);
        let changes = !matches!(request.method, Method::GET | Method::HEAD | Method::OPTIONS);
        let is_socket = SOCKETS.contains(&path);
        if (changes || is_socket) && identity.scope < Scope::User && path != LOGOUT {
            let detail = "this key may only read; ask whoever runs the server for one that may do more";
            return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail));
        }
        let by_cookie = identity.proof.as_ref().is_some_and(|proof| proof.login.is_some());
        if is_socket {
            self.origins.check_socket(headers, by_cookie)
        } else if changes && (by_cookie || identity.proof.is_none()) {
            self.origins.check(headers, by_cookie)
        } else {
            Ok(())
        }
    }
}

fn unauthorized() -> Problem {
    let detail = "send a key of this server as \"Authorization: Bearer KEY\", or log in at /api/login";
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    Some(key.trim()).filter(|key| scheme.eq_ignore_ascii_case("bearer") && !key.is_empty())
}

fn is_local(request: &Parts) -> bool {
    let here = request.extensions.get::<Peer>().is_some_and(|peer| peer.0.to_canonical().is_loopback());
    here && !PROXIED.iter().any(|name| request.headers.contains_key(*name))
}

/// Where a request comes from. A proxy on this machine is believed in what it added last: the client's address.
fn client_of(request: &Parts) -> Option<IpAddr> {
    let peer = request.extensions.get::<Peer>()?.0.to_canonical();
    if !peer.is_loopback() {
        return Some(peer);
    }
    let mut lists = request.headers.get_all(FORWARDED_FOR).iter();
    let last = lists.next_back().and_then(|list| list.to_str().ok()?.rsplit(',').next()?.trim().parse::<IpAddr>().ok());
    Some(last.map_or(peer, |address| address.to_canonical()))
}

#[cfg(test)]
mod tests;
