//! A scripted service for tests: a TCP listener that answers byte for byte as told and remembers what it was asked.
//!
//! Built for tests only. Each connection takes the next play of the script; the last play is played for ever. Every
//! answer ends its connection, so connections are attempts.

use std::collections::VecDeque;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

use super::service::{Bounds, Dialect, Service, ServiceSettings};
use crate::provider::task::{Task, named};

/// The key that [`FakeProvider::service`] has.
pub(crate) const KEY: &str = "sk-planted-7f3a9c51d2e84b06";

/// What one connection sees.
#[derive(Clone, Default)]
pub(crate) struct Play {
    beats: Vec<Beat>,
}

#[derive(Clone)]
enum Beat {
    /// Read the request; without it the connection is dead before it is heard.
    Hear,
    /// Wait until something comes.
    Overhear,
    Send(Vec<u8>),
    Wait(Duration),
    /// Say no more until the client leaves.
    Hang,
    /// Close with a reset.
    Reset,
    /// Send this again and again until the client leaves.
    Forever(Vec<u8>),
}

impl Play {
    fn hear() -> Self {
        Self { beats: vec![Beat::Hear] }
    }

    fn then(mut self, beat: Beat) -> Self {
        self.beats.push(beat);
        self
    }

    /// A whole answer.
    pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Self {
        let mut head = format!("HTTP/1.1 {status} Scripted\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        let bytes = [head.as_bytes(), b"\r\n", body].concat();
        Self::hear().then(Beat::Send(bytes))
    }

    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::answer(status, &[("content-type", "application/json")], body.to_string().as_bytes())
    }

    /// A complaint in OpenAI's form.
    pub(crate) fn error(status: u16, code: &str, message: &str) -> Self {
        Self::json(status, &json!({ "error": { "message": message, "type": "error", "param": null, "code": code } }))
    }

    /// The head of a streamed answer; what follows is sent as chunks.
    pub(crate) fn stream(media_type: &str) -> Self {
        let head = format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\ncontent-type: {media_type}\r\n\r\n"
        );
        Self::hear().then(Beat::Send(head.into_bytes()))
    }

    pub(crate) fn events() -> Self {
        Self::stream("text/event-stream")
    }

    /// Some of a streamed answer.
    pub(crate) fn send(self, bytes: impl AsRef<[u8]>) -> Self {
        self.then(Beat::Send(chunk(bytes.as_ref())))
    }

    /// One server-sent event.
    pub(crate) fn event(self, data: &Value) -> Self {
        self.send(format!("data: {data}\n\n"))
    }

    /// An event with a piece of a reply's text.
    pub(crate) fn text(self, text: &str) -> Self {
        self.event(&json!({ "choices": [{ "index": 0, "delta": { "content": text }, "finish_reason": null }] }))
    }

    /// The event that says why a reply ended.
    pub(crate) fn finish(self, reason: &str) -> Self {
        self.event(&json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": reason }] }))
    }

    /// The usage of 9 tokens in and `completion` out, and the end of a stream of events.
    pub(crate) fn done(self, completion: usize) -> Self {
        let usage = json!({ "prompt_tokens": 9, "completion_tokens": completion, "total_tokens": 9 + completion });
        self.event(&json!({ "choices": [], "usage": usage })).send("data: [DONE]\n\n").end()
    }

    /// A whole streamed reply.
    pub(crate) fn chat(pieces: &[&str]) -> Self {
        let play = pieces.iter().fold(Self::events(), |play, piece| play.text(piece));
        play.finish("stop").done(pieces.len())
    }

    /// The proper end of a streamed answer; without it the connection is cut.
    pub(crate) fn end(self) -> Self {
        self.then(Beat::Send(b"0\r\n\r\n".to_vec()))
    }

    pub(crate) fn wait(self, time: Duration) -> Self {
        self.then(Beat::Wait(time))
    }

    pub(crate) fn hang(self) -> Self {
        self.then(Beat::Hang)
    }

    pub(crate) fn reset(self) -> Self {
        self.then(Beat::Reset)
    }

    pub(crate) fn forever(self, bytes: impl AsRef<[u8]>) -> Self {
        self.then(Beat::Forever(chunk(bytes.as_ref())))
    }

    /// Hears the request and never answers.
    pub(crate) fn silence() -> Self {
        Self::hear().hang()
    }

    /// Hears the request and resets the connection.
    pub(crate) fn broken() -> Self {
        Self::hear().reset()
    }

    /// Resets the connection before there is a request: in the middle of a TLS handshake.
    pub(crate) fn deaf() -> Self {
        Self { beats: vec![Beat::Overhear] }.reset()
    }
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// Request line and headers.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Received {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Listens until it is dropped.
pub(crate) struct FakeProvider {
    address: SocketAddr,
    state: Arc<State>,
    _listening: Task,
}

#[derive(Default)]
struct State {
    script: Mutex<VecDeque<Play>>,
    received: Mutex<Vec<Received>>,
    connections: AtomicUsize,
    left: AtomicUsize,
}

impl FakeProvider {
    pub(crate) async fn start(script: impl IntoIterator<Item = Play>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State { script: Mutex::new(script.into_iter().collect()), ..State::default() });
        let shared = Arc::clone(&state);
        let listening = Task::spawn("fake provider", async move {
            while let Ok((connection, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let mut script = shared.script.lock().unwrap();
                let play = if script.len() > 1 { script.pop_front() } else { script.front().cloned() };
                drop(script);
                tokio::spawn(named("fake connection", perform(connection, play.unwrap(), Arc::clone(&shared))));
            }
        });
        Self { address, state, _listening: listening }
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// This service under the name `fake`, with OpenAI's dialect and quick repetitions.
    pub(crate) fn service(&self) -> Service {
        self.service_with(|_| {})
    }

    /// The same, changed.
    pub(crate) fn service_with(&self, change: impl FnOnce(&mut ServiceSettings)) -> Service {
        let mut settings = ServiceSettings::new("fake", &self.base_url(), Some(KEY.into()));
        settings.dialect = Some(Dialect::OpenAi);
        settings.bounds.backoff = Duration::from_millis(5);
        change(&mut settings);
        Service::new(settings).unwrap()
    }

    /// The same, impatient: one second for everything.
    pub(crate) fn impatient(&self) -> Service {
        let second = Duration::from_secs(1);
        self.service_with(|settings| {
            settings.bounds = Bounds { connect: second, first_byte: second, idle: second, ..settings.bounds };
        })
    }

    /// Connections so far, heard or not.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Requests heard so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.state.received.lock().unwrap().clone()
    }

    /// Waits until `requests` were heard.
    pub(crate) async fn heard(&self, requests: usize) {
        until(|| self.received().len() >= requests).await;
    }

    /// Waits until so many clients left in the middle of an answer.
    pub(crate) async fn left(&self, clients: usize) {
        until(|| self.state.left.load(Ordering::SeqCst) >= clients).await;
    }
}

async fn until(done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "it did not happen");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn perform(mut connection: TcpStream, play: Play, state: Arc<State>) {
    for beat in play.beats {
        match beat {
            Beat::Hear => match request(&mut connection).await {
                Some(request) => state.received.lock().unwrap().push(request),
                None => return,
            },
            Beat::Overhear => connection.readable().await.unwrap(),
            Beat::Send(bytes) => {
                if connection.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Beat::Wait(time) => sleep(time).await,
            Beat::Hang => {
                while connection.read(&mut [0; 64]).await.is_ok_and(|bytes| bytes > 0) {}
                state.left.fetch_add(1, Ordering::SeqCst);
                return;
            }
            Beat::Reset => {
                connection.set_zero_linger().unwrap();
                return;
            }
            Beat::Forever(bytes) => {
                while connection.write_all(&bytes).await.is_ok() {}
                state.left.fetch_add(1, Ordering::SeqCst);
                return;
            }
        }
    }
    // A socket that is closed with bytes unread is reset.
    let _ = connection.shutdown().await;
    while connection.read(&mut [0; 1024]).await.is_ok_and(|bytes| bytes > 0) {}
}

async fn request(connection: &mut TcpStream) -> Option<Received> {
    let mut bytes = Vec::new();
    loop {
        if connection.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut request = Received { head, body: bytes.split_off(end + 4) };
        let length: usize = request.header("content-length").map_or(0, |length| length.parse().unwrap());
        while request.body.len() < length {
            if connection.read_buf(&mut request.body).await.ok()? == 0 {
                return None;
            }
        }
        return Some(request);
    }
}
