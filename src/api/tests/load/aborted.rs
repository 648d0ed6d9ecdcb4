//! Connections that break off without a word.

use std::time::Duration;

use futures::future::join_all;
use futures::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use crate::api::fixture::{Client, PATIENCE, server_with, usually};

const SLOTS: usize = 20;
/// Of each wave one half breaks off during its upgrade, the other in the midst of audio.
const WAVES: usize = 50;
const FREE_WITHIN: Duration = Duration::from_secs(2);

/// Breaks off at another place of the upgrade each time.
async fn during_the_upgrade(address: &str, number: usize) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let sent = [request.len(), request.len(), request.len() / 2, 1, 0][number % 5];
    stream.write_all(&request.as_bytes()[..sent]).await.unwrap();
    if number.is_multiple_of(5) {
        let mut answer = [0; 20];
        stream.read_exact(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 101"), "{answer:?}");
    }
    stream.set_zero_linger().unwrap();
}

/// Breaks off while it speaks, and half of the time is spoken to: two of three times with a reset, else as a program that
/// has ended, without a close frame. False: it was not let in.
async fn in_the_midst_of_audio(address: &str, number: usize) -> bool {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut socket, _) = client_async(format!("ws://{address}/ws"), stream).await.unwrap();
    let first = timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
    let is_in = first.to_text().is_ok_and(|text| text.contains("session_started"));
    if is_in && number.is_multiple_of(2) {
        let text = json!({"type": "text_message", "text": "Tell me."}).to_string();
        socket.send(Message::text(text)).await.unwrap();
        while !socket.next().await.unwrap().unwrap().to_text().unwrap().contains("audio_chunk") {}
    }
    // 20 ms and a sample, at half the loudness there is.
    let frame = json!({"type": "audio_chunk", "audio_data": "AEAAQABA".repeat(107), "sample_rate": 16000});
    for _ in 0..number % 20 {
        // Whoever was refused is closed.
        let _ = socket.send(Message::text(frame.to_string())).await;
    }
    if !number.is_multiple_of(3) {
        socket.get_ref().set_zero_linger().unwrap();
    }
    is_in
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_that_break_off_leave_every_slot_free() {
    let server = server_with(|state| {
        usually(state, "hello there", "Well, that is a good question. Let me think about it.");
        state.limits.sessions = SLOTS;
        // Places are free at once; what waits for its client, in no place, is to end within the test.
        state.limits.grace = Duration::from_secs(5);
    })
    .await;
    let tasks = || Handle::current().metrics().num_alive_tasks();
    drop(server.started().await);
    sleep(Duration::from_millis(500)).await;
    let before = tasks();
    let mut let_in = 0;
    for wave in 0..WAVES {
        let numbers = || (0..SLOTS / 2).map(|place| wave * SLOTS / 2 + place);
        let upgrades = join_all(numbers().map(|number| during_the_upgrade(&server.address, number)));
        let talks = join_all(numbers().map(|number| in_the_midst_of_audio(&server.address, number)));
        let (_, talks) = tokio::join!(upgrades, talks);
        let_in += talks.into_iter().filter(|is_in| *is_in).count();
    }
    let ended = Instant::now();
    assert!(let_in >= WAVES * SLOTS / 4, "{let_in} were let in; half of the others at least have to be");
    loop {
        let mut clients = join_all((0..SLOTS).map(|_| server.connect(""))).await;
        let firsts = join_all(clients.iter_mut().map(Client::next)).await;
        if firsts.iter().all(|first| first["type"] == "session_started") {
            break;
        }
        assert!(ended.elapsed() < FREE_WITHIN, "some of {SLOTS} slots are still taken");
    }
    assert!(ended.elapsed() < FREE_WITHIN, "the slots were free after {:?}", ended.elapsed());
    let closed = Instant::now();
    while tasks() > before {
        assert!(closed.elapsed() < PATIENCE, "{} tasks are left, {before} before", tasks());
        sleep(Duration::from_millis(20)).await;
    }
}
