//! A server over real sockets, with scripted engines and a real database, and clients of it: for tests of the doors.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::BoxFuture;
use futures::{FutureExt, SinkExt, StreamExt};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::{Access, Defaults, Limits, PartReport, PartState, State, serve};
use crate::provider::account::Price;
use crate::provider::fake::{FakeActivity, FakeChat, FakeHearing, FakeSpeech};
use crate::provider::missing::Missing;
use crate::provider::{
    Capability, Flow, LocalModel, ModelCard, ModelShelf, ModelState, ProviderError, ProviderReport, PullProgress,
    RemoteModel, Roster, VoiceNames,
};
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
    pub(super) shelf: Arc<FakeShelf>,
    pub(super) engines: watch::Sender<Vec<PartReport>>,
    pub(super) stop: Option<oneshot::Sender<()>>,
    pub(super) done: JoinHandle<()>,
    folder: TempDir,
    _database: Option<TestStore>,
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

/// Two language models, of which `small` is the first, one of another service, and one that does not load.
#[derive(Default)]
pub(super) struct FakeShelf {
    /// Those that were loaded.
    pub(super) loaded: Mutex<Vec<String>>,
    /// What was wished for last.
    pub(super) first: Mutex<BTreeMap<&'static str, String>>,
    pub(super) voices: Mutex<VoiceNames>,
    /// All of them load.
    pub(super) is_repaired: AtomicBool,
}

impl FakeShelf {
    fn is_damaged(&self, name: &str) -> bool {
        name == "broken" && !self.is_repaired.load(Ordering::Relaxed)
    }

    #[expect(clippy::unused_self, reason = "asked of a shelf as of a real one")]
    pub(super) fn firsts(&self) -> BTreeMap<&'static str, String> {
        [("stt_model", "hears"), ("llm_model", "small"), ("tts_model", "speaks")]
            .map(|(setting, name)| (setting, name.to_owned()))
            .into()
    }

    fn known(name: &str) -> Result<(), ProviderError> {
        if name == "openai/x" { Ok(()) } else { Self::here(name) }
    }

    /// Only these are pulled and loaded.
    fn here(name: &str) -> Result<(), ProviderError> {
        let remedy = "there are small, large, broken, openai/x".to_owned();
        let is_here = ["small", "large", "broken", "hears", "speaks"].contains(&name);
        if is_here { Ok(()) } else { Err(ProviderError::UnknownModel { model: name.to_owned(), remedy }) }
    }
}

impl ModelShelf for FakeShelf {
    fn local(&self) -> Vec<LocalModel> {
        let loaded = self.loaded.lock().unwrap();
        let state = |name: &str| match name {
            name if self.is_damaged(name) => ModelState::Failed { reason: "its file is damaged".to_owned() },
            name if loaded.iter().any(|loaded| loaded == name) => ModelState::Ready,
            _ => ModelState::Unloaded,
        };
        let model = |name: &str| LocalModel {
            name: name.to_owned(),
            kind: "chat",
            summary: "A model.".to_owned(),
            licence: "MIT".to_owned(),
            state: state(name),
            disk_bytes: (name != "large").then_some(1000),
            memory_bytes: 2000,
        };
        ["small", "large", "broken"].map(model).into()
    }

    fn remote(&self) -> Vec<RemoteModel> {
        let price = Some(Price { input: 2.5, ..Price::default() });
        vec![RemoteModel { name: "openai/x".to_owned(), provider: "openai".to_owned(), price }]
    }

    fn pull(&self, name: &str) -> Result<Flow<PullProgress>, ProviderError> {
        Self::here(name)?;
        let step = |done_bytes| PullProgress {
            model: name.to_owned(),
            stage: "fetching".to_owned(),
            file: "weights".to_owned(),
            done_bytes,
            total_bytes: Some(100),
        };
        let mut steps = vec![Ok(step(50)), Ok(step(100))];
        if self.is_damaged(name) {
            let (what, remedy) = (name.to_owned(), "the hub does not answer".to_owned());
            steps[1] = Err(ProviderError::Unavailable { what, remedy });
        }
        Ok(futures::stream::iter(steps).boxed())
    }

    fn load(&self, name: &str) -> BoxFuture<'static, Result<(), ProviderError>> {
        let outcome = Self::here(name).and_then(|()| match name {
            name if self.is_damaged(name) => {
                Err(ProviderError::Unavailable { what: name.to_owned(), remedy: "pull it again".to_owned() })
            }
            name => {
                self.loaded.lock().unwrap().push(name.to_owned());
                Ok(())
            }
        });
        futures::future::ready(outcome).boxed()
    }

    fn unload(&self, name: &str) -> Result<(), ProviderError> {
        Self::here(name)?;
        self.loaded.lock().unwrap().retain(|loaded| loaded != name);
        Ok(())
    }

    fn first(&self, capability: Capability) -> String {
        let (setting, own) = match capability {
            Capability::Transcription => ("transcription", "hears"),
            Capability::Speech => ("speech", "speaks"),
            _ => ("chat", "small"),
        };
        self.first.lock().unwrap().get(setting).cloned().unwrap_or_else(|| own.to_owned())
    }

    fn prefer(&self, capability: Capability, name: &str) -> Result<(), ProviderError> {
        Self::known(name)?;
        self.first.lock().unwrap().insert(capability.as_str(), name.to_owned());
        Ok(())
    }

    fn name_voices(&self, names: VoiceNames) {
        *self.voices.lock().unwrap() = names;
    }
}

/// Hears and says the same whenever it is asked, however often that is. `Server::chat` is asked nothing then.
pub(super) fn usually(state: &mut State, heard: &'static str, said: &'static str) {
    state.parts.stt = Arc::new(FakeHearing { usual: Some(heard), ..FakeHearing::new(&[]) });
    state.parts.chat = Arc::new(FakeChat { usual: Some(said), ..FakeChat::default() });
}

pub(super) async fn server() -> Server {
    server_with(|_| {}).await
}

pub(super) async fn server_with(configure: impl FnOnce(&mut State)) -> Server {
    server_on(fixture::sqlite().await, configure).await
}

/// The same on a given database, which ends with the server.
pub(super) async fn server_on(database: TestStore, configure: impl FnOnce(&mut State)) -> Server {
    let server = server_over(Store::clone(&database), configure).await;
    Server { _database: Some(database), ..server }
}

/// The same on a database that others may open, too.
pub(super) async fn server_over(store: Store, configure: impl FnOnce(&mut State)) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let chat = Arc::new(FakeChat::default());
    let shelf = Arc::new(FakeShelf::default());
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
        recordings: Arc::default(),
        engines: reports,
        metrics: Arc::new(|| "aichat_up 1\n".to_owned()),
        settings: Defaults::new(Settings::default(), Arc::clone(&shelf) as _, shelf.firsts(), vec!["tts_model"]),
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
    Server { address, store, chat, shelf, engines, stop: Some(stop), done, folder, _database: None }
}

impl Server {
    /// Where it keeps files.
    pub(super) fn data_dir(&self) -> &std::path::Path {
        self.folder.path()
    }

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

    /// A request of any kind, to be sent.
    pub(super) fn asking(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        reqwest::Client::new().request(method, format!("http://{}{path}", self.address))
    }

    /// Sends JSON and waits for the answer's head.
    pub(super) async fn post(&self, path: &str, body: &Value) -> reqwest::Response {
        let request = self.asking(Method::POST, path).json(body);
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

/// The sound of an `audio_chunk`.
pub(super) fn data_of(chunk: &Value) -> Vec<u8> {
    STANDARD.decode(chunk["audio_data"].as_str().unwrap()).unwrap()
}
