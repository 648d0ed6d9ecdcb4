//! Keys, tickets and floods, over WebSockets and bare TCP.

use std::time::Duration;

use axum::http::HeaderValue;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Error as SocketError;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::doors::{bearer, key};
use crate::api::ApiKey;
use crate::api::fixture::{Client, Server, server, server_on, server_with};
use crate::store::Scope;
use crate::store::fixture::{TestStore, on_both_databases};

on_both_databases!(an_open_socket_ends_with_its_key, each_key_has_its_own_seats_and_its_own_conversations);

async fn ticket(server: &Server, key: &str) -> String {
    let text = format!("POST /api/ws-ticket HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{}\r\n", bearer(key));
    let (status, answer) = server.request(&text).await;
    assert_eq!(status, 200, "{answer}");
    let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    body["ticket"].as_str().unwrap().to_owned()
}

async fn refused(server: &Server, query: &str) -> u16 {
    match connect_async(format!("ws://{}/ws{query}", server.address)).await {
        Err(SocketError::Http(answer)) => answer.status().as_u16(),
        other => panic!("{query}: {other:?}"),
    }
}

async fn with_key(server: &Server, key: &str) -> Client {
    let mut request = format!("ws://{}/ws", server.address).into_client_request().unwrap();
    request.headers_mut().insert("authorization", HeaderValue::from_str(&format!("Bearer {key}")).unwrap());
    Client { socket: connect_async(request).await.unwrap().0 }
}

#[tokio::test]
async fn a_ticket_opens_one_socket() {
    let server = server().await;
    let user = key(&server.store, "user", Scope::User).await;
    let ticket = ticket(&server, &user).await;
    let mut client = server.connect(&format!("?ticket={ticket}")).await;
    assert_eq!(client.next().await["characters"][0]["id"], "mira-002", "as whoever asked for it");
    assert_eq!(refused(&server, &format!("?ticket={ticket}")).await, 401, "once");
    assert_eq!(refused(&server, "?ticket=guess").await, 401);
    assert_eq!(refused(&server, &format!("?ticket={user}")).await, 401, "a key has no place in an address");
    assert_eq!(refused(&server, "").await, 401);
    let other = self::ticket(&server, &user).await;
    assert_eq!(server.get(&format!("/api/providers?ticket={other}"), "").await.0, 401, "sockets only");
}

async fn an_open_socket_ends_with_its_key(database: TestStore) {
    let server = server_on(database, |_| {}).await;
    // Opened while no key was needed.
    let mut stranger = server.started().await;
    let key = key(&server.store, "laptop", Scope::Admin).await;
    let (_, close) = timeout(Duration::from_secs(5), stranger.rest()).await.unwrap();
    assert_eq!(close, Some(4401));
    let mut by_key = with_key(&server, &key).await;
    assert_eq!(by_key.next().await["type"], "session_started");
    let mut by_ticket = server.connect(&format!("?ticket={}", ticket(&server, &key).await)).await;
    assert_eq!(by_ticket.next().await["type"], "session_started");
    let late = ticket(&server, &key).await;
    server.store.revoke_key("laptop").await.unwrap();
    let begun = Instant::now();
    for client in [&mut by_key, &mut by_ticket] {
        let (_, close) = timeout(Duration::from_secs(5), client.rest()).await.unwrap();
        assert_eq!(close, Some(4401));
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(refused(&server, &format!("?ticket={late}")).await, 401);
}

async fn each_key_has_its_own_seats_and_its_own_conversations(database: TestStore) {
    let server = server_on(database, |state| state.limits.sessions_per_key = 1).await;
    let admin = key(&server.store, "admin", Scope::Admin).await;
    let user = key(&server.store, "user", Scope::User).await;
    let mut first = with_key(&server, &admin).await;
    let started = first.next().await;
    assert_eq!(started["type"], "session_started");
    assert_eq!(with_key(&server, &admin).await.next().await["code"], "session_limit_reached");
    let mut other = with_key(&server, &user).await;
    assert_eq!(other.next().await["type"], "session_started", "another key has seats of its own");
    drop(other);
    let query = format!("?conversation_id={}&ticket=", started["conversation_id"].as_str().unwrap());
    let begun = Instant::now();
    loop {
        let mut foreign = server.connect(&format!("{query}{}", ticket(&server, &user).await)).await;
        let (messages, close) = foreign.rest().await;
        if messages[0]["code"] == "session_limit_reached" {
            assert!(begun.elapsed() < Duration::from_secs(10), "the seat is free again");
            sleep(Duration::from_millis(100)).await;
            continue;
        }
        assert_eq!((&messages[0]["code"], close), (&json!("conversation_not_found"), Some(4404)));
        break;
    }
}

#[tokio::test]
async fn half_open_connections_keep_nobody_out() {
    let server = server_with(|state| state.limits.header_timeout = Duration::from_secs(3)).await;
    let mut dribbling = Vec::new();
    for _ in 0..500 {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
        dribbling.push(stream);
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..10 {
        for stream in &mut dribbling {
            // Some are closed by now.
            let _ = stream.write_all(b"x").await;
        }
        let begun = Instant::now();
        assert_eq!(server.get("/api/providers", "").await.0, 200);
        slowest = slowest.max(begun.elapsed());
    }
    assert!(slowest < Duration::from_millis(200), "{slowest:?}");
}

#[tokio::test]
async fn one_address_cannot_take_every_connection() {
    let server = server_with(|state| {
        state.limits.connections = 20;
        state.limits.connections_per_address = 5;
        state.access.api_key = Some(ApiKey::new("sesame"));
    })
    .await;
    let held = async |from: &str, count: usize| {
        let mut streams = Vec::new();
        for _ in 0..count {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
            streams.push(socket.connect(server.address.parse().unwrap()).await.unwrap());
        }
        streams
    };
    let greedy = held("127.0.0.2", 15).await;
    sleep(Duration::from_millis(200)).await;
    let closed = greedy.iter().filter(|stream| stream.try_read(&mut [0]).is_ok_and(|count| count == 0)).count();
    assert_eq!(closed, 5, "of this machine's addresses one has twice as many");
    assert_eq!(server.get("/healthz", "").await.0, 200);
}
