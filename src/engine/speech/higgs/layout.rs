//! How an engine is laid out on its device, and what is given up where there is little memory: precision first, then
//! how long a voice can speak, then how many speak at once.

use std::fmt;
use std::path::Path;

use super::engine::{codec_bytes, read_config};
use crate::engine::EngineError;
use crate::engine::device::{self, DeviceChoice};
use crate::nn::higgs::codec::Chunking;
use crate::nn::higgs::{HiggsConfig, LoadOptions, MemoryNeed, Precision};

/// Activations of a step, of a prompt's chunk and of the codec's windows.
const ACTIVATIONS: u64 = 500 << 20;
/// Of the published codec's weights, the encoder's among them.
const PUBLISHED_CODEC: u64 = 830 << 20;
/// Of the codec's decoder, which is all of it that a card holds: recordings are encoded by the CPU.
const DECODER: u64 = 100 << 20;
/// Positions where memory is short: half a minute of recording and a piece of a text, or without a recording a piece
/// and the one that the voice is known by.
const SHORT: usize = 2048;

/// How an engine is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HiggsOptions {
    pub precision: Precision,
    /// Voices that speak at once. Their memory is taken at load.
    pub slots: usize,
    /// Most positions of a prompt and its speech together: 25 are a second.
    pub positions: usize,
    pub chunking: Chunking,
}

impl Default for HiggsOptions {
    /// Three voices, each with half a minute of recording, what it said last and a minute of speech.
    fn default() -> Self {
        Self { precision: Precision::Float, slots: 3, positions: 4096, chunking: Chunking::default() }
    }
}

/// As logs and reports name it.
impl fmt::Display for HiggsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let precision = match self.precision {
            Precision::Float => "in full precision",
            Precision::Q8_0 => "at 8 bits",
            Precision::Q4K => "at 4 bits",
        };
        let Self { slots, positions, .. } = self;
        write!(f, "{precision}, {slots} at once, {positions} positions each")
    }
}

impl HiggsOptions {
    /// From the best to the smallest.
    const PRECISIONS: [Precision; 3] = [Precision::Float, Precision::Q8_0, Precision::Q4K];

    pub(super) fn layout(&self) -> LoadOptions {
        LoadOptions { precision: self.precision, slots: self.slots, positions: self.positions }
    }

    /// What a model of these sizes can be loaded with, from the best to the smallest, for `slots` voices at best.
    fn all(config: &HiggsConfig, slots: usize) -> Vec<Self> {
        let best = Self { slots: slots.max(1), ..Self::default() };
        let precisions = Self::PRECISIONS.into_iter().filter(|precision| precision.fits(config));
        let mut all: Vec<Self> = precisions.map(|precision| Self { precision, ..best }).collect();
        let smallest = Self { positions: SHORT, ..*all.last().unwrap_or(&best) };
        all.extend((1..=best.slots).rev().map(|slots| Self { slots, ..smallest }));
        all
    }
}

/// A way to lay an engine out, and the bytes that it takes of the device once loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HiggsChoice {
    pub options: HiggsOptions,
    pub bytes: u64,
}

impl HiggsChoice {
    /// Of the model in `model` with the codec in `codec`, from the best to the smallest, for `slots` voices at best.
    ///
    /// # Errors
    /// [`EngineError::BadFile`] as far as the configs and the codec's file are concerned; [`EngineError::Device`] where
    /// the device does not answer or cannot compute as the model does.
    pub fn all(model: &Path, codec: &Path, device: DeviceChoice, slots: usize) -> Result<Vec<Self>, EngineError> {
        Self::of(&read_config(model)?, codec_bytes(codec)?, device, slots)
    }

    /// Of the published model.
    ///
    /// # Errors
    /// [`EngineError::Device`].
    pub fn published(device: DeviceChoice, slots: usize) -> Result<Vec<Self>, EngineError> {
        Self::of(&HiggsConfig::published(), PUBLISHED_CODEC, device, slots)
    }

    fn of(config: &HiggsConfig, codec: u64, device: DeviceChoice, slots: usize) -> Result<Vec<Self>, EngineError> {
        device::check_bf16(device)?;
        let opened = device::open(device)?;
        let codec = if opened.is_cpu() { codec } else { DECODER };
        let choice = |options: HiggsOptions| {
            let need = MemoryNeed::of(config, options.precision, &opened);
            let slots = (options.slots * options.positions) as u64 * need.bytes_per_position;
            Self { options, bytes: need.weights + slots + codec + ACTIVATIONS }
        };
        Ok(HiggsOptions::all(config, slots).into_iter().map(choice).collect())
    }
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
