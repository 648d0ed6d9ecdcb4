//! What is being played, for the ear to know an echo when it hears one.
//!
//! The mouth hands over what it sends. The ear takes as much as it hears of the microphone, which keeps the two in step
//! whatever a network does to either, as long as the microphone gives all that it hears.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::audio::Speech;

/// Pieces that may wait for the ear, which takes them at once. What is more is lost: an echo of it has to be known by its
/// words.
const PIECES: usize = 64;
/// An ear that has taken nothing for so long has no microphone; what was played so long ago it does not hear any more.
const DEAF: Duration = Duration::from_secs(1);

/// What a session's mouths play, and what they do not.
pub(super) fn loopback() -> (Loopback, Playing) {
    let (mouths, pieces) = mpsc::channel(PIECES);
    (Loopback(mouths), Playing { inbox: pieces, pieces: VecDeque::new(), taken: None })
}

/// The mouths' end.
#[derive(Clone, Debug)]
pub(super) struct Loopback(mpsc::Sender<News>);

#[derive(Debug)]
enum News {
    Plays(Piece),
    Stops,
}

#[derive(Debug)]
struct Piece {
    /// What was not taken of it.
    samples: VecDeque<f32>,
    until: Instant,
}

impl Loopback {
    /// This follows what was handed over before, and will have been played by then.
    pub(super) fn play(&self, audio: &Speech, until: Instant) {
        let samples = audio.as_slice().iter().copied().collect();
        let _ = self.0.try_send(News::Plays(Piece { samples, until }));
    }

    /// What was not played yet will not be.
    pub(super) fn stop(&self) {
        let _ = self.0.try_send(News::Stops);
    }
}

/// The ear's end.
#[derive(Debug)]
pub(super) struct Playing {
    inbox: mpsc::Receiver<News>,
    pieces: VecDeque<Piece>,
    taken: Option<Instant>,
}

impl Playing {
    /// Takes in the next news. False: there will be none.
    pub(super) async fn hear(&mut self) -> bool {
        let news = self.inbox.recv().await;
        let is_open = news.is_some();
        self.note(news);
        is_open
    }

    /// The next `N` samples; silence where nothing is played.
    pub(super) fn take<const N: usize>(&mut self) -> [f32; N] {
        while let Ok(news) = self.inbox.try_recv() {
            self.note(Some(news));
        }
        self.forget();
        self.taken = Some(Instant::now());
        std::array::from_fn(|_| self.next().unwrap_or_default())
    }

    fn note(&mut self, news: Option<News>) {
        self.forget();
        match news {
            Some(News::Plays(piece)) => self.pieces.push_back(piece),
            Some(News::Stops) => self.pieces.clear(),
            None => {}
        }
    }

    fn next(&mut self) -> Option<f32> {
        loop {
            let piece = self.pieces.front_mut()?;
            if let Some(sample) = piece.samples.pop_front() {
                return Some(sample);
            }
            self.pieces.pop_front();
        }
    }

    /// What was played while nobody listened is gone.
    fn forget(&mut self) {
        let now = Instant::now();
        let is_deaf = self.taken.is_none_or(|taken| now > taken + DEAF);
        let late = if is_deaf { Duration::ZERO } else { DEAF };
        self.pieces.retain(|piece| piece.until + late > now);
    }
}

#[cfg(test)]
#[path = "loopback_tests.rs"]
mod tests;
