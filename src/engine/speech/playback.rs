//! Who is served first, of all who listen to speech as it is made: who runs dry first.
//!
//! Pure: moments are given. Both engines rank by it: Higgs the prompts that it reads and the sound that it makes of codes,
//! Kokoro the pieces that it speaks.

use std::time::Duration;

use crate::provider::Urgency;

/// A listener with less than this ahead is about to run dry.
const DRY: Duration = Duration::from_millis(250);
/// Somebody who is not urgent may wait this long in silence before going before listeners who have begun.
const PATIENCE: Duration = Duration::from_secs(1);

/// How far a listener is ahead. Listening begins with the first sound.
#[derive(Clone, Copy, Debug)]
pub(super) struct Playback {
    arrived: Duration,
    urgency: Urgency,
    began: Option<Duration>,
    length: Duration,
}

impl Playback {
    pub(super) fn new(arrived: Duration, urgency: Urgency) -> Self {
        Self { arrived, urgency, began: None, length: Duration::ZERO }
    }

    /// `length` more was handed over.
    pub(super) fn extend(&mut self, length: Duration, now: Duration) {
        // Who ran dry and had to wait listens on from now.
        if self.began.is_none() || self.dry_at() < now {
            self.began = Some(now.saturating_sub(self.length));
        }
        self.length += length;
    }

    /// When there is, or was, nothing more to listen to: whoever has the earliest goes first.
    pub(super) fn dry_at(&self) -> Duration {
        match (self.began, self.urgency) {
            (Some(began), _) => began + self.length,
            (None, Urgency::First) => self.arrived,
            (None, Urgency::Later) => self.arrived + PATIENCE,
        }
    }

    /// Only the first sound is.
    pub(super) fn is_waited_for(&self) -> bool {
        self.began.is_none() && self.urgency == Urgency::First
    }

    pub(super) fn is_running_dry(&self, now: Duration) -> bool {
        self.began.is_some() && self.dry_at() < now + DRY
    }
}

#[cfg(test)]
#[path = "playback_tests.rs"]
mod tests;
