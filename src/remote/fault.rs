//! What a service complains of, as the errors of the seam.
//!
//! The text of a complaint may quote the request or the key. Only where the request itself is wrong does it go to
//! whoever made the request, without the key; the log has its status and its code.

use std::error::Error;
use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::provider::ProviderError;

/// How long to leave a service alone that is at capacity and does not say for how long.
const UNSAID: Duration = Duration::from_secs(5);
/// What is asked for beyond this is a mistake.
const LONGEST: Duration = Duration::from_hours(24);
/// Of a complaint's text, in characters.
const SHOWN: usize = 300;
/// Of a complaint's code in the log, in characters.
const LOGGED: usize = 60;

/// What is said of whom.
#[derive(Clone, Copy)]
pub(super) struct Accused<'a> {
    /// As `served_by` names it.
    pub(super) what: &'a str,
    pub(super) service: &'a str,
    /// How long it was waited for.
    pub(super) after: Duration,
    /// Must not be shown.
    pub(super) key: Option<&'a str>,
}

/// Why a call failed before its answer began.
pub(super) struct Fault {
    pub(super) error: ProviderError,
    pub(super) again: Again,
}

/// Whether the same call may succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    Never,
    Soon,
    /// As long as the service asks for.
    After(Duration),
}

/// An `error` object, wherever it stood.
#[derive(Debug, Default)]
pub(super) struct Complaint {
    /// Of the answer, or what `code` says where the answer was 200.
    status: u16,
    /// `code`, or else `type`.
    code: String,
    param: String,
    message: String,
    /// Whether there was an error object at all.
    stated: bool,
}

impl Complaint {
    /// Of an answer with this status.
    pub(super) fn of_answer(status: u16, body: &[u8]) -> Self {
        let stated = serde_json::from_slice::<Value>(body).ok().and_then(|value| Self::stated_in(&value));
        Self { status, ..stated.unwrap_or_default() }
    }

    /// Inside an answer that began as a success.
    pub(super) fn stated_in(value: &Value) -> Option<Self> {
        // vLLM once put the fields of the error beside `object`; FastAPI calls it `detail`.
        let error = value.get("error").or_else(|| value.get("detail")).filter(|error| !error.is_null());
        let error = error.or_else(|| (value.get("object")?.as_str()? == "error").then_some(value))?;
        let text = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = error.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
        let code = Some(text("code")).filter(|code| !code.is_empty()).unwrap_or_else(|| text("type"));
        let message = error.as_str().map_or_else(|| text("message"), str::to_owned);
        let status = number.filter(|code| (400..600).contains(code)).unwrap_or_else(|| status_of(&code));
        Some(Self { status, code, param: text("param"), message, stated: true })
    }

    /// The error that it is, and whether to ask again.
    pub(super) fn fault(&self, accused: Accused<'_>, retry_after: Option<Duration>) -> Fault {
        let code = hidden(&self.code, accused.key);
        let code: String = code.chars().filter(|c| c.is_ascii_alphanumeric() || "_-.".contains(*c)).collect();
        tracing::warn!(what = accused.what, status = self.status, code = %cut(&code, LOGGED), "the service complains");
        let quota = self.code == "insufficient_quota";
        let again = match (self.status, retry_after) {
            (429, _) if quota => Again::Never,
            (408 | 429 | 500..=599, Some(wait)) => Again::After(wait),
            (408 | 429 | 500..=599, None) => Again::Soon,
            _ => Again::Never,
        };
        Fault { error: self.error(accused, quota, retry_after), again }
    }

    fn error(&self, accused: Accused<'_>, quota: bool, retry_after: Option<Duration>) -> ProviderError {
        let what = accused.what.to_owned();
        let refused = |reason: String| ProviderError::Refused { what: what.clone(), reason };
        match (self.status, retry_after) {
            (401, _) => refused(format!("it does not accept the API key of {}", accused.service)),
            (403, _) => {
                refused(format!("the API key of {} may not do this, or its policy forbids it", accused.service))
            }
            (402, _) => refused(format!("the credit of {} is used up", accused.service)),
            (429, _) if quota => refused(format!("the quota of {} is used up", accused.service)),
            (429, wait) => ProviderError::Overloaded { what, retry_after: wait.unwrap_or(UNSAID) },
            (500..=599, Some(retry_after)) => ProviderError::Overloaded { what, retry_after },
            (408, _) => ProviderError::TimedOut { what, after: accused.after },
            (400..=499, _) if self.is_about_the_model() => ProviderError::UnknownModel {
                model: accused.what.to_owned(),
                remedy: format!("{} does not serve it; name one that it does", accused.service),
            },
            (404 | 405, _) if !self.stated => {
                let remedy = format!("the base URL of {} does not lead to an OpenAI-compatible API", accused.service);
                ProviderError::Unavailable { what, remedy }
            }
            (400..=499, _) => {
                let message = if self.message.is_empty() { "the service does not accept it" } else { &self.message };
                let message = shown(message, accused.key);
                ProviderError::InvalidRequest { field: field(&self.param, &self.code), message }
            }
            _ => ProviderError::Failed { what },
        }
    }

    fn is_about_the_model(&self) -> bool {
        let says = self.message.to_ascii_lowercase();
        let model = says.contains("model");
        self.code == "model_not_found"
            || (self.status == 404 && (model || says.contains("no endpoints found")))
            || (self.status == 400 && model && (says.contains("not a valid model") || says.contains("does not exist")))
    }
}

/// What an error's name means where no status says it.
fn status_of(code: &str) -> u16 {
    match code {
        "insufficient_quota" | "billing_hard_limit_reached" => 402,
        "rate_limit_exceeded" | "rate_limit_error" | "tokens" | "requests" => 429,
        "invalid_api_key" | "authentication_error" => 401,
        "permission_error" | "permission_denied" => 403,
        "model_not_found" | "not_found_error" => 404,
        "context_length_exceeded" => 400,
        kind if kind.starts_with("invalid_") => 400,
        _ => 500,
    }
}

/// The request's field that a complaint is about.
fn field(param: &str, code: &str) -> &'static str {
    const FIELDS: &[&str] = &[
        "messages",
        "tools",
        "tool_choice",
        "response_format",
        "temperature",
        "top_p",
        "top_k",
        "stop",
        "seed",
        "logprobs",
        "logit_bias",
        "presence_penalty",
        "frequency_penalty",
        "prompt",
        "input",
        "voice",
        "speed",
        "file",
        "language",
        "model",
    ];
    if code == "context_length_exceeded" {
        return "messages";
    }
    let name = param.split(['.', '[']).next().unwrap_or_default();
    match name {
        "max_tokens" | "max_completion_tokens" => "max_tokens",
        name => FIELDS.iter().find(|field| **field == name).copied().unwrap_or("request"),
    }
}

/// A service's text as its requester may see it.
fn shown(text: &str, key: Option<&str>) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    cut(&hidden(&plain, key), SHOWN)
}

fn hidden(text: &str, key: Option<&str>) -> String {
    key.filter(|key| !key.is_empty()).map_or_else(|| text.to_owned(), |key| text.replace(key, "[key]"))
}

fn cut(text: &str, length: usize) -> String {
    text.chars().take(length).collect()
}

/// What a failed connection says of itself, without its URL.
pub(super) fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// How long the head of an answer asks to be left alone.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    if let Some(wait) = text("retry-after-ms").and_then(|millis| millis.parse().ok()) {
        return Some(Duration::from_millis(wait).min(LONGEST));
    }
    let value = text(RETRY_AFTER.as_str())?;
    let seconds = value.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.or_else(|| until(value, SystemTime::now())).map(|wait| wait.min(LONGEST))
}

/// From `now` to an HTTP date; nothing where it is past.
fn until(date: &str, now: SystemTime) -> Option<Duration> {
    // RFC 2822 as HTTP writes it, with the zone's name.
    let date = OffsetDateTime::parse(&date.replace("GMT", "+0000"), &Rfc2822).ok()?;
    Some(SystemTime::from(date).duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::until;

    #[test]
    fn an_http_date_is_a_wait() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 90);
        assert_eq!(until("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(Duration::from_secs(90)));
        assert_eq!(until("Sun, 06 Nov 1994 08:48:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(until("soon", now), None);
    }
}
