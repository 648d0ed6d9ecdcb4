//! Logins of browsers: a key is typed once, and a cookie that no script can read stands for it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, State as Extract};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Response};
use cookie::{Cookie, SameSite};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::key::no_answer;
use super::{Identity, Problem, unauthorized};
use crate::api::House;
use crate::api::body::JsonBody;
use crate::api::problem::ProblemBody;
use crate::store::Scope;

/// The cookie's name, which `openapi` tells too.
const COOKIE: &str = "aichat_login";
/// A login's life, if its key lives as long.
const DAYS: u32 = 30;
/// Before a wrong key is told to be wrong.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) fn routes() -> OpenApiRouter<Arc<House>> {
    OpenApiRouter::new().routes(routes!(log_in)).routes(routes!(log_out))
}

/// What is typed into a form.
#[derive(Deserialize, ToSchema)]
struct LogIn {
    #[schema(min_length = 1, format = Password)]
    key: String,
}

/// Who is logged in.
#[derive(Serialize, ToSchema)]
struct LoggedIn {
    /// The key's name.
    #[schema(required)]
    key: Option<String>,
    /// What it allows.
    #[schema(value_type = String, pattern = "^(read|user|admin)$")]
    scope: Scope,
    /// Seconds.
    expires_in: u32,
}

/// Log in with a key, for a cookie
#[utoipa::path(
    post,
    path = "/login",
    tag = "Access",
    request_body = LogIn,
    security(()),
    responses(
        (status = 200, body = LoggedIn, headers(("set-cookie" = String, description = "The login."))),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn log_in(Extract(house): Extract<Arc<House>>, headers: HeaderMap, body: JsonBody) -> Result<Response, Problem> {
    let LogIn { key } = body.read()?;
    let Some(identity) = house.entrance.keys.identify(key.trim()).await? else {
        sleep(PAUSE).await;
        let detail = "this is no key of this server, or it has ended";
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail));
    };
    let digest = identity.proof.as_ref().map(|proof| Arc::clone(&proof.key)).ok_or_else(unauthorized)?;
    let value = house.state.store.begin_login(&digest, DAYS).await.map_err(|error| no_answer(&error))?;
    let expires_in = DAYS * 24 * 60 * 60;
    let cookie = cookie(&house, &headers, value, expires_in);
    tracing::info!(key = identity.key.as_deref(), "a browser logged in");
    let body = LoggedIn { key: identity.key.as_deref().map(str::to_owned), scope: identity.scope, expires_in };
    Ok((AppendHeaders([(header::SET_COOKIE, cookie)]), Json(body)).into_response())
}

/// Log out
#[utoipa::path(
    post,
    path = "/logout",
    tag = "Access",
    responses(
        (status = 204, description = "The cookie means nothing any more."),
        (status = 401, body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn log_out(
    Extract(house): Extract<Arc<House>>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if let Some(login) = identity.proof.and_then(|proof| proof.login) {
        house.entrance.keys.log_out(&login).await?;
    }
    let cookie = cookie(&house, &headers, String::new(), 0);
    Ok((StatusCode::NO_CONTENT, AppendHeaders([(header::SET_COOKIE, cookie)])).into_response())
}

/// Sent to our own page alone, and over TLS alone where there is TLS, be it a proxy's.
fn cookie(house: &House, headers: &HeaderMap, value: String, seconds: u32) -> HeaderValue {
    let proxied =
        headers.get("x-forwarded-proto").is_some_and(|scheme| scheme.as_bytes().eq_ignore_ascii_case(b"https"));
    let cookie = Cookie::build((COOKIE, value))
        .path("/")
        .http_only(true)
        .same_site(SameSite::Strict)
        .secure(house.state.tls.is_some() || proxied)
        .max_age(time::Duration::seconds(seconds.into()));
    // All of it is ASCII.
    HeaderValue::from_str(&cookie.build().to_string()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The login that a browser sends.
pub(super) fn cookie_of(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut cookies = lines.flat_map(Cookie::split_parse).filter_map(Result::ok);
    cookies.find(|cookie| cookie.name() == COOKIE && !cookie.value().is_empty()).map(|cookie| cookie.value().to_owned())
}
