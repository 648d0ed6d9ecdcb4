//! The processes under test.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use crate::api::fixture::server_with;
use crate::engine::vad::SileroVad;
use crate::provider::fake::{FakeActivity, FakeChat, FakeHearing, FakeSpeech};
use crate::provider::{VAD_FRAME, VadStream, VoiceActivity};
use crate::testing;

#[derive(Clone, Copy)]
pub(super) enum Serves {
    Sessions,
    Echo,
}

/// A running server.
pub(super) struct Served {
    pub(super) address: String,
    process: Child,
    _folder: tempfile::TempDir,
}

/// How it is.
pub(super) struct Report {
    pub(super) tasks: usize,
    /// Frames of voice activity that were scored.
    pub(super) vad_frames: u64,
    pub(super) cpu: Duration,
}

impl Served {
    pub(super) async fn start(what: Serves) -> Self {
        let test = match what {
            Serves::Sessions => "api::tests::load::servers::sessions_are_served",
            Serves::Echo => "api::tests::load::servers::an_echo_is_served",
        };
        let folder = tempfile::tempdir().unwrap();
        let told = folder.path().join("address");
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--ignored"])
            .env("SCRIPTED_ADDRESS", &told)
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let started = Instant::now();
        let address = loop {
            match std::fs::read_to_string(&told) {
                Ok(address) if !address.is_empty() => break address,
                _ => assert!(started.elapsed() < Duration::from_mins(1), "the server does not start"),
            }
            sleep(Duration::from_millis(20)).await;
        };
        Self { address, process, _folder: folder }
    }

    pub(super) async fn report(&self) -> Report {
        let answer = reqwest::get(format!("http://{}/metrics", self.address)).await.unwrap().text().await.unwrap();
        let figure = |name: &str| -> u64 {
            let line = answer.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{answer}")).trim().parse().unwrap()
        };
        Report { tasks: figure("tasks ") as usize, vad_frames: figure("frames "), cpu: self.cpu() }
    }

    /// Of the process, in user and system time; none where the system does not say.
    fn cpu(&self) -> Duration {
        let stat = self.process.id().and_then(|id| std::fs::read_to_string(format!("/proc/{id}/stat")).ok());
        let ticks = stat.and_then(|stat| {
            let fields: Vec<u64> =
                stat.rsplit(')').next()?.split_whitespace().skip(11).take(2).flat_map(str::parse).collect();
            Some(fields.iter().sum::<u64>())
        });
        // A tick is 10 ms wherever Linux runs.
        Duration::from_millis(ticks.unwrap_or_default() * 10)
    }
}

fn tell(address: &str) {
    // In one step, so that nobody reads half of it.
    let path = testing::path("SCRIPTED_ADDRESS");
    let written = path.with_extension("new");
    std::fs::write(&written, address).unwrap();
    std::fs::rename(written, path).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "serves until it is killed; the load tests start it"]
async fn sessions_are_served() {
    let frames = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&frames);
    let runtime = Handle::current();
    let hearing = Arc::new(FakeHearing { usual: Some("What do you think of it?"), ..FakeHearing::new(&[]) });
    let speech = Arc::new(FakeSpeech::default());
    let (heard, spoken) = (Arc::clone(&hearing), Arc::clone(&speech));
    let server = server_with(move |state| {
        let usual = Some("Well, that is a good question.");
        state.limits.sessions = 1000;
        // What waits for a client that does not come back is no leak.
        state.limits.grace = Duration::from_millis(500);
        state.parts.chat = Arc::new(FakeChat { usual, window: Some(4096), ..FakeChat::default() });
        state.parts.stt = heard;
        state.parts.speech = spoken;
        let real = SileroVad::load(&testing::model("silero-vad")).unwrap();
        state.parts.vad = Arc::new(Activity { real: Arc::new(real), frames });
        state.metrics = Arc::new(move || {
            let (tasks, frames) = (runtime.metrics().num_alive_tasks(), counted.load(Ordering::SeqCst));
            format!("tasks {tasks}\nframes {frames}\n")
        });
    })
    .await;
    // What is made once for all is made before tasks are counted.
    drop(server.started().await);
    sleep(Duration::from_millis(500)).await;
    tell(&server.address);
    loop {
        sleep(Duration::from_secs(1)).await;
        // Scripts remember for tests what they were asked; here nobody asks.
        hearing.heard.lock().unwrap().clear();
        speech.asked.lock().unwrap().clear();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "serves until it is killed; the load tests start it"]
async fn an_echo_is_served() {
    let echo = |upgrade: WebSocketUpgrade| async {
        upgrade.on_upgrade(|mut socket| async move {
            while let Some(Ok(message)) = socket.recv().await {
                if matches!(message, Message::Text(_)) && socket.send(message).await.is_err() {
                    return;
                }
            }
        })
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    tell(&listener.local_addr().unwrap().to_string());
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| stream.set_nodelay(true).unwrap());
    axum::serve(listener, Router::new().route("/ws", get(echo))).await.unwrap();
}

/// What the first sample of a session's audio asks for: Silero, which hears nothing in it.
pub(super) const ASKS_FOR_SILERO: i16 = 1;

/// Silero for those who ask for it, loudness for the others.
struct Activity {
    real: Arc<SileroVad>,
    frames: Arc<AtomicUsize>,
}

impl VoiceActivity for Activity {
    fn open(&self) -> Box<dyn VadStream> {
        let (real, frames) = (Arc::clone(&self.real), Arc::clone(&self.frames));
        Box::new(Listening { real, frames, stream: None })
    }
}

struct Listening {
    real: Arc<SileroVad>,
    frames: Arc<AtomicUsize>,
    stream: Option<Box<dyn VadStream>>,
}

impl VadStream for Listening {
    fn score(&mut self, frame: &[f32; VAD_FRAME]) -> f32 {
        self.frames.fetch_add(1, Ordering::SeqCst);
        let asks = (frame[0] * 32_768.0).round() as i16 == ASKS_FOR_SILERO;
        let stream = self.stream.get_or_insert_with(|| if asks { self.real.open() } else { Box::new(FakeActivity) });
        stream.score(frame)
    }
}
