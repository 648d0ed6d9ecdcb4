//! Where speech begins and ends, from one probability per frame of microphone audio.
//!
//! A pure machine: it counts samples received and knows no clock and no model. Speech has begun when enough frames are
//! likely speech, and then counts from a little earlier, so that the first sound is not cut; it has ended when nothing
//! was likely speech for a while. Ending takes a lower probability than beginning (hysteresis), so that a faint
//! syllable does not cut a sentence in two.

use super::{MIC_HZ, Samples};

/// A position in what the microphone gave.
pub type Position = Samples<MIC_HZ>;

/// Samples to which one probability belongs: 32 ms.
pub const FRAME: Position = Samples(512);
/// How far the probability must fall below the threshold before a frame counts as silence.
const HYSTERESIS: f32 = 0.15;

/// When speech begins and ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VadSettings {
    /// From this probability on a frame is speech; 0 to 1.
    pub threshold: f32,
    /// So long a silence ends an utterance.
    pub silence: Position,
    /// So much of what came before the first frame of speech belongs to the utterance.
    pub prefix: Position,
    /// Less speech than this is a cough.
    pub minimum_speech: Position,
    /// An utterance is cut here, its prefix counted in.
    pub maximum_utterance: Position,
}

impl Default for VadSettings {
    fn default() -> Self {
        Self {
            threshold: 0.5,
            silence: Samples::from_millis(300),
            prefix: Samples::from_millis(300),
            minimum_speech: Samples::from_millis(96),
            maximum_utterance: Samples::from_millis(90_000),
        }
    }
}

/// What was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VadEvent {
    /// `at` is where the utterance begins, its prefix included: up to `prefix + minimum_speech` before the position.
    SpeechStarted { at: Position },
    /// `at` is where the speech ended, which is the beginning of the silence; all up to the position was received.
    SpeechStopped { at: Position, why: StopReason },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    Silence,
    /// The utterance is as long as it may be; whoever goes on speaking begins another.
    TooLong,
    /// [`EndPointer::commit`] was called.
    Committed,
}

/// Finds the utterances of one microphone. [`VadEvent::SpeechStarted`] and [`VadEvent::SpeechStopped`] alternate, and
/// no two utterances overlap.
#[derive(Clone, Debug)]
pub struct EndPointer {
    settings: VadSettings,
    position: Position,
    /// Where the last utterance ended: no other begins before it.
    previous_end: Position,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Quiet,
    /// Some frames of speech came, not enough yet.
    Maybe {
        first: Position,
        speech: Position,
    },
    Speaking {
        start: Position,
        silent_since: Option<Position>,
    },
}

impl EndPointer {
    pub fn new(settings: VadSettings) -> Self {
        Self { settings, position: Samples(0), previous_end: Samples(0), state: State::Quiet }
    }

    /// Changes the settings from the next frame on.
    pub fn set(&mut self, settings: VadSettings) {
        self.settings = settings;
    }

    /// How much was received.
    pub fn position(&self) -> Position {
        self.position
    }

    pub fn is_speaking(&self) -> bool {
        matches!(self.state, State::Speaking { .. })
    }

    /// How long nothing was likely speech; None where nobody speaks, or speaks now.
    pub fn silence(&self) -> Option<Position> {
        match self.state {
            State::Speaking { silent_since: Some(since), .. } => Some(self.position.saturating_sub(since)),
            _ => None,
        }
    }

    /// Ends the utterance if the silence is long enough already, by settings that have changed since the last frame.
    pub fn settle(&mut self) -> Option<VadEvent> {
        let silence = self.silence().filter(|silence| *silence >= self.settings.silence)?;
        self.state = State::Quiet;
        Some(self.stop(self.position.saturating_sub(silence), StopReason::Silence))
    }

    /// Takes the probability that the next [`FRAME`] samples hold speech.
    pub fn push(&mut self, probability: f32) -> Option<VadEvent> {
        let frame = self.position;
        self.position += FRAME;
        let probability = if probability.is_nan() { 0.0 } else { probability };
        match self.state {
            State::Quiet | State::Maybe { .. } => self.push_quiet(frame, probability),
            State::Speaking { start, silent_since } => self.push_speaking(frame, probability, start, silent_since),
        }
    }

    /// Ends the utterance here, as with push-to-talk. None where nobody speaks; what may have been speech is forgotten.
    pub fn commit(&mut self) -> Option<VadEvent> {
        let speaking = self.is_speaking();
        self.state = State::Quiet;
        speaking.then(|| self.stop(self.position, StopReason::Committed))
    }

    /// Takes the utterance for nothing: the next one may begin with its audio. Where it began; None where nobody speaks.
    pub fn forget(&mut self) -> Option<Position> {
        match std::mem::replace(&mut self.state, State::Quiet) {
            State::Speaking { start, .. } => Some(start),
            State::Quiet | State::Maybe { .. } => None,
        }
    }

    fn push_quiet(&mut self, frame: Position, probability: f32) -> Option<VadEvent> {
        // Speech that is thinly spread over a longer time is no beginning.
        let longest = self.settings.minimum_speech + self.settings.minimum_speech + FRAME;
        let (first, mut speech) = match self.state {
            State::Maybe { first, speech } if frame.saturating_sub(first) < longest => (first, speech),
            _ => (frame, Samples(0)),
        };
        if probability >= self.settings.threshold {
            speech += FRAME;
        } else if probability < self.settings.threshold - HYSTERESIS || speech == Samples(0) {
            self.state = State::Quiet;
            return None;
        }
        if speech < self.settings.minimum_speech {
            self.state = State::Maybe { first, speech };
            return None;
        }
        let earliest = self.previous_end.max(self.position.saturating_sub(self.settings.maximum_utterance));
        let at = first.saturating_sub(self.settings.prefix).max(earliest);
        self.state = State::Speaking { start: at, silent_since: None };
        Some(VadEvent::SpeechStarted { at })
    }

    fn push_speaking(
        &mut self,
        frame: Position,
        probability: f32,
        start: Position,
        mut silent_since: Option<Position>,
    ) -> Option<VadEvent> {
        if probability >= self.settings.threshold {
            silent_since = None;
        } else if probability < self.settings.threshold - HYSTERESIS {
            silent_since = silent_since.or(Some(frame));
        }
        self.state = State::Speaking { start, silent_since };
        if let Some(stopped) = self.settle() {
            return Some(stopped);
        }
        // The next frame would be beyond the limit.
        if (self.position + FRAME).saturating_sub(start) > self.settings.maximum_utterance {
            self.state = State::Quiet;
            return Some(self.stop(self.position, StopReason::TooLong));
        }
        None
    }

    fn stop(&mut self, at: Position, why: StopReason) -> VadEvent {
        self.previous_end = at;
        VadEvent::SpeechStopped { at, why }
    }
}

#[cfg(test)]
#[path = "vad_tests.rs"]
mod tests;
