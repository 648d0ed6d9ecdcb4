//! A chain whose first link is a service with a fault, twenty times each: who answers, and how often the service is asked.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use serde_json::json;

use crate::provider::fake::FakeChat;
use crate::provider::fallback::{Fallback, Link};
use crate::provider::{Capability, ChatMessage, ChatModel, ChatRequest, Delta, ProviderState, Role};
use crate::remote::RemoteChat;
use crate::remote::fake::{FakeProvider, Play};

const TIMES: usize = 20;
/// Failures in a row that open a breaker.
const OPENS: usize = 5;

/// What came of it.
struct Outcome {
    /// Texts, or None where the reply broke off.
    texts: Vec<Option<String>>,
    /// Replies that the other model was asked for.
    stood_in: usize,
    /// Requests that the service heard.
    heard: usize,
    state: ProviderState,
}

async fn twenty(play: Play) -> Outcome {
    let service = FakeProvider::start([play]).await;
    let local = Arc::new(FakeChat::default());
    let chain: Fallback<dyn ChatModel> = Fallback::new(
        "the language model",
        [
            Link::new(
                "fake/model",
                true,
                Arc::new(RemoteChat::new(service.impatient(), "model")) as Arc<dyn ChatModel>,
            ),
            Link::new("local", false, Arc::clone(&local) as Arc<dyn ChatModel>),
        ],
    );
    let mut texts = Vec::new();
    for _ in 0..TIMES {
        local.say("I stand in.", Duration::ZERO, Duration::ZERO);
        let messages = vec![ChatMessage::new(Role::User, "Hello?")];
        let mut flow = chain.reply(ChatRequest { messages, ..ChatRequest::default() });
        let mut text = Some(String::new());
        while let Some(item) = flow.next().await {
            match item {
                Ok(Delta::Text(more)) => text.iter_mut().for_each(|text| text.push_str(&more)),
                Ok(_) => {}
                Err(_) => text = None,
            }
        }
        texts.push(text);
    }
    let state = chain.links()[0].report(Capability::Chat).state;
    Outcome { texts, stood_in: local.asked.lock().unwrap().len(), heard: service.received().len(), state }
}

#[tokio::test]
async fn every_fault_before_the_first_item_is_stood_in_for_and_opens_the_breaker() {
    let faults = [
        // Each with how often one reply asks: a refusal is not repeated, and neither is silence.
        (Play::error(429, "rate_limit_exceeded", "slow down"), 3),
        (Play::error(500, "server_error", "oh no"), 3),
        (Play::error(401, "invalid_api_key", "no"), 1),
        (Play::silence(), 1),
        (Play::events().hang(), 1),
        (Play::broken(), 3),
        (Play::answer(200, &[("content-type", "text/event-stream")], b"data: {\"choices\": nonsense}\n\n"), 1),
        (Play::json(200, &json!({ "error": { "message": "overloaded", "code": 502 } })), 1),
        (Play::events().event(&json!({ "error": { "message": "overloaded", "code": 502 } })).end(), 1),
    ];
    let outcomes = join_all(faults.iter().map(|(play, _)| twenty(play.clone()))).await;
    for (number, (outcome, (_, requests))) in outcomes.iter().zip(&faults).enumerate() {
        assert!(outcome.texts.iter().all(|text| text.as_deref() == Some("I stand in.")), "fault {number}");
        assert_eq!(outcome.stood_in, TIMES, "fault {number}: each reply is asked for once");
        assert_eq!(outcome.state, ProviderState::Open, "fault {number}");
        assert!(outcome.heard >= OPENS && outcome.heard <= OPENS * requests, "fault {number}: {}", outcome.heard);
    }
}

#[tokio::test]
async fn no_fault_after_the_first_item_is_stood_in_for() {
    let faults = [
        Play::events().text("Hel").hang(),
        Play::events().text("Hel").send("data: {\"choices\": [{\"del").end(),
        Play::events().text("Hel").reset(),
    ];
    for (number, outcome) in join_all(faults.map(twenty)).await.into_iter().enumerate() {
        // Half of what is looked back at fails, so that the breaker opens, but no reply is written twice.
        let broken = outcome.texts.iter().filter(|text| text.is_none()).count();
        assert_eq!(broken + outcome.stood_in, TIMES, "fault {number}");
        assert_eq!(broken, outcome.heard, "fault {number}: nobody is asked twice for one reply");
        assert!(broken >= 10 && outcome.state == ProviderState::Open, "fault {number}: {broken}");
    }
}
