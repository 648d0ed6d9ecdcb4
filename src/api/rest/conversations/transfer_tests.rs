use reqwest::Method;
use serde_json::json;

use super::super::tests::{ask, conversation};
use super::*;
use crate::api::fixture::server_on;
use crate::store::fixture::{TestStore, on_both_databases};

on_both_databases!(what_is_exported_can_be_imported_again, what_cannot_be_imported_is_named);

async fn exported(server: &crate::api::fixture::Server) -> Value {
    let talk = conversation(server, json!({"title": "Tea", "settings": {"seed": null, "top_p": 0.5}})).await;
    let line = |content: &str| json!({"conversation_id": talk, "role": "user", "content": content});
    let batch = json!({"messages": [line("one"), line("two")]});
    assert_eq!(ask(server, Method::POST, "/api/messages/batch", Some(batch)).await.status, 201);
    ask(server, Method::GET, &format!("/api/conversations/{talk}/export"), None).await.body
}

async fn what_is_exported_can_be_imported_again(store: TestStore) {
    let server = server_on(store, |_| {}).await;
    let mut archive = exported(&server).await;
    archive["messages"][0]["metadata"] = json!({"served_by": {"llm": "x"}, "more": [1, {"deep": null}]});
    archive["messages"][0]["heard_chars"] = json!(2);
    let id = archive["conversation"]["id"].as_str().unwrap().to_owned();
    let at = format!("/api/conversations/{id}");
    assert_eq!(ask(&server, Method::DELETE, &at, None).await.status, 204);
    let import = "/api/conversations/import";
    let made = ask(&server, Method::POST, import, Some(archive.clone())).await;
    assert_eq!((made.status, made.id()), (201, id), "{}", made.body);
    assert_eq!(made.headers["location"], at);
    assert_eq!(made.body["message_count"], 2);
    assert_eq!(ask(&server, Method::GET, &format!("{at}/export"), None).await.body, archive, "the same again");
    let second = ask(&server, Method::POST, import, Some(archive.clone())).await;
    assert_eq!(second.status, 201);
    let again = ask(&server, Method::GET, &format!("/api/conversations/{}/export", second.id()), None).await.body;
    assert_eq!(again["messages"][1]["content"], archive["messages"][1]["content"]);
    assert_ne!(again["messages"][1]["id"], archive["messages"][1]["id"]);
}

async fn what_cannot_be_imported_is_named(store: TestStore) {
    let server = server_on(store, |_| {}).await;
    let archive = exported(&server).await;
    let first = archive["messages"][0]["id"].clone();
    for (pointer, value, field) in [
        ("/format", json!("other"), "format"),
        ("/version", json!(2), "version"),
        ("/conversation/title", json!("x".repeat(201)), "conversation.title"),
        ("/conversation/status", json!("lost"), "conversation.status"),
        ("/conversation/settings", json!({"speed": 9}), "conversation.settings.speed"),
        ("/conversation/created_at", json!("yesterday"), "conversation.created_at"),
        ("/characters/0/id", json!("../../x"), "characters[0].id"),
        ("/characters/0/talkativeness", json!(2), "characters[0].talkativeness"),
        ("/messages/1/id", first, "messages[1].id"),
        ("/messages/1/content", json!("a\0b"), "messages[1].content"),
        ("/messages/1/heard_chars", json!(4), "messages[1].heard_chars"),
        ("/messages/1/role", json!("cook"), "messages[1].role"),
        ("/messages/1/metadata", json!({"usage": {"prompt_tokens": "many"}}), "messages[1].metadata"),
        ("/messages/1/metadata", json!([]), "messages[1].metadata"),
        ("/messages/1/metadata", json!([null, null, null, null, null, null]), "messages[1].metadata"),
        ("/messages/1/metadata", json!({"usage": [1, 2, 3, 0.5]}), "messages[1].metadata.usage"),
        ("/messages/1/updated_at", json!("2026-02-30T00:00:00Z"), "messages[1].updated_at"),
    ] {
        let mut wrong = archive.clone();
        *wrong.pointer_mut(pointer).unwrap() = value;
        let refused = ask(&server, Method::POST, "/api/conversations/import", Some(wrong)).await;
        let told = &refused.body["errors"][0]["field"];
        assert_eq!((refused.status, told), (400, &json!(field)), "{}", refused.body);
    }
    let list = ask(&server, Method::GET, "/api/conversations", None).await.body;
    assert_eq!(list["total"], 1, "nothing came in");
}

#[tokio::test]
async fn a_document_may_have_20_megabytes() {
    let server = crate::api::fixture::server().await;
    let mut archive = exported(&server).await;
    let mut line = archive["messages"][0].clone();
    line["content"] = json!("tea ".repeat(20_000));
    let lines: Vec<Value> = (0..200)
        .map(|number| {
            line["id"] = json!(format!("x{number}"));
            line.clone()
        })
        .collect();
    archive["messages"] = json!(lines);
    let made = ask(&server, Method::POST, "/api/conversations/import", Some(archive.clone())).await;
    assert_eq!((made.status, &made.body["message_count"]), (201, &json!(200)), "{}", made.body);
    archive["messages"] = json!([lines.clone(), lines].concat());
    let refused = ask(&server, Method::POST, "/api/conversations/import", Some(archive)).await;
    assert_eq!((refused.status, &refused.body["code"]), (413, &json!("too_large")));
}

#[test]
fn ids_are_kept_where_they_are_ours() {
    let ours = "0198aaaa-0000-7000-8000-000000000000".to_owned();
    assert_eq!(kept_id(ours.clone()), ours);
    assert!(Uuid::try_parse(&kept_id("../x".into())).is_ok());
    for (id, is_one) in [
        ("mira-001", true),
        ("olivia-barns-1234", true),
        ("mira", false),
        ("mira-1", false),
        ("-001", false),
        ("Mira-001", false),
        ("a--001", false),
        ("../a-001", false),
    ] {
        assert_eq!(is_character_id(id), is_one, "{id}");
    }
}
