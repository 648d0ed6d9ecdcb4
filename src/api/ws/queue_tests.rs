use serde_json::{Value, json};

use crate::api::fixture::{Client, Server, of, server_with};

async fn small_house() -> Server {
    server_with(|state| (state.limits.sessions, state.limits.queue) = (1, 2)).await
}

/// Who has the only session, and those who wait for it.
async fn full(server: &Server) -> (Client, Client, Client) {
    let first = server.started().await;
    let mut second = server.connect("").await;
    at(&mut second, 1).await;
    let mut third = server.connect("").await;
    at(&mut third, 2).await;
    (first, second, third)
}

/// Waits to be told of this place.
async fn at(client: &mut Client, position: u64) -> Value {
    loop {
        let message = client.next().await;
        assert_eq!(message["type"], "queue_position", "{message}");
        assert!(message["retry_after_ms"].is_u64() && message.get("seq").is_none(), "{message}");
        if message["position"] == position {
            return message;
        }
    }
}

#[tokio::test]
async fn who_waits_is_told_its_place_and_gets_its_session() {
    let server = small_house().await;
    let (first, mut second, mut third) = full(&server).await;
    let mut fourth = server.connect("").await;
    let (messages, close) = fourth.rest().await;
    assert_eq!((&messages[0]["code"], close), (&json!("session_limit_reached"), Some(1013)), "the queue is full");
    assert!(messages[0]["message"].as_str().unwrap().contains("try again in"), "{messages:?}");

    drop(first);
    let mut started = second.next().await;
    while started["type"] == "queue_position" {
        started = second.next().await;
    }
    assert_eq!((&started["type"], &started["seq"]), (&json!("session_started"), &json!(1)));
    at(&mut third, 1).await;
    server.will_say("Hello.");
    second.say("hello").await;
    second.until("turn_complete").await;
}

#[tokio::test]
async fn a_socket_that_leaves_gives_its_place_up() {
    let server = small_house().await;
    let (first, second, mut third) = full(&server).await;
    drop(second);
    at(&mut third, 1).await;
    let begun = tokio::time::Instant::now();
    let again = third.next().await;
    assert_eq!(again["type"], "queue_position", "it is told again, though nothing moved");
    assert!(begun.elapsed().as_secs() < 5);
    drop(first);
    while third.next().await["type"] != "session_started" {}
}

#[tokio::test]
async fn who_waits_is_answered() {
    let mut server = small_house().await;
    let _first = server.started().await;
    let mut second = server.connect("").await;
    at(&mut second, 1).await;
    second.send(json!({"type": "ping", "ref": "p"})).await;
    assert_eq!(second.until("pong").await.pop().unwrap()["ref"], "p");
    second.say("hello?").await;
    let error = second.until("error").await.pop().unwrap();
    assert_eq!((&error["code"], &error["ref"]), (&json!("session_limit_reached"), &json!("t1")));
    second.send_text("{".to_owned()).await;
    assert_eq!(second.until("error").await.pop().unwrap()["code"], "bad_json");
    second.sound(0, 20).await;
    server.stop();
    let (messages, close) = second.rest().await;
    assert!(of(&messages, "error").is_empty(), "a microphone is only not heard: {messages:?}");
    assert_eq!(close, Some(1001));
}
