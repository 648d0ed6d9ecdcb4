use serde_json::json;

use super::*;
use crate::remote::fake::{FakeProvider, Play};

async fn verdict(answer: Play, caller: &Caller) -> (Result<(), ProviderError>, usize) {
    let fake = FakeProvider::start([answer]).await;
    let verdict = Moderation::new(fake.service(), "omni").check("Some text.".to_owned(), caller).await;
    (verdict, fake.received().len())
}

#[tokio::test]
async fn what_is_flagged_does_not_pass_and_no_verdict_is_none() {
    let caller = Caller::default();
    let fine = Play::json(200, &json!({ "results": [{ "flagged": false }] }));
    assert_eq!(verdict(fine, &caller).await, (Ok(()), 1));
    let bad = Play::json(200, &json!({ "results": [{ "flagged": true, "categories": {} }] }));
    assert!(matches!(verdict(bad, &caller).await, (Err(ProviderError::Filtered { .. }), 1)));
    for nonsense in [json!({ "results": [] }), json!({}), json!([1])] {
        let (verdict, _) = verdict(Play::json(200, &nonsense), &caller).await;
        assert!(matches!(verdict, Err(ProviderError::Failed { .. })), "{nonsense}");
    }
}

#[tokio::test]
async fn what_is_private_is_not_sent() {
    let caller = Caller { private: true, ..Caller::default() };
    assert_eq!(verdict(Play::silence(), &caller).await, (Ok(()), 0));
}
