//! The language model on the inside: tokens in, logits out, over candle-transformers' quantized definitions.
//!
//! A [`Decoder`] is a model together with what it has read so far. Where candle's definition keeps its KV cache in
//! immutable tensors, a copy of the whole model is a free snapshot, and several sequences share one set of weights.
//! That holds for Llama, and for Qwen 3 on CUDA. Qwen 2 cannot be copied, and on the CPU Qwen 3 copies a buffer for the
//! whole context: these serve one sequence at a time, from its beginning.

use std::cell::RefCell;
use std::io::{Read, Seek};
use std::rc::Rc;

use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::{DType, Device, Result, Tensor};
use candle_transformers::models::{quantized_llama, quantized_qwen2, quantized_qwen3};

use super::gguf::Gguf;
use super::requantize;
use crate::engine::EngineError;

/// Positions that candle's quantized models hold at most (`quantized_llama::MAX_SEQ_LEN`).
const MAX_POSITIONS: u64 = 4096;

/// A model and the sequence it has read.
pub(super) trait Decoder {
    /// Reads `tokens`, the first of which stands at `position`, and gives the logits after the last.
    ///
    /// `position` is the number of tokens read so far, or 0 to begin anew. Ids must be below the vocabulary's size.
    fn forward(&mut self, tokens: &[u32], position: usize) -> Result<Vec<f32>>;

    /// Another decoder on the same weights. Where [`ModelShape::forks`] it has read what this one has; else it shares
    /// the one sequence there is.
    fn fork(&self) -> Box<dyn Decoder>;
}

/// The architectures that run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Architecture {
    Llama,
    Qwen2,
    Qwen3,
}

/// Sizes from the header.
#[derive(Clone, Debug)]
pub(super) struct ModelShape {
    pub(super) architecture: Architecture,
    /// Tokens that fit, prompt and reply together.
    pub(super) window: usize,
    /// Rows of the embedding: every id must be below.
    pub(super) vocabulary: usize,
    pub(super) embedding: usize,
    /// Of keys and values, in f32.
    pub(super) cache_bytes_per_token: usize,
    /// Sequences are independent of each other, and a fork has read what its parent has.
    pub(super) forks: bool,
}

impl ModelShape {
    /// # Errors
    /// [`EngineError::BadFile`]: a size is missing or impossible, or the model needs what candle's definition lacks.
    pub(super) fn read(file: &Gguf, on_cpu: bool) -> std::result::Result<Self, EngineError> {
        let name = file.text("general.architecture").ok_or_else(|| file.error("it names no architecture"))?;
        let architecture = match name {
            "llama" => Architecture::Llama,
            "qwen2" => Architecture::Qwen2,
            "qwen3" => Architecture::Qwen3,
            other => {
                let reason = format!("the architecture {other} is not supported; use llama, qwen2 or qwen3");
                return Err(file.error(reason));
            }
        };
        let key = |key: &str| format!("{name}.{key}");
        let layers = file.size(&key("block_count"), 1..=512)?;
        let embedding = file.size(&key("embedding_length"), 1..=65_536)?;
        let heads = file.size(&key("attention.head_count"), 1..=1024)?;
        let kv_heads = file.size(&key("attention.head_count_kv"), 1..=1024)?;
        let context = file.size(&key("context_length"), 16..=1 << 32)?;
        let head = match architecture {
            Architecture::Qwen3 => file.size(&key("attention.key_length"), 2..=1024)?,
            Architecture::Llama | Architecture::Qwen2 => embedding / heads,
        };
        let divides = architecture == Architecture::Qwen3 || embedding.is_multiple_of(heads);
        if !heads.is_multiple_of(kv_heads) || !divides || !head.is_multiple_of(2) {
            return Err(file.error(format!("{heads} heads, {kv_heads} key heads and width {embedding} do not fit")));
        }
        let shape = Self {
            architecture,
            window: context.min(MAX_POSITIONS as usize),
            vocabulary: vocabulary(file, embedding)?,
            embedding,
            cache_bytes_per_token: 2 * layers * kv_heads * head * size_of::<f32>(),
            forks: match architecture {
                Architecture::Llama => true,
                Architecture::Qwen2 => false,
                Architecture::Qwen3 => !on_cpu,
            },
        };
        refuse_what_candle_lacks(file, name, head as u64)?;
        Ok(shape)
    }
}

/// Rows of the embedding.
fn vocabulary(file: &Gguf, embedding: usize) -> std::result::Result<usize, EngineError> {
    let table = file.content.tensor_infos.get("token_embd.weight");
    match table.map(|info| info.shape.dims()) {
        Some(&[rows, width]) if width == embedding => Ok(rows),
        Some(dims) => Err(file.error(format!("its embedding has the shape {dims:?}, expected (tokens, {embedding})"))),
        None => Err(file.error("it has no tensor token_embd.weight: it holds a vocabulary only")),
    }
}

/// What would load and silently answer nonsense.
fn refuse_what_candle_lacks(file: &Gguf, name: &str, head: u64) -> std::result::Result<(), EngineError> {
    let lacks = |what: &str| Err(file.error(format!("it needs {what}, which is not supported yet")));
    let number = |key: &str| file.number(&format!("{name}.{key}"));
    if number("expert_count").unwrap_or(0) > 1 {
        return lacks("a mixture of experts");
    }
    if file.content.tensor_infos.contains_key("rope_freqs.weight") {
        return lacks("scaled rotary frequencies (rope_freqs.weight)");
    }
    if file.text(&format!("{name}.rope.scaling.type")).is_some_and(|kind| kind != "none") {
        return lacks("scaled rotary positions (rope.scaling)");
    }
    let sizes = ["rope.dimension_count", "attention.key_length", "attention.value_length"];
    if sizes.iter().any(|key| number(key).is_some_and(|size| size != head)) {
        return lacks("heads of unequal width");
    }
    Ok(())
}

/// Loads the weights onto `device`.
pub(super) fn load(file: Gguf, shape: &ModelShape, device: &Device) -> Result<Box<dyn Decoder>> {
    let Gguf { mut content, mut reader, .. } = file;
    limit(&mut content, shape);
    if device.is_cpu() && requantize::has_slow_weights(&content) {
        let mut reader = requantize::requantize(&content, &mut reader)?;
        let content = Content::read(&mut reader)?;
        return load_as(content, &mut reader, shape, device);
    }
    load_as(content, &mut reader, shape, device)
}

/// Sets what candle would otherwise take from the file: rotary tables for the window only, and Qwen 3's in f32 (at its
/// default f16, positions above 2,048 would be rounded).
fn limit(content: &mut Content, shape: &ModelShape) {
    let positions = Value::U32(shape.window as u32);
    match shape.architecture {
        Architecture::Llama => {}
        Architecture::Qwen2 => drop(content.metadata.insert("qwen2.context_length".to_owned(), positions)),
        Architecture::Qwen3 => {
            content.metadata.insert("qwen3.context_length".to_owned(), positions);
            content.metadata.insert("general.dtype".to_owned(), Value::U32(0));
        }
    }
}

fn load_as<R: Read + Seek>(
    content: Content,
    reader: &mut R,
    shape: &ModelShape,
    device: &Device,
) -> Result<Box<dyn Decoder>> {
    let device = device.clone();
    Ok(match shape.architecture {
        Architecture::Llama => {
            let model = quantized_llama::ModelWeights::from_gguf(content, reader, &device)?;
            Box::new(Llama { model, device })
        }
        Architecture::Qwen2 => {
            let model = quantized_qwen2::ModelWeights::from_gguf(content, reader, &device)?;
            Box::new(Qwen2 { model: Rc::new(RefCell::new(model)), device })
        }
        Architecture::Qwen3 => {
            let model = quantized_qwen3::ModelWeights::from_gguf(content, reader, &device)?;
            if shape.forks {
                Box::new(Qwen3 { model, device })
            } else {
                Box::new(SingleQwen3 { model: Rc::new(RefCell::new(model)), device })
            }
        }
    })
}

struct Llama {
    /// Its cached masks are part of each copy, so they end with their sequence.
    model: quantized_llama::ModelWeights,
    device: Device,
}

impl Decoder for Llama {
    fn forward(&mut self, tokens: &[u32], position: usize) -> Result<Vec<f32>> {
        row(&self.model.forward(&column(tokens, &self.device)?, position)?)
    }

    fn fork(&self) -> Box<dyn Decoder> {
        Box::new(Self { model: self.model.clone(), device: self.device.clone() })
    }
}

/// Qwen 3 with its cache in immutable tensors, as candle keeps it on CUDA.
struct Qwen3 {
    model: quantized_qwen3::ModelWeights,
    device: Device,
}

impl Decoder for Qwen3 {
    fn forward(&mut self, tokens: &[u32], position: usize) -> Result<Vec<f32>> {
        row(&self.model.forward(&column(tokens, &self.device)?, position)?)
    }

    fn fork(&self) -> Box<dyn Decoder> {
        Box::new(Self { model: self.model.clone(), device: self.device.clone() })
    }
}

/// Qwen 3 as candle runs it on the CPU. A single token goes through another cache than several, so a chunk of one may
/// only be the last of a prompt.
struct SingleQwen3 {
    model: Rc<RefCell<quantized_qwen3::ModelWeights>>,
    device: Device,
}

impl Decoder for SingleQwen3 {
    fn forward(&mut self, tokens: &[u32], position: usize) -> Result<Vec<f32>> {
        let mut model = self.model.borrow_mut();
        if position == 0 {
            model.clear_kv_cache();
        }
        row(&model.forward(&column(tokens, &self.device)?, position)?)
    }

    fn fork(&self) -> Box<dyn Decoder> {
        Box::new(Self { model: Rc::clone(&self.model), device: self.device.clone() })
    }
}

struct Qwen2 {
    model: Rc<RefCell<quantized_qwen2::ModelWeights>>,
    device: Device,
}

impl Decoder for Qwen2 {
    /// candle keeps a mask for every pair of chunk and position for ever. Chunks of powers of two at multiples of
    /// themselves keep these few (under 32 MB in all).
    fn forward(&mut self, tokens: &[u32], position: usize) -> Result<Vec<f32>> {
        let mut model = self.model.borrow_mut();
        if position == 0 {
            model.clear_kv_cache();
        }
        let mut logits = Vec::new();
        let (mut rest, mut position) = (tokens, position);
        while !rest.is_empty() {
            let largest = 1usize << rest.len().ilog2();
            let aligned = if position == 0 { largest } else { 1 << position.trailing_zeros().min(31) };
            let (chunk, after) = rest.split_at(largest.min(aligned));
            let output = model.forward(&column(chunk, &self.device)?, position)?;
            (rest, position) = (after, position + chunk.len());
            if rest.is_empty() {
                logits = row(&output)?;
            }
        }
        Ok(logits)
    }

    fn fork(&self) -> Box<dyn Decoder> {
        Box::new(Self { model: Rc::clone(&self.model), device: self.device.clone() })
    }
}

/// (1, tokens).
fn column(tokens: &[u32], device: &Device) -> Result<Tensor> {
    Tensor::new(tokens, device)?.unsqueeze(0)
}

fn row(logits: &Tensor) -> Result<Vec<f32>> {
    logits.flatten_all()?.to_dtype(DType::F32)?.to_vec1()
}
