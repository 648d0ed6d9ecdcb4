//! A server of one's own: the real binary on a free port, with a database in a temporary folder, and a client.

use std::process::Stdio;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Models load in seconds; a busy machine takes longer.
const START: Duration = Duration::from_mins(2);
/// The longest wait for any one message.
const PATIENCE: Duration = Duration::from_mins(2);

pub(crate) struct Server {
    pub(crate) process: Child,
    pub(crate) address: String,
    pub(crate) data: TempDir,
}

impl Server {
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), settings).await
    }

    /// On what another one left behind.
    pub(crate) async fn start_in(data: TempDir, settings: &[(&str, &str)]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_aichat"))
            .args(["serve", "--port", "0"])
            .arg("--data-dir")
            .arg(data.path())
            .envs(settings.iter().copied())
            .current_dir(data.path())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = timeout(START, lines.next_line()).await.expect("the server took too long").unwrap().unwrap();
        let address = line.split("http://").nth(1).unwrap().split(' ').next().unwrap().to_owned();
        Self { process, address, data }
    }

    pub(crate) fn database(&self) -> String {
        format!("sqlite://{}/aichat.db", self.data.path().display())
    }

    pub(crate) async fn connect(&self) -> Client {
        let (socket, _) = connect_async(format!("ws://{}/ws", self.address)).await.unwrap();
        let mut client = Client { socket, heard: Vec::new() };
        client.until("session_started").await;
        client
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.process.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args([name, &id]).status().unwrap().success());
    }
}

pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Everything received, in order.
    pub(crate) heard: Vec<Value>,
}

impl Client {
    pub(crate) async fn say(&mut self, message: Value) {
        self.socket.send(Message::text(message.to_string())).await.unwrap();
    }

    pub(crate) async fn text(&mut self, text: &str) {
        self.say(json!({"type": "text_message", "text": text})).await;
    }

    /// The next message, or None where the server closed.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            match timeout(PATIENCE, self.socket.next()).await.expect("the server fell silent")?.ok()? {
                Message::Text(text) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    self.heard.push(message.clone());
                    return Some(message);
                }
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    /// Receives up to a message of this type.
    pub(crate) async fn until(&mut self, kind: &str) -> Value {
        loop {
            let message = self.next().await.unwrap_or_else(|| panic!("closed before {kind}"));
            assert_ne!(message["type"], "error", "{message}");
            if message["type"] == kind {
                return message;
            }
        }
    }

    pub(crate) fn of(&self, kind: &str) -> Vec<&Value> {
        self.heard.iter().filter(|message| message["type"] == kind).collect()
    }
}
