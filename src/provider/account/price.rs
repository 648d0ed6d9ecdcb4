//! Prices, and what a request costs by them.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Add;

use serde::{Deserialize, Serialize, Serializer};

use super::Used;

/// US dollars in whole billionths: the price of a token is no whole number of anything larger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Usd(i64);

const BILLIONTHS: f64 = 1e9;

impl Usd {
    pub const ZERO: Self = Self(0);

    /// Rounded up: what is set aside must suffice. Not a number is the largest amount.
    pub fn dollars(amount: f64) -> Self {
        if amount.is_nan() { Self(i64::MAX) } else { Self((amount * BILLIONTHS).ceil() as i64) }
    }

    pub const fn billionths(amount: i64) -> Self {
        Self(amount)
    }

    pub const fn as_billionths(self) -> i64 {
        self.0
    }

    pub fn as_dollars(self) -> f64 {
        self.0 as f64 / BILLIONTHS
    }
}

impl Add for Usd {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl fmt::Display for Usd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.as_dollars())
    }
}

impl Serialize for Usd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.as_dollars())
    }
}

/// What a remote model costs, in US dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Price {
    /// Per million tokens of the prompt.
    pub input: f64,
    /// Per million tokens of the prompt that the service found in its cache. None: as any other.
    pub cached_input: Option<f64>,
    /// Per million tokens of the answer.
    pub output: f64,
    /// Per million characters spoken.
    pub characters: f64,
    /// Per minute of audio heard or spoken.
    pub minute: f64,
}

const MILLION: f64 = 1e6;

impl Price {
    /// What `used` costs.
    pub fn of(&self, used: &Used) -> Usd {
        let cached = used.cached_tokens.min(used.prompt_tokens);
        let fresh = used.prompt_tokens - cached;
        let tokens = fresh as f64 * self.input
            + cached as f64 * self.cached_input.unwrap_or(self.input)
            + used.completion_tokens as f64 * self.output;
        let spoken = used.characters as f64 * self.characters;
        Usd::dollars((tokens + spoken) / MILLION + used.audio.as_secs_f64() / 60.0 * self.minute)
    }
}

/// Prices by model: `openai/gpt-4o-mini`; `openrouter/*` is every other model of a service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct PriceList(BTreeMap<String, Price>);

impl PriceList {
    /// The same list with `others` in place of, and beside, its own.
    #[must_use]
    pub fn with(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// The models that have a price of their own.
    pub fn models(&self) -> impl Iterator<Item = (&str, Price)> {
        let own = self.0.iter().filter(|(name, _)| !name.ends_with("/*"));
        own.map(|(name, price)| (name.as_str(), *price))
    }

    /// The price of a model, or its service's for models without one.
    pub fn price(&self, model: &str) -> Option<Price> {
        let service = || model.split_once('/').map(|(service, _)| format!("{service}/*"));
        self.0.get(model).or_else(|| self.0.get(&service()?)).copied()
    }
}
