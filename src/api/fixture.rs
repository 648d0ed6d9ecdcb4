//! A server over real sockets, with scripted engines and a real database, and clients of it: for tests of the doors.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::{Access, Limits, PartReport, PartState, State, serve};
use crate::provider::fake::{FakeActivity, FakeChat, FakeHearing, FakeSpeech};
use crate::provider::missing::Missing;
use crate::provider::{ModelCard, ProviderReport, Roster};
use crate::session::Parts;
use crate::session::settings::Settings;
use crate::store::fixture::{self, TestStore};
use crate::store::{Budgets, LOCAL_OWNER, Store, StoredLedger};

/// No test waits longer for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Server {
    pub(super) address: String,
    pub(super) store: Store,
    pub(super) chat: Arc<FakeChat>,
    pub(super) engines: watch::Sender<Vec<PartReport>>,
    pub(super) stop: Option<oneshot::Sender<()>>,
    pub(super) done: JoinHandle<()>,
    _folder: TempDir,
    _database: TestStore,
}

pub(super) struct NoModels;

impl Roster for NoModels {
    fn models(&self) -> Vec<ModelCard> {
        Vec::new()
    }

    fn providers(&self) -> Vec<ProviderReport> {
        Vec::new()
    }
}

pub(super) async fn server() -> Server {
    server_with(|_| {}).await
}

pub(super) async fn server_with(configure: impl FnOnce(&mut State)) -> Server {
    server_on(fixture::sqlite().await, configure).await
}

/// The same on a given database, which ends with the server.
pub(super) async fn server_on(database: TestStore, configure: impl FnOnce(&mut State)) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::clone(&database);
    let chat = Arc::new(FakeChat::default());
    let ready = |part: &str| PartReport { part: part.into(), name: "fake".into(), state: PartState::Ready };
    let (engines, reports) = watch::channel(vec![ready("stt"), ready("llm"), ready("tts"), ready("vad")]);
    let mut state = State {
        parts: Parts {
            stt: Arc::new(FakeHearing::new(&["hello there"])),
            chat: Arc::clone(&chat) as _,
            speech: Arc::new(FakeSpeech::default()),
            vad: Arc::new(FakeActivity),
            records: Arc::new(store.of(LOCAL_OWNER)),
        },
        embedder: Arc::new(Missing::new("an embedding model", "none here")),
        roster: Arc::new(NoModels),
        ledger: StoredLedger::new(store.clone(), Budgets::default()),
        data_dir: folder.path().to_owned(),
        store: store.clone(),
        engines: reports,
        metrics: Arc::new(|| "aichat_up 1\n".to_owned()),
        settings: Settings::default(),
        access: Access::default(),
        tls: None,
        limits: Limits::default(),
    };
    configure(&mut state);
    // What the requests below call it.
    state.access.allowed_hosts.push("x".to_owned());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (stop, stopped) = oneshot::channel();
    let done = tokio::spawn(serve(listener, state, async move {
        // A test that ends without stopping keeps serving until its runtime ends.
        if stopped.await.is_err() {
            std::future::pending::<()>().await;
        }
    }));
    Server { address, store, chat, engines, stop: Some(stop), done, _folder: folder, _database: database }
}

impl Server {
    /// A reply of short words that takes no time to write.
    pub(super) fn will_say(&self, text: &str) {
        self.chat.say(text, Duration::from_millis(10), Duration::from_millis(2));
    }

    pub(super) async fn connect(&self, query: &str) -> Client {
        let (socket, _) = connect_async(format!("ws://{}/ws{query}", self.address)).await.unwrap();
        Client { socket }
    }

    pub(super) async fn started(&self) -> Client {
        let mut client = self.connect("").await;
        assert_eq!(client.next().await["type"], "session_started");
        client
    }

    pub(super) fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    pub(super) async fn get(&self, path: &str, headers: &str) -> (u16, String) {
        self.request(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n")).await
    }

    /// Sends JSON and waits for the answer's head.
    pub(super) async fn post(&self, path: &str, body: &Value) -> reqwest::Response {
        let request = reqwest::Client::new().post(format!("http://{}{path}", self.address)).json(body);
        timeout(PATIENCE, request.send()).await.unwrap().unwrap()
    }

    /// The status, and the whole answer with its headers.
    pub(super) async fn request(&self, text: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
    }
}

pub(super) struct Client {
    pub(super) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Client {
    pub(super) async fn send(&mut self, message: Value) {
        self.send_text(message.to_string()).await;
    }

    pub(super) async fn send_text(&mut self, text: String) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    pub(super) async fn frame(&mut self) -> Option<Result<Message, SocketError>> {
        timeout(PATIENCE, self.socket.next()).await.expect("the server said nothing for too long")
    }

    /// The next JSON message.
    pub(super) async fn next(&mut self) -> Value {
        loop {
            match self.frame().await.expect("an open socket").unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// All messages up to and with the first of this type.
    pub(super) async fn until(&mut self, kind: &str) -> Vec<Value> {
        let mut messages = vec![];
        loop {
            let message = self.next().await;
            let is_last = message["type"] == kind;
            messages.push(message);
            if is_last {
                return messages;
            }
        }
    }

    /// What still comes, and the code of the close.
    pub(super) async fn rest(&mut self) -> (Vec<Value>, Option<u16>) {
        let mut messages = vec![];
        loop {
            match self.frame().await {
                Some(Ok(Message::Text(text))) => messages.push(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(frame))) => return (messages, frame.map(|frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return (messages, None),
            }
        }
    }

    pub(super) async fn say(&mut self, text: &str) {
        self.send(json!({"type": "text_message", "text": text, "ref": "t1", "client_message_id": text})).await;
    }

    /// `millis` of a constant.
    pub(super) async fn sound(&mut self, level: i16, millis: usize) {
        let samples: Vec<u8> = std::iter::repeat_n(level.to_le_bytes(), 16 * millis).flatten().collect();
        let data = STANDARD.encode(samples);
        self.send(json!({"type": "audio_chunk", "audio_data": data, "format": "pcm", "sample_rate": 16000})).await;
    }
}

pub(super) fn of<'a>(messages: &'a [Value], kind: &str) -> Vec<&'a Value> {
    messages.iter().filter(|message| message["type"] == kind).collect()
}
