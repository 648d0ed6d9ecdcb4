//! Silero VAD behind [`VoiceActivity`].
//!
//! The one model without a thread of its own: a frame takes a fraction of a millisecond, so it is scored where it
//! arrives.

use std::panic::catch_unwind;
use std::path::Path;
use std::sync::Arc;

use super::EngineError;
use crate::nn::silero::{FRAME, Silero, SileroStream};
use crate::provider::{VAD_FRAME, VadStream, VoiceActivity};

const _: () = assert!(FRAME == VAD_FRAME, "the seam's frame is the model's frame");

/// Weights of Silero VAD, shared by all its streams.
pub struct SileroVad(Arc<Silero>);

impl SileroVad {
    /// Loads `model.safetensors` of the folder `directory` and checks that silence is not speech.
    ///
    /// # Errors
    /// [`EngineError::BadFile`] names the file; [`EngineError::Canary`] where it answers nonsense.
    pub fn load(directory: &Path) -> Result<Self, EngineError> {
        let path = directory.join("model.safetensors");
        let bad_file = |reason: String| EngineError::BadFile { path: path.clone(), reason };
        let weights = catch_unwind(|| Silero::load(&path))
            .map_err(|_| bad_file("its header cannot be read".to_owned()))?
            .map_err(|error| bad_file(error.to_string()))?;
        let vad = Self(Arc::new(weights));
        let silence = vad.0.open().score(&[0.0; FRAME]);
        // The comparison is also false for NaN.
        if !(0.0..0.5).contains(&silence) {
            return Err(EngineError::Canary {
                what: format!("silero-vad ({})", path.display()),
                reason: format!("it hears speech in silence (probability {silence})"),
            });
        }
        Ok(vad)
    }
}

impl VoiceActivity for SileroVad {
    fn open(&self) -> Box<dyn VadStream> {
        Box::new(self.0.open())
    }
}

impl VadStream for SileroStream {
    fn score(&mut self, frame: &[f32; VAD_FRAME]) -> f32 {
        // An inherent method, so not this one.
        SileroStream::score(self, frame)
    }
}

#[cfg(test)]
#[path = "vad_tests.rs"]
mod tests;
