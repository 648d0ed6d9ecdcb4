//! Higgs Audio v2: a language model that reads text and speech and writes speech, eight codes at a time.
//!
//! One [`Higgs`] serves many utterances at once; the thread that owns it (on CUDA always the thread that loaded it)
//! repeats three calls. A *slot* is the memory of one utterance: [`Higgs::prefill`] reads an utterance's [`Prompt`] into
//! a slot, as many positions at a time as the others can wait for. [`Higgs::step`] then advances any set of slots by one
//! frame, in one pass over the weights: each [`Utterance`] draws its next frame, and its [`Utterance::columns`] grow,
//! from which the codec makes sound. An utterance is over when it has an [`Outcome`]; it is cancelled by no longer
//! stepping it. What a slot has read stays until it is overwritten, so that a voice's reference, once read, is kept
//! ([`Higgs::reset`] to [`Prompt::shared`] positions) or copied to another slot ([`Higgs::copy_prefix`]).
//!
//! Nothing here knows the tokenizer, a template or a thread: `engine::speech::higgs` does. `codec` is the other half.
//!
//! The published weights have not been run here. Names and shapes are those of the published index; what is computed is
//! checked against transformers on small random models of both layouts.
//!
//! Sources: boson-ai/higgs-audio (the rules of generation), transformers' `higgs_audio_v2` (the mathematics).

mod cache;
pub mod codec;
mod config;
mod frames;
mod model;
mod prompt;
mod utterance;
mod weights;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use candle_core::Device;
use rayon::prelude::*;

pub use config::{HiggsConfig, Layout};
pub use frames::{Codes, Edges, revert};
pub use prompt::{Prompt, Segment};
pub use utterance::{EndPolicy, Outcome, RepetitionRule, SpeechSettings, Utterance};
pub use weights::{Checkpoint, MemoryNeed, Precision};

use crate::nn::decoder::DecoderError;
use cache::Slots;
use model::{Model, Reading};
use weights::{HiggsWeights, RandomSource, Source};

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum HiggsError {
    #[error("{}: {reason}", path.display())]
    BadFile { path: PathBuf, reason: String },
    /// What was asked for does not go with this model.
    #[error("{0}")]
    Unfit(String),
    /// A call that breaks the rules of [`Higgs`]; nothing was read.
    #[error("slot {slot}: {reason}")]
    BadCall { slot: usize, reason: String },
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl HiggsError {
    fn bad_file(path: &Path, reason: impl Into<String>) -> Self {
        Self::BadFile { path: path.to_owned(), reason: reason.into() }
    }
}

impl From<DecoderError> for HiggsError {
    fn from(error: DecoderError) -> Self {
        match error {
            DecoderError::BadFile { path, reason } => Self::BadFile { path, reason },
            DecoderError::BadSpan { slot, reason } => Self::BadCall { slot, reason },
            DecoderError::Candle(error) => Self::Candle(error),
        }
    }
}

/// How a model is laid out on its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    pub precision: Precision,
    /// Utterances at once. Their memory is taken at load.
    pub slots: usize,
    /// Most positions of an utterance: its prompt and its frames, 25 a second.
    pub positions: usize,
}

/// An utterance to advance, and the slot that has read its prompt and all its frames but the last.
pub struct Speaker<'a> {
    pub slot: usize,
    pub utterance: &'a mut Utterance,
}

/// A model on a device, and the memory of its slots.
pub struct Higgs {
    config: HiggsConfig,
    model: Model,
    slots: Slots,
}

impl Checkpoint {
    /// Reads the weights to `device`.
    ///
    /// # Errors
    /// [`HiggsError::Unfit`] where the weights cannot be quantized so; what candle says where memory runs out.
    pub fn load(self, device: &Device, options: LoadOptions) -> Result<Higgs, HiggsError> {
        Higgs::build(self.config().clone(), &self, device, options)
    }
}

impl Higgs {
    /// Loads the model in `folder`, of either layout.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] and [`Checkpoint::load`].
    pub fn load(folder: &Path, device: &Device, options: LoadOptions) -> Result<Self, HiggsError> {
        Checkpoint::open(folder)?.load(device, options)
    }

    /// A model of these sizes that speaks noise: for measuring without a checkpoint.
    ///
    /// # Errors
    /// As [`Checkpoint::load`].
    pub fn random(config: HiggsConfig, device: &Device, options: LoadOptions) -> Result<Self, HiggsError> {
        Self::build(config, &RandomSource, device, options)
    }

    fn build(
        config: HiggsConfig,
        source: &impl Source,
        device: &Device,
        options: LoadOptions,
    ) -> Result<Self, HiggsError> {
        if options.slots == 0 || options.positions == 0 {
            return Err(HiggsError::Unfit("a model without slots cannot speak".to_owned()));
        }
        let weights = HiggsWeights::read(source, &config, options.precision, device)?;
        let model = Model::new(&config, weights, options.positions, device)?;
        let slots = model.slots(options.slots)?;
        Ok(Self { config, model, slots })
    }

    pub fn config(&self) -> &HiggsConfig {
        &self.config
    }

    pub fn slots(&self) -> usize {
        self.slots.count()
    }

    /// Most positions of a slot.
    pub fn positions(&self) -> usize {
        self.slots.positions
    }

    /// Positions that `slot` has read; 0 where there is no such slot.
    pub fn length(&self, slot: usize) -> usize {
        self.slots.length(slot).unwrap_or(0)
    }

    /// Makes `slot` forget all but its first `length` positions.
    ///
    /// # Errors
    /// [`HiggsError::BadCall`] where there is no such slot, or it holds less.
    pub fn reset(&mut self, slot: usize, length: usize) -> Result<(), HiggsError> {
        self.slots.copy(slot, slot, length)
    }

    /// Makes slot `to` hold the first `length` positions of slot `from`, and nothing else.
    ///
    /// # Errors
    /// As [`Higgs::reset`].
    pub fn copy_prefix(&mut self, from: usize, to: usize, length: usize) -> Result<(), HiggsError> {
        self.slots.copy(from, to, length)
    }

    /// Reads on in `prompt` from where `slot` is, at most `most` positions; gives how many are left. The caller has seen
    /// to it that what the slot holds is the prompt's beginning.
    ///
    /// # Errors
    /// [`HiggsError::BadCall`]: there is no such slot, it holds more than the prompt, the prompt does not fit with at
    /// least one frame, or names what the model does not have. What candle says; then the slot holds what it held.
    pub fn prefill(&mut self, slot: usize, prompt: &Prompt, most: usize) -> Result<usize, HiggsError> {
        let held = self.slots.length(slot)?;
        let bad = |reason: String| HiggsError::BadCall { slot, reason };
        if let Some(fault) = prompt.fault(&self.config) {
            return Err(bad(fault));
        }
        if held > prompt.len() {
            return Err(bad(format!("it holds {held} positions, the prompt has {}: reset it first", prompt.len())));
        }
        if prompt.len() >= self.positions() {
            let room = self.positions();
            return Err(bad(format!("a prompt of {} positions leaves no room in {room}: shorten it", prompt.len())));
        }
        let end = prompt.len().min(held.saturating_add(most));
        if end > held {
            self.model.read(&self.slots, slot, prompt, held..end)?;
            self.slots.set_length(slot, end);
        }
        Ok(prompt.len() - end)
    }

    /// Advances each utterance by a frame, and sorts them by slot. Those that are over already are passed over; those whose slot is full are cut
    /// off. Slots next to each other are cheaper than slots far apart.
    ///
    /// # Errors
    /// [`HiggsError::BadCall`] where there is no such slot, or it is there twice, or has read nothing. What candle says;
    /// then no utterance was advanced.
    pub fn step(&mut self, speakers: &mut [Speaker<'_>]) -> Result<(), HiggsError> {
        speakers.sort_by_key(|speaker| speaker.slot);
        if let Some(twice) = speakers.windows(2).find(|pair| pair[0].slot == pair[1].slot) {
            return Err(HiggsError::BadCall { slot: twice[0].slot, reason: "it is in this call twice".to_owned() });
        }
        for Speaker { slot, utterance } in speakers.iter_mut() {
            match self.slots.length(*slot)? {
                0 => return Err(HiggsError::BadCall { slot: *slot, reason: "it has read no prompt".to_owned() }),
                length if length >= self.positions() => utterance.cut_off(),
                _ => {}
            }
        }
        let mut speaking: Vec<&mut Speaker<'_>> =
            speakers.iter_mut().filter(|speaker| speaker.utterance.outcome().is_none()).collect();
        if speaking.is_empty() {
            return Ok(());
        }
        let mut logits = self.read_frames(&speaking)?;
        // Drawing a row takes a tenth of a millisecond: with many rows that is felt.
        let rows = logits.par_chunks_exact_mut(self.config.logits());
        speaking.par_iter_mut().zip(rows).for_each(|(speaker, logits)| {
            speaker.utterance.advance(logits);
        });
        for speaker in speaking.iter().filter(|speaker| speaker.utterance.outcome() == Some(Outcome::Broken)) {
            self.slots.scrub(speaker.slot)?;
        }
        Ok(())
    }

    /// Reads the last frame of each utterance into its slot; gives the logits, `[speakers, codebooks * (codes + 2)]`.
    fn read_frames(&mut self, speakers: &[&mut Speaker<'_>]) -> Result<Vec<f32>, HiggsError> {
        let mut readings = Vec::with_capacity(speakers.len());
        for speaker in speakers {
            let frames = speaker.utterance.frames();
            let position = self.slots.length(speaker.slot)?;
            readings.push(Reading { slot: speaker.slot, position, frame: frames.row(frames.len() - 1) });
        }
        let logits = self.model.step(&self.slots, &readings)?.flatten_all()?.to_vec1()?;
        for Reading { slot, position, .. } in readings {
            self.slots.set_length(slot, position + 1);
        }
        Ok(logits)
    }
}
