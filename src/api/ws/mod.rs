//! The native WebSocket, `/ws`: one socket, one session.
//!
//! Two halves run side by side and end together. The reader checks and decodes what the client sends; the writer alone
//! owns the sink. They meet in the session, and in a short queue of answers that no session needs to give: refusals,
//! pongs. A client that does not read is closed, never buffered for.

mod meter;
mod microphone;
mod queue;
mod reader;
mod writer;

use std::future::pending;
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
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::access::{Identity, Seat, Share};
use super::asker::Asker;
use super::problem::Problem;
use super::wire::{Encoder, Notice, Protocol, Refusal};
use super::{Draining, House};
use crate::audio::{MIC_HZ, MICROPHONE_RATES};
use crate::session::event::{Input, Request};
use crate::session::{self, Handle, Opening, Outbox, StartError};
use crate::store::BudgetReport;
pub use meter::describe as describe_metrics;
use reader::Reader;
use writer::Writer;

/// A message beyond the limit is refused by name up to this many times the limit; beyond that, before it is read.
const POLITE: usize = 4;
/// What a socket may hold back before a write waits: some audio and a burst of text.
const WRITE_BUFFER_BYTES: usize = 1024 * 1024;
/// Answers that wait for the writer; when they are this many, the client's next message waits in its socket.
const NOTICES: usize = 16;
/// After our close frame, for the client's.
const LINGER: Duration = Duration::from_secs(1);

/// Before the end of a drain, for what an interruption says and saves.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why a socket ends. The codes are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// The client closed, or its connection broke.
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
}

impl Ending {
    /// The close code and its reason; None where nobody is there to read them.
    const fn close(self) -> Option<(u16, &'static str)> {
        match self {
            Self::Gone => None,
            Self::Unreadable => Some((1002, "a frame could not be read")),
            Self::SessionFailed => Some((1013, "the session failed")),
            Self::Draining => Some((1001, "the server is shutting down")),
            Self::TooLarge => Some((1009, "the message is too large")),
            Self::TooSlow => Some((1013, "too slow")),
            Self::Overloaded => Some((1013, "overloaded")),
            Self::AuthEnded => Some((4401, "the key or the login has ended")),
            Self::NotFound => Some((4404, "not found")),
            Self::Silent => Some((4408, "silent for too long")),
        }
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
}

/// `GET /ws`.
pub(super) async fn open(
    Extract(house): Extract<Arc<House>>,
    asker: Asker,
    query: Result<Query<Connect>, QueryRejection>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = upgrade.map_err(not_a_websocket)?;
    let Query(connect) =
        query.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, "bad_query", error.body_text()))?;
    let protocol = connect.protocol()?;
    let opening = connect.opening(&house, &asker);
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
    Ok(upgrade.on_upgrade(move |socket| run(socket, house, asker, opening, protocol)))
}

fn not_a_websocket(rejection: WebSocketUpgradeRejection) -> Problem {
    let status = rejection.into_response().status();
    Problem::new(status, "not_a_websocket", "this address takes WebSocket connections only")
}

impl Connect {
    fn protocol(&self) -> Result<Protocol, Problem> {
        let refuse = |code, detail: String| Problem::new(StatusCode::BAD_REQUEST, code, detail);
        let (rate, channels) = (self.input_rate.unwrap_or(MIC_HZ), self.input_channels.unwrap_or(1));
        if !MICROPHONE_RATES.contains(&rate) || !(1..=2).contains(&channels) {
            let (low, high) = (MICROPHONE_RATES.start(), MICROPHONE_RATES.end());
            let detail = format!("input_rate must be from {low} to {high} and input_channels 1 or 2");
            return Err(refuse("bad_query", detail));
        }
        match self.protocol.as_deref() {
            None | Some("json") => Ok(Protocol::Json),
            Some("binary") => Ok(Protocol::Binary { rate, channels }),
            Some(other) => {
                let detail = format!("the protocol \"{other}\" is not offered; use json or binary");
                Err(refuse("protocol_not_offered", detail))
            }
        }
    }

    fn opening(self, house: &House, asker: &Asker) -> Opening {
        let ids = self.character_ids.unwrap_or_default();
        Opening {
            conversation_id: self.conversation_id.filter(|id| !id.is_empty()),
            character_ids: ids.split(',').map(str::trim).filter(|id| !id.is_empty()).map(str::to_owned).collect(),
            guests: Vec::new(),
            settings: house.state.settings.session(),
            paced: true,
            bounds: house.state.limits.bounds,
            caller: asker.caller.clone(),
        }
    }
}

/// The whole life of one socket.
async fn run(socket: WebSocket, house: Arc<House>, asker: Asker, opening: Opening, protocol: Protocol) {
    let (sink, mut stream) = socket.split();
    let encoder = Encoder::new(Uuid::new_v4().to_string(), protocol);
    let mut writer = Writer::new(sink, encoder, &house.state.limits);
    let admitted = admit(&house, &asker, opening, (&mut stream, protocol), &mut writer).await;
    let (ending, seats) = match admitted {
        Ok((Handle { inbox, outbox, ending: session }, seats)) => {
            let ending = converse((&mut stream, protocol), &mut writer, inbox, outbox, &house, &asker.identity).await;
            writer.close(ending).await;
            (ending, Some((seats, session)))
        }
        Err((refusal, ending)) => {
            let told = match refusal {
                Some(refusal) => writer.send(&Notice::Refused(refusal)).await,
                None => Ok(()),
            };
            if told.is_ok() {
                writer.close(ending).await;
            }
            (ending, None)
        }
    };
    tracing::debug!(?ending, "a socket ends");
    // With its seats: a stopping server waits for them, and so for the client to have read our close and for the
    // records to have what was said.
    linger(stream).await;
    if let Some((seats, session)) = seats {
        session.stored().await;
        drop(seats);
    }
}

/// A place among the sessions, and one among those of the key.
type Seats = (Seat, Option<Share<Arc<str>>>, meter::OpenSession);
/// Why a socket gets no session; None where it was told already.
type Refused = (Option<Refusal>, Ending);

async fn admit(
    house: &Arc<House>,
    asker: &Asker,
    opening: Opening,
    incoming: (&mut SplitStream<WebSocket>, Protocol),
    writer: &mut Writer,
) -> Result<(Handle, Seats), Refused> {
    if house.draining.has_begun() {
        let refusal = Refusal::new("session_limit_reached", "the server is shutting down").retryable();
        return Err((Some(refusal), Ending::Draining));
    }
    let limits = &house.state.limits;
    let keyed_seat = match &asker.identity.proof {
        Some(proof) => {
            let seat = house.entrance.seats.take(Arc::clone(&proof.key), limits.sessions_per_key);
            let full =
                || full(format!("all {} sessions of this key are taken; end one first", limits.sessions_per_key));
            Some(seat.ok_or_else(full)?)
        }
        None => None,
    };
    let seat = if let Some(seat) = house.seats.try_seat() {
        seat
    } else if let Some(place) = house.seats.queue_up() {
        let seated = queue::seat(house, &asker.identity, place, incoming, writer).await;
        seated.map_err(|ending| (None, ending))?
    } else {
        let seconds = house.seats.last().wait.as_secs().max(1);
        return Err(full(format!("all {} sessions are taken; try again in {seconds} s", limits.sessions)));
    };
    let handle = session::start(asker.parts(house), opening).await.map_err(|error| refuse(&error))?;
    Ok((handle, (seat, keyed_seat, meter::OpenSession::new())))
}

fn full(message: String) -> Refused {
    (Some(Refusal::new("session_limit_reached", message).retryable()), Ending::Overloaded)
}

fn refuse(error: &StartError) -> Refused {
    let message = error.to_string();
    let (refusal, ending) = match error {
        StartError::ConversationNotFound(_) => (Refusal::new("conversation_not_found", message), Ending::NotFound),
        StartError::CharacterNotFound(_) | StartError::NoCharacter(_) => {
            (Refusal::new("character_not_found", message), Ending::NotFound)
        }
        StartError::Records(_) => (Refusal::new("internal", message).retryable(), Ending::Overloaded),
    };
    (Some(refusal), ending)
}

/// Both halves, until one ends.
async fn converse(
    incoming: (&mut SplitStream<WebSocket>, Protocol),
    writer: &mut Writer,
    inbox: mpsc::Sender<Request>,
    mut outbox: Outbox,
    house: &House,
    identity: &Identity,
) -> Ending {
    let (say, mut notices) = mpsc::channel(NOTICES);
    let cut_off = cut_off(inbox.clone(), house.draining.clone(), house.state.limits.drain);
    let budgets = tell_budgets(say.clone(), house.state.store.warnings());
    let mut reader = Reader::new(incoming, inbox, say, house.draining.clone(), &house.state.limits);
    let ending = tokio::select! {
        ending = reader.run() => ending,
        ending = cut_off => ending,
        ending = budgets => ending,
        () = house.entrance.keys.ended(identity) => Ending::AuthEnded,
        ending = writer.run(&mut outbox, &mut notices, house.draining.clone()) => ending,
    };
    if ending == Ending::SessionFailed {
        tracing::error!("a session ended before its client did");
    }
    // What the reader said last explains why it ended.
    while let Ok(notice) = notices.try_recv() {
        if let Err(sooner) = writer.send(&notice).await {
            return sooner;
        }
    }
    ending
}

/// Tells a client of every budget that becomes nearly used up.
async fn tell_budgets(say: mpsc::Sender<Notice>, mut warnings: watch::Receiver<Vec<BudgetReport>>) -> Ending {
    let mut told = warnings.borrow_and_update().clone();
    while warnings.changed().await.is_ok() {
        let all = warnings.borrow_and_update().clone();
        for report in all.iter().filter(|report| !told.iter().any(|old| old.period == report.period)) {
            // A client that leaves no room for it reads nothing else either.
            let _ = say.try_send(Notice::BudgetWarning(report.clone()));
        }
        told = all;
    }
    pending().await
}

/// Interrupts what is still being said when a drain is nearly over, so that it ends as every reply does.
async fn cut_off(inbox: mpsc::Sender<Request>, mut draining: Draining, drain: Duration) -> Ending {
    draining.begins().await;
    sleep(drain.saturating_sub(LAST_WORDS)).await;
    // A session that has ended has nothing to interrupt.
    let _ = inbox.send(Input::Interrupt { item_id: None, played_ms: None }.into()).await;
    pending().await
}

/// Reads on until the client has answered our close frame: a socket that is closed over unread bytes is reset, and the
/// reset can overtake the close frame.
async fn linger(mut stream: SplitStream<WebSocket>) {
    let rest = async { while let Some(Ok(_)) = stream.next().await {} };
    if timeout(LINGER, rest).await.is_err() {
        tracing::debug!("a client did not answer the close");
    }
}
