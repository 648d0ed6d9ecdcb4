//! When an utterance ends: how long a silence is waited out, by what was said before it.
//!
//! A pure machine around [`EndPointer`]. After a short silence it announces a pause, so that what was said can be
//! transcribed while the silence is waited out; it ends the utterance when the silence has lasted as long as the words
//! deserve. By the semantic mode that is sooner than by silence alone where they were surely all, and the longer the more
//! it is in doubt; by the server's it is always the same.

use super::doubt::Doubt;
use crate::audio::vad::{EndPointer, Position, VadEvent, VadSettings};
use crate::audio::{MIC_HZ, Samples};
use crate::session::settings::{self, Settings, VadMode};

/// One utterance, and with push-to-talk one press, lasts at most so long.
pub const LONGEST_UTTERANCE: Samples<MIC_HZ> = Samples::from_millis(90_000);
/// Less speech than this is a cough.
const MINIMUM_SPEECH: Samples<MIC_HZ> = Samples::from_millis(96);
/// After so much silence the transcription begins: longer than many closures of a consonant, and short, because on two
/// cores it takes as long as the rest of the shortest wait.
pub(super) const HANG_OVER: Samples<MIC_HZ> = Samples::from_millis(64);
/// Whoever was surely not through is waited for so long: pauses inside a sentence seldom last a second.
pub(super) const PATIENCE: Samples<MIC_HZ> = Samples::from_millis(1200);

/// What happens to an utterance, in positions of what was received: `Began`, then any number of `Paused` and `Resumed`
/// in turn, then `Ended`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Began {
        at: Position,
    },
    /// [`Endpoint::understood`] is to tell what was said so far.
    Paused,
    Resumed,
    /// `at` is where the silence began.
    Ended {
        at: Position,
    },
}

/// Finds the utterances of one microphone.
pub(super) struct Endpoint {
    pointer: EndPointer,
    settings: VadSettings,
    mode: VadMode,
    /// Where `pointer` began to count.
    from: Position,
    is_paused: bool,
    /// None: what was said is not known yet.
    doubt: Option<Doubt>,
}

impl Endpoint {
    /// Counts on from `from`. No utterance gets longer than `longest`.
    pub(super) fn new(settings: &Settings, from: Position, longest: Position) -> Self {
        let vad = settings.vad.unwrap_or_default();
        let settings = pointer_settings(vad, longest);
        Self { pointer: EndPointer::new(settings), settings, mode: vad.mode, from, is_paused: false, doubt: None }
    }

    /// Changes the settings from the next frame on.
    pub(super) fn set(&mut self, settings: &Settings) {
        let vad = settings.vad.unwrap_or_default();
        (self.settings, self.mode) = (pointer_settings(vad, self.settings.maximum_utterance), vad.mode);
        self.wait();
    }

    /// Takes the probability that the next frame holds speech.
    pub(super) fn push(&mut self, probability: f32) -> Option<Step> {
        if let Some(event) = self.pointer.push(probability) {
            return Some(self.step(event));
        }
        let is_paused = self.pointer.silence().is_some_and(|silence| silence >= HANG_OVER);
        if is_paused == self.is_paused {
            return None;
        }
        self.is_paused = is_paused;
        self.doubt = None;
        self.wait();
        Some(if is_paused { Step::Paused } else { Step::Resumed })
    }

    /// What was said before the pause is known.
    pub(super) fn understood(&mut self, doubt: Doubt) -> Option<Step> {
        if !self.is_paused {
            return None;
        }
        self.doubt = Some(doubt);
        self.wait();
        self.pointer.settle().map(|event| self.step(event))
    }

    /// Ends the utterance here. False: there is none.
    pub(super) fn commit(&mut self) -> bool {
        let was_speaking = self.pointer.commit().is_some();
        self.rest();
        was_speaking
    }

    /// The utterance was none. Where it began; None where there is none.
    pub(super) fn forget(&mut self) -> Option<Position> {
        let start = self.pointer.forget()?;
        self.rest();
        Some(self.from + start)
    }

    fn step(&mut self, event: VadEvent) -> Step {
        self.rest();
        match event {
            VadEvent::SpeechStarted { at } => Step::Began { at: self.from + at },
            VadEvent::SpeechStopped { at, .. } => Step::Ended { at: self.from + at },
        }
    }

    /// Between pauses.
    fn rest(&mut self) {
        (self.is_paused, self.doubt) = (false, None);
        self.wait();
    }

    /// Sets how long a silence ends the utterance.
    fn wait(&mut self) {
        let shortest = self.settings.silence;
        let silence = match self.mode {
            VadMode::Server => shortest,
            VadMode::Semantic => {
                let soonest = Samples(shortest.0 * 2 / 3);
                self.doubt.unwrap_or(Doubt::FULL).between(soonest, shortest.max(PATIENCE))
            }
        };
        self.pointer.set(VadSettings { silence, ..self.settings });
    }
}

fn pointer_settings(vad: settings::VadSettings, longest: Position) -> VadSettings {
    VadSettings {
        threshold: vad.threshold,
        silence: Samples::from_millis(vad.silence_ms),
        prefix: Samples::from_millis(vad.prefix_ms),
        minimum_speech: MINIMUM_SPEECH,
        maximum_utterance: longest,
    }
}

#[cfg(test)]
#[path = "endpoint_tests.rs"]
mod tests;
