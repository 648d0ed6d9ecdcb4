//! Spoken and written turns on a running server with the starter models.

use std::time::Duration;

use aichat::session::record::Records;
use aichat::store::{LOCAL_OWNER, Store};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use crate::server::{Client, Server};

/// "go forward ten meters", 16-bit mono at 16 kHz, from Debian's pocketsphinx-testdata.
const CLIP: &str = "/usr/share/pocketsphinx/test/data/goforward.raw";
/// 100 ms.
const CHUNK: usize = 3200;

#[tokio::test(flavor = "multi_thread")]
async fn real_voice_turn_over_the_socket() {
    let server = Server::start(&[]).await;
    let mut client = server.connect().await;
    stream(&mut client, &std::fs::read(CLIP).expect("apt install pocketsphinx-testdata")).await;
    let done = client.until("turn_complete").await;

    let finals: Vec<_> =
        client.of("transcription_chunk").into_iter().filter(|chunk| chunk["is_final"] == true).collect();
    let heard = finals[0]["text"].as_str().unwrap().to_lowercase();
    assert!(heard.contains("forward") && heard.contains("meters"), "{heard}");
    assert!(!client.of("message_saved").is_empty());
    let text: String = client.of("text_chunk").iter().map(|chunk| chunk["text"].as_str().unwrap()).collect();
    assert_eq!(text.trim(), client.of("text_done")[0]["text"].as_str().unwrap().trim());
    let order: Vec<_> =
        client.of("audio_chunk").iter().map(|chunk| chunk["sequence_number"].as_u64().unwrap()).collect();
    assert!(!order.is_empty() && order.is_sorted(), "{order:?}");
    for stage in ["endpoint_ms", "stt_ms", "llm_first_token_ms", "tts_first_audio_ms", "total_ms"] {
        assert!(done["timings"][stage].is_u64(), "{stage}: {done}");
    }
    let seqs: Vec<_> = client.heard.iter().filter_map(|message| message["seq"].as_u64()).collect();
    assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "{seqs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn real_interrupt_stops_audio_and_keeps_what_was_heard() {
    let server = Server::start(&[]).await;
    let mut client = server.connect().await;
    client.text("Tell me a long story about a river.").await;
    let first = client.until("audio_chunk").await;
    client.say(json!({"type": "interrupt", "played_ms": 10, "item_id": first["item_id"]})).await;
    let interrupted = client.until("interrupted").await;
    assert_eq!(interrupted["item_id"], first["item_id"]);
    client.say(json!({"type": "settings", "max_tokens": 8})).await;
    client.text("And now?").await;
    let before = client.heard.len();
    let done = client.until("turn_complete").await;
    assert_ne!(done["item_id"], first["item_id"]);
    let stale = client.heard[before..].iter().filter(|message| message["item_id"] == first["item_id"]);
    assert_eq!(stale.filter(|message| message["type"] == "audio_chunk").count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn real_kill_nine_loses_nothing_that_was_acknowledged() {
    let mut server = Server::start(&[]).await;
    let mut client = server.connect().await;
    let conversation = client.heard[0]["conversation_id"].as_str().unwrap().to_owned();
    client.text("Hello there.").await;
    client.until("message_saved").await;
    if client.of("text_chunk").is_empty() {
        client.until("text_chunk").await;
    }
    let saved: Vec<_> = client.of("message_saved").iter().map(|saved| saved["message_id"].clone()).collect();
    server.process.kill().await.unwrap();

    let store = Store::open(&server.database()).await.unwrap();
    let kept = store.of(LOCAL_OWNER).open_conversation(conversation, 100).await.unwrap();
    for id in saved {
        assert!(kept.messages.iter().any(|message| id == message.id.as_str()), "{id} was lost");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_sigterm_lets_the_turn_finish() {
    let mut server = Server::start(&[]).await;
    let mut client = server.connect().await;
    client.say(json!({"type": "settings", "max_tokens": 12})).await;
    client.text("Say hello.").await;
    client.until("text_chunk").await;
    server.signal("-TERM");
    client.until("server_draining").await;
    client.until("turn_complete").await;
    while client.next().await.is_some() {}
    assert_eq!(server.process.wait().await.unwrap().code(), Some(0));
}

/// Sends the clip in real time, then silence until the turn begins.
async fn stream(client: &mut Client, clip: &[u8]) {
    let started = Instant::now();
    let silence = vec![0; 10 * CHUNK];
    for (count, chunk) in clip.chunks(CHUNK).chain(silence.chunks(CHUNK)).enumerate() {
        sleep_until(started + Duration::from_millis(100) * u32::try_from(count).unwrap()).await;
        client
            .say(json!({
                "type": "audio_chunk",
                "audio_data": BASE64_STANDARD.encode(chunk),
                "format": "pcm",
                "sample_rate": 16_000,
                "channels": 1,
            }))
            .await;
    }
}
