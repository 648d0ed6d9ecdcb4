//! The writing half: sole owner of the sink.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use bytes::Bytes;
use futures::SinkExt;
use futures::stream::SplitSink;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::Ending;
use super::call::{Client, Follower, Line, Seat};
use crate::api::Limits;
use crate::api::wire::{Encoder, Notice};
use crate::session::event::Told;

/// For a close frame to a client that may not be reading.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    sink: SplitSink<WebSocket, Message>,
    encoder: Encoder,
    write_timeout: Duration,
    ping_every: Duration,
}

impl Writer {
    pub(super) fn new(sink: SplitSink<WebSocket, Message>, encoder: Encoder, limits: &Limits) -> Self {
        Self { sink, encoder, write_timeout: limits.write_timeout, ping_every: limits.ping_every }
    }

    /// The socket's client has joined a call.
    pub(super) fn join(&mut self, seat: &Seat) {
        self.encoder.join(seat.token(), &seat.call().started().characters);
    }

    /// Writes what the call tells and what the reader answers, until there is no more or no reason to. An answer gets its
    /// number when its turn has come, so that whoever asks faster than it reads waits.
    pub(super) async fn run(
        &mut self,
        (follower, seat): (&mut Follower, &Seat),
        answers: &mut mpsc::Receiver<Notice>,
    ) -> Ending {
        let mut ping = interval_at(Instant::now() + self.ping_every, self.ping_every);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let client = follower.client();
        loop {
            let outcome = tokio::select! {
                biased;
                _ = ping.tick() => self.ping().await,
                line = follower.next() => match line {
                    Ok(line) => self.line(&line, client).await,
                    Err(ending) => return ending,
                },
                Some(answer) = answers.recv() => self.answer(answer, seat).await,
            };
            if let Err(ending) = outcome {
                return ending;
            }
        }
    }

    /// What was answered last, and all that is told before it.
    pub(super) async fn finish(
        &mut self,
        (follower, seat): (&mut Follower, &Seat),
        answers: &mut mpsc::Receiver<Notice>,
    ) -> Result<(), Ending> {
        while let Ok(answer) = answers.try_recv() {
            self.answer(answer, seat).await?;
        }
        let client = follower.client();
        while let Some(line) = follower.waiting() {
            let line = line?;
            self.line(&line, client).await?;
        }
        Ok(())
    }

    async fn answer(&mut self, answer: Notice, seat: &Seat) -> Result<(), Ending> {
        if answer.is_numbered() {
            seat.say(answer);
            return Ok(());
        }
        self.send(&answer, None).await
    }

    async fn line(&mut self, line: &Line, client: Client) -> Result<(), Ending> {
        match &line.notice {
            Notice::Told(told) if line.asker.is_some_and(|asker| asker != client) => {
                let output = told.output.clone();
                self.send(&Notice::Told(Told { output, reference: None }), line.seq).await
            }
            notice => self.send(notice, line.seq).await,
        }
    }

    pub(super) async fn send(&mut self, notice: &Notice, seq: Option<u64>) -> Result<(), Ending> {
        let messages = self.encoder.encode(notice, seq).unwrap_or_else(|error| {
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
