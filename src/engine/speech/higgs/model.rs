//! The model as its thread uses it: prompts composed to fit it, utterances drawn as their voice wants, faults in words.
//!
//! The network itself is behind [`Network`], so that a network that fails, takes its time or counts can stand in its
//! place.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::limits::{most_frames, needed_frames};
use super::story::Story;
use super::text::{fit_to_speak, is_musical};
use super::tokens::PromptTokens;
use crate::engine::{EngineError, failure};
use crate::nn::higgs::codec::CODEBOOKS;
use crate::nn::higgs::{
    Higgs, HiggsConfig, HiggsError, Outcome, Prompt, RepetitionRule, Segment, Speaker, SpeechSettings, Utterance,
};
use crate::provider::ProviderError;

/// A prompt leaves room for two seconds at least.
const LEAST_FRAMES: usize = 50;
/// A voice that the model makes up is steadier so.
const MADE_UP_TEMPERATURE: f32 = 0.3;

/// What speaks: the calls of [`Higgs`], with its rules.
pub(super) trait Network: Send {
    fn config(&self) -> &HiggsConfig;
    fn slots(&self) -> usize;
    fn positions(&self) -> usize;
    fn reset(&mut self, slot: usize, length: usize) -> Result<(), HiggsError>;
    fn copy_prefix(&mut self, from: usize, to: usize, length: usize) -> Result<(), HiggsError>;
    fn prefill(&mut self, slot: usize, prompt: &Prompt, most: usize) -> Result<usize, HiggsError>;
    fn step(&mut self, speakers: &mut [Speaker<'_>]) -> Result<(), HiggsError>;
}

impl Network for Higgs {
    fn config(&self) -> &HiggsConfig {
        self.config()
    }

    fn slots(&self) -> usize {
        self.slots()
    }

    fn positions(&self) -> usize {
        self.positions()
    }

    fn reset(&mut self, slot: usize, length: usize) -> Result<(), HiggsError> {
        self.reset(slot, length)
    }

    fn copy_prefix(&mut self, from: usize, to: usize, length: usize) -> Result<(), HiggsError> {
        self.copy_prefix(from, to, length)
    }

    fn prefill(&mut self, slot: usize, prompt: &Prompt, most: usize) -> Result<usize, HiggsError> {
        self.prefill(slot, prompt, most)
    }

    fn step(&mut self, speakers: &mut [Speaker<'_>]) -> Result<(), HiggsError> {
        self.step(speakers)
    }
}

/// What the thread owns.
pub(super) struct Model {
    pub(super) name: Arc<str>,
    pub(super) higgs: Box<dyn Network>,
    pub(super) tokens: PromptTokens,
}

impl Model {
    /// The prompt for `text`, with as much of the story as there is room for, and the most frames of its speech. What the
    /// text needs has its room first, then the story, without which a voice drifts, and then what a text that does not end
    /// may take beyond that.
    pub(super) fn compose(&self, story: &Story, text: &str) -> Result<(Prompt, usize), ProviderError> {
        let prompt = |context: usize| {
            self.tokens.prompt(&story.script(text, context)).map_err(|error| failure(&self.name, &error))
        };
        let bare = prompt(0)?;
        let room = self.higgs.positions().saturating_sub(bare.len());
        if room < LEAST_FRAMES {
            let message = format!(
                "the recording and the text take {} of {} positions; shorten the recording",
                bare.len(),
                self.higgs.positions()
            );
            return Err(ProviderError::InvalidRequest { field: "voice", message });
        }
        let text = fit_to_speak(text);
        let spoken = |prompt: &Prompt| -> usize { prompt.segments().iter().map(frames_of).sum() };
        let longest = self.higgs.positions() - needed_frames(&text).min(room);
        let mut context = longest - bare.len();
        let full = loop {
            // The words of earlier speech take room beside its frames.
            let full = prompt(context)?;
            match full.len().saturating_sub(longest) {
                0 => break full,
                beyond => context = (spoken(&full) - spoken(&bare)).saturating_sub(beyond),
            }
        };
        let frames = most_frames(&text).min(self.higgs.positions() - full.len());
        Ok((full, frames))
    }

    pub(super) fn utterance(&self, story: &Story, prompt: &Prompt, piece: &str, frames: usize, seed: u64) -> Utterance {
        let config = self.higgs.config();
        let usual = SpeechSettings::default();
        let is_recorded = story.setting().voice.is_recorded();
        let settings = SpeechSettings {
            temperature: if is_recorded { usual.temperature } else { MADE_UP_TEMPERATURE },
            repetition: (!is_musical(&fit_to_speak(piece))).then(RepetitionRule::default),
            most_frames: frames,
            ..usual
        };
        let window = settings.repetition.map_or(0, |rule| rule.window);
        Utterance::new(config, settings, seed, &prompt.heard(config, window))
    }

    pub(super) fn failed(&self) -> ProviderError {
        ProviderError::Failed { what: self.name.to_string() }
    }

    /// Says a word, which touches every weight.
    pub(super) fn check(&mut self) -> Result<(), EngineError> {
        let config = self.higgs.config().clone();
        let prompt = self.tokens.prompt(&Story::new(super::prompt::Setting::default()).script("Hello.", 0))?;
        let settings = SpeechSettings { most_frames: CODEBOOKS + 2, ..SpeechSettings::default() };
        let mut utterance = Utterance::new(&config, settings, 0, &prompt.heard(&config, 0));
        self.higgs.reset(0, 0)?;
        while self.higgs.prefill(0, &prompt, usize::MAX)? > 0 {}
        while utterance.outcome().is_none() {
            self.higgs.step(&mut [Speaker { slot: 0, utterance: &mut utterance }])?;
        }
        if utterance.outcome() == Some(Outcome::Broken) {
            let reason = "its numbers are not finite: the weights are broken".to_owned();
            return Err(EngineError::Canary { what: self.name.to_string(), reason });
        }
        self.higgs.reset(0, 0)?;
        Ok(())
    }
}

fn frames_of(segment: &Segment) -> usize {
    if matches!(segment, Segment::Audio(_)) { segment.len() } else { 0 }
}

/// A panic in `work` is the end of what was at work, not of the thread.
pub(super) fn guarded<T>(model: &str, work: impl FnOnce() -> Result<T, HiggsError>) -> Result<T, ProviderError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(outcome) => outcome.map_err(|error| failure(model, &error)),
        Err(_) => Err(ProviderError::Failed { what: model.to_owned() }),
    }
}
