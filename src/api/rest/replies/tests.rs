use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::{AnyConnection, Connection};
use tokio::time::{sleep, timeout};

use super::*;
use crate::api::fixture::{PATIENCE, Server, server, server_on};
use crate::provider::fake::FakeSpeech;
use crate::provider::{Delta, ProviderError, Role};
use crate::session::record::{Character, Message, MessageStatus, Records};
use crate::store::LOCAL_OWNER;
use crate::store::fixture::{TestStore, on_both_databases};

on_both_databases!(
    a_text_is_answered_event_by_event_and_stored,
    a_reply_is_written_again_under_its_id,
    what_cannot_be_is_refused_by_name,
    what_a_character_said_can_be_heard_again,
);

const QUICK: Duration = Duration::from_millis(2);
const SLOW: Duration = Duration::from_millis(100);

/// The event's name, and its data.
type Happened = (String, Value);

async fn conversation(server: &Server) -> String {
    server.store.of(LOCAL_OWNER).create_conversation(vec![]).await.unwrap().id
}

async fn ask(server: &Server, id: &str, body: Value) -> reqwest::Response {
    server.post(&format!("/api/conversations/{id}/replies"), &body).await
}

/// Every event of an answer.
async fn all(response: reqwest::Response) -> Vec<Happened> {
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = timeout(PATIENCE, response.text()).await.unwrap().unwrap();
    events(&text)
}

fn events(text: &str) -> Vec<Happened> {
    let event = |block: &str| {
        let name = block.lines().find_map(|line| line.strip_prefix("event: "))?;
        let data = block.lines().find_map(|line| line.strip_prefix("data: "))?;
        Some((name.to_owned(), serde_json::from_str(data).unwrap()))
    };
    text.split("\n\n").filter_map(event).collect()
}

fn names(events: &[Happened]) -> Vec<&str> {
    let mut names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    names.dedup();
    names
}

fn of<'a>(events: &'a [Happened], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|(it, _)| it == name).map(|(_, data)| data).collect()
}

async fn messages(server: &Server, id: &str) -> Vec<Message> {
    server.store.of(LOCAL_OWNER).open_conversation(id.to_owned(), 100).await.unwrap().messages
}

/// Waits for what comes a little later.
async fn eventually<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, looking).await.unwrap()
}

/// Adds a character to the database behind the server.
async fn add_character(server: &Server, id: &str, name: &str, model: Option<&str>) {
    let mut database = AnyConnection::connect(&format!("sqlite://{}", server.store.place())).await.unwrap();
    sqlx::query(
        "INSERT INTO characters (id, name, description, system_prompt, model, parameters, created_at, updated_at)
         VALUES ($1, $2, '', $3, $4, '{\"temperature\": 0.25}', '2027-01-01', '2027-01-01')",
    )
    .bind(id.to_owned())
    .bind(name.to_owned())
    .bind(format!("You are {name}."))
    .bind(model.map(str::to_owned))
    .execute(&mut database)
    .await
    .unwrap();
}

async fn exchange(server: &Server, id: &str, text: &str, reply: &str) -> Vec<Happened> {
    server.will_say(reply);
    all(ask(server, id, json!({"text": text})).await).await
}

async fn a_text_is_answered_event_by_event_and_stored(database: TestStore) {
    let spoken = Arc::new(FakeSpeech::default());
    let speech = Arc::clone(&spoken);
    let server = server_on(database, |state| state.parts.speech = speech as _).await;
    let id = conversation(&server).await;
    let begun = Instant::now();
    let events = exchange(&server, &id, "How do I bake bread?", "Knead it well.").await;
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(names(&events), ["message", "delta", "message", "done"]);
    let [said, reply] = of(&events, "message")[..] else { panic!("{events:?}") };
    assert_eq!((&said["role"], &said["content"]), (&json!("user"), &json!("How do I bake bread?")));
    assert_eq!((&said["status"], &said["conversation_id"]), (&json!("completed"), &json!(id)));
    assert_eq!((&reply["role"], &reply["status"]), (&json!("assistant"), &json!("completed")));
    assert_eq!((&reply["character_id"], &reply["character_name"]), (&json!("mira-001"), &json!("Mira")));
    assert_eq!((&reply["heard_chars"], &reply["audio_url"]), (&Value::Null, &Value::Null));
    assert_eq!(reply["metadata"]["model"], "fake-mind");
    assert!(reply["metadata"]["tokens"]["completion"].as_u64() > Some(0), "{reply}");
    assert!(reply["metadata"]["timings"]["llm_first_token_ms"].is_u64(), "{reply}");
    let deltas = of(&events, "delta");
    let text: String = deltas.iter().map(|delta| delta["text"].as_str().unwrap()).collect();
    assert_eq!((text.as_str(), &reply["content"]), ("Knead it well.", &json!("Knead it well.")));
    assert!(deltas.iter().all(|it| it["item_id"] == reply["id"] && it["character_id"] == "mira-001"), "{deltas:?}");
    assert!(spoken.asked.lock().unwrap().is_empty(), "nobody asked for sound");
    let stored = messages(&server, &id).await;
    let ids: Vec<_> = stored.iter().map(|message| json!(message.id)).collect();
    assert_eq!(ids, [said["id"].clone(), reply["id"].clone()]);
    // The next one knows it.
    exchange(&server, &id, "And then?", "Bake it.").await;
    let asked = server.chat.asked.lock().unwrap().last().unwrap().clone();
    let texts: Vec<_> = asked.messages[1..].iter().map(|message| message.content.as_str()).collect();
    assert_eq!(texts, ["How do I bake bread?", "Knead it well.", "And then?"]);
    assert_eq!(asked.caller.conversation_id.as_deref(), Some(id.as_str()));
}

#[tokio::test]
async fn a_reply_may_be_spoken_too() {
    let server = server().await;
    let id = conversation(&server).await;
    server.will_say("Knead it well.");
    let parameters = json!({"audio_format": "wav", "speed": 1.5});
    let body = json!({"text": "Bread?", "output": "audio", "parameters": parameters});
    let events = all(ask(&server, &id, body).await).await;
    let audio = of(&events, "audio");
    assert!(!audio.is_empty());
    let reply = of(&events, "message")[1];
    let bytes = |chunk: &Value| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.decode(chunk["audio_data"].as_str().unwrap()).unwrap()
    };
    for chunk in &audio {
        assert_eq!((&chunk["format"], &chunk["sample_rate"]), (&json!("wav"), &json!(24_000)));
        assert_eq!(chunk["item_id"], reply["id"]);
        assert_eq!(&bytes(chunk)[..4], b"RIFF");
    }
    let length: usize = audio.iter().map(|chunk| (bytes(chunk).len() - 44) / 48).sum();
    assert_eq!(length, 60 * "Knead it well.".len());
    assert_eq!(events.last().unwrap().0, "done");
    assert_eq!(events[events.len() - 2].0, "message");
}

#[tokio::test]
async fn each_character_answers_on_its_own_terms() {
    let server = server().await;
    add_character(&server, "max-001", "Max", Some("openai/gpt-4o")).await;
    let id = conversation(&server).await;
    let who = json!(["max-001", "mira-001", "max-001"]);
    for reply in ["I am Max.", "I am here.", "Yes.", "No."] {
        server.will_say(reply);
    }
    let body = json!({"text": "Who is there?", "character_ids": who});
    let events = all(ask(&server, &id, body).await).await;
    assert_eq!(names(&events), ["message", "delta", "message", "delta", "message", "done"]);
    let said: Vec<_> =
        of(&events, "message").iter().map(|it| (it["character_id"].clone(), it["content"].clone())).collect();
    assert_eq!(said[1..], [(json!("max-001"), json!("I am Max.")), (json!("mira-001"), json!("I am here."))]);
    let body = json!({"text": "Sure?", "character_ids": who, "model": "local/other",
                      "parameters": {"temperature": 0.5, "max_tokens": 7, "seed": 3, "stop": ["x"], "top_k": 0}});
    all(ask(&server, &id, body).await).await;
    let asked = server.chat.asked.lock().unwrap().clone();
    let asked: Vec<_> = asked.iter().map(|it| (it.model.as_deref(), it.sampling.clone())).collect();
    assert_eq!([asked[0].0, asked[1].0], [Some("openai/gpt-4o"), None]);
    assert!((asked[0].1.temperature - 0.25).abs() < 1e-6 && asked[1].1.temperature > 0.5, "each its own");
    for (model, sampling) in &asked[2..4] {
        assert_eq!(*model, Some("local/other"));
        assert!((sampling.temperature - 0.5).abs() < 1e-6);
        assert_eq!((sampling.max_tokens, sampling.seed, sampling.top_k), (7, Some(3), 0));
    }
    let members = server.store.of(LOCAL_OWNER).open_conversation(id, 0).await.unwrap().characters;
    let members: Vec<Character> = members;
    assert_eq!(members.iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), ["mira-001"], "for this reply only");
}

#[tokio::test]
async fn characters_speak_up_without_a_text() {
    let server = server().await;
    add_character(&server, "max-001", "Max", None).await;
    let id = conversation(&server).await;
    server.will_say("Well.");
    let events = all(ask(&server, &id, json!({})).await).await;
    assert_eq!(names(&events), ["delta", "message", "done"]);
    assert_eq!(of(&events, "message")[0]["character_id"], "mira-001");
    server.will_say("So.");
    let events = all(ask(&server, &id, json!({"character_ids": ["max-001"]})).await).await;
    assert_eq!(of(&events, "message")[0]["character_id"], "max-001");
    assert_eq!(messages(&server, &id).await.len(), 2);
}

fn note(seen: &Mutex<Vec<MessageStatus>>, status: Option<MessageStatus>) {
    let mut seen = seen.lock().unwrap();
    if let Some(status) = status.filter(|status| seen.last() != Some(status)) {
        seen.push(status);
    }
}

#[tokio::test]
async fn a_reply_is_pending_then_processing_then_completed() {
    let server = server().await;
    let id = conversation(&server).await;
    server.chat.say("One two three.", Duration::from_millis(300), Duration::from_millis(150));
    let response = ask(&server, &id, json!({"text": "Count."})).await;
    let seen = Mutex::new(Vec::new());
    let watching = async {
        loop {
            let replies = messages(&server, &id).await;
            let status = replies.iter().find(|it| it.role == crate::provider::Role::Assistant).map(|it| it.status);
            note(&seen, status);
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        _ = all(response) => {}
        () = watching => {}
    }
    // The last look may have come before the last state.
    let mut seen = seen.into_inner().unwrap();
    seen.retain(|status| *status != MessageStatus::Completed);
    assert_eq!(seen, [MessageStatus::Pending, MessageStatus::Processing]);
    assert_eq!(messages(&server, &id).await[1].status, MessageStatus::Completed);
}

#[tokio::test]
async fn a_reply_that_fails_is_told_and_stored_and_the_next_one_follows() {
    let server = server().await;
    add_character(&server, "max-001", "Max", None).await;
    let id = conversation(&server).await;
    server.chat.fail(ProviderError::Failed { what: "the language model".to_owned() });
    server.will_say("I am here.");
    let body = json!({"text": "Who is there?", "character_ids": ["max-001", "mira-001"]});
    let events = all(ask(&server, &id, body).await).await;
    assert_eq!(names(&events), ["message", "error", "message", "delta", "message", "done"]);
    let [_, failed, _] = of(&events, "message")[..] else { panic!("{events:?}") };
    let error = of(&events, "error")[0];
    assert_eq!((&error["code"], &error["retryable"]), (&json!("provider_failed"), &json!(true)));
    assert_eq!(error["item_id"], failed["id"]);
    assert_eq!((&failed["status"], &failed["metadata"]["error"]), (&json!("failed"), &error["message"]));
    let stored = messages(&server, &id).await;
    assert_eq!(stored[1].status, MessageStatus::Failed);
    assert_eq!(stored[1].metadata["error"], error["message"]);
    // One that fails in the middle keeps what there was.
    let script = vec![
        (QUICK, Ok(Delta::Begin { served_by: "fake-mind".into() })),
        (QUICK, Ok(Delta::Text("Well, ".to_owned()))),
        (QUICK, Err(ProviderError::Failed { what: "it".to_owned() })),
    ];
    server.chat.scripts.lock().unwrap().push_back(script);
    let events = all(ask(&server, &id, json!({"text": "And?"})).await).await;
    assert_eq!(names(&events), ["message", "delta", "error", "message", "done"]);
    assert_eq!(of(&events, "message")[1]["content"], "Well, ");
}

#[tokio::test]
async fn who_goes_away_ends_the_reply_and_what_was_said_stays() {
    let server = server().await;
    let id = conversation(&server).await;
    server.chat.say("One two three four five six seven eight nine ten.", QUICK, SLOW);
    let mut response = ask(&server, &id, json!({"text": "Count."})).await;
    let mut text = String::new();
    while of(&events(&text), "delta").len() < 2 {
        text.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
    }
    // Somebody else has to wait.
    let busy = ask(&server, &id, json!({"text": "Me too."})).await;
    assert_eq!(busy.status(), 409);
    assert_eq!(busy.json::<Value>().await.unwrap()["code"], "conversation_busy");
    drop(response);
    let reply = eventually(async || {
        let reply = messages(&server, &id).await.pop().unwrap();
        (reply.status == MessageStatus::Completed).then_some(reply)
    })
    .await;
    assert!("One two three four five six".starts_with(reply.content.trim_end()), "{reply:?}");
    assert!(reply.content.starts_with("One two"), "{reply:?}");
    assert_eq!(server.chat.load.now(), 0);
    eventually(async || {
        server.will_say("Yes.");
        (ask(&server, &id, json!({"text": "Hello?"})).await.status() == 200).then_some(())
    })
    .await;
    let stored = messages(&server, &id).await;
    assert!(!stored.iter().any(|message| message.content == "Me too."), "a refused one leaves nothing");
}

async fn again(server: &Server, id: &str, body: Option<Value>) -> reqwest::Response {
    let path = format!("/api/messages/{id}/regenerate");
    match body {
        Some(body) => server.post(&path, &body).await,
        None => server.asking(reqwest::Method::POST, &path).send().await.unwrap(),
    }
}

async fn a_reply_is_written_again_under_its_id(database: TestStore) {
    let server = server_on(database, |_| {}).await;
    let id = conversation(&server).await;
    let first = exchange(&server, &id, "How do I bake bread?", "Knead it.").await;
    let [said, reply] = of(&first, "message")[..] else { panic!() };
    let (said, reply) = (said["id"].as_str().unwrap(), reply["id"].as_str().unwrap());
    exchange(&server, &id, "And then?", "Bake it.").await;
    server.chat.say("Take flour.", QUICK, SLOW);
    let mut response = again(&server, reply, None).await;
    assert_eq!(response.status(), 200);
    let mut text = String::from_utf8(response.chunk().await.unwrap().unwrap().to_vec()).unwrap();
    assert_eq!(messages(&server, &id).await[1].content, "Knead it.", "until the new one is complete");
    while let Some(more) = response.chunk().await.unwrap() {
        text.push_str(std::str::from_utf8(&more).unwrap());
    }
    let told = events(&text);
    assert_eq!(names(&told), ["delta", "message", "done"]);
    assert_eq!(
        (&of(&told, "message")[0]["id"], &of(&told, "message")[0]["content"]),
        (&json!(reply), &json!("Take flour."))
    );
    let asked = server.chat.asked.lock().unwrap()[2].clone();
    assert_eq!(asked.messages.len(), 2, "given what was said before it: {:?}", asked.messages);
    // One that fails leaves it, and the user's message means the reply to it.
    server.chat.fail(ProviderError::Failed { what: "the language model".to_owned() });
    let told = all(again(&server, said, Some(json!({"model": "other", "parameters": {"seed": 1}}))).await).await;
    assert_eq!(names(&told), ["error", "done"]);
    assert_eq!(of(&told, "error")[0]["item_id"], reply);
    let asked = server.chat.asked.lock().unwrap()[3].clone();
    assert_eq!((asked.model.as_deref(), asked.sampling.seed), (Some("other"), Some(1)));
    let stored = messages(&server, &id).await;
    let texts: Vec<_> = stored.iter().map(|message| (message.content.as_str(), message.status)).collect();
    let done = MessageStatus::Completed;
    assert_eq!(texts, [("How do I bake bread?", done), ("Take flour.", done), ("And then?", done), ("Bake it.", done)]);
}

async fn what_cannot_be_is_refused_by_name(database: TestStore) {
    let server = server_on(database, |_| {}).await;
    let id = conversation(&server).await;
    for (body, field) in [
        (json!({"text": ""}), "text"),
        (json!({"text": " \n"}), "text"),
        (json!({"text": "a\u{0}b"}), "text"),
        (json!({"text": "x".repeat(MOST_TEXT + 1)}), "text"),
        (json!({"text": 1}), "text"),
        (json!({"text": "Hi", "output": "song"}), "output"),
        (json!({"text": "Hi", "model": ""}), "model"),
        (json!({"text": "Hi", "model": "two words"}), "model"),
        (json!({"text": "Hi", "character_ids": "mira"}), "character_ids"),
        (json!({"text": "Hi", "character_ids": ["a", "b", "c", "d", "e", "f", "g", "h", "i"]}), "character_ids"),
        (json!({"text": "Hi", "parameters": {"temperature": 3}}), "parameters.temperature"),
        (json!({"text": "Hi", "parameters": {"top_k": -1}}), "parameters.top_k"),
        (json!({"text": "Hi", "parameters": {"vad": null}}), "parameters.vad"),
        (json!({"text": "Hi", "parameters": {"audio_format": "ogg"}}), "parameters.audio_format"),
    ] {
        let response = ask(&server, &id, body.clone()).await;
        assert_eq!(response.status(), 400, "{body}");
        let problem: Value = response.json().await.unwrap();
        assert_eq!((&problem["code"], &problem["errors"][0]["field"]), (&json!("bad_field"), &json!(field)), "{body}");
    }
    let unknown = ask(&server, &id, json!({"text": "Hi", "character_ids": ["nobody"]})).await;
    assert_eq!(unknown.status(), 404);
    assert_eq!(unknown.json::<Value>().await.unwrap()["code"], "character_not_found");
    assert_eq!(ask(&server, "nothing", json!({"text": "Hi"})).await.status(), 404);
    assert_eq!(again(&server, "nothing", None).await.status(), 404);
    // A message that nobody has answered, one that is nobody's, and one of a character that is gone.
    let said = |message_id: &str, role: Role, character_name: Option<&str>| Message {
        id: message_id.to_owned(),
        conversation_id: id.clone(),
        role,
        character_id: None,
        character_name: character_name.map(str::to_owned),
        content: "Hello?".to_owned(),
        status: MessageStatus::Completed,
        heard_chars: None,
        metadata: json!({}),
        client_message_id: None,
    };
    let rows = server.store.of(LOCAL_OWNER);
    for (message_id, role, name, code) in [
        ("a1", Role::Assistant, Some("Gone"), "character_not_found"),
        ("s1", Role::System, None, "item_not_found"),
        ("u1", Role::User, None, "item_not_found"),
    ] {
        rows.save_message(said(message_id, role, name)).await.unwrap();
        let response = again(&server, message_id, None).await;
        assert_eq!(response.status(), 404, "{message_id}");
        assert_eq!(response.json::<Value>().await.unwrap()["code"], code, "{message_id}");
    }
    assert_eq!(messages(&server, &id).await.len(), 3, "nothing of it was stored");
    assert!(server.chat.asked.lock().unwrap().is_empty());
    // All of it left the conversation free.
    exchange(&server, &id, "Hi", "Hello.").await;
}

#[tokio::test]
async fn a_conversation_gets_a_title_after_its_first_exchange() {
    let server = server().await;
    let id = conversation(&server).await;
    let title = async |wanted: &str| {
        eventually(async || {
            let opened = server.store.of(LOCAL_OWNER).open_conversation(id.clone(), 0).await.unwrap();
            (opened.conversation.title == wanted).then_some(())
        })
        .await;
    };
    exchange(&server, &id, "How do I bake bread? I have flour.", "Knead it.").await;
    title("How do I bake bread?").await;
    server.chat.say("\"Baking Bread\"", QUICK, QUICK);
    title("Baking Bread").await;
    assert_eq!(server.chat.asked.lock().unwrap().len(), 2);
    // It stays.
    exchange(&server, &id, "And cake?", "Stir it.").await;
    title("Baking Bread").await;
}

async fn what_a_character_said_can_be_heard_again(database: TestStore) {
    let server = server_on(database, |state| state.recordings.store(true, Ordering::Relaxed)).await;
    let id = conversation(&server).await;
    server.will_say("Knead it well, my friend.");
    let events = all(ask(&server, &id, json!({"text": "Bread?", "output": "audio"})).await).await;
    let [said, reply] = of(&events, "message")[..] else { panic!() };
    let path = format!("/api/messages/{}/audio", reply["id"].as_str().unwrap());
    let sound = eventually(async || {
        let response = reqwest::get(format!("http://{}{path}", server.address)).await.unwrap();
        (response.status() == 200).then_some(response)
    })
    .await;
    assert_eq!(sound.headers()["content-type"], "audio/ogg");
    let bytes = sound.bytes().await.unwrap().to_vec();
    let part = server.get(&path, "Range: bytes=0-3\r\n").await;
    assert!(part.0 == 206 && part.1.ends_with("OggS"), "{part:?}");
    let audio: crate::audio::Speech = crate::audio::decode_bytes(bytes, crate::audio::Limits::default()).unwrap();
    let millis = 60 * "Knead it well, my friend.".len() as u128;
    assert!(audio.duration().as_millis().abs_diff(millis) < 100, "{:?}", audio.duration());
    // What was typed has no sound.
    let typed = format!("/api/messages/{}/audio", said["id"].as_str().unwrap());
    assert_eq!(server.get(&typed, "").await.0, 404);
    assert_eq!(server.get("/api/messages/nothing/audio", "").await.0, 404);
}
