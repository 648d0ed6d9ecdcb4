//! The reading half: frames in, requests to the session out. Whatever is wrong is answered, and reading goes on.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use futures::StreamExt;
use futures::stream::SplitStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::Ending;
use super::call::Seat;
use super::microphone::{Allowance, Microphone};
use crate::api::wire::{self, ClientMessage, Inbound, Notice, Protocol, Refusal};
use crate::api::{Draining, Limits};
use crate::audio::Mic;
use crate::session::event::{Input, Request};

/// What tungstenite calls a message beyond its limit; its error type is not ours to name.
const OVER_LIMIT: &str = "Space limit exceeded";

/// Whom a client's requests go to.
pub(super) enum Listener {
    Call(Seat),
    /// Whoever answers while the client waits for its call.
    Queue(mpsc::Sender<Request>),
}

impl Listener {
    async fn ask(&self, request: Request) -> Result<(), Ending> {
        match self {
            Self::Call(seat) => seat.ask(request).await,
            Self::Queue(inbox) => inbox.send(request).await.map_err(|_| Ending::SessionFailed),
        }
    }
}

pub(super) struct Reader<'a> {
    stream: &'a mut SplitStream<WebSocket>,
    protocol: Protocol,
    listener: Listener,
    notices: mpsc::Sender<Notice>,
    draining: Draining,
    microphone: Microphone,
    requests: Allowance,
    message_bytes: usize,
    silent_after: Duration,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        (stream, protocol): (&'a mut SplitStream<WebSocket>, Protocol),
        listener: Listener,
        notices: mpsc::Sender<Notice>,
        draining: Draining,
        limits: &Limits,
    ) -> Self {
        let now = Instant::now();
        let per_minute = f64::from(limits.requests_per_minute);
        Self {
            stream,
            protocol,
            listener,
            notices,
            draining,
            microphone: Microphone::new(limits, now),
            requests: Allowance::new(per_minute, per_minute / 60.0, now),
            message_bytes: limits.message_bytes,
            silent_after: limits.silent_after,
        }
    }

    pub(super) async fn run(&mut self) -> Ending {
        loop {
            let outcome = match timeout(self.silent_after, self.stream.next()).await {
                Err(_) => Err(Ending::Silent),
                Ok(None) => Err(Ending::Gone),
                Ok(Some(Ok(message))) => self.take(message).await,
                Ok(Some(Err(error))) if error.to_string().contains(OVER_LIMIT) => self.refuse_length().await,
                Ok(Some(Err(error))) => {
                    tracing::debug!(%error, "a socket broke");
                    Err(Ending::Unreadable)
                }
            };
            if let Err(ending) = outcome {
                return ending;
            }
        }
    }

    async fn take(&mut self, message: Message) -> Result<(), Ending> {
        match message {
            Message::Text(text) if text.len() > self.message_bytes => self.refuse_length().await,
            Message::Binary(bytes) if bytes.len() > self.message_bytes => self.refuse_length().await,
            Message::Text(text) => match wire::read(&text) {
                Ok(inbound) => self.answer(inbound).await,
                Err(refusal) => self.say(Notice::Refused(refusal)).await,
            },
            Message::Binary(bytes) => match wire::read_frame(&bytes, self.protocol) {
                Ok(Some(message)) => self.answer(Inbound { message, reference: None }).await,
                Ok(None) => Ok(()),
                Err(refusal) => self.say(Notice::Refused(refusal)).await,
            },
            Message::Ping(_) | Message::Pong(_) => Ok(()),
            Message::Close(frame) => Err(farewell(frame.as_ref())),
        }
    }

    async fn answer(&mut self, inbound: Inbound) -> Result<(), Ending> {
        let Inbound { message, reference } = inbound;
        let outcome = match message {
            ClientMessage::Ping => return self.say(Notice::Pong { reference }).await,
            ClientMessage::Resume(_) => return self.say(Notice::ResyncRequired { reference }).await,
            ClientMessage::Audio(chunk) => self.microphone.take(&chunk, Instant::now()).map(|audio| self.hear(audio)),
            ClientMessage::Packet(packet) => {
                self.microphone.take_packet(&packet, Instant::now()).map(|audio| self.hear(audio))
            }
            ClientMessage::Session(input) => self.allow(input).map(Some),
        };
        match outcome {
            Err(refusal) => self.say(Notice::Refused(refusal.to(reference))).await,
            Ok(None) => Ok(()),
            Ok(Some(input)) => self.listener.ask(Request { input, reference }).await,
        }
    }

    /// None: nothing to pass on. A stopping server takes no new speech; what was said before it is still answered.
    fn hear(&self, audio: Mic) -> Option<Input> {
        (!audio.is_empty() && !self.draining.has_begun()).then_some(Input::Audio(audio))
    }

    /// Only what costs a reply or a write is counted: an acknowledgement every 250 ms is how clients should be.
    fn allow(&mut self, input: Input) -> Result<Input, Refusal> {
        match input {
            Input::Text { .. }
            | Input::NextSpeaker { .. }
            | Input::SpeakUp { .. }
            | Input::Regenerate { .. }
            | Input::Commit
                if self.draining.has_begun() =>
            {
                Err(Refusal::new("session_limit_reached", "the server is shutting down").retryable())
            }
            Input::Text { .. }
            | Input::NextSpeaker { .. }
            | Input::SpeakUp { .. }
            | Input::Characters { .. }
            | Input::Regenerate { .. }
            | Input::Settings(_)
            | Input::Commit
                if !self.requests.spend(1.0, Instant::now()) =>
            {
                Err(Refusal::new("rate_limited", "too many messages in a minute; this one was not taken").retryable())
            }
            input => Ok(input),
        }
    }

    async fn refuse_length(&mut self) -> Result<(), Ending> {
        let message = format!("a message may have {} bytes", self.message_bytes);
        self.say(Notice::Refused(Refusal::new("too_large", message))).await?;
        Err(Ending::TooLarge)
    }

    async fn say(&mut self, notice: Notice) -> Result<(), Ending> {
        self.notices.send(notice).await.map_err(|_| Ending::Gone)
    }
}

/// A client that closes without a reason, or because it is done, does not come back; a page that is left may.
fn farewell(frame: Option<&CloseFrame>) -> Ending {
    match frame.map(|frame| frame.code) {
        None | Some(close_code::NORMAL | close_code::STATUS) => Ending::Done,
        Some(_) => Ending::Gone,
    }
}
