use serde_json::{Value, json};

use crate::api::fixture::{server, server_with};

async fn post(server: &crate::api::fixture::Server, path: &str) -> (u16, String) {
    let response = server.post(path, &json!({})).await;
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test]
async fn models_here_and_elsewhere_are_listed_with_how_they_are() {
    let server = server().await;
    let (status, answer) = server.get("/api/models", "").await;
    let list: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!((status, &list["total"]), (200, &json!(4)));
    let wanted = json!({
        "name": "small", "provider": "local", "kind": "chat", "summary": "A model.", "licence": "MIT",
        "state": "unloaded", "disk_bytes": 1000, "memory_bytes": 2000, "price": null,
    });
    assert_eq!(list["items"][0], wanted);
    assert_eq!(list["items"][1]["disk_bytes"], Value::Null, "it is not here");
    assert_eq!(
        (&list["items"][2]["state"], &list["items"][2]["reason"]),
        (&json!("failed"), &json!("its file is damaged"))
    );
    let remote = &list["items"][3];
    assert_eq!((&remote["provider"], &remote["price"]["input"]), (&json!("openai"), &json!(2.5)));
}

#[tokio::test]
async fn models_are_loaded_and_unloaded() {
    let server = server().await;
    for (path, status, field, value) in [
        ("/api/models/small/load", 200, "state", "ready"),
        ("/api/models/small/load", 200, "state", "ready"),
        ("/api/models/small/unload", 200, "state", "unloaded"),
        ("/api/models/broken/load", 503, "code", "model_unavailable"),
        ("/api/models/gone/load", 404, "code", "model_not_found"),
        ("/api/models/gone/unload", 404, "code", "model_not_found"),
        ("/api/models/gone/pull", 404, "code", "model_not_found"),
    ] {
        let (found, body) = post(&server, path).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((found, &body[field]), (status, &json!(value)), "{path}: {body}");
    }
}

#[tokio::test]
async fn a_pull_tells_its_progress_and_its_end() {
    let server = server_with(|_| {}).await;
    let (status, events) = post(&server, "/api/models/large/pull").await;
    assert_eq!(status, 200);
    let names: Vec<&str> = events.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(names, ["progress", "progress", "done"]);
    let data: Vec<Value> = events
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let wanted =
        json!({"model": "large", "stage": "fetching", "file": "weights", "done_bytes": 50, "total_bytes": 100});
    assert_eq!(data[0], wanted);
    let (_, events) = post(&server, "/api/models/broken/pull").await;
    assert!(events.contains("event: error") && events.contains("the hub does not answer"), "{events}");
    assert!(!events.contains("event: done"));
}
