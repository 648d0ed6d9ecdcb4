//! The families against transformers, calls against each other, files against damage.
//!
//! `tests/fixtures/make_decoder.py` made the models: tiny, random, one of each family, as safetensors and as GGUF.

mod configs;
mod damage;
mod families;
mod files;
mod real;
mod spans;

use std::path::{Path, PathBuf};

use candle_core::Device;
use serde::Deserialize;

use super::{Decoder, KvCache, Span, Wants, gguf_model, hub_model};
use crate::testing;

pub(super) const FAMILIES: [&str; 6] = ["llama3", "smollm2", "mistral", "qwen2", "qwen3", "gemma3"];

/// What transformers made of a prompt.
#[derive(Deserialize)]
pub(super) struct Case {
    pub(super) prompt: Vec<u32>,
    pub(super) greedy: Vec<u32>,
    pub(super) logits: Vec<f32>,
}

pub(super) fn folder(family: &str) -> PathBuf {
    testing::fixture("decoder").join(family)
}

pub(super) fn cases(family: &str) -> Vec<Case> {
    serde_json::from_slice(&std::fs::read(folder(family).join("expected.json")).unwrap()).unwrap()
}

/// In candle's tensors.
pub(super) fn oracle_of_gguf(path: &Path) -> Decoder {
    let (config, weights) = gguf_model::open(path, &Device::Cpu).unwrap();
    Decoder::on_tensors(config, weights, &Device::Cpu).unwrap()
}

/// In candle's tensors.
pub(super) fn oracle_of_folder(path: &Path) -> Decoder {
    let (config, weights) = hub_model::open(path, &Device::Cpu).unwrap();
    Decoder::on_tensors(config, weights, &Device::Cpu).unwrap()
}

pub(super) fn oracle(family: &str) -> Decoder {
    oracle_of_gguf(&folder(family).join("model.gguf"))
}

/// The logits after the last of `tokens`.
pub(super) fn last(decoder: &mut Decoder, cache: &mut KvCache, slot: usize, start: usize, tokens: &[u32]) -> Vec<f32> {
    let logits = decoder.forward(cache, &[Span { slot, start, tokens, wants: Wants::Last }]).unwrap();
    assert_eq!(logits.rows(), 1);
    logits.row(0).to_vec()
}

/// The same by reading everything anew.
pub(super) fn alone(decoder: &mut Decoder, tokens: &[u32]) -> Vec<f32> {
    let mut cache = decoder.cache(1, tokens.len()).unwrap();
    last(decoder, &mut cache, 0, 0, tokens)
}

pub(super) fn best(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|one, other| one.1.total_cmp(other.1));
    best.map(|(id, _)| id as u32).unwrap()
}

pub(super) fn largest_difference(one: &[f32], other: &[f32]) -> f32 {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max)
}

/// Token ids that look like nothing in particular.
pub(super) fn text(seed: u32, length: usize) -> Vec<u32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        3 + (state >> 8) % 250
    };
    (0..length).map(|_| next()).collect()
}
