//! The writing half: sole owner of the sink.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use bytes::Bytes;
use futures::SinkExt;
use futures::stream::SplitSink;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};

use super::{Ending, meter};
use crate::api::wire::{Encoder, Notice};
use crate::api::{Draining, Limits};
use crate::provider::Role;
use crate::session::Outbox;
use crate::session::event::{Output, Told};

/// For a close frame to a client that may not be reading.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    sink: SplitSink<WebSocket, Message>,
    encoder: Encoder,
    work: Work,
    write_timeout: Duration,
    ping_every: Duration,
    drain: Duration,
}

impl Writer {
    pub(super) fn new(sink: SplitSink<WebSocket, Message>, encoder: Encoder, limits: &Limits) -> Self {
        Self {
            sink,
            encoder,
            work: Work::default(),
            write_timeout: limits.write_timeout,
            ping_every: limits.ping_every,
            drain: limits.drain,
        }
    }

    /// Writes what the session tells and what the reader answers, until there is no more or no reason to.
    pub(super) async fn run(
        &mut self,
        outbox: &mut Outbox,
        notices: &mut mpsc::Receiver<Notice>,
        mut draining: Draining,
    ) -> Ending {
        let mut ping = interval_at(Instant::now() + self.ping_every, self.ping_every);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut deadline = None;
        loop {
            let outcome = tokio::select! {
                told = outbox.recv() => match told {
                    Some(told) => self.tell(told).await,
                    None => return Ending::SessionFailed,
                },
                Some(notice) = notices.recv() => self.send(&notice).await,
                _ = ping.tick() => self.ping().await,
                () = draining.begins(), if deadline.is_none() => {
                    deadline = Some(Instant::now() + self.drain);
                    self.send(&Notice::ServerDraining).await
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    return Ending::Draining;
                }
            };
            match outcome {
                Err(ending) => return ending,
                Ok(()) if deadline.is_some() && !self.work.is_under_way() => return Ending::Draining,
                Ok(()) => {}
            }
        }
    }

    pub(super) async fn send(&mut self, notice: &Notice) -> Result<(), Ending> {
        let messages = self.encoder.encode(notice).unwrap_or_else(|error| {
            tracing::error!(%error, "a message could not be written");
            Vec::new()
        });
        for message in messages {
            self.frame(message).await?;
        }
        Ok(())
    }

    pub(super) async fn ping(&mut self) -> Result<(), Ending> {
        self.frame(Message::Ping(Bytes::new())).await
    }

    /// Says goodbye, where somebody is there to hear it.
    pub(super) async fn close(&mut self, ending: Ending) {
        let Some((code, reason)) = ending.close() else { return };
        let frame = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        if timeout(CLOSE_TIMEOUT, self.sink.send(frame)).await.is_err() {
            tracing::debug!("a close frame could not be sent");
        }
    }

    async fn tell(&mut self, told: Told) -> Result<(), Ending> {
        meter::record(&told.output);
        self.work.note(&told.output);
        self.send(&Notice::Told(told)).await
    }

    async fn frame(&mut self, message: Message) -> Result<(), Ending> {
        match timeout(self.write_timeout, self.sink.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a socket broke");
                Err(Ending::Gone)
            }
            Err(_) => Err(Ending::TooSlow),
        }
    }
}

/// Whether a draining server has to wait for this session.
#[derive(Debug, Default)]
struct Work {
    /// Speech has ended and is not written down yet.
    hearing: bool,
    /// Something was said and its reply has not ended.
    replying: bool,
}

impl Work {
    fn is_under_way(&self) -> bool {
        self.hearing || self.replying
    }

    fn note(&mut self, output: &Output) {
        match output {
            Output::SpeechStopped { .. } => self.hearing = true,
            Output::Transcription(heard) if heard.is_final => {
                self.hearing = false;
                self.replying |= !heard.text.is_empty();
            }
            Output::MessageSaved { role: Role::User, .. } | Output::TextChunk { .. } | Output::Audio(_) => {
                self.replying = true;
            }
            Output::TurnComplete(_) | Output::Interrupted { .. } => self.replying = false,
            Output::Error(_) => self.hearing = false,
            _ => {}
        }
    }
}
