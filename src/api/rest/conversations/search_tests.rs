use reqwest::Method;
use serde_json::json;

use super::super::tests::{ask, check, conversation};
use crate::api::fixture::server_on;
use crate::store::fixture::{TestStore, on_both_databases};

on_both_databases!(words_are_found_in_titles_and_messages);

async fn words_are_found_in_titles_and_messages(store: TestStore) {
    let server = server_on(store, |_| {}).await;
    let talk = conversation(&server, json!({"title": "About tea"})).await;
    let message = json!({"conversation_id": talk, "role": "user", "content": "Green TEA, please"});
    let message = ask(&server, Method::POST, "/api/messages", Some(message)).await;
    let search = |query: &str| format!("/api/conversations/search?query={query}");
    let first = ask(&server, Method::GET, &search("te%C3%A1&limit=1"), None).await.body;
    let created_at = first["items"][0]["created_at"].clone();
    assert_eq!(
        first["items"][0],
        json!({
            "conversation_id": talk, "title": "About tea", "message_id": null, "role": null, "character_name": null,
            "snippet": "About tea", "marks": [{"start": 6, "end": 9}], "created_at": created_at,
        })
    );
    assert_eq!(first["total"], 2);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = ask(&server, Method::GET, &search(&format!("te%C3%A1&limit=1&cursor={cursor}")), None).await.body;
    let hit = &second["items"][0];
    assert_eq!((&hit["message_id"], &hit["snippet"]), (&message.body["id"], &json!("Green TEA, please")));
    assert_eq!((&hit["marks"], &second["next_cursor"]), (&json!([{"start": 6, "end": 9}]), &json!(null)));
    check(
        &server,
        vec![
            (Method::GET, search("%22*%28"), None, 200, None),
            (Method::GET, search(""), None, 400, Some("query")),
            (Method::GET, search("a%00"), None, 400, Some("query")),
            (Method::GET, search(&"a".repeat(201)), None, 400, Some("query")),
            (Method::GET, "/api/conversations/search".into(), None, 400, Some("query")),
        ],
    )
    .await;
}
