//! Coming back to a session after its server was killed.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::time::sleep;

use super::{back, last_seq, numbered, until_titled};
use crate::api::fixture::{Client, Server, of, server_over};
use crate::provider::Role;
use crate::session::record::{Message, MessageStatus, Records};
use crate::store::fixture::{TestStore, message, on_both_databases};
use crate::store::{LOCAL_OWNER, Store};

on_both_databases!(
    a_killed_server_loses_no_number,
    what_was_refused_is_not_set_after_a_restart,
    what_was_set_for_one_is_set_after_a_restart,
    a_reply_that_was_cut_off_is_spoken_to_its_end,
    no_number_is_given_again_that_anybody_has_read,
    who_comes_too_late_begins_anew,
    what_a_journal_holds_beyond_a_log_is_too_late,
    a_server_starts_whatever_is_noted_with_a_reply,
);

const FIRST: &str = "One two three four five. ";
const SECOND: &str = "Six seven eight.";

/// A server with a runtime of its own, which can be killed.
struct Mortal {
    server: Server,
    runtime: Runtime,
}

async fn mortal(database: &TestStore) -> Mortal {
    let url = database.url().to_owned();
    let runtime = Runtime::new().unwrap();
    let server = runtime.spawn(async move { server_over(Store::open(&url).await.unwrap(), |_| {}).await });
    Mortal { server: server.await.unwrap(), runtime }
}

impl Mortal {
    /// Nothing of it runs on, and nothing is stored or said any more.
    fn kill(self) {
        self.runtime.shutdown_background();
    }
}

async fn next_server(database: &TestStore) -> Server {
    server_over(Store::open(database.url()).await.unwrap(), |_| {}).await
}

async fn kept(database: &TestStore, started: &Value) -> Vec<Message> {
    let id = started["conversation_id"].as_str().unwrap().to_owned();
    database.of(LOCAL_OWNER).open_conversation(id, 10).await.unwrap().messages
}

/// A journal is written a few times a second.
async fn journalled() {
    sleep(Duration::from_millis(700)).await;
}

async fn talk(server: &Server) -> (Client, Value) {
    server.will_say(&format!("{FIRST}{SECOND}"));
    let mut client = server.connect("").await;
    let started = client.next().await;
    (client, started)
}

async fn a_killed_server_loses_no_number(database: TestStore) {
    let first = mortal(&database).await;
    let (mut client, started) = talk(&first.server).await;
    client.send(json!({"type": "settings", "top_k": 7, "vad": {"silence_ms": 500}})).await;
    client.say("hello").await;
    let mut told = vec![started.clone()];
    told.extend(until_titled(&mut client).await);
    let told = numbered(&told);
    journalled().await;
    first.kill();
    let server = next_server(&database).await;
    for last_seq in 0..=told.len() {
        let (mut client, answer) = back(&server, &started, last_seq as u64).await;
        assert_eq!(answer, json!({"type": "resumed", "from_seq": last_seq + 1, "ref": "back"}), "{last_seq}");
        for expected in &told[last_seq..] {
            assert_eq!(client.next().await, *expected, "after {last_seq}");
        }
    }
    server.will_say("Yes.");
    let (mut client, _) = back(&server, &started, told.len() as u64).await;
    client.say("and now").await;
    let more = client.until("turn_complete").await;
    assert!(numbered(&more)[0]["seq"].as_u64() > Some(told.len() as u64), "it goes on");
    let numbers = |messages: &[Value]| of(messages, "text_chunk")[0]["sequence_number"].as_u64().unwrap();
    assert_eq!(numbers(&more), 3, "after the two sentences of before");
    client.send(json!({"type": "settings", "top_p": 0.5})).await;
    let applied = client.until("settings_applied").await.pop().unwrap();
    assert_eq!((&applied["top_k"], &applied["vad"]["silence_ms"]), (&json!(7), &json!(500)), "as it was set before");
}

async fn what_was_refused_is_not_set_after_a_restart(database: TestStore) {
    let first = mortal(&database).await;
    let mut client = first.server.connect("").await;
    let started = client.next().await;
    client.send(json!({"type": "settings", "top_k": 5, "vad": {"silence_ms": 500}})).await;
    client.until("settings_applied").await;
    client.send(json!({"type": "settings", "languages": ["xx"], "top_k": 7, "vad": null})).await;
    assert_eq!(client.until("error").await.pop().unwrap()["code"], "language_unsupported");
    client.send(json!({"type": "settings", "vad": {"threshold": 0.25}})).await;
    let before = client.until("settings_applied").await.pop().unwrap();
    journalled().await;
    first.kill();
    let server = next_server(&database).await;
    let (_back, answer) = back(&server, &started, 1).await;
    assert_eq!(answer["type"], "resumed");
    let query = format!("?conversation_id={}", started["conversation_id"].as_str().unwrap());
    let joined = server.connect(&query).await.next().await;
    assert_eq!(joined["session_id"], started["session_id"]);
    let settings = &joined["settings"];
    assert_eq!((&settings["top_k"], &settings["languages"]), (&json!(5), &started["settings"]["languages"]));
    assert_eq!((&settings["top_k"], &settings["vad"]), (&before["top_k"], &before["vad"]), "as it was in force");
}

async fn what_was_set_for_one_is_set_after_a_restart(database: TestStore) {
    let first = mortal(&database).await;
    let mut client = first.server.connect("").await;
    let started = client.next().await;
    let id = started["characters"][0]["id"].as_str().unwrap();
    let models = json!({"type": "settings", "model": "m", "stt_model": "s", "tts_model": "t", "vad": null});
    client.send(models).await;
    client.send(json!({"type": "settings", "characters": {id: {"model": "his-own", "top_k": 7}}})).await;
    client.send(json!({"type": "settings", "characters": {id: {"top_k": 9}}, "vad": {"silence_ms": 500}})).await;
    let mut before = client.until("settings_applied").await;
    before.extend(client.until("settings_applied").await);
    before.extend(client.until("settings_applied").await);
    let before = before.pop().unwrap();
    assert_eq!(before["characters"], json!({id: {"model": "his-own", "top_k": 9}}));
    journalled().await;
    first.kill();
    let server = next_server(&database).await;
    let (mut back, answer) = back(&server, &started, before["seq"].as_u64().unwrap()).await;
    assert_eq!(answer["type"], "resumed");
    server.will_say("Yes.");
    back.say("hello").await;
    back.until("turn_complete").await;
    assert_eq!(server.chat.asked.lock().unwrap()[0].model.as_deref(), Some("his-own"));
    back.send(json!({"type": "settings", "lead_ms": 400})).await;
    let after = back.until("settings_applied").await.pop().unwrap();
    for name in ["model", "stt_model", "tts_model", "vad", "characters"] {
        assert_eq!(after[name], before[name], "{name}");
    }
}

async fn a_reply_that_was_cut_off_is_spoken_to_its_end(database: TestStore) {
    let first = mortal(&database).await;
    let (mut client, started) = talk(&first.server).await;
    client.say("hello").await;
    let mut told = client.until("audio_chunk").await;
    while told.last().unwrap()["sequence_number"] != 2 {
        told.extend(client.until("audio_chunk").await);
    }
    let item_id = told.last().unwrap()["item_id"].clone();
    client.send(json!({"type": "playback_ack", "item_id": item_id, "played_ms": 1_500})).await;
    told.extend(client.until("audio_chunk").await);
    sleep(Duration::from_millis(400)).await;
    first.kill();
    let under_way = kept(&database, &started).await;
    assert_eq!(under_way[1].status, MessageStatus::Processing, "as the kill has left it");

    if database.kind() == "postgres" {
        // Another server may be writing it, but not for so long.
        database.execute("UPDATE messages SET updated_at = '2020-01-01T00:00:00.000Z' /* every row */").await;
    }
    let server = next_server(&database).await;
    // Before it answers anything it has mended them.
    server.get("/healthz", "").await;
    let mended = kept(&database, &started).await;
    assert_eq!(
        (mended[1].status, mended[1].content.as_str()),
        (MessageStatus::Completed, "One two three four five. Six seven eight.")
    );
    assert_eq!(mended[1].heard_chars, Some(FIRST.trim_end().len()), "what was acknowledged");

    let (mut client, answer) = back(&server, &started, last_seq(&told)).await;
    assert_eq!(answer["type"], "resumed");
    let rest = client.until("turn_complete").await;
    let audio = of(&rest, "audio_chunk");
    assert!(audio.iter().all(|chunk| chunk["sequence_number"] == 2 && chunk["item_id"] == item_id), "{audio:?}");
    assert_eq!(audio[0]["pts_ms"], FIRST.trim_end().len() * 60, "where what was heard ends");
    assert!(of(&rest, "text_chunk").is_empty(), "its text was told");
    assert_eq!(rest.last().unwrap()["item_id"], item_id);
    let seqs: Vec<_> = numbered(&rest).iter().map(|message| message["seq"].as_u64().unwrap()).collect();
    assert!(seqs[0] > last_seq(&told), "{rest:?}");
    assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "{seqs:?}");
    let (_again, answer) = back(&server, &started, last_seq(&told)).await;
    assert_eq!(answer["type"], "resumed");
    let saved = |message: &Message| message.status == MessageStatus::Completed && message.heard_chars.is_none();
    while !saved(&kept(&database, &started).await[1]) {
        sleep(Duration::from_millis(20)).await;
    }
}

async fn no_number_is_given_again_that_anybody_has_read(database: TestStore) {
    let first = mortal(&database).await;
    let (mut client, started) = talk(&first.server).await;
    let query = format!("?conversation_id={}", started["conversation_id"].as_str().unwrap());
    let mut other = first.server.connect(&query).await;
    let joined = other.next().await;
    journalled().await;
    client.say("hello").await;
    // Of this the journal has nothing yet.
    let read = other.until("audio_chunk").await;
    first.kill();

    let server = next_server(&database).await;
    server.will_say("Yes.");
    let (mut client, answer) = back(&server, &started, last_seq(std::slice::from_ref(&started))).await;
    assert_eq!(answer["type"], "resumed");
    client.say("and now").await;
    let told = client.until("turn_complete").await;
    let (mut other, answer) = back(&server, &joined, last_seq(&read)).await;
    assert_eq!(answer["type"], "resumed");
    let after = other.until("turn_complete").await;
    let texts = |messages: &[Value]| -> Vec<Value> {
        let new = |text: &&Value| text["seq"].as_u64() > Some(last_seq(&read));
        of(messages, "text_chunk").into_iter().filter(new).cloned().collect()
    };
    assert!(!texts(&told).is_empty());
    let turns = |messages: &[Value]| messages.iter().filter_map(|message| message["turn"].as_u64()).collect::<Vec<_>>();
    assert!(turns(&told).iter().min() > turns(&read).iter().max(), "nor a turn: {told:?} after {read:?}");
    assert_eq!(texts(&after), texts(&told));
}

async fn who_comes_too_late_begins_anew(database: TestStore) {
    let first = mortal(&database).await;
    let (mut client, started) = talk(&first.server).await;
    client.say("hello").await;
    let told = client.until("turn_complete").await;
    journalled().await;
    first.kill();
    let server = next_server(&database).await;
    let wrong = |name: &str, value: Value| {
        let mut started = started.clone();
        started[name] = value;
        started
    };
    let token = started["resume_token"].as_str().unwrap();
    let cases = [
        (wrong("resume_token", json!(format!("x{token}"))), 1),
        (wrong("resume_token", json!(token.split('.').next().unwrap())), 1),
        (wrong("session_id", json!("other")), 1),
        (started.clone(), last_seq(&told) + 1_000_000),
    ];
    for (started, last_seq) in cases {
        let (_client, answer) = back(&server, &started, last_seq).await;
        assert_eq!(answer["type"], "resync_required", "{started} {last_seq}");
    }
    // Somebody else has the conversation open by now.
    let query = format!("?conversation_id={}", started["conversation_id"].as_str().unwrap());
    let mut other = server.connect(&query).await;
    let joined = other.next().await;
    assert_ne!(joined["session_id"], started["session_id"]);
    let (_client, answer) = back(&server, &started, 1).await;
    assert_eq!(answer["type"], "resync_required");
}

async fn what_a_journal_holds_beyond_a_log_is_too_late(database: TestStore) {
    let first = mortal(&database).await;
    let mut client = first.server.connect("").await;
    let started = client.next().await;
    let id = started["characters"][0]["id"].as_str().unwrap();
    let prompt = "x".repeat(30_000);
    // Each is told to be set, with all that is set: 64 kB.
    let settings = json!({"type": "settings", "system_prompt": prompt, "characters": {id: {"system_prompt": prompt}}});
    let mut seq = 0;
    for _ in 0..80 {
        client.send(settings.clone()).await;
        seq = client.until("settings_applied").await.pop().unwrap()["seq"].as_u64().unwrap();
    }
    journalled().await;
    first.kill();
    let server = next_server(&database).await;
    let (mut late, answer) = back(&server, &started, 1).await;
    assert_eq!(answer["type"], "resync_required");
    assert_eq!(late.until("session_started").await.pop().unwrap()["type"], "session_started");
    let (_client, answer) = back(&server, &started, seq).await;
    assert_eq!(answer["type"], "resumed", "what it holds is not lost");
}

async fn a_server_starts_whatever_is_noted_with_a_reply(database: TestStore) {
    let rows = database.of(LOCAL_OWNER);
    let id = rows.create_conversation(vec![]).await.unwrap().id;
    for (name, metadata) in [("list", json!([null, null, null, null, null, null])), ("text", json!("timings"))] {
        let (role, status) = (Role::Assistant, MessageStatus::Processing);
        rows.save_message(Message { role, status, metadata, ..message(name, &id, "One") }).await.unwrap();
    }
    if database.kind() == "postgres" {
        database.execute("UPDATE messages SET updated_at = '2020-01-01T00:00:00.000Z' /* every row */").await;
    }
    let server = next_server(&database).await;
    assert_eq!(server.get("/healthz", "").await.0, 200);
    let mended = rows.open_conversation(id, 10).await.unwrap().messages;
    assert_eq!(mended.len(), 2);
    for message in mended {
        assert_eq!(message.status, MessageStatus::Failed);
        assert_eq!(message.metadata, json!({"error": "the server ended while this was written"}), "{}", message.id);
    }
}
