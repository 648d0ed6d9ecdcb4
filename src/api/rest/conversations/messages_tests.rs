use reqwest::Method;
use serde_json::{Value, json};

use super::super::tests::{ask, check, conversation};
use crate::api::fixture::server_on;
use crate::store::fixture::{TestStore, on_both_databases};

on_both_databases!(every_route_answers_and_refuses_as_it_says, a_message_is_told_with_all_its_fields);

async fn every_route_answers_and_refuses_as_it_says(store: TestStore) {
    let server = server_on(store, |_| {}).await;
    let talk = conversation(&server, json!({})).await;
    let message = |more: Value| {
        let mut message = json!({"conversation_id": talk, "role": "user", "content": "hello"});
        message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Some(message)
    };
    let batch = |more: Value| {
        let good = message(json!({})).unwrap();
        Some(json!({"messages": [good, message(more).unwrap()]}))
    };
    let all = "/api/messages".to_owned();
    let of = |route: &str, more: &str| format!("/api/messages{route}?conversation_id={talk}{more}");
    let nowhere = "0198aaaa-0000-7000-8000-000000000000";
    let (get, post, put, delete) = (Method::GET, Method::POST, Method::PUT, Method::DELETE);
    assert_eq!(ask(&server, Method::GET, &of("/last", ""), None).await.status, 404, "there is none yet");
    let id = ask(&server, Method::POST, &all, message(json!({}))).await.id();
    let at = format!("{all}/{id}");
    let long = "x".repeat(100_001);
    let many = vec![message(json!({})).unwrap(); 501];
    let twice = message(json!({"client_message_id": "c-1"}));
    check(
        &server,
        vec![
            (get.clone(), of("", ""), None, 200, None),
            (get.clone(), of("", "&sort=created_at&limit=1"), None, 200, None),
            (get.clone(), all.clone(), None, 400, Some("conversation_id")),
            (get.clone(), of("", "&limit=201"), None, 400, Some("limit")),
            (get.clone(), of("", "&cursor=abc"), None, 400, Some("cursor")),
            (get.clone(), format!("{all}?conversation_id={nowhere}"), None, 404, None),
            (get.clone(), of("/recent", "&n=3"), None, 200, None),
            (get.clone(), of("/recent", "&n=0"), None, 400, Some("n")),
            (get.clone(), of("/recent", "&n=x"), None, 400, Some("n")),
            (get.clone(), format!("{all}/recent?conversation_id={nowhere}"), None, 404, None),
            (get.clone(), of("/last", ""), None, 200, None),
            (get.clone(), format!("{all}/last"), None, 400, Some("conversation_id")),
            (get.clone(), format!("{all}/last?conversation_id={nowhere}"), None, 404, None),
            (get.clone(), at.clone(), None, 200, None),
            (get.clone(), format!("{all}/{nowhere}"), None, 404, None),
            (post.clone(), all.clone(), twice.clone(), 201, None),
            (post.clone(), all.clone(), twice, 200, None),
            (post.clone(), all.clone(), message(json!({"conversation_id": nowhere})), 404, None),
            (post.clone(), all.clone(), Some(json!({"role": "user", "content": "x"})), 400, Some("conversation_id")),
            (post.clone(), all.clone(), message(json!({"role": "cook"})), 400, Some("role")),
            (post.clone(), all.clone(), message(json!({"content": null})), 400, Some("content")),
            (post.clone(), all.clone(), message(json!({"content": long})), 400, Some("content")),
            (post.clone(), all.clone(), message(json!({"content": "\0"})), 400, Some("content")),
            (post.clone(), all.clone(), message(json!({"status": "lost"})), 400, Some("status")),
            (post.clone(), all.clone(), message(json!({"content_type": "smell"})), 400, Some("content_type")),
            (post.clone(), all.clone(), message(json!({"character_id": "nobody-001"})), 400, Some("character_id")),
            (post.clone(), all.clone(), message(json!({"client_message_id": ""})), 400, Some("client_message_id")),
            (
                post.clone(),
                all.clone(),
                message(json!({"attachments": [{"image_id": "a"}, {"image_id": ""}]})),
                400,
                Some("attachments[1].image_id"),
            ),
            (post.clone(), format!("{all}/batch"), batch(json!({})), 201, None),
            (post.clone(), format!("{all}/batch"), Some(json!({"messages": []})), 400, Some("messages")),
            (post.clone(), format!("{all}/batch"), Some(json!({"messages": many})), 400, Some("messages")),
            (post.clone(), format!("{all}/batch"), batch(json!({"content": "\0"})), 400, Some("messages[1].content")),
            (post.clone(), format!("{all}/batch"), batch(json!({"role": "cook"})), 400, Some("messages[1].role")),
            (
                post.clone(),
                format!("{all}/batch"),
                batch(json!({"character_id": "nobody-001"})),
                400,
                Some("messages[1].character_id"),
            ),
            (post, format!("{all}/batch"), batch(json!({"conversation_id": nowhere})), 404, None),
            (put.clone(), at.clone(), Some(json!({"content": "goodbye"})), 200, None),
            (put.clone(), at.clone(), Some(json!({"content": long})), 400, Some("content")),
            (put.clone(), at.clone(), Some(json!({})), 400, Some("content")),
            (put, format!("{all}/{nowhere}"), Some(json!({"content": "x"})), 404, None),
            (delete.clone(), at.clone(), None, 204, None),
            (delete.clone(), at.clone(), None, 404, None),
            (get, at, None, 404, None),
        ],
    )
    .await;
    let talk = ask(&server, Method::GET, &format!("/api/conversations/{talk}"), None).await.body;
    assert_eq!(talk["message_count"], 3, "what was refused was not written");
}

async fn a_message_is_told_with_all_its_fields(store: TestStore) {
    let server = server_on(store, |_| {}).await;
    let talk = conversation(&server, json!({})).await;
    let sent = json!({
        "conversation_id": talk, "role": "assistant", "content": "Grüße\n👋🏽", "content_type": "mixed",
        "character_id": "mira-001", "attachments": [{"image_id": "i-1"}], "status": "failed", "client_message_id": "c-1",
    });
    let made = ask(&server, Method::POST, "/api/messages", Some(sent)).await;
    assert_eq!((made.status, made.tag()), (201, "\"1\""));
    let id = made.id();
    assert_eq!(made.headers["location"], format!("/api/messages/{id}"));
    let created_at = &made.body["created_at"];
    assert_eq!(
        made.body,
        json!({
            "id": id, "conversation_id": talk, "role": "assistant", "character_id": "mira-001", "character_name": "Mira",
            "content": "Grüße\n👋🏽", "content_type": "mixed", "attachments": [{"image_id": "i-1"}], "status": "failed",
            "heard_chars": null, "audio_url": null, "metadata": {}, "client_message_id": "c-1",
            "created_at": created_at, "updated_at": created_at,
        })
    );
    assert_eq!(ask(&server, Method::GET, &format!("/api/messages/{id}"), None).await.body, made.body);
    let last = ask(&server, Method::GET, &format!("/api/messages/last?conversation_id={talk}"), None).await;
    assert_eq!(last.body, made.body);
}
