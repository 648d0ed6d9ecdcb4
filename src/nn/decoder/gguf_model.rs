//! The decoder in a GGUF file: its sizes from the header, its weights by llama.cpp's names.
//!
//! Two things differ from the hub's files. The converter reorders the rows of Llama's queries and keys for another
//! layout of rotary pairs; here they are put back, which is exact for quantized rows too, since it moves whole rows. And
//! it adds the 1 to Gemma's norms.

use std::collections::BTreeSet;
use std::sync::Arc;

use candle_core::quantized::gguf_file::Value;
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};

use super::DecoderError;
use super::config::{Activation, DecoderConfig, Family, Rope, RopeScaling, SlidingWindow};
use super::gguf::{GgufFile, whole};
use super::weights::{DecoderWeights, KEY, Matrix, Name, QUERY, Source, dense_type};

const EMBEDDING: &str = "token_embd.weight";
const HEAD: &str = "output.weight";
const ROPE_FACTORS: &str = "rope_freqs.weight";
/// Of Gemma's layers every sixth sees everything; the base of the others. Files from before llama.cpp had keys for these
/// two do not say so.
const GEMMA_PATTERN: usize = 6;
const GEMMA_LOCAL_THETA: f64 = 10_000.0;
/// Layers of Gemma 3 27B, whose queries are scaled by their share of the width. No key says so.
const GEMMA_27B_LAYERS: usize = 62;

impl DecoderConfig {
    /// # Errors
    /// [`DecoderError::BadFile`]: a size is missing or impossible, or the model needs what is not supported.
    pub fn from_gguf(file: &GgufFile) -> Result<Self, DecoderError> {
        let name = file.text("general.architecture").ok_or_else(|| file.error("it names no architecture"))?;
        let family = match name {
            "llama" => Family::Llama,
            "qwen2" => Family::Qwen2,
            "qwen3" => Family::Qwen3,
            "gemma3" => Family::Gemma3,
            other => {
                let reason = format!("the architecture {other} is not supported; use llama, qwen2, qwen3 or gemma3");
                return Err(file.error(reason));
            }
        };
        let key = |key: &str| format!("{name}.{key}");
        let size = |name: &str, most: u64| file.size(&key(name), 1..=most);
        let layers = size("block_count", 512)?;
        let hidden = size("embedding_length", 1 << 17)?;
        let heads = size("attention.head_count", 1024)?;
        let given_head = file.number(&key("attention.key_length")).map(|size| size as usize);
        let head_dim = given_head.unwrap_or(hidden / heads);
        refuse_unsupported(file, name, head_dim)?;
        let is_gemma = family == Family::Gemma3;
        let context = file.size(&key("context_length"), 1..=1 << 32)?;
        let float = |name: &str| file.float(&key(name));
        let config = Self {
            family,
            vocabulary: vocabulary(file, hidden)?,
            hidden,
            intermediate: size("feed_forward_length", 1 << 19)?,
            layers,
            heads,
            kv_heads: file.number(&key("attention.head_count_kv")).map_or(heads, |heads| heads as usize),
            head_dim,
            rms_epsilon: float("attention.layer_norm_rms_epsilon")
                .ok_or_else(|| file.error("its metadata has no layer_norm_rms_epsilon"))?
                as f32,
            rope: rope(file, name, is_gemma),
            window: window(file, name, layers, is_gemma)?,
            activation: if is_gemma { Activation::GeluTanh } else { Activation::Silu },
            tied: file.tensor_shape(HEAD).is_none(),
            embedding_scale: if is_gemma { (hidden as f32).sqrt() } else { 1.0 },
            query_scale: match float("attention.scale") {
                Some(scale) => scale as f32,
                None if is_gemma && layers == GEMMA_27B_LAYERS => ((hidden / heads) as f32).sqrt().recip(),
                None => (head_dim as f32).sqrt().recip(),
            },
            context,
            begin: id(file, "bos").filter(|_| file.flag("tokenizer.ggml.add_bos_token") != Some(false)),
            ends: ["eos", "eot", "eom"]
                .iter()
                .filter_map(|kind| id(file, kind))
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
        };
        config.check(|reason| file.error(reason))
    }
}

fn id(file: &GgufFile, kind: &str) -> Option<u32> {
    file.number(&format!("tokenizer.ggml.{kind}_token_id")).and_then(|id| u32::try_from(id).ok())
}

/// Rows of the embedding.
fn vocabulary(file: &GgufFile, hidden: usize) -> Result<usize, DecoderError> {
    match file.tensor_shape(EMBEDDING) {
        Some((&[rows, width], _)) if width == hidden => Ok(rows),
        Some((dims, _)) => {
            Err(file.error(format!("its embedding has the shape {dims:?}, expected (tokens, {hidden})")))
        }
        None => Err(file.error(format!("it has no tensor {EMBEDDING}: it holds a vocabulary only"))),
    }
}

fn rope(file: &GgufFile, name: &str, is_gemma: bool) -> Rope {
    let float = |key: &str| file.float(&format!("{name}.{key}"));
    let factor = float("rope.scaling.factor").or_else(|| float("rope.scale_linear"));
    let is_linear = file.text(&format!("{name}.rope.scaling.type")) == Some("linear");
    let local_theta = float("rope.freq_base_swa").or(is_gemma.then_some(GEMMA_LOCAL_THETA));
    Rope {
        theta: float("rope.freq_base").unwrap_or(10_000.0),
        local_theta,
        scaling: match factor {
            Some(factor) if is_linear => RopeScaling::Linear { factor },
            _ => RopeScaling::None,
        },
    }
}

fn window(file: &GgufFile, name: &str, layers: usize, is_gemma: bool) -> Result<Option<SlidingWindow>, DecoderError> {
    let Some(size) = file.number(&format!("{name}.attention.sliding_window")).filter(|size| *size > 0) else {
        return Ok(None);
    };
    let key = format!("{name}.attention.sliding_window_pattern");
    let every = |period: usize| (0..layers).map(|layer| !(layer + 1usize).is_multiple_of(period)).collect();
    let local = match (file.array(&key), file.number(&key)) {
        (Some(flags), _) => {
            let flag = |value: &Value| whole(value).map_or_else(|| value.to_bool().ok(), |number| Some(number != 0));
            let local: Option<Vec<bool>> = flags.iter().map(flag).collect();
            local.ok_or_else(|| file.error(format!("{key} holds something else than flags")))?
        }
        (None, Some(period)) if period > 0 => every(period as usize),
        _ if is_gemma => every(GEMMA_PATTERN),
        _ => vec![true; layers],
    };
    Ok(Some(SlidingWindow { size: size as usize, local }))
}

/// What would load and silently answer nonsense.
fn refuse_unsupported(file: &GgufFile, name: &str, head: usize) -> Result<(), DecoderError> {
    let lacks = |what: &str| Err(file.error(format!("it needs {what}, which is not supported yet")));
    let number = |key: &str| file.number(&format!("{name}.{key}"));
    if number("expert_count").unwrap_or(0) > 1 {
        return lacks("a mixture of experts");
    }
    let scaling = file.text(&format!("{name}.rope.scaling.type"));
    if let Some(kind) = scaling.filter(|kind| !["none", "linear"].contains(kind)) {
        return lacks(&format!("rotary scaling of the kind {kind}"));
    }
    for softcap in ["attn_logit_softcapping", "final_logit_softcapping"] {
        if file.float(&format!("{name}.{softcap}")).is_some_and(|limit| limit != 0.0) {
            return lacks(softcap);
        }
    }
    let sizes = ["rope.dimension_count", "attention.value_length"];
    if sizes.iter().any(|key| number(key).is_some_and(|size| size != head as u64)) {
        return lacks("heads of unequal width");
    }
    Ok(())
}

/// The sizes and all weights.
///
/// # Errors
/// As [`super::Decoder::from_gguf`].
pub(super) fn load(mut file: GgufFile, device: &Device) -> Result<(DecoderConfig, DecoderWeights), DecoderError> {
    let config = DecoderConfig::from_gguf(&file)?;
    let weights = read(&mut file, &config, device)?;
    Ok((config, weights))
}

fn read(file: &mut GgufFile, config: &DecoderConfig, device: &Device) -> Result<DecoderWeights, DecoderError> {
    let mut source = GgufSource { file, config, device, read: BTreeSet::new() };
    let mut weights = DecoderWeights::read(&mut source, config)?;
    if source.file.tensor_shape(ROPE_FACTORS).is_some() {
        let factors = source.floats(ROPE_FACTORS.to_owned(), config.head_dim / 2)?;
        let divides = |factor: &f32| factor.is_finite() && *factor > 0.0;
        if !factors.to_vec1::<f32>()?.iter().all(divides) {
            return Err(source.file.error(format!("{ROPE_FACTORS} holds what frequencies cannot be divided by")));
        }
        weights.rope_factors = Some(factors);
    }
    source.refuse_leftovers()?;
    Ok(weights)
}

struct GgufSource<'a> {
    file: &'a mut GgufFile,
    config: &'a DecoderConfig,
    device: &'a Device,
    read: BTreeSet<String>,
}

impl GgufSource<'_> {
    /// A weight that nobody reads would be left out of the sum: the file is of a kind that only looks like ours.
    fn refuse_leftovers(&self) -> Result<(), DecoderError> {
        let mut names = self.file.tensor_names();
        match names.find(|name| name.starts_with("blk.") && !self.read.contains(*name)) {
            Some(name) => {
                Err(self.file.error(format!("it has the tensor {name}, which its architecture does not have")))
            }
            None => Ok(()),
        }
    }

    /// The file's row of each row: the converter puts a head's first and second halves in turns.
    fn order(&self, name: Name) -> Option<impl Fn(usize) -> usize + use<>> {
        let reordered = self.config.family == Family::Llama && [QUERY, KEY].contains(&name.part);
        let head = self.config.head_dim;
        reordered.then_some(move |row: usize| {
            let (first, within) = (row / head * head, row % head);
            first + 2 * (within % (head / 2)) + within / (head / 2)
        })
    }

    fn tensor(
        &mut self,
        name: String,
        shape: &[usize],
        order: Option<&dyn Fn(usize) -> usize>,
    ) -> Result<QTensor, DecoderError> {
        match self.file.tensor_shape(&name) {
            Some((dims, _)) if dims == shape => {}
            Some((dims, _)) => {
                return Err(self.file.error(format!("{name} has the shape {dims:?}, expected {shape:?}")));
            }
            None => return Err(self.file.error(format!("it has no tensor {name}"))),
        }
        let tensor = self.file.tensor(&name, self.device, order)?;
        self.read.insert(name);
        Ok(tensor)
    }

    fn floats(&mut self, name: String, length: usize) -> Result<Tensor, DecoderError> {
        let device = self.device;
        Ok(self.tensor(name, &[length], None)?.dequantize(device)?.to_dtype(DType::F32)?)
    }
}

fn full_name(name: Name) -> String {
    let layer = name.layer.map(|layer| format!("blk.{layer}.")).unwrap_or_default();
    format!("{layer}{}.{}", name.part.gguf, if name.bias { "bias" } else { "weight" })
}

impl Source for GgufSource<'_> {
    fn matrix(&mut self, name: Name, rows: usize, columns: usize) -> Result<Matrix, DecoderError> {
        let order = self.order(name);
        let order = order.as_ref().map(|order| order as &dyn Fn(usize) -> usize);
        let tensor = self.tensor(full_name(name), &[rows, columns], order)?;
        let stored = match tensor.dtype() {
            GgmlDType::F32 => DType::F32,
            GgmlDType::F16 => DType::F16,
            GgmlDType::BF16 => DType::BF16,
            _ => return Ok(Matrix::Quantized(Arc::new(tensor))),
        };
        let dense = tensor.dequantize(self.device)?;
        Ok(Matrix::Dense(dense.to_dtype(dense_type(stored, self.config, self.device))?))
    }

    fn vector(&mut self, name: Name, length: usize) -> Result<Tensor, DecoderError> {
        self.floats(full_name(name), length)
    }
}
