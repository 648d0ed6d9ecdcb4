//! Tells the echo of a reply from a voice, by its sound; `text::backchannel` does by its words.
//!
//! Once a microphone has let the detector hear where its echoes come from, they are no speech: no utterance begins with
//! them, nor goes on. The very first one has begun an utterance by then, and so may one that comes all at once; of its words
//! none are told, and it comes to nothing.

use std::time::Duration;

use super::Ear;
use crate::audio::echo::{EchoDetector, HEARD_FRAME};
use crate::audio::{MIC_HZ, Samples};
use crate::session::loopback::{Playing, loopback};

/// Frames of a voice that make an utterance, whatever echoes are in it: 0.3 s.
const ENOUGH: usize = 10;
/// Fewer frames of an echo are a coincidence: 0.25 s.
const ECHO: usize = 8;

impl Ear {
    /// Knowing what is played.
    pub(in crate::session) fn beside(self, playing: Playing) -> Self {
        Self { echoes: EchoGuard::new(playing), ..self }
    }
}

/// What a loud frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Voice,
    /// Like an echo, but of a delay that no echo was known to have.
    Doubtful,
    Echo,
}

/// Knows the sound of what is played.
pub(super) struct EchoGuard {
    playing: Playing,
    detector: EchoDetector,
}

impl Default for EchoGuard {
    /// Nothing is played.
    fn default() -> Self {
        Self::new(loopback().1)
    }
}

impl EchoGuard {
    fn new(playing: Playing) -> Self {
        Self { playing, detector: EchoDetector::default() }
    }

    /// Takes in what is played. False: nothing more will be.
    pub(super) async fn listen(&mut self) -> bool {
        self.playing.hear().await
    }

    /// Takes a frame of the microphone.
    pub(super) fn hear(&mut self, frame: &[f32; HEARD_FRAME]) -> Source {
        self.detector.hear(frame, &self.playing.take());
        if self.detector.is_echo() {
            Source::Echo
        } else if self.detector.may_be_echo() {
            Source::Doubtful
        } else {
            Source::Voice
        }
    }
}

/// What an utterance is made of, in loud frames.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Makeup {
    voice: usize,
    doubtful: usize,
    echo: usize,
    /// The latest is doubtful.
    in_doubt: bool,
}

impl Makeup {
    pub(super) fn add(&mut self, source: Source) {
        self.in_doubt = source == Source::Doubtful;
        match source {
            Source::Voice => self.voice += 1,
            Source::Doubtful => self.doubtful += 1,
            Source::Echo => self.echo += 1,
        }
    }

    pub(super) fn spoken(self) -> Duration {
        Samples::<MIC_HZ>(((self.voice + self.doubtful + self.echo) * HEARD_FRAME) as u64).duration()
    }

    /// Nobody said it.
    pub(super) const fn is_echo(self) -> bool {
        self.echo > 0 && self.echo + self.doubtful >= ECHO && self.voice < ENOUGH
    }

    /// It may turn out to be. An onset may look so for a moment, which the next guess is beyond.
    pub(super) const fn may_be_echo(self) -> bool {
        self.is_likely_echo() || self.in_doubt && self.voice < ENOUGH
    }

    /// It probably is.
    pub(super) const fn is_likely_echo(self) -> bool {
        (self.echo > 0 || self.doubtful >= ECHO) && self.voice < ENOUGH
    }
}

#[cfg(test)]
#[path = "echo_tests.rs"]
mod tests;
