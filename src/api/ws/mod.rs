//! The native WebSocket, `/ws`: sockets, and the calls that they are in.
//!
//! Of each socket two halves run side by side and end together. The reader checks and decodes what the client sends; the
//! writer alone owns the sink. They meet in the `call`, which outlives its sockets, and in a short queue of answers that no
//! session needs to give: refusals, pongs. A client that does not read is closed, never buffered for.

mod call;
mod door;
mod meter;
mod microphone;
mod queue;
mod reader;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use futures::stream::SplitStream;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::House;
use super::access::Identity;
use super::asker::Asker;
use super::problem::Problem;
use super::wire::{Encoder, Notice, Protocol, named};
use crate::audio::{MIC_HZ, MICROPHONE_RATES};
use crate::session::Opening;
use call::Visit;
pub(super) use call::{Hall, mend, sweep_for_ever};
use door::Door;
pub use meter::describe as describe_metrics;
use reader::{Listener, Reader};
use writer::Writer;

/// A message beyond the limit is refused by name up to this many times the limit; beyond that, before it is read.
const POLITE: usize = 4;
/// What a socket may hold back before a write waits: some audio and a burst of text.
const WRITE_BUFFER_BYTES: usize = 1024 * 1024;
/// Answers that wait for the writer; when they are this many, the client's next message waits in its socket.
const ANSWERS: usize = 16;
/// After our close frame, for the client's.
const LINGER: Duration = Duration::from_secs(1);

/// Why a socket ends. The codes are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// The client closed and does not come back.
    Done,
    /// The client's connection broke, or its page was left.
    Gone,
    /// What came is not WebSocket.
    Unreadable,
    /// A session ends by itself only when a task of it has failed.
    SessionFailed,
    Draining,
    TooLarge,
    TooSlow,
    Overloaded,
    /// The key was revoked or is over, or the browser has logged out.
    AuthEnded,
    NotFound,
    Silent,
    /// The same client has connected again.
    Replaced,
}

impl Ending {
    /// The close code and its reason; None where nobody is there to read them.
    const fn close(self) -> Option<(u16, &'static str)> {
        match self {
            Self::Done | Self::Gone => None,
            Self::Unreadable => Some((1002, "a frame could not be read")),
            Self::SessionFailed => Some((1013, "the session failed")),
            Self::Draining => Some((1001, "the server is shutting down")),
            Self::TooLarge => Some((1009, "the message is too large")),
            Self::TooSlow => Some((1013, "too slow")),
            Self::Overloaded => Some((1013, "overloaded")),
            Self::AuthEnded => Some((4401, "the key or the login has ended")),
            Self::NotFound => Some((4404, "not found")),
            Self::Silent => Some((4408, "silent for too long")),
            Self::Replaced => Some((4409, "replaced by a newer connection")),
        }
    }

    /// Whether somebody may still be reading.
    const fn is_heard(self) -> bool {
        !matches!(self, Self::Done | Self::Gone | Self::Unreadable | Self::TooSlow | Self::Replaced)
    }
}

/// The query. What it does not name is ignored.
#[derive(Debug, Deserialize)]
pub(super) struct Connect {
    conversation_id: Option<String>,
    /// Separated by commas.
    character_ids: Option<String>,
    /// `json` or `binary`.
    protocol: Option<String>,
    /// Of PCM in binary frames, in hertz.
    input_rate: Option<u32>,
    input_channels: Option<u32>,
    /// `1`: the first message is `resume`.
    resume: Option<String>,
}

/// How a socket wants to talk.
#[derive(Clone, Copy, Debug)]
struct Wish {
    protocol: Protocol,
    /// Its first message is `resume`.
    resumes: bool,
}

/// `GET /ws`.
pub(super) async fn open(
    Extract(house): Extract<Arc<House>>,
    asker: Asker,
    query: Result<Query<Connect>, QueryRejection>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = upgrade.map_err(not_a_websocket)?;
    let Query(connect) = query.map_err(|error| bad_query(error.body_text()))?;
    let resumes = connect.resume.as_deref().is_some_and(|resume| matches!(resume, "1" | "true"));
    let wish = Wish { protocol: connect.protocol()?, resumes };
    let opening = connect.opening(&house, &asker)?;
    if house.draining.has_begun() {
        let detail = "the server is shutting down";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "server_draining", detail));
    }
    let hard_limit = house.state.limits.message_bytes * POLITE;
    let upgrade = upgrade
        .max_message_size(hard_limit)
        .max_frame_size(hard_limit)
        .max_write_buffer_size(WRITE_BUFFER_BYTES)
        .on_failed_upgrade(|error| tracing::debug!(%error, "an upgrade failed"));
    Ok(upgrade.on_upgrade(move |socket| run(socket, house, asker, opening, wish)))
}

fn bad_query(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad_query", detail)
}

fn not_a_websocket(rejection: WebSocketUpgradeRejection) -> Problem {
    let status = rejection.into_response().status();
    Problem::new(status, "not_a_websocket", "this address takes WebSocket connections only")
}

impl Connect {
    fn protocol(&self) -> Result<Protocol, Problem> {
        let (rate, channels) = (self.input_rate.unwrap_or(MIC_HZ), self.input_channels.unwrap_or(1));
        if !MICROPHONE_RATES.contains(&rate) || !(1..=2).contains(&channels) {
            let (low, high) = (MICROPHONE_RATES.start(), MICROPHONE_RATES.end());
            let detail = format!("input_rate must be from {low} to {high} and input_channels 1 or 2");
            return Err(bad_query(detail));
        }
        match self.protocol.as_deref() {
            None | Some("json") => Ok(Protocol::Json),
            Some("binary") => Ok(Protocol::Binary { rate, channels }),
            Some(other) => {
                let detail = format!("the protocol \"{other}\" is not offered; use json or binary");
                Err(Problem::new(StatusCode::BAD_REQUEST, "protocol_not_offered", detail))
            }
        }
    }

    fn opening(self, house: &House, asker: &Asker) -> Result<Opening, Problem> {
        let ids = self.character_ids.unwrap_or_default();
        let ids = ids.split(',').map(str::trim).filter(|id| !id.is_empty()).map(str::to_owned).collect();
        let character_ids = named(ids).map_err(|message| bad_query(format!("character_ids: {message}")))?;
        Ok(Opening {
            conversation_id: self.conversation_id.filter(|id| !id.is_empty()),
            character_ids,
            guests: Vec::new(),
            settings: house.state.settings.session(),
            paced: true,
            bounds: house.state.limits.bounds,
            caller: asker.caller.clone(),
        })
    }
}

/// The whole life of one socket.
async fn run(socket: WebSocket, house: Arc<House>, asker: Asker, opening: Opening, wish: Wish) {
    let Wish { protocol, resumes } = wish;
    let (sink, mut stream) = socket.split();
    let mut writer = Writer::new(sink, Encoder::new(protocol), &house.state.limits);
    let door = Door::new(&house, &asker, (&mut stream, protocol), &mut writer);
    let entered = if resumes { door.come_back(opening).await } else { door.enter(opening, Vec::new()).await };
    let (ending, place) = match entered {
        Ok(mut visit) => {
            writer.join(&visit.seat);
            let ending = converse((&mut stream, protocol), &mut writer, &mut visit, &house, &asker.identity).await;
            // Whoever is gone leaves at once; a stopping server waits for the others to have read our close.
            let place = visit.leave(ending);
            let place = ending.is_heard().then_some(place);
            writer.close(ending).await;
            (ending, place)
        }
        Err((refusal, ending)) => {
            let told = match refusal {
                Some(refusal) => writer.send(&Notice::Refused(refusal), Some(1)).await,
                None => Ok(()),
            };
            if told.is_ok() {
                writer.close(ending).await;
            }
            (ending, None)
        }
    };
    tracing::debug!(?ending, "a socket ends");
    linger(stream).await;
    drop(place);
}

/// Both halves, until one ends.
async fn converse(
    incoming: (&mut SplitStream<WebSocket>, Protocol),
    writer: &mut Writer,
    visit: &mut Visit,
    house: &House,
    identity: &Identity,
) -> Ending {
    let (say, mut answers) = mpsc::channel(ANSWERS);
    let listener = Listener::Call(visit.seat.clone());
    let mut reader = Reader::new(incoming, listener, say, house.draining.clone(), &house.state.limits);
    let ending = tokio::select! {
        ending = reader.run() => ending,
        Ok(()) = &mut visit.replaced => Ending::Replaced,
        () = house.entrance.keys.ended(identity) => Ending::AuthEnded,
        ending = writer.run((&mut visit.follower, &visit.seat), &mut answers) => ending,
    };
    // What the reader said last explains why it ended.
    if ending.is_heard()
        && let Err(sooner) = writer.finish((&mut visit.follower, &visit.seat), &mut answers).await
    {
        return sooner;
    }
    ending
}

/// Reads on until the client has answered our close frame: a socket that is closed over unread bytes is reset, and the
/// reset can overtake the close frame.
async fn linger(mut stream: SplitStream<WebSocket>) {
    let rest = async { while let Some(Ok(_)) = stream.next().await {} };
    if timeout(LINGER, rest).await.is_err() {
        tracing::debug!("a client did not answer the close");
    }
}
