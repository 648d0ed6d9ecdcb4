use serde_json::json;

use super::*;
use crate::remote::fake::{FakeProvider, Play};

fn texts(texts: &[&str]) -> EmbedRequest {
    EmbedRequest { texts: texts.iter().map(|text| (*text).to_owned()).collect(), ..EmbedRequest::default() }
}

#[tokio::test]
async fn vectors_come_in_order_and_at_length_one() {
    let answer = json!({
        "data": [{ "index": 1, "embedding": [0.0, 2.0] }, { "index": 0, "embedding": [3.0, 4.0] }],
        "usage": { "prompt_tokens": 7, "total_tokens": 7 },
    });
    let fake = FakeProvider::start([Play::json(200, &answer)]).await;
    let embeddings = RemoteEmbedder::new(fake.service(), "small").embed(texts(&["a", "b"])).await.unwrap();
    assert_eq!(embeddings.vectors, [[0.6, 0.8], [0.0, 1.0]]);
    assert_eq!((embeddings.tokens, &*embeddings.served_by), (7, "fake/small"));
    let asked = fake.received()[0].json();
    assert_eq!((&asked["model"], &asked["input"]), (&json!("small"), &json!(["a", "b"])));
}

#[tokio::test]
async fn vectors_that_do_not_fit_the_texts_are_refused() {
    for data in [
        json!([]),
        json!([{ "index": 0, "embedding": [1.0] }]),
        json!([{ "index": 0, "embedding": [1.0] }, { "index": 0, "embedding": [1.0] }]),
        json!([{ "index": 0, "embedding": [1.0] }, { "index": 1, "embedding": [1.0, 2.0] }]),
        json!([{ "index": 0, "embedding": [1.0] }, { "index": 1, "embedding": [0.0] }]),
        json!([{ "index": 0, "embedding": [] }, { "index": 1, "embedding": [] }]),
    ] {
        let fake = FakeProvider::start([Play::json(200, &json!({ "data": data }))]).await;
        let embeddings = RemoteEmbedder::new(fake.service(), "small").embed(texts(&["a", "b"])).await;
        assert!(matches!(embeddings, Err(ProviderError::Failed { .. })), "{data}");
    }
}

#[tokio::test]
async fn work_starts_at_the_call_and_ends_with_its_future() {
    let fake = FakeProvider::start([Play::silence()]).await;
    let embedding = RemoteEmbedder::new(fake.service(), "small").embed(texts(&["a"]));
    fake.heard(1).await;
    drop(embedding);
    fake.left(1).await;
}
