//! A language model as loaded from one GGUF file: its decoder, its language, and the first check of both.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Instant;

use candle_core::Device;

use super::constraint::ConstraintFactory;
use super::decoder::{self, Decoder, ModelShape};
use super::gguf::Gguf;
use super::prompt::Language;
use super::requantize;
use super::template::ChatTemplate;
use super::tokenizer::Tokenizer;
use crate::engine::EngineError;
use crate::provider::{ChatMessage, ChatRequest, Role};

/// Snapshots of the prefix cache together: a few thousand tokens of a small model on the CPU, where memory is short.
const CPU_SNAPSHOT_BYTES: usize = 192 << 20;
const CUDA_SNAPSHOT_BYTES: usize = 1 << 30;
/// Sequences that decode at the same time, one token each in turn.
const MOST_SEQUENCES: usize = 4;
/// Prompt tokens between two looks at whether anybody still listens: under a tenth of a second for a small model on two
/// idle CPU cores. Each chunk reads all weights once, so shorter ones are slower.
const CPU_CHUNK: usize = 64;
const CUDA_CHUNK: usize = 256;
/// Two ways to read the same prompt differ by the rounding of quantized activations: a logit or two in a hundred.
/// Logits of another prompt correlate by less than this.
const CANARY_LIKENESS: f64 = 0.995;

pub(super) struct Model {
    pub(super) name: String,
    pub(super) language: Language,
    /// Has read nothing, and stays so.
    pub(super) pristine: Box<dyn Decoder>,
    pub(super) shape: ModelShape,
    pub(super) limits: Limits,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) sequences: usize,
    pub(super) chunk: usize,
    pub(super) snapshot_bytes: usize,
}

impl Limits {
    fn new(shape: &ModelShape, on_cpu: bool) -> Self {
        let snapshot_bytes = if on_cpu { CPU_SNAPSHOT_BYTES } else { CUDA_SNAPSHOT_BYTES };
        Self {
            sequences: if shape.forks { MOST_SEQUENCES } else { 1 },
            chunk: if on_cpu { CPU_CHUNK } else { CUDA_CHUNK },
            snapshot_bytes: if shape.forks { snapshot_bytes } else { 0 },
        }
    }
}

impl Model {
    /// Reads the file, loads the weights onto the thread's `device`, and answers a first question.
    ///
    /// # Errors
    /// [`EngineError::BadFile`] names the file; [`EngineError::Canary`] where the model answers nonsense.
    pub(super) fn load(name: &str, path: &Path, device: &Device) -> Result<Self, EngineError> {
        let started = Instant::now();
        let bad_file = |reason: String| EngineError::BadFile { path: path.to_owned(), reason };
        let file = Gguf::open(path)?;
        let shape = ModelShape::read(&file, device.is_cpu())?;
        // candle and tokenizers trust what they parse; a panic there is a damaged file here.
        let guarded = catch_unwind(AssertUnwindSafe(|| -> Result<_, EngineError> {
            let language = language(&file, &shape)?;
            let pristine = decoder::load(file, &shape, device).map_err(|error| bad_file(error.to_string()))?;
            Ok((language, pristine))
        }));
        let damaged = |_| bad_file("it is damaged: its contents do not fit together; pull the model again".to_owned());
        let (language, pristine) = guarded.map_err(damaged)??;
        let limits = Limits::new(&shape, device.is_cpu());
        let model = Self { name: name.to_owned(), language, pristine, shape, limits };
        catch_unwind(AssertUnwindSafe(|| model.check())).map_err(damaged)??;
        tracing::info!(model = name, seconds = started.elapsed().as_secs_f32(), "language model ready");
        Ok(model)
    }

    /// Bytes of device memory that the file at `path` will take when loaded, with its caches full.
    ///
    /// # Errors
    /// As [`Model::load`], from the header alone.
    pub(super) fn memory_estimate(path: &Path, on_cpu: bool) -> Result<u64, EngineError> {
        let file = Gguf::open(path)?;
        let shape = ModelShape::read(&file, on_cpu)?;
        let limits = Limits::new(&shape, on_cpu);
        let weights = file.file_bytes + if on_cpu { requantize::bytes_after(&file.content) } else { 0 };
        // The embedding is held in f32 beside the weights. A sequence's cache is copied while it grows.
        let embedding = shape.vocabulary * shape.embedding * size_of::<f32>();
        let sequences = limits.sequences * shape.window * shape.cache_bytes_per_token;
        Ok(weights + (embedding + sequences + limits.snapshot_bytes) as u64)
    }

    /// Warms up and asks a question with a known property: the same prompt read whole and in parts must give the same
    /// finite logits.
    fn check(&self) -> Result<(), EngineError> {
        let nonsense = |reason: String| EngineError::Canary { what: self.name.clone(), reason };
        let question = ChatRequest {
            messages: vec![ChatMessage::new(Role::User, "What is the capital of France?")],
            ..ChatRequest::default()
        };
        let prompt = self.language.prompt(&question).map_err(|error| nonsense(error.to_string()))?.tokens;
        if let Some(id) = prompt.iter().find(|id| **id as usize >= self.shape.vocabulary) {
            return Err(nonsense(format!("its tokenizer gives {id} and it knows {}", self.shape.vocabulary)));
        }
        let failed = |error: candle_core::Error| nonsense(error.to_string());
        let whole = self.pristine.fork().forward(&prompt, 0).map_err(failed)?;
        if whole.len() < self.language.tokenizer.len() {
            return Err(nonsense(format!("{} logits for {} tokens", whole.len(), self.language.tokenizer.len())));
        }
        let mut decoder = self.pristine.fork();
        let part = prompt.len() - prompt.len() / 2;
        decoder.forward(&prompt[..part], 0).map_err(failed)?;
        let parts = decoder.forward(&prompt[part..], part).map_err(failed)?;
        let likeness = correlation(&whole, &parts);
        // NaN comes of any logit that is not finite, and of logits all alike.
        if likeness.is_nan() || likeness < CANARY_LIKENESS {
            return Err(nonsense(format!(
                "the same prompt read in two ways gives logits that correlate by {likeness}"
            )));
        }
        Ok(())
    }
}

fn language(file: &Gguf, shape: &ModelShape) -> Result<Language, EngineError> {
    let tokenizer = Tokenizer::read(file)?;
    if tokenizer.len() > shape.vocabulary {
        let reason = format!("it names {} tokens and knows {}", tokenizer.len(), shape.vocabulary);
        return Err(file.error(reason));
    }
    let begin = tokenizer.begin.as_ref().map(|begin| begin.text.clone()).unwrap_or_default();
    let template = ChatTemplate::new(file.text("tokenizer.chat_template"), begin, tokenizer.end_text.clone())
        .map_err(|reason| file.error(format!("its chat template cannot be used: {reason}")))?;
    let constraints = ConstraintFactory::new(&tokenizer, template.dialect)
        .map_err(|reason| file.error(format!("its vocabulary cannot be held to shapes: {reason}")))?;
    Ok(Language { tokenizer, template, constraints, window: shape.window })
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
