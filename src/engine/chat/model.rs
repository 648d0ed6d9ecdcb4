//! A language model as loaded: its decoder and the memory of its slots, its language, and the first check of all three.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Instant;

use candle_core::Device;

use super::constraint::ConstraintFactory;
use super::prompt::Language;
use super::template::ChatTemplate;
use super::tokenizer::Tokenizer;
use crate::engine::EngineError;
use crate::nn::decoder::{Decoder, DecoderConfig, DecoderError, GgufFile, KvCache, Span, Wants};
use crate::provider::{ChatMessage, ChatRequest, Role};

/// Prompt and reply together, where the model can take as many: memory goes with it.
const MOST_POSITIONS: usize = 4096;
/// What the slots may shrink a window to, where memory is short.
const LEAST_POSITIONS: usize = 2048;
/// Sequences that advance together. More would each be slower than speech on most devices.
const MOST_SLOTS: usize = 8;
/// One that talks and one whose beginning is kept.
const LEAST_SLOTS: usize = 2;
/// Keys and values of all slots together. On the CPU only what is written takes memory.
const CPU_CACHE_BYTES: usize = 1 << 30;
const CUDA_CACHE_BYTES: usize = 3 << 30;
/// Prompt tokens in a step, beside the replies that go on in it and between two looks at whether anybody still listens:
/// under a tenth of a second for a small model on two idle CPU cores.
const CPU_CHUNK: usize = 64;
const CUDA_CHUNK: usize = 256;
/// What a step computes beside weights and slots: rows of activations and logits, generously.
const ACTIVATION_BYTES: u64 = 64 << 20;
/// Two ways to read the same prompt differ by rounding at most. Logits of another prompt correlate by less than this.
const CANARY_LIKENESS: f64 = 0.995;

pub(super) struct Model {
    pub(super) name: String,
    pub(super) language: Language,
    pub(super) decoder: Decoder,
    pub(super) cache: KvCache,
    /// Prompt tokens in a step at most.
    pub(super) chunk: usize,
}

/// How much is kept of how many sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) slots: usize,
    pub(super) positions: usize,
}

impl Room {
    /// What fits.
    fn of(config: &DecoderConfig, on_cpu: bool) -> Self {
        let most_bytes = if on_cpu { CPU_CACHE_BYTES } else { CUDA_CACHE_BYTES };
        let most_positions = most_bytes / bytes_per_position(config);
        let positions = config.context.min(MOST_POSITIONS).min(LEAST_POSITIONS.max(most_positions / LEAST_SLOTS));
        Self { slots: (most_positions / positions).clamp(LEAST_SLOTS, MOST_SLOTS), positions }
    }
}

/// Of one slot, in half precision.
fn bytes_per_position(config: &DecoderConfig) -> usize {
    config.cache_elements_per_position() * 2
}

impl Model {
    /// Reads the file, loads the weights onto the thread's `device`, and answers a first question.
    ///
    /// # Errors
    /// [`EngineError::BadFile`] names the file; [`EngineError::Canary`] where the model answers nonsense.
    pub(super) fn load(name: &str, path: &Path, device: &Device) -> Result<Self, EngineError> {
        Self::load_with(name, path, device, None)
    }

    /// As [`Model::load`], with as much room as `room` says.
    pub(super) fn load_with(name: &str, path: &Path, device: &Device, room: Option<Room>) -> Result<Self, EngineError> {
        let started = Instant::now();
        let bad_file = |reason: &str| EngineError::BadFile { path: path.to_owned(), reason: reason.to_owned() };
        // What parses a file trusts it here and there; a panic is a damaged file.
        let guarded = catch_unwind(AssertUnwindSafe(|| -> Result<Self, EngineError> {
            let file = GgufFile::open(path)?;
            let config = DecoderConfig::from_gguf(&file)?;
            let room = room.unwrap_or_else(|| Room::of(&config, device.is_cpu()));
            let language = language(&file, &config, room.positions)?;
            let decoder = Decoder::from_open_gguf(file, device)?;
            let cache = decoder.cache(room.slots, room.positions)?;
            let chunk = if device.is_cpu() { CPU_CHUNK } else { CUDA_CHUNK };
            let mut model = Self { name: name.to_owned(), language, decoder, cache, chunk };
            model.check()?;
            Ok(model)
        }));
        let damaged = |_| bad_file("it is damaged: its contents do not fit together");
        let model = guarded.map_err(damaged)??;
        let (slots, positions) = (model.cache.slots(), model.cache.positions());
        let seconds = started.elapsed().as_secs_f32();
        tracing::info!(model = name, slots, positions, seconds, "language model ready");
        Ok(model)
    }

    /// Bytes of device memory that the file at `path` will take when loaded, with all slots full.
    ///
    /// # Errors
    /// As [`Model::load`], from the header alone.
    pub(super) fn memory_estimate(path: &Path, on_cpu: bool) -> Result<u64, EngineError> {
        let file = GgufFile::open(path)?;
        let config = DecoderConfig::from_gguf(&file)?;
        let room = Room::of(&config, on_cpu);
        let slots = room.slots * room.positions * bytes_per_position(&config);
        // On the CPU weights are packed anew, and a tied embedding is there as a table and as the head.
        let weights = if on_cpu { file.bytes() + file.bytes() / 2 } else { file.bytes() };
        Ok(weights + slots as u64 + ACTIVATION_BYTES)
    }

    /// Warms up and asks a question with a known property: the same prompt read whole, and in parts beside another, must
    /// give the same finite logits.
    fn check(&mut self) -> Result<(), EngineError> {
        let nonsense = |reason: String| EngineError::Canary { what: self.name.clone(), reason };
        let question = ChatRequest {
            messages: vec![ChatMessage::new(Role::User, "What is the capital of France?")],
            ..ChatRequest::default()
        };
        let prompt = self.language.prompt(&question).map_err(|error| nonsense(error.to_string()))?.tokens;
        let part = prompt.len() - prompt.len() / 2;
        let span = |slot, start, tokens, wants| Span { slot, start, tokens, wants };
        let calls = [
            vec![span(0, 0, &prompt[..], Wants::Last), span(1, 0, &prompt[..part], Wants::Nothing)],
            vec![span(0, 0, &prompt[..1], Wants::Nothing), span(1, part, &prompt[part..], Wants::Last)],
        ];
        let mut rows = Vec::new();
        for spans in calls {
            let logits = self.decoder.forward(&mut self.cache, &spans);
            rows.push(logits.map_err(|error: DecoderError| nonsense(error.to_string()))?.row(0).to_vec());
        }
        let likeness = correlation(&rows[0], &rows[1]);
        // NaN comes of any logit that is not finite, and of logits all alike.
        if likeness.is_nan() || likeness < CANARY_LIKENESS {
            return Err(nonsense(format!(
                "the same prompt read in two ways gives logits that correlate by {likeness}"
            )));
        }
        Ok(())
    }
}

fn language(file: &GgufFile, config: &DecoderConfig, window: usize) -> Result<Language, EngineError> {
    let tokenizer = Tokenizer::read(file)?;
    if tokenizer.len() > config.vocabulary {
        let reason = format!("it names {} tokens and knows {}", tokenizer.len(), config.vocabulary);
        return Err(file.error(reason).into());
    }
    let begin = tokenizer.begin.as_ref().map(|begin| begin.text.clone()).unwrap_or_default();
    let template = ChatTemplate::new(file.text("tokenizer.chat_template"), begin, tokenizer.end_text.clone())
        .map_err(|reason| file.error(format!("its chat template cannot be used: {reason}")))?;
    let constraints = ConstraintFactory::new(&tokenizer, template.dialect)
        .map_err(|reason| file.error(format!("its vocabulary cannot be held to shapes: {reason}")))?;
    Ok(Language { tokenizer, template, constraints, window })
}

/// Pearson's, of two rows of equal length.
fn correlation(one: &[f32], other: &[f32]) -> f64 {
    let mean = |row: &[f32]| row.iter().map(|value| f64::from(*value)).sum::<f64>() / row.len() as f64;
    let (one_mean, other_mean) = (mean(one), mean(other));
    let (mut both, mut one_alone, mut other_alone) = (0.0, 0.0, 0.0);
    for (one, other) in one.iter().zip(other) {
        let (one, other) = (f64::from(*one) - one_mean, f64::from(*other) - other_mean);
        both += one * other;
        one_alone += one * one;
        other_alone += other * other;
    }
    both / (one_alone * other_alone).sqrt()
}

#[cfg(test)]
#[path = "model_tests.rs"]
pub(super) mod tests;
