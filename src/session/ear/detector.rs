//! Voice activity that outlives its detector's faults.
//!
//! A detector that panics hears nothing in that frame and begins afresh with the next. That is told once: one that
//! panics again soon is left alone for a while and then tried again, so that a detector that is broken for good costs
//! next to nothing and one that was not is heard again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::provider::{ProviderError, VAD_FRAME, VadStream, VoiceActivity};

/// After so many good frames, some 10 s, a fault is a new one.
const SOUND: usize = 300;
/// For so many frames one that failed again is left alone.
const REST: usize = 300;

/// One microphone's voice activity.
pub(super) struct Detector {
    activity: Arc<dyn VoiceActivity>,
    /// None: to be opened.
    stream: Option<Box<dyn VadStream>>,
    /// Good frames since the last fault.
    good: usize,
    /// Frames of rest to come.
    rest: usize,
}

impl Detector {
    pub(super) fn new(activity: Arc<dyn VoiceActivity>) -> Self {
        Self { activity, stream: None, good: SOUND, rest: 0 }
    }

    /// The probability that the frame holds speech; 0 where it cannot be known.
    ///
    /// # Errors
    /// A fault that was not told yet. The frame's probability is 0.
    pub(super) fn score(&mut self, frame: &[f32; VAD_FRAME]) -> Result<f32, ProviderError> {
        if self.rest > 0 {
            self.rest -= 1;
            return Ok(0.0);
        }
        let Self { activity, stream, .. } = self;
        let ask = AssertUnwindSafe(|| stream.get_or_insert_with(|| activity.open()).score(frame));
        if let Ok(probability) = catch_unwind(ask) {
            self.good = self.good.saturating_add(1);
            return Ok(probability);
        }
        self.stream = None;
        if std::mem::take(&mut self.good) < SOUND {
            self.rest = REST;
            return Ok(0.0);
        }
        tracing::error!("the voice-activity detector panicked");
        Err(ProviderError::Failed { what: "voice activity detection".to_owned() })
    }
}

#[cfg(test)]
#[path = "detector_tests.rs"]
mod tests;
