//! A service elsewhere: where it is, how it is spoken to, how long it is waited for, and when it is asked again.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{RequestBuilder, Url, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::body::{Body, parse};
use super::fault::{Accused, Again, Complaint, Fault, reason, retry_after};
use crate::provider::{Caller, ProviderError};

pub const OPENAI_BASE_URL: &str = "https://api.openai.com/v1";
pub const OPENROUTER_BASE_URL: &str = "https://openrouter.ai/api/v1";

/// So many times a call is repeated, and only while no byte of an answer has come.
const RETRIES: u32 = 2;
/// Of a complaint. None is longer.
const COMPLAINT_BYTES: usize = 64 * 1024;

/// How long a service is waited for and how much it may say.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// To connect, TLS included.
    pub connect: Duration,
    /// From there to the first byte of an answer.
    pub first_byte: Duration,
    /// Between two pieces of an answer.
    pub idle: Duration,
    /// For what comes after the end of a reply's text: its usage.
    pub tail: Duration,
    /// For a whole answer.
    pub whole: Duration,
    /// Before the first repetition; twice that before the second. Half of it is left to chance.
    pub backoff: Duration,
    /// Who asks for a longer wait than this is not asked again.
    pub longest_wait: Duration,
    /// Of one server-sent event: a token with the likeliest twenty takes two thousand bytes, a whole tool call ten.
    pub event_bytes: usize,
    /// Of a whole answer: vectors of 2048 texts, or 100 000 tokens with their events around them.
    pub body_bytes: usize,
    /// Of a whole answer that is audio: eleven minutes, twice what the longest text that OpenAI takes lasts.
    pub audio_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(20),
            idle: Duration::from_secs(20),
            tail: Duration::from_secs(2),
            whole: Duration::from_mins(10),
            backoff: Duration::from_millis(250),
            longest_wait: Duration::from_secs(3),
            event_bytes: 1024 * 1024,
            body_bytes: 64 * 1024 * 1024,
            audio_bytes: 32 * 1024 * 1024,
        }
    }
}

/// What a service understands beyond what all do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's own: it refuses fields that it does not know.
    OpenAi,
    /// Tells costs; takes `reasoning`.
    OpenRouter,
    /// vLLM's fields, which llama.cpp and aichat take as far as they know them and otherwise ignore.
    Vllm,
}

/// Where a service is and how to speak to it.
pub struct ServiceSettings {
    /// The first part of `served_by`.
    pub name: String,
    /// With its path, as `https://api.openai.com/v1`. Whoever runs the server sets it, never a request.
    pub base_url: String,
    pub key: Option<SecretString>,
    /// Sent with every request.
    pub headers: Vec<(String, String)>,
    /// None: told by the host.
    pub dialect: Option<Dialect>,
    pub bounds: Bounds,
}

impl ServiceSettings {
    pub fn new(name: &str, base_url: &str, key: Option<SecretString>) -> Self {
        let (name, base_url) = (name.to_owned(), base_url.to_owned());
        Self { name, base_url, key, headers: Vec::new(), dialect: None, bounds: Bounds::default() }
    }
}

/// Why a service cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error("the base URL of {name} must be like https://host/v1, with no password, query or fragment")]
    BaseUrl { name: String },
    #[error("the API key of {name} holds characters that no key has; write it without quotes, spaces and line ends")]
    Key { name: String },
    #[error("the header {header} of {name} is not a valid HTTP header")]
    Header { name: String, header: String },
    #[error("no HTTP client for {name}: {reason}")]
    Client { name: String, reason: String },
}

/// One OpenAI-compatible API. A clone is the same service.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    name: Arc<str>,
    base: String,
    key: Option<SecretString>,
    headers: HeaderMap,
    dialect: Dialect,
    bounds: Bounds,
    http: reqwest::Client,
}

impl fmt::Debug for Service {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { name, base, dialect, .. } = &*self.inner;
        formatter.debug_struct("Service").field("name", name).field("base", base).field("dialect", dialect).finish()
    }
}

impl Service {
    pub fn new(settings: ServiceSettings) -> Result<Self, ServiceError> {
        let ServiceSettings { name, base_url, key, headers, dialect, bounds } = settings;
        let url = base(&base_url).ok_or_else(|| ServiceError::BaseUrl { name: name.clone() })?;
        let host = url.host_str().unwrap_or_default();
        let own = |domain: &str| host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
        let told = match () {
            () if own("openai.com") => Dialect::OpenAi,
            () if own("openrouter.ai") => Dialect::OpenRouter,
            () => Dialect::Vllm,
        };
        let mut sent = HeaderMap::new();
        for (header, value) in headers {
            let pair = HeaderName::try_from(&header).ok().zip(HeaderValue::try_from(&value).ok());
            let (known, value) = pair.ok_or_else(|| ServiceError::Header { name: name.clone(), header })?;
            sent.insert(known, value);
        }
        if let Some(key) = &key {
            sent.insert(AUTHORIZATION, bearer(key).ok_or_else(|| ServiceError::Key { name: name.clone() })?);
        }
        let mut builder = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .connect_timeout(bounds.connect)
            .referer(false);
        if is_loopback(&url) {
            // What runs on this machine is not reached through another.
            builder = builder.no_proxy();
        }
        let client = builder.build();
        let http = client.map_err(|error| ServiceError::Client { name: name.clone(), reason: reason(error) })?;
        let base = url.as_str().trim_end_matches('/').to_owned();
        let dialect = dialect.unwrap_or(told);
        Ok(Self { inner: Arc::new(Inner { name: name.into(), base, key, headers: sent, dialect, bounds, http }) })
    }

    /// OpenAI, or what stands at `base_url` in its place.
    pub fn openai(key: Option<SecretString>, base_url: Option<&str>) -> Result<Self, ServiceError> {
        Self::new(ServiceSettings::new("openai", base_url.unwrap_or(OPENAI_BASE_URL), key))
    }

    /// OpenRouter. `referer` is the address by which its statistics name this server.
    pub fn openrouter(
        key: Option<SecretString>,
        base_url: Option<&str>,
        referer: Option<&str>,
    ) -> Result<Self, ServiceError> {
        let mut settings = ServiceSettings::new("openrouter", base_url.unwrap_or(OPENROUTER_BASE_URL), key);
        settings.dialect = Some(Dialect::OpenRouter);
        settings.headers.push(("X-Title".to_owned(), "aichat".to_owned()));
        settings.headers.extend(referer.map(|referer| ("HTTP-Referer".to_owned(), referer.to_owned())));
        Self::new(settings)
    }

    pub fn name(&self) -> &Arc<str> {
        &self.inner.name
    }

    pub fn dialect(&self) -> Dialect {
        self.inner.dialect
    }

    /// What it says that it serves.
    pub async fn models(&self) -> Result<Vec<RemoteModel>, ProviderError> {
        let target = Target { what: Arc::clone(&self.inner.name), model: "".into(), service: self.clone() };
        let url = format!("{}/models", self.inner.base);
        let body = target.repeat(self.inner.bounds.first_byte, || self.inner.http.get(&url)).await?;
        let listing: Value = parse(&target.what, &body.whole().await?)?;
        let models = listing.get("data").and_then(Value::as_array).ok_or_else(|| target.failed())?;
        Ok(models.iter().filter_map(RemoteModel::read).collect())
    }
}

/// A model that a service lists.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteModel {
    pub id: String,
    /// US dollars per token of the prompt and of the reply, where the service tells them.
    pub price: Option<(f64, f64)>,
}

impl RemoteModel {
    fn read(value: &Value) -> Option<Self> {
        let id = value.get("id")?.as_str()?.to_owned();
        // OpenRouter writes prices as text, and -1 where they depend.
        let dollars = |name: &str| value.pointer(name)?.as_str()?.parse::<f64>().ok().filter(|price| *price >= 0.0);
        Some(Self { id, price: dollars("/pricing/prompt").zip(dollars("/pricing/completion")) })
    }
}

/// A model of a service: whom a door asks.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) service: Service,
    pub(super) model: Arc<str>,
    /// `openai/gpt-4o-mini`: its name in errors and in `served_by`.
    pub(super) what: Arc<str>,
}

impl Target {
    pub(super) fn new(service: Service, model: &str) -> Self {
        let what = format!("{}/{model}", service.inner.name).into();
        Self { service, model: model.into(), what }
    }

    pub(super) fn bounds(&self) -> &Bounds {
        &self.service.inner.bounds
    }

    pub(super) fn failed(&self) -> ProviderError {
        ProviderError::Failed { what: self.what.to_string() }
    }

    /// Refuses what must stay on this machine. Who asks knows it; this is the last wall.
    pub(super) fn admit(&self, caller: &Caller) -> Result<(), ProviderError> {
        if !caller.private {
            return Ok(());
        }
        let remedy = "a private conversation is answered on this machine only; pull a model for it".to_owned();
        Err(ProviderError::Unavailable { what: self.what.to_string(), remedy })
    }

    /// Sends JSON to a path below the base URL.
    pub(super) async fn ask(&self, path: &str, json: &Value, caller: &Caller) -> Result<Body, ProviderError> {
        let json = Bytes::from(json.to_string());
        let fill = |request: RequestBuilder| request.header(CONTENT_TYPE, "application/json").body(json.clone());
        self.send(path, self.bounds().first_byte, caller, fill).await
    }

    /// Sends what `fill` puts into a request, until an answer comes or nothing more is to be hoped for.
    pub(super) async fn send(
        &self,
        path: &str,
        first_byte: Duration,
        caller: &Caller,
        fill: impl Fn(RequestBuilder) -> RequestBuilder + Send + Sync,
    ) -> Result<Body, ProviderError> {
        let inner = &self.service.inner;
        let url = format!("{}/{path}", inner.base);
        // The same for each repetition, so that a service that knows such keys charges once.
        let once = format!("aichat-{:016x}{:016x}", chance(), chance());
        let named = caller.request_id.as_deref().and_then(|id| HeaderValue::from_str(id).ok());
        let request = || {
            let request = fill(inner.http.post(&url).header("idempotency-key", &once));
            named.iter().fold(request, |request, id| request.header("x-client-request-id", id))
        };
        self.repeat(first_byte, request).await
    }

    async fn repeat(
        &self,
        first_byte: Duration,
        request: impl Fn() -> RequestBuilder + Send + Sync,
    ) -> Result<Body, ProviderError> {
        let bounds = self.bounds();
        let mut attempt = 0;
        loop {
            let fault = match self.attempt(first_byte, request()).await {
                Ok(body) => return Ok(body),
                Err(fault) => fault,
            };
            let wait = match fault.again {
                Again::Never => return Err(fault.error),
                Again::Soon => {
                    (bounds.backoff * 2u32.pow(attempt)).mul_f64(1.0 - chance() as f64 / u64::MAX as f64 / 2.0)
                }
                Again::After(wait) => wait,
            };
            if attempt == RETRIES || wait > bounds.longest_wait {
                return Err(fault.error);
            }
            attempt += 1;
            tracing::debug!(what = %self.what, attempt, ?wait, "asking again");
            sleep(wait).await;
        }
    }

    async fn attempt(&self, first_byte: Duration, request: RequestBuilder) -> Result<Body, Fault> {
        let never = |error| Fault { error, again: Again::Never };
        let bounds = self.bounds();
        let request = request.headers(self.service.inner.headers.clone());
        // Asked again, a service that is slow would be twice as slow, and might charge twice.
        let late = |after| {
            tracing::warn!(what = %self.what, ?after, "no answer");
            never(ProviderError::TimedOut { what: self.what.to_string(), after })
        };
        let sent = timeout(bounds.connect + first_byte, request.send()).await.map_err(|_| late(first_byte))?;
        let response = sent.map_err(|error| {
            if error.is_timeout() {
                return late(bounds.connect);
            }
            let unreachable = error.is_connect();
            tracing::warn!(what = %self.what, reason = %reason(error), "the request failed");
            if unreachable {
                let remedy = format!("{} cannot be reached; check the network and its base URL", self.service.name());
                let error = ProviderError::Unavailable { what: self.what.to_string(), remedy };
                return Fault { error, again: Again::Soon };
            }
            Fault { error: self.failed(), again: Again::Soon }
        })?;
        let status = response.status();
        let wait = retry_after(response.headers());
        let body = Body::new(Arc::clone(&self.what), response, *bounds);
        if status.is_success() {
            return Ok(body);
        }
        // A complaint that cannot be read is still one.
        let said = body.at_most(COMPLAINT_BYTES).whole().await.unwrap_or_default();
        Err(self.fault(&Complaint::of_answer(status.as_u16(), &said), wait))
    }

    fn fault(&self, complaint: &Complaint, wait: Option<Duration>) -> Fault {
        let key = self.service.inner.key.as_ref().map(ExposeSecret::expose_secret);
        let after = self.bounds().first_byte;
        complaint.fault(Accused { what: &self.what, service: self.service.name(), after, key }, wait)
    }

    /// The error that stands in an answer that began as a success, if one does.
    pub(super) fn complaint_in(&self, answer: &Value) -> Option<ProviderError> {
        Complaint::stated_in(answer).map(|complaint| self.fault(&complaint, None).error)
    }

    /// An answer that is one JSON value.
    pub(super) async fn json(&self, body: Body) -> Result<Value, ProviderError> {
        let answer: Value = parse(&self.what, &body.whole().await?)?;
        self.complaint_in(&answer).map_or(Ok(answer), Err)
    }
}

fn base(text: &str) -> Option<Url> {
    let url = Url::parse(text.trim()).ok()?;
    let bare =
        url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    (bare && url.has_host() && matches!(url.scheme(), "http" | "https")).then_some(url)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn bearer(key: &SecretString) -> Option<HeaderValue> {
    let key = key.expose_secret();
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let mut value = HeaderValue::try_from(format!("Bearer {key}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Any number; for spreading repetitions in time and telling calls apart, not for secrets.
pub(super) fn chance() -> u64 {
    RandomState::new().hash_one(())
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
