//! What a session noted with a message, as it is told.
//!
//! Sessions store what they have (`served_by`, `usage`, `timings`, …); here it gets the names of the contract. What is
//! stored in another shape is left out, and an export has all of it.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// How a message came to be. Each field is there where it is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub(in crate::api::rest) struct Metadata {
    /// The language model that wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    model: Option<String>,
    /// Who runs that model: `local`, or a service.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    provider: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    timings: Option<Timings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    tokens: Option<Tokens>,
    /// In US dollars, where whoever wrote it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    cost: Option<f64>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<String>,
    /// What it was said in, as an ISO 639-1 code.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    language: Option<String>,
    /// Whether it was spoken rather than written.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    spoken: Option<bool>,
}

/// What a reply took, in milliseconds; null where it had no such stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
#[expect(clippy::struct_field_names, reason = "their unit is part of their names on the wire")]
pub(in crate::api::rest) struct Timings {
    /// From the end of speech to the decision that it was the end.
    #[schema(required)]
    endpoint_ms: Option<u64>,
    /// From that decision to the transcript.
    #[schema(required)]
    stt_ms: Option<u64>,
    /// From asking the language model to its first text.
    #[schema(required)]
    llm_first_token_ms: Option<u64>,
    /// From asking for the first sentence to its first sample.
    #[schema(required)]
    tts_first_audio_ms: Option<u64>,
    /// From the end of speech, or the text message, to the reply's first audio, or first text.
    #[schema(required)]
    total_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub(in crate::api::rest) struct Tokens {
    prompt: u64,
    /// Of the prompt, those that were found in the prefix cache.
    cached: u64,
    completion: u64,
}

impl Metadata {
    pub(super) fn of(stored: &Value) -> Self {
        let field = |name: &str| stored.get(name).filter(|value| !value.is_null());
        let text = |name: &str| field(name).and_then(Value::as_str).map(str::to_owned);
        let usage = field("usage");
        let served_by = field("served_by").and_then(|by| by.get("llm")).and_then(Value::as_str);
        let model = text("model").or_else(|| served_by.map(str::to_owned));
        let provider = text("provider").or_else(|| model.as_deref().map(provider_of));
        let tokens = field("tokens").and_then(|tokens| Tokens::deserialize(tokens).ok());
        Self {
            // A user's message was not written by a model, whatever heard it.
            provider: provider.filter(|_| model.is_some()),
            model,
            timings: field("timings").and_then(|timings| Timings::deserialize(timings).ok()),
            tokens: tokens.or_else(|| usage.map(tokens_of)),
            cost: field("cost").or_else(|| usage?.get("cost_usd")).and_then(Value::as_f64),
            error: text("error"),
            language: text("language"),
            spoken: field("spoken").and_then(Value::as_bool),
        }
    }
}

fn tokens_of(usage: &Value) -> Tokens {
    let count = |name: &str| usage.get(name).and_then(Value::as_u64).unwrap_or_default();
    Tokens { prompt: count("prompt_tokens"), cached: count("cached_tokens"), completion: count("completion_tokens") }
}

/// Models elsewhere are named with their service, `openai/gpt-4o-mini`.
fn provider_of(model: &str) -> String {
    model.split_once('/').map_or("local", |(service, _)| service).to_owned()
}

#[cfg(test)]
#[path = "metadata_tests.rs"]
mod tests;
