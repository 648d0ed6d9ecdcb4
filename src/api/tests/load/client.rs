//! One client: it sends a frame every 20 ms, in time, whatever comes back, and notes when what it caused came.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::servers::ASKS_FOR_SILERO;
use crate::api::fixture::PATIENCE;
use crate::testing;

const FRAME: Duration = Duration::from_millis(20);
/// At 16 kHz.
const SAMPLES: usize = 320;
const VAD_SAMPLES: usize = 512;
/// One in so many frames is followed by a ping.
const PING_EVERY: usize = 10;
/// The microphone repeats itself after 8 s: 1 s of sound, then silence, in which the reply is spoken.
const LOOP: usize = 400;
const LOUD: usize = 50;

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Peer {
    /// Hears loudness as speech.
    Scripted,
    /// Hears speech as Silero does.
    Listening,
    Echo,
}

/// What one client has noted.
#[derive(Default)]
pub(super) struct Tally {
    /// From a ping to its pong.
    pub(super) pongs: Vec<Duration>,
    /// From the frame with which speech begins to the word that it does.
    pub(super) onsets: Vec<Duration>,
    /// Whole frames of voice activity that were sent.
    pub(super) vad_frames: u64,
    pub(super) replies: usize,
    pub(super) pieces: usize,
    /// Pieces of audio that came when those before them were over.
    pub(super) late_pieces: usize,
    pub(super) errors: Vec<String>,
}

/// The messages of the microphones.
pub(super) struct Script {
    loud: Vec<Utf8Bytes>,
    spoken: Vec<Utf8Bytes>,
    /// The first frame of a session that wants Silero.
    asking: Utf8Bytes,
}

pub(super) fn script() -> Arc<Script> {
    let message = |samples: &[i16]| -> Utf8Bytes {
        let data = STANDARD.encode(samples.iter().flat_map(|sample| sample.to_le_bytes()).collect::<Vec<_>>());
        let chunk = json!({"type": "audio_chunk", "audio_data": data, "format": "pcm", "sample_rate": 16000});
        chunk.to_string().into()
    };
    let level = |frame| if frame < LOUD { 16_384 } else { 0 };
    let loud = (0..LOOP).map(|frame| message(&[level(frame); SAMPLES])).collect();
    let clip = std::fs::read(testing::fixture("goforward.s16")).unwrap();
    let mut clip: Vec<i16> = clip.as_chunks().0.iter().map(|bytes| i16::from_le_bytes(*bytes)).collect();
    clip.resize(LOOP * SAMPLES, 0);
    let spoken = clip.chunks(SAMPLES).map(message).collect();
    let mut asking = [0; SAMPLES];
    asking[0] = ASKS_FOR_SILERO;
    Arc::new(Script { loud, spoken, asking: message(&asking) })
}

/// The frame with which the `nth` noise has lasted for three frames of voice activity, of a session that hears the loop
/// from `shift` on.
fn onset(nth: usize, shift: usize) -> usize {
    let from = ((LOOP - shift) % LOOP + nth * LOOP) * SAMPLES;
    // A frame is loud that is loud for a fifth.
    let first = (from + VAD_SAMPLES / 5) / VAD_SAMPLES;
    ((first + 3) * VAD_SAMPLES).div_ceil(SAMPLES) - 1
}

/// Answers with its socket, still open.
pub(super) async fn converse(
    address: String,
    peer: Peer,
    number: usize,
    script: Arc<Script>,
    all: Arc<Barrier>,
    seconds: usize,
) -> (Tally, WebSocketStream<TcpStream>) {
    let stream = TcpStream::connect(&address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut socket, _) = client_async(format!("ws://{address}/ws"), stream).await.unwrap();
    if peer != Peer::Echo {
        let first = timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
        assert!(first.to_text().unwrap().contains("session_started"), "{first:?}");
    }
    let (sink, stream) = socket.split();
    // Never in the midst of a noise: that would be half a word.
    let shift = LOUD + number * 37 % (LOOP - LOUD);
    all.wait().await;
    // Not all at the same instant.
    let start = Instant::now() + FRAME * (number as u32 * 7 % 100) / 100;
    let count = seconds * 50;
    let sent = Mutex::new(Vec::with_capacity(count));
    let pings = Mutex::new(VecDeque::new());
    let write = async {
        let mut sink = sink;
        for frame in 0..count {
            sleep_until(start + FRAME * frame as u32).await;
            let place = (shift + frame) % LOOP;
            let message = match peer {
                Peer::Listening if frame == 0 => &script.asking,
                Peer::Listening => &script.spoken[place],
                Peer::Scripted | Peer::Echo => &script.loud[place],
            };
            sent.lock().unwrap().push(Instant::now());
            sink.send(Message::Text(message.clone())).await.unwrap();
            if (frame + number).is_multiple_of(PING_EVERY) || frame + 1 == count {
                pings.lock().unwrap().push_back((Instant::now(), frame + 1 == count));
                sink.send(Message::text(r#"{"type":"ping"}"#)).await.unwrap();
            }
        }
        sink
    };
    let read = async {
        let mut stream = stream;
        let mut listener = Listener { tally: Tally::default(), shift, playhead: None };
        loop {
            let message = timeout(PATIENCE, stream.next()).await.expect("the server fell silent").unwrap().unwrap();
            let now = Instant::now();
            let Message::Text(text) = message else { continue };
            let head = &text[..text.len().min(32)];
            if head.contains("\"ping\"") || head.contains("\"pong\"") {
                let (asked, is_last) = pings.lock().unwrap().pop_front().unwrap();
                listener.tally.pongs.push(now - asked);
                if is_last {
                    return (stream, listener.tally);
                }
            } else if peer != Peer::Echo {
                let message: Value = serde_json::from_str(&text).unwrap();
                listener.hear(&message, now, &sent.lock().unwrap(), peer);
            }
        }
    };
    let (sink, (stream, mut tally)) = tokio::join!(write, read);
    tally.vad_frames = (count * SAMPLES / VAD_SAMPLES) as u64;
    (tally, sink.reunite(stream).unwrap())
}

struct Listener {
    tally: Tally,
    shift: usize,
    /// When all audio of the item is played.
    playhead: Option<Instant>,
}

impl Listener {
    fn hear(&mut self, message: &Value, now: Instant, sent: &[Instant], peer: Peer) {
        match message["type"].as_str().unwrap() {
            "speech_started" if peer == Peer::Scripted => {
                let frame = onset(self.tally.onsets.len(), self.shift);
                self.tally.onsets.push(now - sent[frame]);
            }
            "audio_chunk" => {
                let bytes = message["audio_data"].as_str().unwrap().len() / 4 * 3;
                let length = Duration::from_micros(bytes as u64 * 1_000_000 / 48_000);
                self.tally.pieces += 1;
                self.tally.late_pieces += usize::from(self.playhead.is_some_and(|playhead| playhead < now));
                self.playhead = Some(self.playhead.unwrap_or(now).max(now) + length);
            }
            "turn_complete" => {
                self.tally.replies += 1;
                self.playhead = None;
            }
            "interrupted" => self.playhead = None,
            "error" => self.tally.errors.push(message.to_string()),
            _ => {}
        }
    }
}
