//! The doors over real sockets, with scripted engines and a real database.

mod load;

use std::time::Duration;

use axum::http::{HeaderValue, Method};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{SinkExt, StreamExt, future::join};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use super::fixture::{Client, PATIENCE, of, server, server_with};
use super::{ApiKey, PartState};
use crate::session::record::{MessageStatus, Records};
use crate::store::LOCAL_OWNER;

#[tokio::test]
async fn the_handshake_says_everything() {
    let server = server().await;
    let mut client = server.connect("?unknown=1&character_ids=mira-001,").await;
    let started = client.next().await;
    assert_eq!(started["type"], "session_started");
    assert_eq!((&started["protocol_version"], &started["seq"]), (&json!(1), &json!(1)));
    assert_eq!(started["audio"], json!({"format": "pcm", "sample_rate": 24000, "channels": 1}));
    assert_eq!(started["characters"], json!([{"id": "mira-001", "name": "Mira", "voice": null, "index": 0}]));
    assert_eq!(started["settings"]["vad"]["silence_ms"], 300);
    for name in ["session_id", "resume_token", "conversation_id"] {
        assert!(started[name].as_str().is_some_and(|value| value.len() >= 32), "{name}: {started}");
    }
    let id = started["conversation_id"].as_str().unwrap();
    let opened = server.store.of(LOCAL_OWNER).open_conversation(id.to_owned(), 10).await.unwrap();
    assert_eq!(opened.conversation.character_ids, ["mira-001"]);
}

#[tokio::test]
async fn a_text_turn_comes_in_order_and_is_stored() {
    let server = server().await;
    server.will_say("One two three four five. Six seven eight nine ten.");
    let mut client = server.connect("").await;
    let started = client.next().await;
    client.say("hello").await;
    let mut messages = client.until("turn_complete").await;
    let saved = of(&messages, "message_saved");
    assert_eq!((&saved[0]["role"], &saved[0]["ref"]), (&json!("user"), &json!("t1")), "{saved:?}");
    assert_eq!(saved[0]["client_message_id"], "hello");

    let text: String =
        of(&messages, "text_chunk").iter().map(|chunk| chunk["text"].as_str().unwrap().to_owned()).collect();
    assert_eq!(text, "One two three four five. Six seven eight nine ten.");
    let audio = of(&messages, "audio_chunk");
    assert!(audio.len() > 2);
    let numbers: Vec<_> = audio.iter().map(|chunk| chunk["sequence_number"].as_u64().unwrap()).collect();
    assert!(numbers.is_sorted() && numbers[0] < *numbers.last().unwrap(), "{numbers:?}");
    let bytes = STANDARD.decode(audio[0]["audio_data"].as_str().unwrap()).unwrap();
    assert!(!bytes.is_empty() && bytes.len().is_multiple_of(2));
    assert_eq!((&audio[0]["format"], &audio[0]["sample_rate"]), (&json!("pcm"), &json!(24000)));
    assert_eq!(audio[0]["words"][0]["text"], "One");
    assert!(audio.iter().all(|chunk| chunk.get("seq").is_none()), "audio is not in the journal");

    let end = messages.last().unwrap();
    assert!(end["timings"]["total_ms"].is_u64() && end["timings"]["endpoint_ms"].is_null(), "{end}");
    assert_eq!(end["served_by"], json!({"stt": null, "llm": "fake-mind", "tts": "fake-voice"}));
    assert!(end["usage"]["completion_tokens"].as_u64().unwrap() > 0);
    let seqs: Vec<_> = messages.iter().filter_map(|message| message["seq"].as_u64()).collect();
    assert_eq!(seqs, (2..2 + seqs.len() as u64).collect::<Vec<_>>(), "no number is missing");

    let whole = |message: &Value| {
        message["type"] == "message_saved" && message["role"] == "assistant" && message["status"] == "completed"
    };
    while !messages.iter().any(whole) {
        messages.push(client.next().await);
    }
    let id = started["conversation_id"].as_str().unwrap().to_owned();
    let kept = server.store.of(LOCAL_OWNER).open_conversation(id, 10).await.unwrap().messages;
    assert_eq!(kept[0].content, "hello");
    assert_eq!(kept[1].content, "One two three four five. Six seven eight nine ten.");
}

#[tokio::test]
async fn a_spoken_turn_is_heard_and_answered_as_wav() {
    let server = server().await;
    server.will_say("Hi.");
    let mut client = server.started().await;
    client.send(json!({"type": "settings", "audio_format": "wav", "ref": "s"})).await;
    let applied = client.until("settings_applied").await.pop().unwrap();
    assert_eq!((&applied["audio_format"], &applied["ref"]), (&json!("wav"), &json!("s")));
    for level in [[16_000; 10], [0; 10]].concat() {
        client.sound(level, 100).await;
    }
    let messages = client.until("turn_complete").await;
    assert_eq!(of(&messages, "speech_started").len(), 1);
    assert_eq!(of(&messages, "speech_stopped").len(), 1);
    let heard = of(&messages, "transcription_chunk");
    let last = heard.last().unwrap();
    assert_eq!((&last["is_final"], &last["text"]), (&json!(true), &json!("hello there")));
    assert!(last["timestamp"].as_f64().unwrap() > 0.5 && last["words"].is_array());
    let wav = STANDARD.decode(of(&messages, "audio_chunk")[0]["audio_data"].as_str().unwrap()).unwrap();
    assert!(wav.starts_with(b"RIFF"));
    let end = messages.last().unwrap();
    assert!(end["timings"]["stt_ms"].is_u64(), "{end}");
    assert_eq!(end["served_by"]["stt"], "fake-ear");
}

#[tokio::test]
async fn every_mistake_is_answered_and_none_closes() {
    let server = server().await;
    let mut client = server.started().await;
    let chunk =
        |data: &str, rate: u32| json!({"type": "audio_chunk", "audio_data": data, "sample_rate": rate, "ref": "r"});
    let mistakes = [
        ("{", "bad_json", None),
        ("[]", "bad_json", None),
        ("{}", "bad_field", Some("type")),
        (r#"{"type": 1, "ref": "r"}"#, "bad_field", Some("type")),
        (r#"{"type": "sing", "ref": "r"}"#, "unknown_type", Some("sing")),
        (r#"{"type": "next_speaker", "ref": "r"}"#, "bad_field", Some("character_id")),
        (r#"{"type": "next_speaker", "character_id": "x", "ref": "r"}"#, "character_not_found", Some("x")),
        (r#"{"type": "text_message", "ref": "r"}"#, "bad_field", Some("text")),
        (r#"{"type": "text_message", "text": " ", "ref": "r"}"#, "bad_field", Some("text")),
        (r#"{"type": "settings", "temperature": "hot", "ref": "r"}"#, "bad_field", Some("temperature")),
        (
            r#"{"type": "settings", "model": "nobody", "ref": "r"}"#,
            "model_unavailable",
            Some("model: there is no model"),
        ),
        (r#"{"type": "settings", "stt_model": "nobody", "ref": "r"}"#, "model_unavailable", Some("stt_model: ")),
        (r#"{"type": "settings", "tts_model": "nobody", "ref": "r"}"#, "model_unavailable", Some("tts_model: ")),
        (r#"{"type": "settings", "characters": {"x": {}}, "ref": "r"}"#, "bad_field", Some("characters.x: ")),
        (r#"{"type": "regenerate", "item_id": "nothing", "ref": "r"}"#, "item_not_found", None),
        (&chunk("!", 16_000).to_string(), "bad_audio", Some("base64")),
        (&chunk("AAAA", 16_000).to_string(), "bad_audio", Some("bytes")),
        (&chunk("AAAA", 4_000).to_string(), "unsupported_rate", Some("4000")),
    ];
    for (message, code, named) in mistakes {
        client.send_text(message.to_owned()).await;
        let error = client.next().await;
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(code)), "{message}: {error}");
        assert!(error["retryable"].is_boolean() && error["seq"].is_u64(), "{error}");
        assert_eq!(error["ref"] == "r", message.contains("\"ref\""), "{message}: {error}");
        let text = error["message"].as_str().unwrap();
        assert!(named.is_none_or(|named| text.contains(named)), "{message}: {error}");
    }
    client.socket.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    assert_eq!(client.next().await["code"], "unknown_type");
    client.send(json!({"type": "ping", "ref": "p"})).await;
    assert_eq!(client.next().await, json!({"type": "pong", "ref": "p"}));
    client.send(json!({"type": "resume", "session_id": "x", "resume_token": "y", "last_seq": 3})).await;
    let resync = client.next().await;
    assert_eq!((&resync["type"], &resync["from_seq"]), (&json!("resync_required"), &resync["seq"]));
}

#[tokio::test]
async fn an_interruption_stops_the_audio() {
    let server = server().await;
    server.will_say(&"This sentence goes on for a while. ".repeat(20));
    let mut client = server.started().await;
    client.say("talk").await;
    client.until("audio_chunk").await;
    client.send(json!({"type": "interrupt", "played_ms": 100})).await;
    let messages = client.until("interrupted").await;
    assert!(of(&messages, "audio_chunk").len() <= 16, "what was on its way, at most");
    client.send(json!({"type": "ping"})).await;
    let after = client.until("pong").await;
    assert!(of(&after, "audio_chunk").is_empty() && of(&after, "turn_complete").is_empty(), "{after:?}");
    server.will_say("Yes.");
    client.say("and now").await;
    assert_eq!(of(&client.until("turn_complete").await, "text_done")[0]["text"], "Yes.");
}

#[tokio::test]
async fn unknown_conversations_and_characters_close_with_4404() {
    let server = server().await;
    for (query, code) in
        [("?conversation_id=nowhere", "conversation_not_found"), ("?character_ids=nobody-001", "character_not_found")]
    {
        let mut client = server.connect(query).await;
        let (messages, close) = client.rest().await;
        assert_eq!((&messages[0]["code"], messages.len(), close), (&json!(code), 1, Some(4404)), "{messages:?}");
    }
    let known = server.store.of(LOCAL_OWNER).create_conversation(vec![]).await.unwrap().id;
    let mut client = server.connect(&format!("?conversation_id={known}")).await;
    assert_eq!(client.next().await["conversation_id"], known);
}

#[tokio::test]
async fn an_address_names_each_character_once_and_not_too_many() {
    let server = server().await;
    let known = server.store.of(LOCAL_OWNER).create_conversation(vec![]).await.unwrap().id;
    let mut client = server.connect(&format!("?conversation_id={known}&character_ids=mira-001,%20mira-001,")).await;
    let started = client.next().await;
    assert_eq!(started["characters"].as_array().unwrap().len(), 1, "{started}");
    let many = ["mira-001"; 9].join(",");
    let refusal = connect_async(format!("ws://{}/ws?character_ids={many}", server.address)).await.unwrap_err();
    let SocketError::Http(answer) = refusal else { panic!("{refusal}") };
    let body = String::from_utf8_lossy(answer.body().as_ref().unwrap()).into_owned();
    assert_eq!(answer.status(), 400, "{body}");
    assert!(body.contains("bad_query") && body.contains("character_ids"), "{body}");
}

#[tokio::test]
async fn a_full_house_says_so() {
    let server = server_with(|state| (state.limits.sessions, state.limits.queue) = (1, 0)).await;
    let first = server.started().await;
    let mut second = server.connect("").await;
    let (messages, close) = second.rest().await;
    assert_eq!((&messages[0]["code"], &messages[0]["retryable"]), (&json!("session_limit_reached"), &json!(true)));
    assert_eq!(close, Some(1013));
    drop(first);
    let begun = Instant::now();
    while server.connect("").await.next().await["type"] != "session_started" {
        assert!(begun.elapsed() < PATIENCE, "the seat is free again");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn without_the_key_only_health_is_open() {
    let server = server_with(|state| {
        state.access.api_key = Some(ApiKey::new("sesame"));
        state.limits.sessions_per_key = 1;
    })
    .await;
    assert_eq!(server.get("/healthz", "").await.0, 200);
    assert_eq!(server.get("/readyz", "").await.0, 200);
    let elsewhere = "X-Forwarded-For: 192.0.2.1\r\n";
    for path in ["/metrics", "/ws", "/nothing", "/api/characters"] {
        let (status, answer) = server.get(path, elsewhere).await;
        assert_eq!(status, 401, "{path}");
        assert!(
            answer.contains("application/problem+json") && answer.contains("\"code\":\"unauthorized\""),
            "{answer}"
        );
        assert!(answer.to_lowercase().contains("www-authenticate: bearer"), "{answer}");
    }
    let with = |key: &str| format!("{elsewhere}Authorization: Bearer {key}\r\n");
    assert_eq!(server.get("/metrics", &with("sesame")).await.0, 200);
    assert_eq!(server.get("/metrics", &with("sesamo")).await.0, 401);
    assert_eq!(server.get("/metrics", "").await.0, 200, "this machine");

    let address = format!("ws://{}/ws", server.address);
    let refusal = connect_async(&address).await.unwrap_err();
    assert!(matches!(&refusal, SocketError::Http(answer) if answer.status() == 401), "{refusal}");
    let with_key = || {
        let mut request = address.as_str().into_client_request().unwrap();
        request.headers_mut().insert("authorization", HeaderValue::from_static("Bearer sesame"));
        connect_async(request)
    };
    let mut first = Client { socket: with_key().await.unwrap().0 };
    assert_eq!(first.next().await["type"], "session_started");
    let mut second = Client { socket: with_key().await.unwrap().0 };
    assert_eq!(second.next().await["code"], "session_limit_reached");
}

#[tokio::test]
async fn foreign_pages_get_no_socket() {
    let server = server_with(|state| state.access.allowed_origins = vec!["https://ours.example".into()]).await;
    let address = format!("ws://{}/ws", server.address);
    let own = format!("http://{}", server.address);
    for (origin, welcome) in [("https://evil.example", false), ("https://ours.example", true), (own.as_str(), true)] {
        let mut request = address.as_str().into_client_request().unwrap();
        request.headers_mut().insert("origin", HeaderValue::from_str(origin).unwrap());
        let outcome = connect_async(request).await;
        assert_eq!(outcome.is_ok(), welcome, "{origin}");
        if let Err(refusal) = outcome {
            assert!(matches!(&refusal, SocketError::Http(answer) if answer.status() == 403), "{refusal}");
        }
    }
}

#[tokio::test]
async fn plain_requests_get_plain_answers() {
    let server = server().await;
    let (status, answer) = server.get("/metrics", "X-Forwarded-For: 192.0.2.1\r\n").await;
    assert!(status == 403 && answer.contains("\"code\":\"local_only\"") && !answer.contains("aichat_up"), "{answer}");
    let (status, answer) = server.get("/metrics", "").await;
    assert!(status == 200 && answer.ends_with("aichat_up 1\n") && answer.contains("text/plain"), "{answer}");
    let (status, answer) = server.get("/nothing?secret=1", "X-Request-Id: mine\r\n").await;
    assert!(status == 404 && answer.contains("\"code\":\"not_found\"") && !answer.contains("secret"), "{answer}");
    assert!(answer.contains("application/problem+json") && answer.contains("x-request-id: mine"), "{answer}");
    let (status, answer) = server.request("POST /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(status == 405 && answer.contains("method_not_allowed"), "{answer}");
    let (status, answer) = server.get("/ws", "").await;
    assert!(status == 400 && answer.contains("not_a_websocket"), "{answer}");
    let refusal = connect_async(format!("ws://{}/ws?protocol=morse", server.address)).await.unwrap_err();
    let SocketError::Http(answer) = refusal else { panic!("{refusal}") };
    assert_eq!(answer.status(), 400);
    assert!(String::from_utf8_lossy(answer.body().as_ref().unwrap()).contains("protocol_not_offered"));
    let long = format!("X-Long: {}\r\n", "x".repeat(200_000));
    assert_eq!(server.get("/healthz", &long).await.0, 431);
}

#[tokio::test]
async fn readiness_tells_of_every_part() {
    let server = server().await;
    let (status, answer) = server.get("/readyz", "").await;
    assert!(status == 200 && answer.contains("\"ready\":true") && answer.contains("\"part\":\"database\""), "{answer}");
    let failed = PartState::Failed { reason: "out of memory".into() };
    server.engines.send_modify(|parts| parts[1].state = failed);
    let (status, answer) = server.get("/readyz", "").await;
    assert_eq!(status, 503);
    assert!(answer.contains(r#"{"part":"llm","name":"fake","state":"failed","reason":"out of memory"}"#), "{answer}");
    server.engines.send_modify(|parts| parts[1].state = PartState::Loading);
    assert_eq!(server.get("/readyz", "").await.0, 503);
    server.engines.send_modify(|parts| parts[1].state = PartState::Ready);
    assert_eq!(server.get("/readyz", "").await.0, 200);
    server.store.checkpoint().await.unwrap();
    assert_eq!(server.get("/readyz", "").await.0, 503, "no database");
    assert_eq!(server.get("/healthz", "").await.0, 200, "the process lives");
}

#[tokio::test]
async fn a_drain_lets_replies_finish() {
    let mut server = server().await;
    server.will_say("One two three four five six seven eight nine ten.");
    let mut idle = server.started().await;
    let mut busy = server.started().await;
    busy.say("count").await;
    busy.until("audio_chunk").await;
    server.stop();
    let (messages, close) = idle.rest().await;
    assert_eq!((&messages[0]["type"], close), (&json!("server_draining"), Some(1001)));
    busy.until("server_draining").await;
    busy.say("one more").await;
    let (messages, close) = busy.rest().await;
    assert_eq!(of(&messages, "error")[0]["code"], "session_limit_reached", "nothing new begins");
    assert_eq!(messages.last().unwrap()["type"], "turn_complete");
    assert_eq!(close, Some(1001));
    timeout(PATIENCE, &mut server.done).await.expect("the drain ends").unwrap();
    assert!(TcpStream::connect(&server.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_drain_cuts_off_what_takes_too_long() {
    let mut server = server_with(|state| state.limits.drain = Duration::from_millis(300)).await;
    server.will_say(&"This goes on and on. ".repeat(50));
    let mut client = server.connect("").await;
    let conversation = client.next().await["conversation_id"].as_str().unwrap().to_owned();
    client.say("talk").await;
    client.until("audio_chunk").await;
    let begun = Instant::now();
    server.stop();
    let (messages, close) = client.rest().await;
    assert!(of(&messages, "turn_complete").is_empty());
    assert_eq!(close, Some(1001));
    timeout(PATIENCE, server.done).await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let kept = server.store.of(LOCAL_OWNER).open_conversation(conversation, 10).await.unwrap().messages;
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert_ne!(kept[1].status, MessageStatus::Processing, "what was heard of the reply is saved: {kept:?}");
    server.store.checkpoint().await.unwrap();
}

#[tokio::test]
async fn a_drain_does_not_wait_for_what_nobody_answers() {
    let mut server = server().await;
    let mut client = server.started().await;
    client.send(json!({"type": "settings", "turn_taking": "manual"})).await;
    for kind in ["message_saved", "message_saved"] {
        client.say("hello").await;
        client.until(kind).await;
    }
    let begun = Instant::now();
    server.stop();
    assert_eq!(client.rest().await.1, Some(1001));
    timeout(PATIENCE, server.done).await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn who_does_not_read_is_closed() {
    let server = server_with(|state| {
        state.limits.write_timeout = Duration::from_millis(300);
        state.limits.sessions = 1;
    })
    .await;
    let mut deaf = server.started().await;
    // Every mistake is answered with its ref, and nobody reads the answers.
    let mistake = json!({"type": "sing", "ref": "x".repeat(128)}).to_string();
    let flood = async { while deaf.socket.send(Message::text(mistake.clone())).await.is_ok() {} };
    timeout(PATIENCE, flood).await.expect("the server lets go");
    let mut next = server.connect("").await;
    let begun = Instant::now();
    while next.next().await["type"] != "session_started" {
        assert!(begun.elapsed() < PATIENCE, "the seat is free again");
        sleep(Duration::from_millis(50)).await;
        next = server.connect("").await;
    }
}

#[tokio::test]
async fn too_long_messages_close_with_1009() {
    let server = server().await;
    for length in [300_000, 3_000_000] {
        let mut client = server.started().await;
        // The server may close before all of it is sent.
        let _ = client.socket.send(Message::text("x".repeat(length))).await;
        let (messages, close) = client.rest().await;
        assert_eq!((&messages[0]["code"], close), (&json!("too_large"), Some(1009)), "{length}");
    }
}

#[tokio::test]
async fn what_is_not_websocket_closes_with_1002() {
    let server = server().await;
    let mut client = server.started().await;
    let not_unicode = Frame::message(vec![0xC3, 0x28], OpCode::Data(Data::Text), true);
    client.socket.send(Message::Frame(not_unicode)).await.unwrap();
    assert_eq!(client.rest().await, (vec![], Some(1002)));
}

#[tokio::test]
async fn who_is_silent_is_closed_and_who_answers_pings_is_not() {
    let server = server_with(|state| {
        state.limits.ping_every = Duration::from_millis(100);
        state.limits.silent_after = Duration::from_millis(500);
    })
    .await;
    let mut alive = server.started().await;
    let mut silent = server.started().await;
    // Reading answers pings; not reading does not.
    let waiting = timeout(
        Duration::from_millis(1500),
        alive
            .socket
            .by_ref()
            .take_while(|frame| {
                let open = matches!(frame, Ok(Message::Ping(_)));
                async move { open }
            })
            .for_each(|_| async {}),
    );
    // Read before the server gives its farewell up, which it does a second after it.
    let late = async {
        sleep(Duration::from_secs(1)).await;
        silent.rest().await
    };
    let (waiting, (_, close)) = join(waiting, late).await;
    assert!(waiting.is_err(), "still open, and only pings came");
    assert_eq!(close, Some(4408));
}

#[tokio::test]
async fn a_path_that_is_not_utf_8_is_refused_as_all_else_is() {
    let server = server().await;
    for (path, code) in [("/api/characters/%ff", "/code"), ("/v1/models/%ff", "/error/code")] {
        let answer = server.asking(Method::GET, path).send().await.unwrap();
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.unwrap();
        assert_eq!((status, body.pointer(code)), (400, Some(&json!("bad_request"))), "{path}: {body}");
        assert!(body.to_string().contains("UTF-8"), "{path}: {body}");
    }
}

#[tokio::test]
async fn dribbling_and_silent_connections_are_closed() {
    let server = server_with(|state| state.limits.header_timeout = Duration::from_millis(300)).await;
    for beginning in ["", "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let outcome = timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
        assert!(outcome.is_ok(), "{beginning:?} is still open");
    }
    assert_eq!(server.get("/healthz", "").await.0, 200);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_their_turn() {
    let server = server_with(|state| state.limits.connections = 1).await;
    let idle = TcpStream::connect(&server.address).await.unwrap();
    // Taken before the next one, since connections queue in order.
    sleep(Duration::from_millis(100)).await;
    let waiting = timeout(Duration::from_millis(300), server.get("/healthz", "")).await;
    assert!(waiting.is_err(), "the only place is taken");
    drop(idle);
    assert_eq!(server.get("/healthz", "").await.0, 200);
    let socket = server.started().await;
    assert_eq!(server.get("/healthz", "").await.0, 200, "a WebSocket has a place of its own");
    drop(socket);
}

#[tokio::test]
async fn too_much_microphone_is_refused_not_closed() {
    let server = server().await;
    let mut client = server.started().await;
    for _ in 0..80 {
        client.sound(0, 100).await;
    }
    let error = client.next().await;
    assert_eq!((&error["code"], &error["retryable"]), (&json!("rate_limited"), &json!(true)));
    client.send(json!({"type": "ping"})).await;
    client.until("pong").await;
}

#[tokio::test]
async fn too_many_requests_are_refused_not_closed() {
    let server = server_with(|state| state.limits.requests_per_minute = 3).await;
    let mut client = server.started().await;
    for _ in 0..4 {
        client.send(json!({"type": "settings", "top_k": 5})).await;
    }
    let mut messages = vec![];
    for _ in 0..4 {
        messages.push(client.next().await);
    }
    assert_eq!(of(&messages, "settings_applied").len(), 3, "{messages:?}");
    assert_eq!(of(&messages, "error")[0]["code"], "rate_limited");
}

/// A small generator of numbers: the same ones every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn garbage(&mut self) -> Message {
        const PIECES: [&str; 24] = [
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            "\"type\"",
            "\"text_message\"",
            "\"audio_chunk\"",
            "\"settings\"",
            "\"interrupt\"",
            "\"ref\"",
            "\"audio_data\"",
            "\"AAAA\"",
            "\"sample_rate\"",
            "16000",
            "1e999",
            "-1",
            "null",
            "\"vad\"",
            "\\u0000",
            "\u{202e}🦀",
            "\"playback_ack\"",
            "\"item_id\"",
        ];
        match self.roll(5) {
            0 => Message::binary((0..self.roll(64)).map(|_| self.roll(256) as u8).collect::<Vec<_>>()),
            1 => {
                let kinds =
                    ["audio_chunk", "playback_ack", "interrupt", "commit", "cancel_input", "resume", "regenerate"];
                let values = [json!(null), json!(1.5), json!("AAAA"), json!([{}]), json!({"a": -1}), json!(u64::MAX)];
                let mut message = json!({"type": kinds[self.roll(kinds.len())]});
                for name in ["audio_data", "sample_rate", "channels", "format", "item_id", "played_ms", "ref", "vad"] {
                    if self.roll(2) == 0 {
                        message[name] = values[self.roll(values.len())].clone();
                    }
                }
                Message::text(message.to_string())
            }
            _ => Message::text((0..self.roll(20)).map(|_| PIECES[self.roll(PIECES.len())]).collect::<String>()),
        }
    }
}

#[tokio::test]
async fn ten_thousand_frames_of_garbage_change_nothing() {
    let server = server().await;
    let (sink, stream) = server.started().await.socket.split();
    let sending = tokio::spawn(async move {
        let mut sink = sink;
        let mut dice = Dice(2026);
        for _ in 0..10_000 {
            sink.send(dice.garbage()).await.unwrap();
        }
        sink.send(Message::text(r#"{"type":"ping","ref":"after"}"#)).await.unwrap();
        sink
    });
    let answers = stream.filter_map(|frame| async move {
        match frame.expect("an open socket") {
            Message::Text(text) => Some(serde_json::from_str::<Value>(&text).unwrap()),
            Message::Ping(_) => None,
            other => panic!("{other:?}"),
        }
    });
    let before = answers.take_while(|answer| {
        let more = answer["ref"] != "after";
        async move { more }
    });
    let kinds = before.map(|answer| answer["type"].clone()).collect::<Vec<_>>();
    let kinds = timeout(3 * PATIENCE, kinds).await.expect("an answer to the ping");
    assert!(kinds.iter().filter(|kind| *kind == "error").count() > 8_000, "{}", kinds.len());
    drop(sending.await.unwrap());
    assert_eq!(server.get("/healthz", "").await.0, 200);
}
