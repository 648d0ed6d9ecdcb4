//! The decoder in a folder as the hub has it: its sizes from config.json, its weights from safetensors by the names of
//! transformers.
//!
//! Old and new forms of config.json are read alike (rotary settings in the root, or under `rope_parameters`). Gemma's
//! norms get the 1 that its checkpoints leave out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Tensor};
use safetensors::tensor::Dtype;
use serde::Deserialize;

use super::DecoderError;
use super::config::{Activation, DecoderConfig, Family, Rope, RopeScaling, SlidingWindow};
use super::weights::{DecoderWeights, Matrix, Name, Source, dense_type};

const CONFIG: &str = "config.json";
const INDEX: &str = "model.safetensors.index.json";
/// Longest JSON that is read: real ones have a few kilobytes, an index of shards a few hundred.
const MAX_JSON: u64 = 16 << 20;
/// Where the layers are: alone, or as the language half of a model that also sees.
const PREFIXES: [&str; 3] = ["model.", "language_model.model.", "model.language_model."];

/// config.json by its own names. `text_config`: of a model that also sees.
#[derive(Deserialize)]
struct ConfigJson {
    model_type: String,
    text_config: Option<Box<ConfigJson>>,
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    rms_norm_eps: Option<f64>,
    hidden_act: Option<String>,
    hidden_activation: Option<String>,
    max_position_embeddings: Option<usize>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    query_pre_attn_scalar: Option<f64>,
    attn_logit_softcapping: Option<f64>,
    final_logit_softcapping: Option<f64>,
    rope_theta: Option<f64>,
    rope_local_base_freq: Option<f64>,
    rope_scaling: Option<RopeJson>,
    rope_parameters: Option<RopeParameters>,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    sliding_window_pattern: Option<usize>,
    /// The newer name of `sliding_window_pattern`. Some files have both.
    #[serde(rename = "_sliding_window_pattern")]
    newer_pattern: Option<usize>,
    bos_token_id: Option<u32>,
    eos_token_id: Option<Ids>,
}

#[derive(Clone, Deserialize)]
pub(in crate::nn) struct RopeJson {
    pub(in crate::nn) rope_theta: Option<f64>,
    rope_type: Option<String>,
    /// The older name of `rope_type`. Some files have both.
    #[serde(rename = "type")]
    older_type: Option<String>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    partial_rotary_factor: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RopeParameters {
    ByLayerType { full_attention: RopeJson, sliding_attention: Option<RopeJson> },
    All(RopeJson),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Several(Vec<u32>),
}

/// The part of generation_config.json that concerns the end of a reply.
#[derive(Deserialize)]
struct GenerationJson {
    eos_token_id: Option<Ids>,
}

impl DecoderConfig {
    /// Reads `folder/config.json`, and what ends a reply from `generation_config.json` where there is one.
    ///
    /// # Errors
    /// [`DecoderError::BadFile`]: a size is missing or impossible, or the model needs what is not supported.
    pub fn from_folder(folder: &Path) -> Result<Self, DecoderError> {
        let path = folder.join(CONFIG);
        let error = |reason: String| DecoderError::bad_file(&path, reason);
        let json: ConfigJson = read_json(&path)?;
        let mut config = Self::from_json(json).map_err(error)?.check(error)?;
        let generation = folder.join("generation_config.json");
        if generation.is_file() {
            let more = read_json::<GenerationJson>(&generation)?.eos_token_id.map(Ids::list).unwrap_or_default();
            config.ends = config.ends.into_iter().chain(more).collect::<BTreeSet<_>>().into_iter().collect();
        }
        Ok(config)
    }

    fn from_json(json: ConfigJson) -> Result<Self, String> {
        let outer_tie = json.tie_word_embeddings;
        let mut json = json;
        let text = json.text_config.take();
        let json = text.map_or(json, |text| *text);
        let family = match json.model_type.as_str() {
            "llama" | "mistral" => Family::Llama,
            "qwen2" => Family::Qwen2,
            "qwen3" => Family::Qwen3,
            "gemma3_text" => Family::Gemma3,
            other => {
                return Err(format!(
                    "the model type {other} is not supported; use llama, mistral, qwen2, qwen3 or gemma3_text"
                ));
            }
        };
        json.refuse_unsupported()?;
        let is_gemma = family == Family::Gemma3;
        let hidden = given(json.hidden_size, "hidden_size")?;
        // Files of Gemma that also sees leave out what equals transformers' defaults.
        let gemma = |size: usize| is_gemma.then_some(size);
        let heads = given(json.num_attention_heads.or(gemma(8)), "num_attention_heads")?;
        let layers = given(json.num_hidden_layers, "num_hidden_layers")?;
        let head_dim = match json.head_dim.or(gemma(256)) {
            Some(size) => size,
            None => hidden.checked_div(heads).ok_or("num_attention_heads is 0")?,
        };
        let scalar = json.query_pre_attn_scalar.or(is_gemma.then_some(256.0)).unwrap_or(head_dim as f64);
        Ok(Self {
            family,
            vocabulary: given(json.vocab_size.or(gemma(262_208)), "vocab_size")?,
            hidden,
            intermediate: given(json.intermediate_size, "intermediate_size")?,
            layers,
            heads,
            kv_heads: json.num_key_value_heads.or(gemma(4)).unwrap_or(heads),
            head_dim,
            rms_epsilon: json.rms_norm_eps.unwrap_or(1e-6) as f32,
            rope: json.rope(is_gemma)?,
            window: json.window(layers, &json.model_type)?,
            activation: json.activation(is_gemma)?,
            tied: json.tie_word_embeddings.or(outer_tie).unwrap_or(is_gemma),
            embedding_scale: if is_gemma { (hidden as f32).sqrt() } else { 1.0 },
            query_scale: scalar.sqrt().recip() as f32,
            context: given(json.max_position_embeddings.or(gemma(131_072)), "max_position_embeddings")?,
            begin: json.bos_token_id,
            ends: json.eos_token_id.map(Ids::list).unwrap_or_default(),
        })
    }
}

impl ConfigJson {
    fn refuse_unsupported(&self) -> Result<(), String> {
        if self.attention_bias == Some(true) || self.mlp_bias == Some(true) {
            return Err("it has biases that its family does not have, which is not supported yet".to_owned());
        }
        if self.attn_logit_softcapping.or(self.final_logit_softcapping).is_some() {
            return Err("it needs soft-capped logits, which are not supported yet".to_owned());
        }
        Ok(())
    }

    fn activation(&self, is_gemma: bool) -> Result<Activation, String> {
        match self.hidden_activation.as_deref().or(self.hidden_act.as_deref()) {
            None if is_gemma => Ok(Activation::GeluTanh),
            Some("silu") | None => Ok(Activation::Silu),
            Some("gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
            Some(other) => Err(format!("the activation {other} is not supported")),
        }
    }

    fn rope(&self, is_gemma: bool) -> Result<Rope, String> {
        let (full, local) = match &self.rope_parameters {
            Some(RopeParameters::ByLayerType { full_attention, sliding_attention }) => {
                (Some(full_attention), sliding_attention.as_ref())
            }
            Some(RopeParameters::All(all)) => (Some(all), None),
            None => (self.rope_scaling.as_ref(), None),
        };
        if let Some(local) = local.filter(|local| local.scaling() != Ok(RopeScaling::None)) {
            let kind = local.rope_type.as_deref().unwrap_or("unknown");
            return Err(format!("rotary scaling of the kind {kind} in local layers is not supported"));
        }
        let local_theta = local.and_then(|local| local.rope_theta).or(self.rope_local_base_freq);
        let theta = full.and_then(|full| full.rope_theta).or(self.rope_theta);
        Ok(Rope {
            theta: theta.unwrap_or(if is_gemma { 1_000_000.0 } else { 10_000.0 }),
            local_theta: local_theta.or(is_gemma.then_some(10_000.0)),
            scaling: full.map_or(Ok(RopeScaling::None), RopeJson::scaling)?,
        })
    }

    fn window(&self, layers: usize, model_type: &str) -> Result<Option<SlidingWindow>, String> {
        let may_be_off = model_type.starts_with("qwen");
        let size = self.sliding_window.filter(|_| !may_be_off || self.use_sliding_window == Some(true));
        let (Some(size), true) = (size, model_type != "llama") else { return Ok(None) };
        let local: Vec<bool> = match (&self.layer_types, self.sliding_window_pattern.or(self.newer_pattern)) {
            (Some(types), _) => {
                if let Some(kind) =
                    types.iter().find(|kind| !["sliding_attention", "full_attention"].contains(&kind.as_str()))
                {
                    return Err(format!("layers of the kind {kind} are not supported"));
                }
                types.iter().map(|kind| kind == "sliding_attention").collect()
            }
            (None, Some(period)) if period > 0 => {
                (0..layers).map(|layer| !(layer + 1).is_multiple_of(period)).collect()
            }
            _ if model_type.starts_with("gemma") => (0..layers).map(|layer| !(layer + 1).is_multiple_of(6)).collect(),
            _ if may_be_off => (0..layers).map(|layer| layer >= self.max_window_layers.unwrap_or(layers)).collect(),
            _ => vec![true; layers],
        };
        Ok(Some(SlidingWindow { size, local }))
    }
}

impl RopeJson {
    pub(in crate::nn) fn scaling(&self) -> Result<RopeScaling, String> {
        if self.partial_rotary_factor.is_some_and(|part| part < 1.0) {
            return Err("heads that turn only in part are not supported".to_owned());
        }
        let factor = || given(self.factor, "the factor of the rotary scaling");
        match self.rope_type.as_deref().or(self.older_type.as_deref()) {
            None | Some("default") => Ok(RopeScaling::None),
            Some("linear") => Ok(RopeScaling::Linear { factor: factor()? }),
            Some("llama3") => Ok(RopeScaling::Llama3 {
                factor: factor()?,
                low_frequency: given(self.low_freq_factor, "low_freq_factor")?,
                high_frequency: given(self.high_freq_factor, "high_freq_factor")?,
                original_context: given(self.original_max_position_embeddings, "original_max_position_embeddings")?,
            }),
            Some(other) => Err(format!("rotary scaling of the kind {other} is not supported")),
        }
    }
}

impl Ids {
    fn list(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Several(ids) => ids,
        }
    }
}

fn given<T>(value: Option<T>, name: &str) -> Result<T, String> {
    value.ok_or_else(|| format!("it has no {name}"))
}

pub(in crate::nn) fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, DecoderError> {
    let unreadable = |error: std::io::Error| DecoderError::bad_file(path, error.to_string());
    let bytes = fs::metadata(path).map_err(unreadable)?.len();
    if bytes > MAX_JSON {
        return Err(DecoderError::bad_file(path, format!("{bytes} bytes are too many for its kind")));
    }
    let text = fs::read(path).map_err(unreadable)?;
    serde_json::from_slice(&text).map_err(|error| DecoderError::bad_file(path, error.to_string()))
}

/// The sizes and all weights.
///
/// # Errors
/// As [`super::Decoder::from_safetensors`].
pub(super) fn open(folder: &Path, device: &Device) -> Result<(DecoderConfig, DecoderWeights), DecoderError> {
    let config = DecoderConfig::from_folder(folder)?;
    let mut source = HubSource::open(folder, &config, device)?;
    let weights = DecoderWeights::read(&mut source, &config)?;
    source.refuse_leftovers()?;
    Ok((config, weights))
}

struct HubSource<'a> {
    folder: &'a Path,
    config: &'a DecoderConfig,
    device: &'a Device,
    tensors: MmapedSafetensors,
    prefix: &'static str,
    read: BTreeSet<String>,
}

impl<'a> HubSource<'a> {
    fn open(folder: &'a Path, config: &'a DecoderConfig, device: &'a Device) -> Result<Self, DecoderError> {
        let paths = shards(folder)?;
        for path in &paths {
            // An empty file cannot be mapped, and a mapping's error does not name its file.
            File::open(path)
                .and_then(|file| file.metadata())
                .map_err(|error| error.to_string())
                .and_then(|about| if about.len() < 8 { Err("it is damaged or cut short".to_owned()) } else { Ok(()) })
                .map_err(|reason| DecoderError::bad_file(path, reason))?;
        }
        #[expect(unsafe_code, reason = "a memory map")]
        // SAFETY: the files are a pulled model's, which nobody writes while the server runs.
        let tensors = unsafe { MmapedSafetensors::multi(&paths) };
        let tensors = tensors.map_err(|error| {
            let reason = format!("its safetensors are damaged or cut short: {error}");
            DecoderError::bad_file(folder, reason)
        })?;
        let names: BTreeSet<String> = tensors.tensors().into_iter().map(|(name, _)| name).collect();
        let prefix = PREFIXES.into_iter().find(|prefix| names.contains(&format!("{prefix}embed_tokens.weight")));
        let prefix =
            prefix.ok_or_else(|| DecoderError::bad_file(folder, "no file has the tensor model.embed_tokens.weight"))?;
        Ok(Self { folder, config, device, tensors, prefix, read: BTreeSet::new() })
    }

    fn error(&self, reason: String) -> DecoderError {
        DecoderError::bad_file(self.folder, reason)
    }

    /// The head stands beside the model, everything else in it.
    fn full_name(&self, name: Name) -> String {
        let part = name.part.hub;
        let kind = if name.bias { "bias" } else { "weight" };
        match name.layer {
            Some(layer) => format!("{}layers.{layer}.{part}.{kind}", self.prefix),
            None if part == "lm_head" => {
                let beside = self.prefix.strip_suffix("model.").unwrap_or_default();
                format!("{beside}{part}.{kind}")
            }
            None => format!("{}{part}.{kind}", self.prefix),
        }
    }

    fn tensor(&mut self, name: String, shape: &[usize]) -> Result<(Tensor, DType), DecoderError> {
        let view = self.tensors.get(&name).map_err(|_| self.error(format!("no file has the tensor {name}")))?;
        if view.shape() != shape {
            return Err(self.error(format!("{name} has the shape {:?}, expected {shape:?}", view.shape())));
        }
        let stored = match view.dtype() {
            Dtype::BF16 => DType::BF16,
            Dtype::F16 => DType::F16,
            Dtype::F32 => DType::F32,
            other => return Err(self.error(format!("{name} is stored as {other:?}, expected BF16, F16 or F32"))),
        };
        let tensor = self.tensors.load(&name, self.device)?;
        self.read.insert(name);
        Ok((tensor, stored))
    }

    /// As for GGUF files.
    fn refuse_leftovers(&self) -> Result<(), DecoderError> {
        let layers = format!("{}layers.", self.prefix);
        // Old checkpoints carry what follows from the config.
        let derived = |name: &str| name.ends_with("rotary_emb.inv_freq");
        let tensors = self.tensors.tensors();
        let mut names = tensors.iter().map(|(name, _)| name);
        match names.find(|name| name.starts_with(&layers) && !self.read.contains(*name) && !derived(name)) {
            Some(name) => Err(self.error(format!("it has the tensor {name}, which its model type does not have"))),
            None => Ok(()),
        }
    }
}

/// The weight files, by the index where there is one.
pub(in crate::nn) fn shards(folder: &Path) -> Result<Vec<PathBuf>, DecoderError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index = folder.join(INDEX);
    if index.is_file() {
        let names: BTreeSet<String> = read_json::<Index>(&index)?.weight_map.into_values().collect();
        if let Some(name) = names.iter().find(|name| Path::new(name).file_name() != Some(name.as_ref())) {
            return Err(DecoderError::bad_file(&index, format!("{name} is not the name of a file beside it")));
        }
        return Ok(names.into_iter().map(|name| folder.join(name)).collect());
    }
    let whole = folder.join("model.safetensors");
    if whole.is_file() {
        return Ok(vec![whole]);
    }
    let unreadable = |error: std::io::Error| DecoderError::bad_file(folder, error.to_string());
    let entries = fs::read_dir(folder).map_err(unreadable)?.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    let mut paths: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "safetensors"));
    paths.sort();
    if paths.is_empty() {
        return Err(DecoderError::bad_file(folder, "it has no safetensors file"));
    }
    Ok(paths)
}

impl Source for HubSource<'_> {
    fn matrix(&mut self, name: Name, rows: usize, columns: usize) -> Result<Matrix, DecoderError> {
        let (tensor, stored) = self.tensor(self.full_name(name), &[rows, columns])?;
        Ok(Matrix::Dense(tensor.to_dtype(dense_type(stored, self.config, self.device))?))
    }

    fn vector(&mut self, name: Name, length: usize) -> Result<Tensor, DecoderError> {
        let (tensor, _) = self.tensor(self.full_name(name), &[length])?;
        let tensor = tensor.to_dtype(DType::F32)?;
        // Gemma has no vectors but norms.
        Ok(if self.config.family == Family::Gemma3 { (tensor + 1.0)? } else { tensor })
    }
}
