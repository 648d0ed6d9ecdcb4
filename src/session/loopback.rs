//! What is being played, for the ear to know an echo when it hears one.
//!
//! The mouth hands over what it sends. The ear takes as much as it hears of the microphone, which keeps the two in step
//! whatever a network does to either.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::audio::Speech;

/// An ear that has taken nothing for so long has no microphone.
const DEAF: Duration = Duration::from_secs(1);

/// Shared by one session's mouths and its ear.
#[derive(Clone, Debug, Default)]
pub(super) struct Loopback(Arc<Mutex<Playing>>);

#[derive(Debug, Default)]
struct Playing {
    pieces: VecDeque<Piece>,
    taken: Option<Instant>,
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
        let mut playing = self.lock();
        playing.forget(Instant::now());
        playing.pieces.push_back(Piece { samples: audio.as_slice().iter().copied().collect(), until });
    }

    /// What was not played yet will not be.
    pub(super) fn stop(&self) {
        self.lock().pieces.clear();
    }

    /// The next `N` samples; silence where nothing is played.
    pub(super) fn take<const N: usize>(&self) -> [f32; N] {
        let now = Instant::now();
        let mut playing = self.lock();
        playing.forget(now);
        playing.taken = Some(now);
        std::array::from_fn(|_| playing.next().unwrap_or_default())
    }

    fn lock(&self) -> MutexGuard<'_, Playing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Playing {
    fn next(&mut self) -> Option<f32> {
        loop {
            let piece = self.pieces.front_mut()?;
            if let Some(sample) = piece.samples.pop_front() {
                return Some(sample);
            }
            self.pieces.pop_front();
        }
    }

    /// What was played while nobody listened.
    fn forget(&mut self, now: Instant) {
        if self.taken.is_none_or(|taken| now > taken + DEAF) {
            self.pieces.retain(|piece| piece.until > now);
        }
    }
}

#[cfg(test)]
#[path = "loopback_tests.rs"]
mod tests;
