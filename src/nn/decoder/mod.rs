//! A decoder-only language model, one definition for every family that differs by numbers only: Llama 3, SmolLM2,
//! Qwen 2.5, Qwen 3, Gemma 3 (its text half) and Mistral.
//!
//! Weights come from a GGUF file or from a folder as the hub has it (config.json and safetensors); both give the same
//! [`DecoderConfig`] and the same weights under the same names. [`Decoder::forward`] reads several spans of tokens, of
//! several sequences, in one pass over the weights. What was read is in a [`KvCache`] of fixed slots, allocated at once
//! and written in place. What to read and what to write is not decided here: `engine::chat` batches and samples.
//!
//! Sources: the reference implementations in transformers (`modeling_llama`, `_qwen2`, `_qwen3`, `_gemma3`, `_mistral`)
//! for the mathematics, llama.cpp's converter for how GGUF stores the same tensors.

mod cache;
mod config;
mod cpu;
mod gguf;
mod gguf_model;
mod hub_model;
mod rope;
mod tensor;
mod weights;

use std::path::{Path, PathBuf};

use candle_core::Device;

pub use cache::KvCache;
pub use config::{Activation, DecoderConfig, Family, Rope, RopeScaling, SlidingWindow};
pub(in crate::nn) use config::{check_heads, check_numbers, check_sizes};
pub use gguf::GgufFile;
pub(in crate::nn) use hub_model::{RopeJson, read_json, shards};
pub(in crate::nn) use rope::{RopeTable, scaled_frequencies};
pub(in crate::nn) use tensor::NOWHERE;

use cache::Store;
use cpu::CpuDecoder;
use tensor::TensorDecoder;
use weights::DecoderWeights;

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum DecoderError {
    #[error("{}: {reason}", path.display())]
    BadFile { path: PathBuf, reason: String },
    /// A call that breaks the rules of [`Decoder::forward`] or of [`KvCache`]; nothing was read.
    #[error("slot {slot}: {reason}")]
    BadSpan { slot: usize, reason: String },
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl DecoderError {
    pub(in crate::nn) fn bad_file(path: &Path, reason: impl Into<String>) -> Self {
        Self::BadFile { path: path.to_owned(), reason: reason.into() }
    }

    fn bad_span(slot: usize, reason: impl Into<String>) -> Self {
        Self::BadSpan { slot, reason: reason.into() }
    }
}

/// Which logits a span gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// None: the prompt goes on.
    Nothing,
    /// Those after its last token.
    Last,
    /// Those after each of its tokens.
    All,
}

/// Tokens of one sequence to read in a call.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    pub slot: usize,
    /// Position of the first token: at most what the slot holds. What it held from here on is overwritten.
    pub start: usize,
    /// At least one. Each is below the vocabulary.
    pub tokens: &'a [u32],
    pub wants: Wants,
}

impl Span<'_> {
    /// Rows of logits.
    fn rows(&self) -> usize {
        match self.wants {
            Wants::Nothing => 0,
            Wants::Last => 1,
            Wants::All => self.tokens.len(),
        }
    }
}

/// The logits of one call, `[rows, vocabulary]`, in the order of its spans.
#[derive(Clone, Copy, Debug)]
pub struct Logits<'a> {
    values: &'a [f32],
    vocabulary: usize,
}

impl<'a> Logits<'a> {
    pub fn rows(&self) -> usize {
        self.values.len() / self.vocabulary
    }

    /// # Panics
    /// Where there is no such row.
    pub fn row(&self, row: usize) -> &'a [f32] {
        &self.values[row * self.vocabulary..][..self.vocabulary]
    }
}

/// A model's weights on one device. One thread calls it: on CUDA always the thread that loaded it.
pub struct Decoder {
    config: DecoderConfig,
    backend: Backend,
    /// Of the last call.
    logits: Vec<f32>,
}

/// How the forward pass is computed.
enum Backend {
    /// Candle's tensors: on CUDA, and the oracle of the CPU's own kernels.
    Tensor(Box<TensorDecoder>),
    /// Own kernels on raw slices.
    Cpu(Box<CpuDecoder>),
}

impl Decoder {
    /// Loads a GGUF file. Quantized weights stay as stored.
    ///
    /// # Errors
    /// [`DecoderError::BadFile`] says what is missing, damaged or not supported.
    pub fn from_gguf(path: &Path, device: &Device) -> Result<Self, DecoderError> {
        Self::from_open_gguf(GgufFile::open(path)?, device)
    }

    /// Loads a GGUF file whose header was read already.
    ///
    /// # Errors
    /// As [`Decoder::from_gguf`].
    pub fn from_open_gguf(file: GgufFile, device: &Device) -> Result<Self, DecoderError> {
        let (config, weights) = gguf_model::load(file, device)?;
        Self::on(config, weights, device)
    }

    /// Loads a folder with config.json and one or several safetensors files, with an index where there is one.
    ///
    /// # Errors
    /// As [`Decoder::from_gguf`].
    pub fn from_safetensors(folder: &Path, device: &Device) -> Result<Self, DecoderError> {
        let (config, weights) = hub_model::open(folder, device)?;
        Self::on(config, weights, device)
    }

    fn on(config: DecoderConfig, weights: DecoderWeights, device: &Device) -> Result<Self, DecoderError> {
        if !device.is_cpu() {
            return Self::on_tensors(config, weights, device);
        }
        let backend = Backend::Cpu(Box::new(CpuDecoder::new(&config, &weights)?));
        Ok(Self { config, backend, logits: Vec::new() })
    }

    /// Computes in candle's tensors, on any device.
    fn on_tensors(config: DecoderConfig, weights: DecoderWeights, device: &Device) -> Result<Self, DecoderError> {
        let backend = Backend::Tensor(Box::new(TensorDecoder::new(&config, weights, device)?));
        Ok(Self { config, backend, logits: Vec::new() })
    }

    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Memory for `slots` sequences of at most `positions` tokens each, allocated at once and written in place.
    ///
    /// # Errors
    /// [`DecoderError::Candle`] where the device has not so much memory.
    pub fn cache(&self, slots: usize, positions: usize) -> Result<KvCache, DecoderError> {
        let store = match &self.backend {
            Backend::Tensor(decoder) => Store::Tensor(decoder.store(slots, positions)?),
            Backend::Cpu(decoder) => Store::Cpu(decoder.store(slots, positions)),
        };
        Ok(KvCache::new(store, slots, positions, self.config.cache_elements_per_position()))
    }

    /// Reads each span into its slot and gives the logits that the spans want. A slot may be in a call once.
    ///
    /// A row's logits do not depend on what else is in the call. Where this fails midway, the call's slots hold what
    /// they held before each span's start.
    ///
    /// # Errors
    /// [`DecoderError::BadSpan`] before anything is read; what candle says.
    pub fn forward(&mut self, cache: &mut KvCache, spans: &[Span<'_>]) -> Result<Logits<'_>, DecoderError> {
        cache.check(spans, self.config.vocabulary)?;
        for span in spans {
            cache.set_length(span.slot, span.start);
        }
        self.logits.clear();
        self.logits.reserve(spans.iter().map(Span::rows).sum::<usize>() * self.config.vocabulary);
        match (&mut self.backend, cache.store_mut()) {
            (Backend::Tensor(decoder), Store::Tensor(store)) => decoder.forward(store, spans, &mut self.logits)?,
            (Backend::Cpu(decoder), Store::Cpu(store)) => decoder.forward(store, spans, &mut self.logits),
            _ => return Err(DecoderError::bad_span(0, "its cache belongs to a model on another device")),
        }
        for span in spans {
            cache.set_length(span.slot, span.start + span.tokens.len());
        }
        Ok(Logits { values: &self.logits, vocabulary: self.config.vocabulary })
    }
}

#[cfg(test)]
mod tests;
