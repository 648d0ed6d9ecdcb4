//! The books themselves: whose prices, which limits, and the counted form of every door.

use std::sync::Arc;

use metrics::{counter, describe_counter, describe_histogram, histogram};

use super::chat::CountedChat;
use super::embedding::CountedEmbedder;
use super::hearing::CountedHearing;
use super::speech::CountedSpeech;
use super::{Entry, Price, PriceList, Reservation, UsageLedger, Usd};
use crate::provider::{Capability, ChatModel, ProviderError, SpeechSynthesizer, SpeechToText, TextEmbedder};

const REQUESTS: &str = "aichat_requests_total";
const COST: &str = "aichat_cost_nanousd_total";
const SECONDS: &str = "aichat_request_seconds";

/// Makes counted doors. A clone shares the ledger.
#[derive(Clone)]
pub struct Books {
    ledger: Arc<dyn UsageLedger>,
    prices: Arc<PriceList>,
    per_request: Option<Usd>,
}

impl Books {
    /// `per_request` is the most that one request may cost.
    pub fn new(ledger: Arc<dyn UsageLedger>, prices: PriceList, per_request: Option<Usd>) -> Self {
        describe_counter!(REQUESTS, "Requests by capability, model and outcome");
        describe_counter!(COST, "What requests cost in billionths of a US dollar, by model");
        describe_histogram!(SECONDS, "Seconds from a request's call to its end, by capability and model");
        Self { ledger, prices: Arc::new(prices), per_request }
    }

    /// A counted language model. `name` is who serves; a `remote` one costs.
    pub fn chat(&self, name: &str, remote: bool, door: Arc<dyn ChatModel>) -> Arc<dyn ChatModel> {
        Arc::new(CountedChat { link: self.link(Capability::Chat, name, remote), door })
    }

    pub fn speech(&self, name: &str, remote: bool, door: Arc<dyn SpeechSynthesizer>) -> Arc<dyn SpeechSynthesizer> {
        Arc::new(CountedSpeech { link: self.link(Capability::Speech, name, remote), door })
    }

    pub fn hearing(&self, name: &str, remote: bool, door: Arc<dyn SpeechToText>) -> Arc<dyn SpeechToText> {
        Arc::new(CountedHearing { link: self.link(Capability::Transcription, name, remote), door })
    }

    pub fn embedder(&self, name: &str, remote: bool, door: Arc<dyn TextEmbedder>) -> Arc<dyn TextEmbedder> {
        Arc::new(CountedEmbedder { link: self.link(Capability::Embedding, name, remote), door })
    }

    fn link(&self, capability: Capability, name: &str, remote: bool) -> Arc<Link> {
        // A remote model without a price is counted as free, which a log line says once.
        let price = remote.then(|| self.prices.price(name).unwrap_or_default());
        if price == Some(Price::default()) {
            tracing::warn!(model = name, "there is no price for this model: it counts as free");
        }
        Arc::new(Link { capability, name: name.into(), price, books: self.clone() })
    }

    pub(super) async fn reserve(&self, most: Usd, entry: Entry) -> Result<Reservation, ProviderError> {
        if let Some(limit) = self.per_request.filter(|limit| most > *limit) {
            return Err(ProviderError::OverBudget { budget: "per-request", limit_usd: limit.to_string() });
        }
        self.ledger.reserve(most, Arc::new(entry)).await
    }

    pub(super) async fn settle(&self, reservation: Option<Reservation>, entry: Entry) {
        let model = entry.model.to_string();
        let capability = entry.capability.as_str();
        counter!(REQUESTS, "capability" => capability, "model" => model.clone(), "outcome" => entry.outcome.as_str())
            .increment(1);
        histogram!(SECONDS, "capability" => capability, "model" => model.clone())
            .record(entry.used.total.as_secs_f64());
        if entry.cost > Usd::ZERO {
            counter!(COST, "model" => model).increment(entry.cost.as_billionths().unsigned_abs());
        }
        self.ledger.settle(reservation, entry).await;
    }
}

/// One model of the books.
pub(super) struct Link {
    pub(super) capability: Capability,
    pub(super) name: Arc<str>,
    /// None: local.
    pub(super) price: Option<Price>,
    pub(super) books: Books,
}
