use axum::Router;
use axum::routing::post;
use reqwest::Method;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::api::fixture::{Server, server_on};
use crate::store::LOCAL_OWNER;
use crate::store::fixture::{TestStore, on_both_databases};

on_both_databases!(
    the_same_request_is_answered_again_and_done_once,
    what_is_under_way_is_not_done_twice,
    a_client_that_leaves_finds_the_answer_later,
);

async fn send(server: &Server, path: &str, key: &str, body: &Value) -> reqwest::Response {
    server.asking(Method::POST, path).header(HEADER, key).json(body).send().await.unwrap()
}

async fn code(response: reqwest::Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    (status, body["code"].as_str().unwrap_or_default().to_owned())
}

async fn made(server: &Server) -> u64 {
    let (_, answer) = server.get("/api/conversations", "").await;
    let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    body["total"].as_u64().unwrap()
}

async fn the_same_request_is_answered_again_and_done_once(store: TestStore) {
    let server = server_on(store, |_| {}).await;
    let (path, body) = ("/api/conversations", json!({"title": "once"}));
    let first = send(&server, path, "k-1", &body).await;
    assert_eq!(first.status(), 201);
    assert!(!first.headers().contains_key(REPLAYED));
    let (tag, location) = (first.headers()["etag"].clone(), first.headers()["location"].clone());
    let text = first.text().await.unwrap();
    let again = send(&server, path, "k-1", &body).await;
    assert_eq!((again.status().as_u16(), &again.headers()[REPLAYED]), (201, &HeaderValue::from_static("true")));
    assert_eq!((&again.headers()["etag"], &again.headers()["location"]), (&tag, &location));
    assert_eq!(again.headers()["content-type"], "application/json");
    assert_eq!(again.text().await.unwrap(), text);
    assert_eq!(made(&server).await, 1);

    let reused = || (422, "idempotency_key_reused".to_owned());
    assert_eq!(code(send(&server, path, "k-1", &json!({"title": "other"})).await).await, reused());
    assert_eq!(code(send(&server, "/api/messages", "k-1", &body).await).await, reused());
    let bad = json!({"title": 3});
    assert_eq!(code(send(&server, path, "k-2", &bad).await).await, (400, "bad_field".into()));
    let refused = send(&server, path, "k-2", &bad).await;
    assert!(refused.headers().contains_key(REPLAYED), "a refusal is an answer too");
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
    assert_eq!(code(send(&server, path, &"k".repeat(256), &body).await).await, (400, "bad_field".into()));
    let form = reqwest::multipart::Form::new().text("a", "b");
    let upload = server.asking(Method::POST, path).multipart(form);
    let refused = upload.header(HEADER, "k-3").send().await.unwrap();
    assert_eq!(code(refused).await, (400, "idempotency_not_possible".into()));
    assert_eq!(made(&server).await, 1);
}

async fn what_is_under_way_is_not_done_twice(store: TestStore) {
    let server = server_on(store, |_| {}).await;
    let body = json!({"title": "once"});
    let many = (0..6).map(|_| send(&server, "/api/conversations", "k", &body));
    for response in futures::future::join_all(many).await {
        match response.status().as_u16() {
            201 => {}
            409 => assert_eq!(response.headers()["retry-after"], "1"),
            status => panic!("{status}"),
        }
    }
    assert_eq!(made(&server).await, 1);
}

async fn panics() -> Response {
    panic!("on purpose")
}

/// Routes whose answers take their time or break, behind the same door.
async fn odd_routes(store: &TestStore) -> String {
    let slow = || async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        "\"late\"".into_response()
    };
    let busy = || async { Problem::new(StatusCode::TOO_MANY_REQUESTS, "busy", "later").into_response() };
    let stream = || async { ([(header::CONTENT_TYPE, "text/event-stream")], "data: 1\n\n").into_response() };
    let rows = store.of(LOCAL_OWNER);
    let door = move |request: Request, next: Next| {
        let rows = rows.clone();
        async move {
            let key = request.headers()[HEADER].clone();
            answer_once(&key, rows, request, next).await.unwrap_or_else(Problem::into_response)
        }
    };
    let json = axum::middleware::map_response(|mut response: Response| async move {
        if response.status() == StatusCode::OK && response.headers()[header::CONTENT_TYPE] != "text/event-stream" {
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        response
    });
    let routes = Router::new()
        .route("/slow", post(slow))
        .route("/panics", post(panics))
        .route("/busy", post(busy))
        .route("/stream", post(stream))
        .layer(json)
        .layer(axum::middleware::from_fn(door));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    address
}

async fn a_client_that_leaves_finds_the_answer_later(store: TestStore) {
    let address = odd_routes(&store).await;
    let ask = async |path: &str| {
        let request = reqwest::Client::new().post(format!("http://{address}{path}"));
        request.header(HEADER, path.trim_start_matches('/')).send().await.unwrap()
    };
    let mut leaver = TcpStream::connect(&address).await.unwrap();
    let request = format!("POST /slow HTTP/1.1\r\nHost: {address}\r\n{HEADER}: slow\r\nContent-Length: 0\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut leaver, request.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(150)).await;
    drop(leaver);
    tokio::time::sleep(Duration::from_millis(600)).await;
    let kept = ask("/slow").await;
    assert!(kept.headers().contains_key(REPLAYED));
    assert_eq!(kept.text().await.unwrap(), "\"late\"");

    for (path, status) in [("/panics", 500), ("/busy", 429)] {
        for _ in 0..2 {
            let answer = ask(path).await;
            assert_eq!(answer.status().as_u16(), status);
            assert!(!answer.headers().contains_key(REPLAYED), "{path} is not kept");
        }
    }
    assert_eq!(ask("/stream").await.text().await.unwrap(), "data: 1\n\n");
    assert_eq!(code(ask("/stream").await).await, (409, "idempotency_answer_not_kept".into()));
}
