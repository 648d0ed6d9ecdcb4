use serde_json::{Value, json};

use super::*;
use crate::api::fixture::server_with;
use crate::provider::account::{Entry, Outcome, UsageLedger, Usd, Used};
use crate::provider::{Caller, Capability};
use crate::store::{Budgets, StoredLedger};

#[tokio::test]
async fn a_budget_that_is_nearly_used_up_is_told_to_open_sessions_and_stands_in_the_usage() {
    let mut ledger = None;
    let budgets = Budgets { day: Some(Usd::dollars(1.0)), month: None };
    let server = server_with(|state| {
        state.ledger = StoredLedger::new(state.store.clone(), budgets);
        ledger = Some(state.ledger.clone());
    })
    .await;
    let ledger = ledger.unwrap();
    let mut client = server.started().await;
    let entry = Entry {
        capability: Capability::Chat,
        model: "openai/x".into(),
        remote: true,
        caller: Caller::default(),
        used: Used::default(),
        cost: Usd::dollars(0.9),
        estimated: false,
        outcome: Outcome::Completed,
    };
    let reservation = ledger.reserve(Usd::dollars(0.95), Arc::new(entry.clone())).await.unwrap();
    ledger.settle(Some(reservation), entry).await;
    let warning = client.until("budget_warning").await.pop().unwrap();
    assert_eq!((&warning["budget"], &warning["spent_usd"]), (&json!("daily"), &json!(0.9)));

    let get = async |query: &str| {
        let (status, answer) = server.get(&format!("/api/usage{query}"), "").await;
        let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        (status, body)
    };
    let (status, usage) = get("?group_by=provider").await;
    let sum = &usage["items"][0];
    assert_eq!((status, &sum["group"], &sum["cost_usd"]), (200, &json!("openai"), &json!(0.9)));
    assert_eq!(usage["budgets"][0]["nearly_used_up"], true);
    for (query, field) in
        [("?group_by=colour", "group_by"), ("?since=yesterday", "since"), ("?until=2026-13-01", "until")]
    {
        let (status, refused) = get(query).await;
        assert_eq!((status, &refused["errors"][0]["field"]), (400, &json!(field)), "{refused}");
    }
}
