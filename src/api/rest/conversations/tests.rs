use reqwest::Method;
use serde_json::json;

use super::*;
use crate::api::fixture::{Server, server_on};
use crate::session::record::Records;
use crate::store::LOCAL_OWNER;
use crate::store::fixture::{TestStore, message, on_both_databases};

on_both_databases!(
    every_route_answers_and_refuses_as_it_says,
    a_changed_object_needs_the_tag_that_it_has,
    what_belongs_to_others_is_not_there,
    a_session_begins_with_the_conversations_settings,
    files_go_with_their_conversation,
);

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: reqwest::header::HeaderMap,
    pub(super) body: Value,
}

impl Answer {
    pub(super) fn id(&self) -> String {
        self.body["id"].as_str().unwrap_or_else(|| panic!("{}", self.body)).to_owned()
    }

    pub(super) fn tag(&self) -> &str {
        self.headers["etag"].to_str().unwrap()
    }
}

pub(super) async fn ask(server: &Server, method: Method, path: &str, body: Option<Value>) -> Answer {
    ask_with(server, method, path, body, &[]).await
}

pub(super) async fn ask_with(
    server: &Server,
    method: Method,
    path: &str,
    body: Option<Value>,
    headers: &[(&str, &str)],
) -> Answer {
    let mut request = server.asking(method, path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(body) = body {
        request = request.json(&body);
    }
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::Null) }
}

pub(super) async fn conversation(server: &Server, body: Value) -> String {
    let made = ask(server, Method::POST, "/api/conversations", Some(body)).await;
    assert_eq!(made.status, 201, "{}", made.body);
    made.id()
}

/// A request, and what it is answered: a status and, where it is refused, the field that is wrong.
pub(super) type Case = (Method, String, Option<Value>, u16, Option<&'static str>);

pub(super) async fn check(server: &Server, cases: Vec<Case>) {
    for (method, path, body, status, field) in cases {
        let about = format!("{method} {path} {body:?}");
        let answer = ask(server, method, &path, body).await;
        assert_eq!(answer.status, status, "{about}: {}", answer.body);
        if status >= 400 {
            assert_eq!(answer.headers["content-type"], "application/problem+json", "{about}");
            assert_eq!(answer.body["status"], status, "{about}");
            let told = answer.body["errors"][0]["field"].as_str();
            assert_eq!(told, field, "{about}: {}", answer.body);
        }
    }
}

async fn every_route_answers_and_refuses_as_it_says(store: TestStore) {
    let server = server_on(store, |_| {}).await;
    let made = ask(
        &server,
        Method::POST,
        "/api/conversations",
        Some(json!({"title": "Tea", "type": "mixed", "private": true, "settings": {"top_k": 5, "vad": null}})),
    )
    .await;
    let id = made.id();
    assert_eq!(made.headers["location"], format!("/api/conversations/{id}"));
    assert_eq!(made.tag(), "\"1\"");
    let created_at = made.body["created_at"].clone();
    assert_eq!(
        made.body,
        json!({
            "id": id, "title": "Tea", "type": "mixed", "status": "active", "private": true,
            "character_ids": ["mira-001"], "settings": {"top_k": 5, "vad": null}, "message_count": 0,
            "last_message_at": null, "created_at": created_at, "updated_at": created_at,
        })
    );
    let at = format!("/api/conversations/{id}");
    let with = |more: &str| format!("{at}{more}");
    let none = "/api/conversations/0198aaaa-0000-7000-8000-000000000000";
    let (get, post, put, delete) = (Method::GET, Method::POST, Method::PUT, Method::DELETE);
    let all = "/api/conversations".to_owned();
    let long = "x".repeat(201);
    let nobody = json!({"character_ids": ["nobody-001"]});
    check(
        &server,
        vec![
            (get.clone(), all.clone(), None, 200, None),
            (get.clone(), format!("{all}?status=archived&character_id=mira-001&limit=1&sort=title"), None, 200, None),
            (get.clone(), format!("{all}?status=lost"), None, 400, Some("status")),
            (get.clone(), format!("{all}?limit=many"), None, 400, Some("limit")),
            (get.clone(), format!("{all}?limit=0"), None, 400, Some("limit")),
            (get.clone(), format!("{all}?sort=colour"), None, 400, Some("sort")),
            (get.clone(), format!("{all}?character_id=%00"), None, 400, Some("character_id")),
            (get.clone(), at.clone(), None, 200, None),
            (get.clone(), none.into(), None, 404, None),
            (get.clone(), format!("{all}/%00"), None, 404, None),
            (post.clone(), all.clone(), Some(json!({})), 201, None),
            (post.clone(), all.clone(), Some(json!({"title": long})), 400, Some("title")),
            (post.clone(), all.clone(), Some(json!({"title": "a\0b"})), 400, Some("title")),
            (post.clone(), all.clone(), Some(json!({"title": 3})), 400, Some("title")),
            (post.clone(), all.clone(), Some(json!({"type": "sound"})), 400, Some("type")),
            (post.clone(), all.clone(), Some(nobody.clone()), 400, Some("character_ids")),
            (post.clone(), all.clone(), Some(json!({"settings": []})), 400, Some("settings")),
            (post.clone(), all.clone(), Some(json!({"settings": {"speed": 9}})), 400, Some("settings.speed")),
            (post.clone(), all.clone(), Some(json!({"settings": {"x": 9}})), 400, Some("settings.x")),
            (
                post.clone(),
                all.clone(),
                Some(json!({"settings": {"languages": ["en", "xx"]}})),
                400,
                Some("settings.languages"),
            ),
            (
                put.clone(),
                at.clone(),
                Some(json!({"settings": {"languages": ["xx"]}})),
                400,
                Some("settings.languages"),
            ),
            (post.clone(), all.clone(), Some(json!({"settings": {"model": ""}})), 400, Some("settings.model")),
            (
                post.clone(),
                all.clone(),
                Some(json!({"settings": {"characters": {"mira-001": {"vad": null}}}})),
                400,
                Some("settings.characters.mira-001.vad"),
            ),
            (put.clone(), at.clone(), Some(json!({"title": "More tea", "settings": {}})), 200, None),
            (put.clone(), at.clone(), Some(json!({"title": null})), 200, None),
            (put.clone(), at.clone(), Some(json!({"title": long})), 400, Some("title")),
            (put.clone(), at.clone(), Some(json!({"status": "lost"})), 400, Some("status")),
            (put.clone(), at.clone(), Some(json!({"private": "yes"})), 400, Some("private")),
            (put.clone(), at.clone(), Some(nobody.clone()), 400, Some("character_ids")),
            (put.clone(), none.into(), Some(json!({})), 404, None),
            (put.clone(), with("/characters"), Some(json!({"character_ids": []})), 200, None),
            (put.clone(), with("/characters"), Some(nobody), 400, Some("character_ids")),
            (put.clone(), with("/characters"), Some(json!({})), 400, Some("character_ids")),
            (put.clone(), format!("{none}/characters"), Some(json!({"character_ids": []})), 404, None),
            (post.clone(), with("/characters/mira-001"), None, 200, None),
            (post.clone(), with("/characters/mira-001"), None, 200, None),
            (post.clone(), with("/characters/nobody-001"), None, 404, None),
            (post, format!("{none}/characters/mira-001"), None, 404, None),
            (delete.clone(), with("/characters/mira-001"), None, 204, None),
            (delete.clone(), with("/characters/mira-001"), None, 404, None),
            (get.clone(), with("/export"), None, 200, None),
            (get, format!("{none}/export"), None, 404, None),
            (delete.clone(), at.clone(), None, 204, None),
            (delete, at, None, 404, None),
        ],
    )
    .await;
    let list = ask(&server, Method::GET, "/api/conversations?limit=1", None).await.body;
    assert_eq!((&list["total"], list["items"].as_array().unwrap().len()), (&json!(1), 1));
}

async fn a_changed_object_needs_the_tag_that_it_has(store: TestStore) {
    let server = server_on(store, |_| {}).await;
    let id = conversation(&server, json!({})).await;
    let message = json!({"conversation_id": id, "role": "user", "content": "hello"});
    let message = ask(&server, Method::POST, "/api/messages", Some(message)).await.id();
    for (path, body) in [
        (format!("/api/messages/{message}"), json!({"content": "bye"})),
        (format!("/api/conversations/{id}"), json!({"title": "bye"})),
        (format!("/api/conversations/{id}/characters"), json!({"character_ids": []})),
    ] {
        let read = path.trim_end_matches("/characters");
        let tag = ask(&server, Method::GET, read, None).await.tag().to_owned();
        let stale = [("if-match", "\"99\"")];
        let refused = ask_with(&server, Method::PUT, &path, Some(body.clone()), &stale).await;
        assert_eq!((refused.status, &refused.body["code"]), (412, &json!("changed")), "{path}");
        let changed = ask_with(&server, Method::PUT, &path, Some(body), &[("if-match", &tag)]).await;
        assert_eq!(changed.status, 200, "{path}: {}", changed.body);
        assert_ne!(changed.tag(), tag);
        if read == path {
            assert_eq!(ask_with(&server, Method::DELETE, &path, None, &stale).await.status, 412);
        }
    }
}

async fn what_belongs_to_others_is_not_there(store: TestStore) {
    let server = server_on(store, |_| {}).await;
    let other = server.store.of("somebody");
    let new = NewConversation { settings: json!({}), ..NewConversation::default() };
    let talk = other.new_conversation(new).await.unwrap().id;
    let at = format!("/api/conversations/{talk}");
    check(
        &server,
        vec![
            (Method::GET, at.clone(), None, 404, None),
            (Method::PUT, at.clone(), Some(json!({})), 404, None),
            (Method::PUT, format!("{at}/characters"), Some(json!({"character_ids": []})), 404, None),
            (Method::POST, format!("{at}/characters/mira-001"), None, 404, None),
            (Method::DELETE, format!("{at}/characters/mira-001"), None, 404, None),
            (Method::GET, format!("{at}/export"), None, 404, None),
            (Method::DELETE, at, None, 404, None),
            (Method::GET, format!("/api/messages?conversation_id={talk}"), None, 404, None),
        ],
    )
    .await;
    assert_eq!(ask(&server, Method::GET, "/api/conversations", None).await.body["total"], 0);
}

async fn a_session_begins_with_the_conversations_settings(store: TestStore) {
    let server = server_on(store, |_| {}).await;
    let settings = json!({"temperature": 0.25, "output": "text", "vad": null, "model": "m", "stt_model": "s",
                          "tts_model": "t", "characters": {"mira-001": {"model": "hers"}}});
    let id = conversation(&server, json!({"settings": settings})).await;
    let mut client = server.connect(&format!("?conversation_id={id}")).await;
    let started = client.next().await;
    assert_eq!(started["type"], "session_started", "{started}");
    assert_eq!(
        (&started["settings"]["temperature"], &started["settings"]["output"], &started["settings"]["vad"]),
        (&json!(0.25), &json!("text"), &Value::Null)
    );
    for name in ["model", "stt_model", "tts_model", "characters"] {
        assert_eq!(started["settings"][name], settings[name], "{name}");
    }
    server.will_say("Yes.");
    client.say("hello").await;
    client.until("turn_complete").await;
    assert_eq!(server.chat.asked.lock().unwrap()[0].model.as_deref(), Some("hers"));
    let put = json!({"status": "deleted"});
    assert_eq!(ask(&server, Method::PUT, &format!("/api/conversations/{id}"), Some(put)).await.status, 200);
    let mut late = server.connect(&format!("?conversation_id={id}")).await;
    assert_eq!(late.next().await["code"], "conversation_not_found");
}

async fn files_go_with_their_conversation(store: TestStore) {
    let mut data_dir = std::path::PathBuf::new();
    let server = server_on(store, |state| data_dir = state.data_dir.clone()).await;
    let folder = data_dir.join("recordings");
    std::fs::create_dir_all(&folder).unwrap();
    let names = ["0198aaaa-0000-7000-8000-000000000001.opus", "0198aaaa-0000-7000-8000-000000000002.opus"];
    let rows = server.store.of(LOCAL_OWNER);
    let mut conversations = Vec::new();
    for name in names {
        std::fs::write(folder.join(name), "sound").unwrap();
        let conversation = rows.create_conversation(vec![]).await.unwrap().id;
        rows.save_message(message(name, &conversation, "said")).await.unwrap();
        rows.set_recording(name, name).await.unwrap();
        conversations.push(conversation);
    }
    let path = format!("/api/conversations/{}", conversations[0]);
    assert_eq!(ask(&server, Method::DELETE, &path, None).await.status, 204);
    assert!(!folder.join(names[0]).exists() && folder.join(names[1]).exists());
    drop(server);
}
