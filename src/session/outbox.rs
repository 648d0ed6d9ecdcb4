//! Where a session's two lanes meet before the socket: control goes before audio, and stale audio goes nowhere.
//!
//! All that a session tells passes here once, in one task, so that what is audible is decided in one place: once an
//! interruption has left, nothing of the reply it ended, or of an older one, leaves after it, whatever was on its way.

use tokio::sync::mpsc;

use super::event::{AudioPiece, Output, Told, Turn};

/// Control messages that may wait for whoever takes them.
pub(super) const CONTROL_LANE: usize = 64;
/// Pieces of audio that may wait for whoever takes them. Few, because an interruption throws them away and the pace already
/// lets audio run ahead of its playback.
pub(super) const AUDIO_LANE: usize = 4;

/// The receiving end of a session. It ends when the session has, after everything it told.
pub struct Outbox {
    control: mpsc::Receiver<Told>,
    audio: mpsc::Receiver<AudioPiece>,
    /// What carries this number or an older one is stale.
    ended: Option<Turn>,
    /// The end of a reply, held back until the reply's audio has left.
    held: Option<Told>,
}

impl Outbox {
    pub(super) const fn new(control: mpsc::Receiver<Told>, audio: mpsc::Receiver<AudioPiece>) -> Self {
        Self { control, audio, ended: None, held: None }
    }

    /// The next message to send. None: the session is over. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<Told> {
        self.next(true).await
    }

    /// The same while nobody listens: audio stays where it is, and the mouth waits with it.
    pub async fn recv_text(&mut self) -> Option<Told> {
        self.next(false).await
    }

    async fn next(&mut self, is_heard: bool) -> Option<Told> {
        loop {
            if let Some(end) = self.held.take() {
                // The mouth put all of the reply's audio in its lane before the reply could end.
                let Ok(piece) = self.audio.try_recv() else { return Some(end) };
                self.held = Some(end);
                if self.is_audible(piece.turn) {
                    return Some(Output::Audio(piece).into());
                }
                continue;
            }
            let told = tokio::select! {
                biased;
                told = self.control.recv() => told?,
                Some(piece) = self.audio.recv(), if is_heard => Output::Audio(piece).into(),
            };
            match &told.output {
                Output::TurnComplete(report) if self.is_audible(report.turn) => self.held = Some(told),
                Output::Interrupted { turn, .. } if self.is_audible(*turn) => {
                    self.ended = Some(*turn);
                    return Some(told);
                }
                output => {
                    if output.turn().is_none_or(|turn| self.is_audible(turn)) {
                        return Some(told);
                    }
                }
            }
        }
    }

    fn is_audible(&self, turn: Turn) -> bool {
        self.ended.is_none_or(|ended| turn > ended)
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
