use super::*;
use crate::store::LOCAL_OWNER;
use crate::store::fixture::{TestStore, on_both_databases};

on_both_databases!(a_key_is_claimed_once, what_was_left_alone_is_taken_over, old_answers_are_forgotten);

fn answer(body: &str) -> Answer {
    Answer { status: 201, headers: "{}".into(), body: body.into() }
}

async fn aged(store: &TestStore, age: Duration) {
    let older = sqlx::query("UPDATE idempotent_requests SET created_at = $1 /* every row */").bind(row::ago(age));
    older.execute(&store.writer).await.unwrap();
}

async fn a_key_is_claimed_once(store: TestStore) {
    let rows = store.of(LOCAL_OWNER);
    let many = (0..8).map(|_| rows.claim("k", "d"));
    let claims = futures::future::join_all(many).await;
    assert_eq!(claims.iter().filter(|claim| **claim == Ok(Claim::Yours)).count(), 1);
    assert_eq!(claims.iter().filter(|claim| **claim == Ok(Claim::UnderWay)).count(), 7);
    assert_eq!(rows.claim("k", "other").await.unwrap(), Claim::Other);
    assert_eq!(store.of("somebody").claim("k", "other").await.unwrap(), Claim::Yours, "keys are each owner's own");
    rows.keep_answer("k", answer("kept")).await.unwrap();
    assert_eq!(rows.claim("k", "d").await.unwrap(), Claim::Answered(answer("kept")));
    rows.give_up_claim("k").await.unwrap();
    assert_eq!(rows.claim("k", "d").await.unwrap(), Claim::Answered(answer("kept")), "what is answered stays");
    assert_eq!(rows.claim("given up", "d").await.unwrap(), Claim::Yours);
    rows.give_up_claim("given up").await.unwrap();
    assert_eq!(rows.claim("given up", "other").await.unwrap(), Claim::Yours);
}

async fn what_was_left_alone_is_taken_over(store: TestStore) {
    let rows = store.of(LOCAL_OWNER);
    assert_eq!(rows.claim("k", "d").await.unwrap(), Claim::Yours);
    aged(&store, Duration::from_secs(50)).await;
    assert_eq!(rows.claim("k", "d").await.unwrap(), Claim::UnderWay);
    aged(&store, Duration::from_secs(70)).await;
    rows.renew_claim("k").await.unwrap();
    assert_eq!(rows.claim("k", "d").await.unwrap(), Claim::UnderWay, "whoever answers it is still there");
    aged(&store, Duration::from_secs(70)).await;
    assert_eq!(rows.claim("k", "d").await.unwrap(), Claim::Yours);
    assert_eq!(rows.claim("k", "d").await.unwrap(), Claim::UnderWay);
}

async fn old_answers_are_forgotten(store: TestStore) {
    let rows = store.of(LOCAL_OWNER);
    rows.claim("k", "d").await.unwrap();
    rows.keep_answer("k", answer("old")).await.unwrap();
    aged(&store, Duration::from_hours(23)).await;
    assert_eq!(store.sweep_answers().await.unwrap(), 0);
    assert_eq!(rows.claim("k", "d").await.unwrap(), Claim::Answered(answer("old")));
    aged(&store, Duration::from_hours(25)).await;
    assert_eq!(rows.claim("k", "other").await.unwrap(), Claim::Yours, "after a day it is a new key");
    aged(&store, Duration::from_hours(25)).await;
    assert_eq!(store.sweep_answers().await.unwrap(), 1);
}
