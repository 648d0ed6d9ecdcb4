//! Several sockets of one call, and coming back to it.

#[path = "restart_tests.rs"]
mod restart;

use std::time::Duration;

use axum::http::HeaderValue;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::Client as Number;
use crate::api::fixture::{Client, PATIENCE, Server, data_of, of, server, server_with};
use crate::session::record::{MessageStatus, Records};
use crate::store::{LOCAL_OWNER, NewKey, Scope};

const SENTENCES: &str = "One two three four five. Six seven eight.";

/// What its client needs to come back.
fn ticket(started: &Value, last_seq: u64) -> Value {
    json!({"type": "resume", "session_id": started["session_id"], "resume_token": started["resume_token"],
           "last_seq": last_seq, "ref": "back"})
}

async fn back(server: &Server, started: &Value, last_seq: u64) -> (Client, Value) {
    let mut client = server.connect("?resume=1").await;
    client.send(ticket(started, last_seq)).await;
    let answer = client.next().await;
    (client, answer)
}

fn numbered(messages: &[Value]) -> Vec<Value> {
    messages.iter().filter(|message| message["seq"].is_u64()).cloned().collect()
}

fn last_seq(messages: &[Value]) -> u64 {
    messages.iter().filter_map(|message| message["seq"].as_u64()).max().unwrap()
}

/// All messages up to the word that the first reply is stored to its end and that the conversation has a title.
async fn until_titled(client: &mut Client) -> Vec<Value> {
    let mut messages = until_stored(client).await;
    if of(&messages, "conversation_updated").is_empty() {
        messages.extend(client.until("conversation_updated").await);
    }
    messages
}

/// All messages up to the word that a reply is stored to its end.
async fn until_stored(client: &mut Client) -> Vec<Value> {
    let mut messages = vec![];
    let whole = |message: &Value| message["role"] == "assistant" && message["status"] == "completed";
    while !messages.iter().any(whole) {
        messages.push(client.next().await);
    }
    messages
}

/// A ping's answer shows that nothing came before it.
async fn nothing_waits(client: &mut Client) {
    client.send(json!({"type": "ping", "ref": "nothing"})).await;
    assert_eq!(client.next().await, json!({"type": "pong", "ref": "nothing"}));
}

#[test]
fn a_ref_keeps_its_owner() {
    let number = Number::new();
    assert_eq!(Number::untag(&number.tag("r 1")), (number, "r 1".to_owned()));
    assert_eq!(Number::untag("short"), (Number(0), "short".to_owned()));
    assert_eq!(Number::read(&number.to_string()), Some(number));
    assert_eq!(Number::read("+000000000000001"), None);
}

#[tokio::test]
async fn a_reconnect_at_each_number_replays_the_rest() {
    let server = server().await;
    server.will_say(SENTENCES);
    let mut client = server.connect("").await;
    let started = client.next().await;
    client.say("hello").await;
    let mut told = vec![started.clone()];
    told.extend(until_titled(&mut client).await);
    let told = numbered(&told);
    drop(client);
    for last_seq in 0..=told.len() {
        let (mut client, answer) = back(&server, &started, last_seq as u64).await;
        assert_eq!(answer, json!({"type": "resumed", "from_seq": last_seq + 1, "ref": "back"}));
        for expected in &told[last_seq..] {
            let mut found = client.next().await;
            while found["type"] == "audio_chunk" {
                found = client.next().await;
            }
            assert_eq!(found, *expected, "after {last_seq}");
        }
        nothing_waits(&mut client).await;
        if last_seq == told.len() / 2 {
            client.socket.close(Some(CloseFrame { code: 1001.into(), reason: "".into() })).await.unwrap();
        }
    }
    server.will_say("Yes.");
    let (mut client, _) = back(&server, &started, told.len() as u64).await;
    client.say("and now").await;
    let more = numbered(&client.until("turn_complete").await);
    assert_eq!(more[0]["seq"], told.len() + 1, "it goes on");
}

#[tokio::test]
async fn what_was_not_played_is_sent_again_and_the_reply_goes_on() {
    let server = server().await;
    server.will_say(SENTENCES);
    let mut client = server.connect("").await;
    let started = client.next().await;
    client.say("hello").await;
    let mut told = client.until("audio_chunk").await;
    for _ in 0..3 {
        told.extend(client.until("audio_chunk").await);
    }
    let item_id = told.last().unwrap()["item_id"].clone();
    client.send(json!({"type": "playback_ack", "item_id": item_id, "played_ms": 150})).await;
    told.extend(client.until("audio_chunk").await);
    drop(client);
    sleep(Duration::from_millis(600)).await;
    let (mut client, answer) = back(&server, &started, last_seq(&told)).await;
    assert_eq!(answer["type"], "resumed");
    let rest = client.until("turn_complete").await;
    let mut expected = of(&rest, "audio_chunk")[0]["pts_ms"].as_u64().unwrap();
    assert!((51..=150).contains(&expected), "from what was acknowledged: {expected}");
    for chunk in of(&rest, "audio_chunk") {
        let pts = chunk["pts_ms"].as_u64().unwrap();
        assert!(pts.abs_diff(expected) <= 1, "{pts} after {expected}");
        expected = pts + data_of(chunk).len() as u64 / 48;
    }
    let whole = SENTENCES.len() as u64 * 60;
    assert!(expected.abs_diff(whole) < 200, "{expected} of {whole} ms");
    assert!(of(&rest, "interrupted").is_empty());
}

#[tokio::test]
async fn two_sockets_follow_one_call() {
    let server = server().await;
    server.will_say(SENTENCES);
    let mut first = server.connect("").await;
    let started = first.next().await;
    let query = format!("?conversation_id={}", started["conversation_id"].as_str().unwrap());
    first.send(json!({"type": "settings", "top_k": 7})).await;
    first.until("settings_applied").await;
    let mut second = server.connect(&query).await;
    let joined = second.next().await;
    assert_eq!((&joined["type"], &joined["session_id"]), (&json!("session_started"), &started["session_id"]));
    assert_eq!(joined["settings"]["top_k"], 7, "as it is now");
    assert_ne!(joined["resume_token"], started["resume_token"]);
    second.say("hello").await;
    let (mut ours, mut theirs) = (first.until("turn_complete").await, second.until("turn_complete").await);
    let refs = |messages: &[Value]| messages.iter().filter(|message| message["ref"] == "t1").count();
    assert_eq!((refs(&ours), refs(&theirs)), (0, 1), "a ref is for whoever asked");
    for message in ours.iter_mut().chain(&mut theirs) {
        message.as_object_mut().unwrap().remove("ref");
    }
    assert_eq!(ours, theirs, "both hear everything");
    second.send(json!({"type": "sing"})).await;
    assert_eq!(second.until("error").await.pop().unwrap()["code"], "unknown_type");
    drop(second);
    server.will_say("Yes.");
    first.say("still there").await;
    let rest = first.until("turn_complete").await;
    assert!(of(&rest, "error").is_empty(), "what answers one is for one");
}

#[tokio::test]
async fn the_microphone_goes_to_whoever_begins_to_speak() {
    let server = server().await;
    let mut first = server.connect("").await;
    let started = first.next().await;
    let query = format!("?conversation_id={}", started["conversation_id"].as_str().unwrap());
    let mut second = server.connect(&query).await;
    second.until("session_started").await;
    first.sound(0, 100).await;
    nothing_waits(&mut first).await;
    second.sound(0, 100).await;
    assert_eq!(first.next().await["type"], "session_replaced");
    // Its microphone runs on for a moment: that is no speech.
    first.sound(16_000, 100).await;
    nothing_waits(&mut first).await;
    nothing_waits(&mut second).await;
    sleep(Duration::from_millis(1_100)).await;
    first.sound(0, 100).await;
    assert_eq!(second.next().await["type"], "session_replaced");
    drop(first);
    second.sound(0, 100).await;
    nothing_waits(&mut second).await;
}

#[tokio::test]
async fn who_does_not_read_costs_the_others_nothing() {
    let server = server_with(|state| state.limits.write_timeout = Duration::from_millis(300)).await;
    let mut deaf = server.connect("").await;
    let started = deaf.next().await;
    let query = format!("?conversation_id={}", started["conversation_id"].as_str().unwrap());
    let mut other = server.connect(&query).await;
    other.until("session_started").await;
    let mistake = json!({"type": "sing", "ref": "x".repeat(128)}).to_string();
    let flood =
        async { while futures::SinkExt::send(&mut deaf.socket, Message::text(mistake.clone())).await.is_ok() {} };
    server.will_say(SENTENCES);
    let talk = async {
        let begun = Instant::now();
        other.say("hello").await;
        let messages = other.until("turn_complete").await;
        (begun.elapsed(), messages)
    };
    let (flooded, (took, messages)) = tokio::join!(timeout(PATIENCE, flood), talk);
    assert!(flooded.is_ok(), "the server lets go");
    assert!(took < Duration::from_secs(6), "{took:?}");
    assert!(of(&messages, "error").is_empty() && of(&messages, "audio_chunk").len() > 20);
}

#[tokio::test]
async fn a_stranger_begins_anew() {
    let server = server().await;
    server.will_say("Yes.");
    let mut client = server.connect("").await;
    let started = client.next().await;
    client.say("hello").await;
    client.until("turn_complete").await;
    let token = started["resume_token"].as_str().unwrap();
    let wrong = format!("{}{}", if token.starts_with('A') { 'B' } else { 'A' }, &token[1..]);
    let cases = [
        json!({"session_id": started["session_id"], "resume_token": wrong, "last_seq": 1}),
        json!({"session_id": started["session_id"], "resume_token": "", "last_seq": 1}),
        json!({"session_id": "other", "resume_token": token, "last_seq": 1}),
        json!({"session_id": started["session_id"], "resume_token": token, "last_seq": 1_000_000}),
    ];
    for mut case in cases {
        case["type"] = json!("resume");
        let mut stranger = server.connect("?resume=1").await;
        stranger.send(case.clone()).await;
        let answer = stranger.next().await;
        assert_eq!((&answer["type"], &answer["from_seq"]), (&json!("resync_required"), &answer["seq"]), "{case}");
        let anew = stranger.next().await;
        assert_eq!(anew["type"], "session_started", "{case}");
        assert_ne!(anew["session_id"], started["session_id"], "{case}");
        assert_eq!(anew["seq"].as_u64(), Some(2));
    }
    let mut hasty = server.connect("?resume=1").await;
    for (message, code) in
        [(json!({"type": "commit", "ref": "r"}), "bad_field"), (json!({"type": "resume"}), "bad_field")]
    {
        hasty.send(message).await;
        assert_eq!(hasty.next().await["code"], code);
    }
    hasty.send(json!({"type": "ping"})).await;
    assert_eq!(hasty.next().await["type"], "pong");
    hasty.send(ticket(&started, 1)).await;
    assert_eq!(hasty.next().await["type"], "resumed", "it still may");
}

#[tokio::test]
async fn another_owner_begins_anew() {
    let server = server().await;
    let new = |name: &str, scope| NewKey { name: name.to_owned(), scope, owner: None, days: None };
    let admin = server.store.create_key(new("admin", Scope::Admin)).await.unwrap();
    let user = server.store.create_key(new("user", Scope::User)).await.unwrap();
    let with = async |key: &str, query: &str| {
        let mut request = format!("ws://{}/ws{query}", server.address).into_client_request().unwrap();
        request.headers_mut().insert("authorization", HeaderValue::from_str(&format!("Bearer {key}")).unwrap());
        Client { socket: connect_async(request).await.unwrap().0 }
    };
    let mut owner = with(&admin.1, "").await;
    let started = owner.next().await;
    let mut other = with(&user.1, "?resume=1").await;
    other.send(ticket(&started, 1)).await;
    assert_eq!(other.next().await["type"], "resync_required");
    assert_ne!(other.next().await["session_id"], started["session_id"]);
}

#[tokio::test]
async fn the_same_client_twice_closes_its_older_connection() {
    let server = server_with(|state| state.limits.sessions = 1).await;
    let mut older = server.connect("").await;
    let started = older.next().await;
    let (mut newer, answer) = back(&server, &started, 1).await;
    assert_eq!(answer["type"], "resumed");
    assert_eq!(older.rest().await.1, Some(4409));
    server.will_say("Yes.");
    newer.say("hello").await;
    newer.until("turn_complete").await;
}

#[tokio::test]
async fn a_call_ends_with_its_grace() {
    let server = server_with(|state| state.limits.grace = Duration::from_millis(400)).await;
    server.will_say(&SENTENCES.repeat(5));
    let mut client = server.connect("").await;
    let started = client.next().await;
    client.say("hello").await;
    client.until("audio_chunk").await;
    drop(client);
    let id = started["conversation_id"].as_str().unwrap().to_owned();
    let begun = Instant::now();
    loop {
        let kept = server.store.of(LOCAL_OWNER).open_conversation(id.clone(), 10).await.unwrap().messages;
        if kept.len() == 2 && kept[1].status == MessageStatus::Completed {
            assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
            assert!(kept[1].heard_chars.is_some_and(|heard| heard < 100), "what was heard: {kept:?}");
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{kept:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn who_says_goodbye_is_not_waited_for() {
    let server = server().await;
    server.will_say(&SENTENCES.repeat(5));
    let mut client = server.connect("").await;
    let started = client.next().await;
    client.say("hello").await;
    client.until("audio_chunk").await;
    client.socket.close(None).await.unwrap();
    let id = started["conversation_id"].as_str().unwrap().to_owned();
    let begun = Instant::now();
    while server.store.of(LOCAL_OWNER).open_conversation(id.clone(), 10).await.unwrap().messages[1].status
        != MessageStatus::Completed
    {
        assert!(begun.elapsed() < Duration::from_secs(5), "its grace would be 30 s");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn over_rest(server: &Server, method: Method, path: &str, body: Option<Value>) {
    let request = server.asking(method, &format!("/api{path}"));
    let request = if let Some(body) = body { request.json(&body) } else { request };
    let answer = request.send().await.unwrap();
    assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
}

#[tokio::test]
async fn what_rest_does_to_a_conversation_is_told_and_known() {
    let server = server().await;
    let mut client = server.connect("").await;
    let started = client.next().await;
    let id = started["conversation_id"].as_str().unwrap();

    over_rest(&server, Method::PUT, &format!("/conversations/{id}"), Some(json!({"title": "Fish"}))).await;
    let told = client.next().await;
    assert_eq!((&told["type"], &told["title"]), (&json!("conversation_updated"), &json!("Fish")));
    assert_eq!((&told["conversation"]["id"], &told["seq"]), (&json!(id), &json!(2)));

    over_rest(&server, Method::PUT, &format!("/conversations/{id}"), Some(json!({"settings": {"top_k": 3}}))).await;
    let told = [client.next().await, client.next().await];
    assert_eq!((&told[0]["type"], &told[1]["type"]), (&json!("conversation_updated"), &json!("settings_applied")));
    assert_eq!((&told[0]["conversation"]["settings"], &told[1]["top_k"]), (&json!({"top_k": 3}), &json!(3)));

    let new = json!({"conversation_id": id, "role": "user", "content": "The word is trout."});
    let made: Value = server.post("/api/messages", &new).await.json().await.unwrap();
    let told = client.next().await;
    assert_eq!((&told["type"], &told["message"]), (&json!("message_created"), &made));
    let place = format!("/messages/{}", made["id"].as_str().unwrap());
    over_rest(&server, Method::PUT, &place, Some(json!({"content": "The word is swordfish."}))).await;
    let told = client.next().await;
    assert_eq!((&told["type"], &told["deleted"]), (&json!("message_updated"), &Value::Null));
    assert_eq!(told["message"]["content"], "The word is swordfish.");

    server.will_say("Yes.");
    client.say("what is the word").await;
    let turn = until_stored(&mut client).await;
    assert!(of(&turn, "message_created").is_empty(), "what the session does itself it tells itself: {turn:?}");
    let asked = server.chat.asked.lock().unwrap().last().unwrap().clone();
    assert!(asked.messages.iter().any(|message| message.content.contains("swordfish")), "{asked:?}");
    assert_eq!(asked.sampling.top_k, 3);

    over_rest(&server, Method::DELETE, &place, None).await;
    let told = client.until("message_updated").await.pop().unwrap();
    assert_eq!((&told["deleted"], &told["message"]["id"]), (&json!(true), &made["id"]));
    server.will_say("No.");
    client.say("and now").await;
    until_stored(&mut client).await;
    let asked = server.chat.asked.lock().unwrap().last().unwrap().messages.clone();
    assert!(!asked.iter().any(|message| message.content.contains("swordfish")), "{asked:?}");
}

#[tokio::test]
async fn a_batch_of_messages_is_told_and_known_to_its_last() {
    let server = server().await;
    let mut client = server.connect("").await;
    let started = client.next().await;
    let id = &started["conversation_id"];
    let line = |number: usize| json!({"conversation_id": id, "role": "user", "content": format!("line {number};")});
    let batch = json!({"messages": (0..500).map(line).collect::<Vec<_>>()});
    assert_eq!(server.post("/api/messages/batch", &batch).await.status(), 201);
    for number in 0..500 {
        let told = client.next().await;
        assert_eq!(
            (&told["type"], &told["message"]["content"]),
            (&json!("message_created"), &json!(format!("line {number};")))
        );
    }
    server.will_say("Yes.");
    client.say("what were the lines").await;
    until_stored(&mut client).await;
    let asked = server.chat.asked.lock().unwrap().clone();
    let mut asked = asked.iter().map(|asked| &asked.messages.last().unwrap().content);
    let known = asked.find(|content| content.ends_with("what were the lines")).unwrap();
    for number in 0..500 {
        assert!(known.contains(&format!("line {number};")), "{number} of {known}");
    }
}

#[tokio::test]
async fn a_batch_for_many_conversations_reaches_each_call() {
    let server = server().await;
    let mut client = server.connect("").await;
    let started = client.next().await;
    let mut lines = vec![json!({"conversation_id": started["conversation_id"], "role": "user", "content": "here"})];
    for _ in 0..300 {
        let id = server.store.of(LOCAL_OWNER).create_conversation(vec![]).await.unwrap().id;
        lines.push(json!({"conversation_id": id, "role": "user", "content": "elsewhere"}));
    }
    assert_eq!(server.post("/api/messages/batch", &json!({"messages": lines})).await.status(), 201);
    let told = client.next().await;
    assert_eq!((&told["type"], &told["message"]["content"]), (&json!("message_created"), &json!("here")));
}

#[tokio::test]
async fn others_that_rest_brings_in_take_part_and_a_deleted_conversation_ends() {
    let server = server().await;
    let mut client = server.connect("").await;
    let started = client.next().await;
    let id = started["conversation_id"].as_str().unwrap();
    let max: Value = server.post("/api/characters", &json!({"name": "Max"})).await.json().await.unwrap();
    let both = json!({"character_ids": ["mira-001", max["id"]]});
    over_rest(&server, Method::PUT, &format!("/conversations/{id}/characters"), Some(both.clone())).await;
    let told = [client.next().await, client.next().await];
    assert!(told.iter().all(|message| message["type"] == "conversation_updated"), "{told:?}");
    assert_eq!(told[0]["conversation"]["character_ids"], both["character_ids"]);
    assert_eq!(told[1]["characters"][1]["name"], "Max");

    server.will_say("Said over there.");
    server
        .post(&format!("/api/conversations/{id}/replies"), &json!({"text": "Max, hello"}))
        .await
        .text()
        .await
        .unwrap();
    let whole =
        |message: &Value| message["message"]["status"] == "completed" && message["message"]["role"] == "assistant";
    let mut told = vec![];
    while !told.iter().any(whole) {
        told.push(client.next().await);
    }
    assert_eq!(of(&told, "message_created")[0]["message"]["content"], "Max, hello");

    over_rest(&server, Method::DELETE, &format!("/conversations/{id}"), None).await;
    let (told, close) = client.rest().await;
    let last = told.last().unwrap();
    assert_eq!((&last["type"], &last["deleted"]), (&json!("conversation_updated"), &json!(true)), "{told:?}");
    assert_eq!(close, Some(4404));
}

#[tokio::test]
async fn who_is_deleted_takes_part_no_more_and_the_default_one_stands_in() {
    let server = server().await;
    let mut client = server.connect("").await;
    let started = client.next().await;
    assert_eq!(started["characters"][0]["id"], "mira-001");
    let at = format!("http://{}/api", server.address);
    let http = reqwest::Client::new();
    for name in ["Max", "Zoe"] {
        assert_eq!(server.post("/api/characters", &json!({"name": name})).await.status(), 201);
    }
    let conversation = format!("{at}/conversations/{}", started["conversation_id"].as_str().unwrap());
    let both = json!({"character_ids": ["mira-001", "max-001"]});
    http.put(format!("{conversation}/characters")).json(&both).send().await.unwrap();
    client.until("conversation_updated").await;
    client.until("conversation_updated").await;
    for (deleted, left, present) in [("max-001", json!(["mira-001"]), "mira-001"), ("mira-001", json!([]), "zoe-001")] {
        http.delete(format!("{at}/characters/{deleted}")).send().await.unwrap().error_for_status().unwrap();
        let told = [client.next().await, client.next().await];
        assert!(told.iter().all(|message| message["type"] == "conversation_updated"), "{told:?}");
        assert_eq!(told[0]["conversation"]["character_ids"], left);
        let present_now: Vec<_> = told[1]["characters"].as_array().unwrap().iter().map(|one| &one["id"]).collect();
        assert_eq!(present_now, [present]);
    }
    server.will_say("Yes.");
    client.say("who is there").await;
    assert_eq!(client.until("turn_complete").await.pop().unwrap()["character_id"], "zoe-001");
}
