//! The model against transformers, calls against each other, checkpoints against damage, and the rules by themselves.
//!
//! `tests/fixtures/make_higgs_lm.py` made the models: tiny, random, of both layouts.

mod checkpoints;
mod frames;
mod parity;
mod prompts;
mod published;
mod slots;
mod utterances;

use std::path::PathBuf;

use candle_core::{Device, Tensor};
use serde::Deserialize;

use super::model::Reading;
use super::{Codes, Higgs, HiggsConfig, LoadOptions, Precision, Prompt, Segment, SpeechSettings};
use crate::testing;

pub(super) const LAYOUTS: [&str; 2] = ["transformers", "boson"];
pub(super) const OPTIONS: LoadOptions = LoadOptions { precision: Precision::Float, slots: 4, positions: 96 };

pub(super) fn folder(name: &str) -> PathBuf {
    testing::fixture("higgs_lm").join(name)
}

pub(super) fn tiny(layout: &str) -> Higgs {
    Higgs::load(&folder(layout), &Device::Cpu, OPTIONS).unwrap()
}

pub(super) fn greedy() -> SpeechSettings {
    SpeechSettings { temperature: 0.0, repetition: None, most_frames: 60, ..SpeechSettings::default() }
}

/// What transformers made of the models.
#[derive(Deserialize)]
pub(super) struct Expected {
    /// A prompt's ids, with some id for each frame of the reference.
    pub(super) mixed: Vec<u32>,
    /// `[codebooks][columns]`
    pub(super) reference: Vec<Vec<u32>>,
    pub(super) delayed: Vec<Vec<u32>>,
    pub(super) generated: Vec<Generated>,
    /// Of a batch of the mixed prompt and the plain one.
    pub(super) batch: Vec<Vec<Vec<u32>>>,
}

#[derive(Deserialize)]
pub(super) struct Generated {
    pub(super) name: String,
    pub(super) ids: Vec<u32>,
    pub(super) reference: bool,
    pub(super) force: Option<(usize, usize)>,
    pub(super) repetition: bool,
    pub(super) temper: Option<f32>,
    pub(super) steps: usize,
    pub(super) frames: Vec<Vec<u32>>,
}

pub(super) fn expected() -> Expected {
    serde_json::from_slice(&std::fs::read(folder("expected.json")).unwrap()).unwrap()
}

impl Expected {
    pub(super) fn case(&self, name: &str) -> &Generated {
        self.generated.iter().find(|case| case.name == name).unwrap()
    }

    pub(super) fn columns(&self) -> Codes {
        Codes::from_codebooks(&self.reference).unwrap()
    }

    pub(super) fn prompt(&self, config: &HiggsConfig, case: &Generated) -> Prompt {
        if case.reference { self.mixed_prompt(config) } else { Prompt::new([Segment::Text(case.ids.clone())]) }
    }

    pub(super) fn mixed_prompt(&self, config: &HiggsConfig) -> Prompt {
        // transformers' ids for audio and for the delay.
        let is_audio = |id: &u32| [272, 270].contains(id);
        let before = self.mixed.iter().position(is_audio).unwrap();
        let after = self.mixed.iter().rposition(is_audio).unwrap() + 1;
        Prompt::new([
            Segment::Text(self.mixed[..before].to_vec()),
            Segment::speech(config, &self.columns()),
            Segment::Text(self.mixed[after..].to_vec()),
        ])
    }
}

pub(super) fn tensors() -> std::collections::HashMap<String, Tensor> {
    candle_core::safetensors::load(folder("expected.safetensors"), &Device::Cpu).unwrap()
}

/// Logits after `frame`, which becomes the slot's next position.
pub(super) fn logits_after(higgs: &mut Higgs, slot: usize, frame: &[u32]) -> Vec<f32> {
    let position = higgs.length(slot);
    let logits = higgs.model.step(&higgs.slots, &[Reading { slot, position, frame }]).unwrap();
    higgs.slots.set_length(slot, position + 1);
    logits.flatten_all().unwrap().to_vec1().unwrap()
}

pub(super) fn largest_difference(one: &[f32], two: &[f32]) -> f32 {
    assert_eq!(one.len(), two.len());
    one.iter().zip(two).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}
