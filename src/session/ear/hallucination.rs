//! Whether a transcript is what somebody said, or what a recogniser writes where nobody said anything.
//!
//! Judged by the recogniser's own doubt, and the stricter the likelier the text is for silence.

use crate::provider::{FinalTranscript, Segment};
use crate::text::word_count;

/// What Whisper writes for silence and noise, having learned from subtitles.
const HALLUCINATIONS: [&str; 8] = [
    "thank you",
    "thanks for watching",
    "thank you for watching",
    "thank you very much",
    "please subscribe",
    "bye",
    "you",
    "so",
];
/// From this probability of no speech on, such a text is not believed.
const DOUBTFUL_NO_SPEECH: f32 = 0.3;
/// Below this mean log probability neither.
const DOUBTFUL_LOG_PROBABILITY: f32 = -1.0;
/// From this probability of no speech on, no unlikely text is: Whisper's own rule.
const NO_SPEECH: f32 = 0.6;
/// From this one on a single word is not: a hummed "mhm" becomes a "No." of 0.54 and more, one that is said has less
/// than 0.46.
const MURMUR_NO_SPEECH: f32 = 0.5;

/// Whether a transcript is what somebody said.
pub(super) fn was_said(transcript: &FinalTranscript) -> bool {
    if !transcript.text.chars().any(char::is_alphanumeric) {
        return false;
    }
    let kept = |char: &char| char.is_alphanumeric() || *char == ' ';
    let plain: String = transcript.text.chars().flat_map(char::to_lowercase).filter(kept).collect();
    let suspect = HALLUCINATIONS.contains(&plain.trim());
    let is_murmur = word_count(&plain) == 1;
    let doubtful = |segment: &Segment| {
        let unlikely = segment.log_probability < DOUBTFUL_LOG_PROBABILITY;
        if suspect {
            unlikely || segment.no_speech > DOUBTFUL_NO_SPEECH
        } else {
            unlikely && segment.no_speech > NO_SPEECH || is_murmur && segment.no_speech > MURMUR_NO_SPEECH
        }
    };
    transcript.segments.is_empty() || !transcript.segments.iter().all(doubtful)
}

#[cfg(test)]
#[path = "hallucination_tests.rs"]
mod tests;
