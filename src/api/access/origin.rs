//! From which web pages a server may be reached, and by which names.
//!
//! A page of any origin can make its reader's browser send requests to this machine, with the reader's cookies; `Origin`
//! and `Sec-Fetch-Site`, which no page can write, tell them. A page that points its own name at this machine is told
//! by `Host`.

use std::net::IpAddr;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use super::Problem;

const SEC_FETCH_SITE: &str = "sec-fetch-site";
/// Any origin.
const ANY: &str = "*";
/// For how long a browser need not ask again what pages may do.
const PREFLIGHT_LASTS: Duration = Duration::from_hours(1);

/// What the server may be called.
pub(super) struct Hosts {
    /// None: anything.
    names: Option<Vec<String>>,
}

impl Hosts {
    pub(super) fn new(listens_on: IpAddr, allowed: &[String]) -> Self {
        if allowed.is_empty() && !listens_on.to_canonical().is_loopback() {
            return Self { names: None };
        }
        let own = ["localhost".to_owned(), listens_on.to_canonical().to_string()];
        Self { names: Some(own.into_iter().chain(allowed.iter().map(|name| bare(name))).collect()) }
    }

    /// A request without `Host` is of no browser.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(names) = &self.names else { return Ok(()) };
        let is_ours = |host: &HeaderValue| {
            let Ok(host) = host.to_str() else { return false };
            let name = without_port(host);
            let is_loopback = name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
            is_loopback || names.contains(&name)
        };
        if headers.get_all(header::HOST).iter().all(is_ours) {
            return Ok(());
        }
        let detail = "this server is not called that; if it should be, add the name to ALLOWED_HOSTS";
        Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "wrong_host", detail))
    }
}

/// The name or address of a `Host`: in small letters, without port, brackets or final dot.
fn without_port(host: &str) -> String {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => bare(address),
        None => bare(host.rsplit_once(':').map_or(host, |(name, _)| name)),
    }
}

fn bare(name: &str) -> String {
    let name = name.trim().trim_start_matches('[').trim_end_matches(']');
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Pages beside our own.
pub(super) struct Origins {
    allowed: Vec<String>,
}

impl Origins {
    pub(super) fn new(allowed: &[String]) -> Self {
        Self { allowed: allowed.to_vec() }
    }

    /// For a request that changes something and that a browser may send without being asked to. `by_cookie`: any
    /// origin does not mean this one.
    pub(super) fn check(&self, headers: &HeaderMap, by_cookie: bool) -> Result<(), Problem> {
        if self.knows(headers, by_cookie) {
            return Ok(());
        }
        let detail = "a page of another origin may not change anything here; add its origin to ALLOWED_ORIGINS";
        Err(Problem::new(StatusCode::FORBIDDEN, "csrf", detail))
    }

    /// For sockets, which a browser opens for every page.
    pub(super) fn check_socket(&self, headers: &HeaderMap, by_cookie: bool) -> Result<(), Problem> {
        if self.knows(headers, by_cookie) {
            return Ok(());
        }
        let detail = "pages of this origin may not connect; add it to ALLOWED_ORIGINS";
        Err(Problem::new(StatusCode::FORBIDDEN, "origin_not_allowed", detail))
    }

    /// Our own page by the browser's word or by its host and port; one that is listed; or no browser at all.
    fn knows(&self, headers: &HeaderMap, by_cookie: bool) -> bool {
        let site = headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes);
        if site == Some(b"same-origin") {
            return true;
        }
        let Some(origin) = headers.get(header::ORIGIN) else { return matches!(site, None | Some(b"none")) };
        let Ok(origin) = origin.to_str() else { return false };
        let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
        let own = origin.split_once("://").map(|(_, authority)| authority);
        (own.is_some() && own == host) || self.lists(origin, !by_cookie)
    }

    fn lists(&self, origin: &str, any: bool) -> bool {
        self.allowed.iter().any(|allowed| (any && allowed == ANY) || allowed.eq_ignore_ascii_case(origin))
    }
}

/// Lets pages of listed origins read answers. They send a key of their own: cookies are for our own page.
pub(in crate::api) fn with_cors<S: Clone + Send + Sync + 'static>(routes: Router<S>, allowed: &[String]) -> Router<S> {
    if allowed.is_empty() {
        return routes;
    }
    let origins = Origins::new(allowed);
    let is_allowed = move |origin: &HeaderValue, _: &_| origin.to_str().is_ok_and(|origin| origins.lists(origin, true));
    let exposed = ["etag", "location", "retry-after", "x-request-id", "x-served-by"];
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(is_allowed))
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(exposed.map(HeaderName::from_static))
        .max_age(PREFLIGHT_LASTS);
    routes.layer(cors)
}
