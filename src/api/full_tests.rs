//! A full disk is told and outlived; `scripts/accept disk` does it with a real one.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::fixture::{Server, server_on};
use super::problem::Problem;
use crate::session::record::RecordError;
use crate::store::fixture;

async fn make(server: &Server) -> (u16, Value) {
    let answer = server.post("/api/characters", &json!({"name": "Kim", "system_prompt": "word ".repeat(2_000)})).await;
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn a_full_disk_is_507_and_outlived() {
    let server = server_on(fixture::sqlite().await, |_| {}).await;
    server.store.execute("PRAGMA max_page_count = 1").await;
    let mut saved = 0;
    let refused = loop {
        match make(&server).await {
            (201, _) => saved += 1,
            other => break other,
        }
        assert!(saved < 1_000, "the disk did not get full");
    };
    assert_eq!((refused.0, refused.1["code"].as_str()), (507, Some("insufficient_storage")), "{}", refused.1);
    let (status, list) = server.get("/api/characters?limit=200", "").await;
    assert!(status == 200 && list.contains(&format!("\"total\":{}", saved + 1)), "{list}");
    server.store.execute("PRAGMA max_page_count = 1000000").await;
    assert_eq!(make(&server).await.0, 201);
}

#[test]
fn what_the_store_says_has_its_status() {
    let missing = RecordError::NotFound { what: "message", id: "m1".into() };
    for (error, status, code) in [
        (missing, StatusCode::NOT_FOUND, "not_found"),
        (RecordError::Full, StatusCode::INSUFFICIENT_STORAGE, "insufficient_storage"),
        (RecordError::Failed, StatusCode::SERVICE_UNAVAILABLE, "database_failed"),
    ] {
        let problem = Problem::from(error);
        assert_eq!((problem.status, problem.code), (status, code));
    }
}
