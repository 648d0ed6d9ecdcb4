//! The model's sizes, from either form of config.json.
//!
//! Boson's (`higgs_audio`) nests the backbone under `text_config` and counts a codebook's codes without the two that
//! begin and end a stream; transformers' (`higgs_audio_v2`) is flat and counts them. Whatever would need a part that is
//! not built here (adapters, projectors, audio attention, an RQ transformer) is refused by its key.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::HiggsError;
use crate::nn::decoder::{RopeJson, RopeScaling, check_heads, check_numbers, check_sizes, read_json};

const CONFIG: &str = "config.json";

/// Keys of Boson's config.json and the only value that is built here, as JSON writes it.
const ONLY: [(&str, &str); 10] = [
    ("audio_adapter_type", "\"dual_ffn_fast_forward\""),
    ("audio_decoder_proj_num_layers", "0"),
    ("audio_embed_avg", "false"),
    ("encode_audio_in_tokens", "true"),
    ("encode_whisper_embed", "false"),
    ("skip_audio_tower", "true"),
    ("use_audio_out_embed_projector", "false"),
    ("use_audio_out_self_attention", "0"),
    ("use_delay_pattern", "true"),
    ("use_rq_transformer", "false"),
];

/// A key that contains one of these and is not in [`ONLY`] asks for a part that nobody here knows, unless it is off.
const PARTS: [&str; 4] = ["adapter", "projector", "self_attention", "use_audio"];

/// Whose names the files use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    Boson,
    Transformers,
}

/// Sizes and rules of a model. What passes [`HiggsConfig::from_folder`] can be built.
#[derive(Clone, Debug, PartialEq)]
pub struct HiggsConfig {
    pub layout: Layout,
    /// Rows of the text embedding: every text id is below.
    pub vocabulary: usize,
    pub hidden: usize,
    pub intermediate: usize,
    pub layers: usize,
    /// Query heads; a multiple of `kv_heads`.
    pub heads: usize,
    pub kv_heads: usize,
    /// Even.
    pub head_dim: usize,
    pub rms_epsilon: f32,
    pub rope_theta: f64,
    pub rope_scaling: RopeScaling,
    /// Of the codec.
    pub codebooks: usize,
    /// Of one codebook, without the two that begin and end a stream, which follow them.
    pub codes: usize,
    /// `<|audio_out_bos|>`: after it the model speaks.
    pub speech_begin: u32,
}

/// The flat part that both forms share, wherever it is.
#[derive(Deserialize)]
struct Backbone {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    rms_norm_eps: Option<f64>,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RopeJson>,
    rope_parameters: Option<RopeJson>,
}

#[derive(Deserialize)]
struct BosonAudio {
    text_config: Backbone,
    audio_num_codebooks: usize,
    audio_codebook_size: usize,
    audio_stream_bos_id: u32,
    audio_stream_eos_id: u32,
    audio_out_bos_token_id: u32,
    audio_dual_ffn_layers: Vec<usize>,
}

#[derive(Deserialize)]
struct TransformersAudio {
    #[serde(flatten)]
    backbone: Backbone,
    num_codebooks: usize,
    codebook_size: usize,
    audio_stream_bos_id: u32,
    audio_stream_eos_id: u32,
    audio_bos_token_id: u32,
}

impl HiggsConfig {
    /// Reads `folder/config.json`.
    ///
    /// # Errors
    /// [`HiggsError::BadFile`]: another model, a size that is missing or impossible, or a part that is not supported.
    pub fn from_folder(folder: &Path) -> Result<Self, HiggsError> {
        let path = folder.join(CONFIG);
        let json: Map<String, Value> = read_json(&path)?;
        Self::from_json(json).map_err(|reason| HiggsError::bad_file(&path, reason))
    }

    /// The published 3B model: what a harness builds where there is no checkpoint, and what memory is planned by.
    pub fn published() -> Self {
        Self {
            layout: Layout::Boson,
            vocabulary: 128_256,
            hidden: 3072,
            intermediate: 8192,
            layers: 28,
            heads: 24,
            kv_heads: 8,
            head_dim: 128,
            rms_epsilon: 1e-5,
            rope_theta: 500_000.0,
            rope_scaling: RopeScaling::Llama3 {
                factor: 32.0,
                low_frequency: 1.0,
                high_frequency: 4.0,
                original_context: 8192.0,
            },
            codebooks: 8,
            codes: 1024,
            speech_begin: 128_013,
        }
    }

    /// The code that stands in a codebook before its first code and after its last.
    pub fn stream_begin(&self) -> u32 {
        self.codes as u32
    }

    pub fn stream_end(&self) -> u32 {
        self.codes as u32 + 1
    }

    /// Rows of a codebook's embedding, and logits of a codebook: its codes and the two around them.
    pub fn book(&self) -> usize {
        self.codes + 2
    }

    /// Logits of a step.
    pub fn logits(&self) -> usize {
        self.codebooks * self.book()
    }

    fn from_json(json: Map<String, Value>) -> Result<Self, String> {
        match json.get("model_type").and_then(Value::as_str) {
            Some("higgs_audio") => {
                refuse_parts(&json)?;
                let audio: BosonAudio = read(json)?;
                let layers = audio.text_config.num_hidden_layers;
                if audio.audio_dual_ffn_layers.iter().copied().ne(0..layers) {
                    return Err("audio_dual_ffn_layers leaves layers out, which is not supported".to_owned());
                }
                let stream = (audio.audio_stream_bos_id, audio.audio_stream_eos_id);
                let books = (audio.audio_num_codebooks, audio.audio_codebook_size);
                Self::new(Layout::Boson, audio.text_config, books, stream, audio.audio_out_bos_token_id)
            }
            Some("higgs_audio_v2") => {
                refuse_parts(&json)?;
                let audio: TransformersAudio = read(json)?;
                let stream = (audio.audio_stream_bos_id, audio.audio_stream_eos_id);
                let codes = audio.codebook_size.checked_sub(2);
                let codes = codes.ok_or_else(|| format!("codebook_size is {}", audio.codebook_size))?;
                let books = (audio.num_codebooks, codes);
                Self::new(Layout::Transformers, audio.backbone, books, stream, audio.audio_bos_token_id)
            }
            other => Err(format!(
                "the model type is {}; Higgs Audio v2 has higgs_audio or higgs_audio_v2",
                other.unwrap_or("not given")
            )),
        }
    }

    fn new(
        layout: Layout,
        backbone: Backbone,
        (codebooks, codes): (usize, usize),
        stream: (u32, u32),
        speech_begin: u32,
    ) -> Result<Self, String> {
        if backbone.attention_bias == Some(true) || backbone.mlp_bias == Some(true) {
            return Err("it has biases, which are not supported".to_owned());
        }
        if let Some(other) = backbone.hidden_act.filter(|kind| kind != "silu") {
            return Err(format!("the activation {other} is not supported"));
        }
        let rope = backbone.rope_parameters.as_ref().or(backbone.rope_scaling.as_ref());
        let theta = rope.and_then(|rope| rope.rope_theta).or(backbone.rope_theta);
        let divided = backbone.hidden_size.checked_div(backbone.num_attention_heads);
        let config = Self {
            layout,
            vocabulary: backbone.vocab_size,
            hidden: backbone.hidden_size,
            intermediate: backbone.intermediate_size,
            layers: backbone.num_hidden_layers,
            heads: backbone.num_attention_heads,
            kv_heads: backbone.num_key_value_heads.unwrap_or(backbone.num_attention_heads),
            head_dim: backbone.head_dim.or(divided).unwrap_or(0),
            rms_epsilon: backbone.rms_norm_eps.unwrap_or(1e-5) as f32,
            rope_theta: theta.ok_or("it has no rope_theta")?,
            rope_scaling: rope.ok_or("it has no rope_scaling and no rope_parameters")?.scaling()?,
            codebooks,
            codes,
            speech_begin,
        };
        config.check()?;
        let expected = (config.stream_begin(), config.stream_end());
        if stream != expected {
            return Err(format!(
                "audio_stream_bos_id and audio_stream_eos_id are {stream:?}: with {codes} codes they should be \
                 {expected:?}"
            ));
        }
        Ok(config)
    }

    /// Whether the sizes fit each other and are of a size that a model has, so that nothing later overflows, divides by
    /// zero or allocates by a damaged number.
    fn check(&self) -> Result<(), String> {
        let sizes = [
            ("the vocabulary", self.vocabulary, 1, 1 << 24),
            ("the hidden size", self.hidden, 1, 1 << 17),
            ("the feed-forward size", self.intermediate, 1, 1 << 19),
            ("the number of layers", self.layers, 1, 512),
            ("the number of heads", self.heads, 1, 1024),
            ("the number of key heads", self.kv_heads, 1, 1024),
            ("the size of a head", self.head_dim, 2, 1024),
            ("the number of codebooks", self.codebooks, 1, 64),
            ("the size of a codebook", self.codes, 1, 1 << 16),
        ];
        check_sizes(&sizes)?;
        check_heads(self.heads, self.kv_heads, self.head_dim)?;
        if self.speech_begin as usize >= self.vocabulary {
            return Err(format!("the id {} is beyond the vocabulary of {}", self.speech_begin, self.vocabulary));
        }
        let numbers = [("the norm's epsilon", f64::from(self.rms_epsilon)), ("the rotary base", self.rope_theta)];
        check_numbers(&numbers, self.rope_scaling)
    }
}

fn read<T: for<'de> Deserialize<'de>>(json: Map<String, Value>) -> Result<T, String> {
    serde_json::from_value(Value::Object(json)).map_err(|error| error.to_string())
}

fn refuse_parts(json: &Map<String, Value>) -> Result<(), String> {
    for (key, only) in ONLY {
        if let Some(value) = json.get(key).filter(|value| !means(value, only)) {
            return Err(format!("{key} is {value}: only {only} is supported"));
        }
    }
    let is_known = |key: &str| ONLY.iter().any(|(known, _)| *known == key);
    let asks = |key: &str| PARTS.iter().any(|part| key.contains(part)) && !is_known(key);
    let is_on = |value: &Value| !matches!(value, Value::Null) && !means(value, "false");
    match json.iter().find(|(key, value)| asks(key) && is_on(value)) {
        Some((key, value)) => Err(format!("{key} is {value}: the part that it asks for is not supported")),
        None => Ok(()),
    }
}

/// Files write a switch that is off as false or as 0.
fn means(value: &Value, only: &str) -> bool {
    let off = |text: &str| matches!(text, "false" | "0" | "0.0");
    let text = value.to_string();
    text == only || (off(&text) && off(only)) || (only == "true" && text == "1")
}
