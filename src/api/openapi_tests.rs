use serde_json::{Value, json};

use crate::api::fixture::{Server, server_on, server_with};
use crate::api::{Access, ApiKey};
use crate::store::fixture::{TestStore, on_both_databases};
use crate::store::{NewKey, Scope};

on_both_databases!(what_is_anothers_is_not_there);

/// What needs no key: whoever watches over the process, whoever reads the description, whoever is about to log in.
const OPEN: [&str; 5] = ["/healthz", "/readyz", "/metrics", "/openapi.json", "/api/login"];

async fn closed() -> Server {
    server_with(|state| state.access = Access { api_key: Some(ApiKey::new("secret")), ..Access::default() }).await
}

async fn document(server: &Server) -> Value {
    let (status, answer) = server.get("/openapi.json", "").await;
    assert_eq!(status, 200);
    serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap()
}

/// Every route as method and path.
fn operations(document: &Value) -> Vec<(String, String)> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        let methods =
            item.as_object().unwrap().keys().filter(|key| ["get", "put", "post", "delete"].contains(&key.as_str()));
        methods.map(|method| (method.to_uppercase(), path.clone()))
    });
    operations.collect()
}

#[tokio::test]
async fn every_route_but_the_open_ones_needs_a_key() {
    let server = closed().await;
    let operations = operations(&document(&server).await);
    assert!(operations.len() > 50, "{} operations", operations.len());
    for (method, path) in &operations {
        let filled = path.replace(['{', '}'], "");
        let request =
            format!("{method} {filled} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        let (status, answer) = server.request(&request).await;
        if OPEN.contains(&path.as_str()) {
            assert_ne!(status, 401, "{method} {path}");
        } else {
            assert_eq!(status, 401, "{method} {path}: {answer}");
        }
    }
}

/// A client can build on what it gets: every answer in JSON has a shape, and every object says what is in it.
#[tokio::test]
async fn no_answer_is_free_of_form() {
    let server = closed().await;
    let document = document(&server).await;
    assert_eq!(document["openapi"], "3.1.0");
    let mut free = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Some(responses) = operation["responses"].as_object() else { continue };
            for (status, response) in responses {
                let content = response["content"].as_object();
                for (kind, media) in content.into_iter().flatten().filter(|(kind, _)| kind.contains("json")) {
                    if media["schema"].as_object().is_none_or(serde_json::Map::is_empty) {
                        free.push(format!("{method} {path} {status} {kind}"));
                    }
                }
            }
        }
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        find_free(schema, name, &mut free);
    }
    assert!(free.is_empty(), "{free:#?}");
}

/// Places of a schema that allow anything.
fn find_free(schema: &Value, place: &str, free: &mut Vec<String>) {
    let Some(fields) = schema.as_object() else { return };
    let says_something =
        ["type", "$ref", "oneOf", "anyOf", "allOf", "enum", "const"].iter().any(|key| fields.contains_key(*key));
    let is_open_object = schema["type"] == "object"
        && ["properties", "additionalProperties", "patternProperties"].iter().all(|key| !fields.contains_key(*key));
    if !says_something || is_open_object {
        free.push(place.to_owned());
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        find_free(property, &format!("{place}.{name}"), free);
    }
    if let Some(items) = fields.get("items") {
        find_free(items, &format!("{place}[]"), free);
    }
}

#[tokio::test]
async fn every_operation_has_a_name_of_its_own() {
    let document = document(&closed().await).await;
    let items = document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values());
    let mut names: Vec<&str> = items.filter_map(|operation| operation["operationId"].as_str()).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
    assert!(names.contains(&"get_conversations_id_export"), "{names:?}");
}

#[tokio::test]
async fn the_page_to_read_it_needs_no_other_server() {
    let server = closed().await;
    let (status, page) = server.get("/docs/", "").await;
    assert_eq!(status, 200, "{page}");
    assert!(!page.contains("https://"), "{page}");
    for file in ["swagger-ui.css", "swagger-ui-bundle.js", "swagger-initializer.js"] {
        assert_eq!(server.get(&format!("/docs/{file}"), "").await.0, 200, "{file}");
    }
    assert_eq!(
        operations(&json!({"paths": {"/a": {"get": {}, "parameters": []}}})),
        [("GET".to_owned(), "/a".to_owned())]
    );
}

/// What a route with an id is sent, so that nothing but the owner can be wrong.
fn body_for(method: &str, path: &str) -> Option<Value> {
    let body = match (method, path) {
        ("PUT", "/api/characters/{id}" | "/api/voices/{voice}") => json!({"name": "Mine"}),
        ("PUT", "/api/characters/{id}/active") => json!({"is_active": false}),
        ("PUT", "/api/conversations/{id}") => json!({"title": "Mine"}),
        ("PUT", "/api/conversations/{id}/characters") => json!({"character_ids": []}),
        ("POST", "/api/conversations/{id}/replies" | "/api/voices/{voice}/preview") => json!({"text": "Hello."}),
        ("PUT", "/api/messages/{id}") => json!({"content": "mine"}),
        _ => return None,
    };
    Some(body)
}

async fn what_is_anothers_is_not_there(store: TestStore) {
    let server = server_on(store, |state| {
        state.access = Access { api_key: Some(ApiKey::new("secret")), ..Access::default() };
    })
    .await;
    let new = NewKey { name: "bob".into(), scope: Scope::User, owner: Some("bob".into()), days: None };
    let (_, theirs) = server.store.create_key(new).await.unwrap();
    let client = reqwest::Client::new();
    let send = async |key: &str, method: &str, path: &str, body: Option<Value>| {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = client.request(method, format!("http://{}{path}", server.address)).bearer_auth(key);
        if path.ends_with("/image") {
            let picture = reqwest::multipart::Part::bytes(b"\x89PNG\r\n\x1a\n".to_vec()).file_name("a.png");
            request = request.multipart(reqwest::multipart::Form::new().part("file", picture));
        } else if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap_or_default())
    };
    let made = async |path: &str, body: Value| {
        let (status, made) = send("secret", "POST", path, Some(body)).await;
        assert_eq!(status, 201, "{path}: {made}");
        made
    };
    let character = made("/api/characters", json!({"name": "Zoe"})).await;
    let conversation = made("/api/conversations", json!({"character_ids": [character["id"]]})).await;
    let message =
        made("/api/messages", json!({"conversation_id": conversation["id"], "role": "user", "content": "Hi"})).await;
    let described = json!({"name": "Nora", "method": "description", "speaker_description": "A calm voice."});
    let voice = made("/api/voices", described).await;
    let mut seen = 0;
    for (method, path) in operations(&document(&server).await) {
        // An address of speech is its own key, and models are everybody's.
        let Some((resource, _)) = path.strip_prefix("/api/").and_then(|rest| rest.split_once("/{")) else { continue };
        let id = match resource {
            "characters" => &character["id"],
            "conversations" => &conversation["id"],
            "messages" => &message["id"],
            "voices" => &voice["voice"],
            _ => continue,
        };
        let filled = path.replace("{char_id}", character["id"].as_str().unwrap());
        let filled = filled.replace("{id}", id.as_str().unwrap()).replace("{voice}", id.as_str().unwrap());
        let (status, answer) = send(&theirs, &method, &filled, body_for(&method, &path)).await;
        assert_eq!(status, 404, "{method} {path}: {answer}");
        seen += 1;
    }
    assert!(seen >= 24, "{seen} routes");
    for path in ["/api/characters/zoe-001", "/api/voices/nora"] {
        assert_eq!(send("secret", "GET", path, None).await.0, 200, "it is still there");
    }
}
