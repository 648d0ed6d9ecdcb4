//! How much it is in doubt that a speaker who pauses is through: by what was said, and by how it sounded.
//!
//! Whether the words can have been all is judged by [`outlook`]. What mark belongs after the last of them the
//! recogniser knows, by the sound too. And whoever has said little has more often only begun, but for answers and
//! questions that need no more. A logistic regression weighs them: fitted to 86 sentences in 27 voices, each cut at
//! two words, and to the odd half of the utterances of `scripts/acceptance/pauses.py`, as Whisper base hears them;
//! so are the probabilities from which on a short question or statement sounds like all of it. A recogniser that
//! tells nothing of the kind leaves it to the words.

use super::hallucination::was_said;
use crate::audio::Samples;
use crate::audio::vad::Position;
use crate::provider::{Ending, FinalTranscript};
use crate::text::outlook::{Outlook, is_answer, is_plain_question, outlook};
use crate::text::word_count;

/// 0: surely through. 1: surely not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Doubt(f32);

impl Doubt {
    pub(super) const NONE: Self = Self(0.0);
    /// Where nobody has heard how it sounded: 0.3 s of 0.2 to 1.2.
    pub(super) const UNHEARD: Self = Self(0.1);
    pub(super) const FULL: Self = Self(1.0);

    /// From `shortest`, where there is none, to `longest`.
    pub(super) fn between(self, shortest: Position, longest: Position) -> Position {
        let more = longest.saturating_sub(shortest).0 as f64 * f64::from(self.0);
        shortest + Samples(more as u64)
    }
}

impl From<Outlook> for Doubt {
    fn from(outlook: Outlook) -> Self {
        match outlook {
            Outlook::Finished => Self::UNHEARD,
            Outlook::Unfinished => Self::FULL,
        }
    }
}

/// Judges what was heard up to a pause. Whoever only hums has something to say, and nobody waits for the end of a noise.
pub(super) fn doubt(transcript: &FinalTranscript) -> Doubt {
    let (text, language) = (&transcript.text, &transcript.language);
    if !was_said(transcript) {
        return Doubt::FULL;
    }
    if is_answer(text, language) {
        return Doubt::NONE;
    }
    let outlook = outlook(text, language);
    let Some(ending) = &transcript.ending else { return outlook.into() };
    let weighed = weighed(outlook, ending, text);
    let sounds = |mark: f32, least: f32, most_broken: f32| mark >= least && ending.break_off <= most_broken;
    if outlook == Outlook::Unfinished {
        weighed
    } else if sounds(ending.question, 0.8, 0.02) && is_plain_question(text, language) {
        Doubt::NONE
    } else if sounds(ending.stop, 0.93, 0.01) {
        Doubt(weighed.0.min(CLOSED))
    } else {
        weighed
    }
}

/// However little it is, what sounds so much like all of it is waited for no longer than this: 0.53 s of 0.2 to 1.2.
const CLOSED: f32 = 1.0 / 3.0;

/// The regression's weights: of words that can have been all, of the logarithm of a mark that ends a sentence, of that of
/// a break, and of having said enough; and what is left when all of these are 0.
const CAN_BE_ALL: f32 = 1.5;
const END_MARK: f32 = 0.4;
const BREAK: f32 = -0.5;
const LENGTH: f32 = 6.6;
const BIAS: f32 = -8.3;
/// So many words are enough.
const ENOUGH: usize = 8;
/// Less probable marks are not told apart.
const LEAST: f32 = 1e-3;
/// Up to this probability that more is to come there is no doubt, from the other on nothing else. The step is steep,
/// because a wait within the length of a pause is as bad as none.
const SURE: f32 = 0.2;
const UNSURE: f32 = 0.23;

fn weighed(outlook: Outlook, ending: &Ending, text: &str) -> Doubt {
    let log = |probability: f32| probability.max(LEAST).ln();
    let can_be_all = if outlook == Outlook::Finished { CAN_BE_ALL } else { 0.0 };
    let marks = END_MARK * log(ending.stop + ending.question) + BREAK * log(ending.break_off);
    let length = LENGTH * word_count(text).min(ENOUGH) as f32 / ENOUGH as f32;
    let more = 1.0 / (1.0 + (BIAS + can_be_all + marks + length).exp());
    Doubt(((more - SURE) / (UNSURE - SURE)).clamp(0.0, 1.0))
}

#[cfg(test)]
#[path = "doubt_tests.rs"]
mod tests;
