//! Voice activity without a model: what is clearly louder than the quiet around it.
//!
//! For servers whose recogniser runs elsewhere and that hold no model. It takes a slammed door for speech; Silero does
//! not.

use crate::provider::{VAD_FRAME, VadStream, VoiceActivity};

/// In decibels below full scale: nothing so quiet is speech.
const SILENCE: f32 = -50.0;
/// Decibels above the quiet at which speech is as likely as not.
const ABOVE: f32 = 12.0;
/// Decibels over which the probability goes from a quarter to three quarters, about.
const SLOPE: f32 = 4.0;
/// Decibels per frame by which the quiet may rise: 3 a second, so that a pause in speech finds it where it was.
const RISE: f32 = 0.1;

/// Judges by loudness alone.
pub struct Loudness;

impl VoiceActivity for Loudness {
    fn open(&self) -> Box<dyn VadStream> {
        Box::new(Quiet { level: SILENCE })
    }
}

/// How loud it is around the microphone when nobody speaks.
struct Quiet {
    level: f32,
}

impl VadStream for Quiet {
    fn score(&mut self, frame: &[f32; VAD_FRAME]) -> f32 {
        let power = frame.iter().map(|sample| sample * sample).sum::<f32>() / VAD_FRAME as f32;
        let level = 10.0 * power.max(1e-10).log10();
        self.level = level.min(self.level + RISE).max(SILENCE - ABOVE);
        if level < SILENCE {
            return 0.0;
        }
        1.0 / (1.0 + (-(level - self.level - ABOVE) * 4.0 / (SLOPE * 2.0)).exp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(amplitude: f32) -> [f32; VAD_FRAME] {
        std::array::from_fn(|index| amplitude * if index % 2 == 0 { 1.0 } else { -1.0 })
    }

    #[test]
    fn silence_is_nothing_and_a_voice_is_speech() {
        let mut stream = Loudness.open();
        for _ in 0..50 {
            assert!(stream.score(&frame(0.0)) < 0.01);
        }
        for _ in 0..60 {
            assert!(stream.score(&frame(0.2)) > 0.9);
        }
        assert!(stream.score(&frame(0.001)) < 0.1);
    }

    #[test]
    fn a_steady_noise_becomes_the_quiet_and_a_voice_stands_out_of_it() {
        let mut stream = Loudness.open();
        for _ in 0..400 {
            stream.score(&frame(0.02));
        }
        assert!(stream.score(&frame(0.02)) < 0.2);
        assert!(stream.score(&frame(0.3)) > 0.9);
        assert!(stream.score(&frame(0.02)) < 0.2, "it is not taken for quiet at once");
    }
}
