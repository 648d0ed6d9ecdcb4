//! A model's weights by their part in it, whatever file they came from, and the reading order of both kinds of file.

use std::sync::Arc;

use candle_core::quantized::QTensor;
use candle_core::{DType, Device, Tensor};

use super::DecoderError;
use super::config::{DecoderConfig, Family};

/// A weight of a product, `[out, in]`.
pub(super) enum Matrix {
    /// f32 on the CPU; elsewhere as stored.
    Dense(Tensor),
    /// As the file stores it.
    Quantized(Arc<QTensor>),
}

/// One layer. Vectors are f32 on the device of the model.
pub(super) struct LayerWeights {
    /// `[hidden]`, as are all norms that do not say otherwise.
    pub(super) attention_norm: Tensor,
    /// `[heads * head_dim, hidden]`. Rows are in the hub's order: a head's first halves, then its second.
    pub(super) query: Matrix,
    /// `[kv_heads * head_dim, hidden]`, as `value`.
    pub(super) key: Matrix,
    pub(super) value: Matrix,
    pub(super) query_bias: Option<Tensor>,
    pub(super) key_bias: Option<Tensor>,
    pub(super) value_bias: Option<Tensor>,
    /// `[head_dim]`: every head of the queries is normed before it is turned.
    pub(super) query_norm: Option<Tensor>,
    pub(super) key_norm: Option<Tensor>,
    /// `[hidden, heads * head_dim]`.
    pub(super) output: Matrix,
    /// Gemma: of the attention's result before it is added.
    pub(super) post_attention_norm: Option<Tensor>,
    pub(super) mlp_norm: Tensor,
    /// `[intermediate, hidden]`, as `up`.
    pub(super) gate: Matrix,
    pub(super) up: Matrix,
    /// `[hidden, intermediate]`.
    pub(super) down: Matrix,
    /// Gemma: of the feed-forward network's result before it is added.
    pub(super) post_mlp_norm: Option<Tensor>,
}

/// The whole model. Gemma's norms are complete: the 1 that its checkpoints leave out is added.
pub(super) struct DecoderWeights {
    /// `[vocabulary, hidden]`.
    pub(super) embedding: Matrix,
    pub(super) layers: Vec<LayerWeights>,
    pub(super) norm: Tensor,
    /// None: tied, the embedding is the head.
    pub(super) head: Option<Matrix>,
    /// `[head_dim / 2]`: what each rotary frequency is divided by, in the layers that turn by `theta`.
    pub(super) rope_factors: Option<Tensor>,
}

/// A tensor's name without the layer, as the hub has it and as GGUF has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) hub: &'static str,
    pub(super) gguf: &'static str,
}

const fn part(hub: &'static str, gguf: &'static str) -> Part {
    Part { hub, gguf }
}

const EMBEDDING: Part = part("embed_tokens", "token_embd");
const NORM: Part = part("norm", "output_norm");
const HEAD: Part = part("lm_head", "output");
const ATTENTION_NORM: Part = part("input_layernorm", "attn_norm");
pub(super) const QUERY: Part = part("self_attn.q_proj", "attn_q");
pub(super) const KEY: Part = part("self_attn.k_proj", "attn_k");
const VALUE: Part = part("self_attn.v_proj", "attn_v");
const QUERY_NORM: Part = part("self_attn.q_norm", "attn_q_norm");
const KEY_NORM: Part = part("self_attn.k_norm", "attn_k_norm");
const OUTPUT: Part = part("self_attn.o_proj", "attn_output");
const MLP_NORM: Part = part("post_attention_layernorm", "ffn_norm");
const GATE: Part = part("mlp.gate_proj", "ffn_gate");
const UP: Part = part("mlp.up_proj", "ffn_up");
const DOWN: Part = part("mlp.down_proj", "ffn_down");
// Gemma gives the hub's name of the feed-forward norm to the norm after attention.
const GEMMA_POST_ATTENTION_NORM: Part = part("post_attention_layernorm", "post_attention_norm");
const GEMMA_MLP_NORM: Part = part("pre_feedforward_layernorm", "ffn_norm");
const GEMMA_POST_MLP_NORM: Part = part("post_feedforward_layernorm", "post_ffw_norm");

/// Which tensor of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    pub(super) part: Part,
    pub(super) layer: Option<usize>,
    pub(super) bias: bool,
}

/// A file of either kind. Each tensor is read once.
pub(super) trait Source {
    /// # Errors
    /// Where it is missing, damaged, or not `[rows, columns]`.
    fn matrix(&mut self, name: Name, rows: usize, columns: usize) -> Result<Matrix, DecoderError>;

    /// In f32.
    ///
    /// # Errors
    /// Where it is missing, damaged, or not `[length]`.
    fn vector(&mut self, name: Name, length: usize) -> Result<Tensor, DecoderError>;
}

/// What a dense weight becomes on `device`: f32 on a CPU, whose products know nothing else, and elsewhere as stored. Only
/// Gemma's activations exceed the range of f16.
pub(super) fn dense_type(stored: DType, config: &DecoderConfig, device: &Device) -> DType {
    match stored {
        _ if device.is_cpu() => DType::F32,
        DType::F16 if config.family == Family::Gemma3 => DType::BF16,
        stored => stored,
    }
}

impl DecoderWeights {
    /// Reads all weights; `rope_factors` are the source's business.
    pub(super) fn read(source: &mut impl Source, config: &DecoderConfig) -> Result<Self, DecoderError> {
        let whole = |part| Name { part, layer: None, bias: false };
        let (vocabulary, hidden) = (config.vocabulary, config.hidden);
        Ok(Self {
            embedding: source.matrix(whole(EMBEDDING), vocabulary, hidden)?,
            layers: (0..config.layers)
                .map(|layer| LayerWeights::read(source, config, layer))
                .collect::<Result<_, _>>()?,
            norm: source.vector(whole(NORM), hidden)?,
            head: (!config.tied).then(|| source.matrix(whole(HEAD), vocabulary, hidden)).transpose()?,
            rope_factors: None,
        })
    }
}

/// A vector that only some families have.
fn optional(source: &mut impl Source, wanted: bool, name: Name, length: usize) -> Result<Option<Tensor>, DecoderError> {
    wanted.then(|| source.vector(name, length)).transpose()
}

impl LayerWeights {
    fn read(source: &mut impl Source, config: &DecoderConfig, layer: usize) -> Result<Self, DecoderError> {
        let DecoderConfig { family, hidden, intermediate, head_dim, .. } = *config;
        let (queries, keys) = (config.heads * head_dim, config.kv_heads * head_dim);
        let weight = |part| Name { part, layer: Some(layer), bias: false };
        let bias = |part| Name { bias: true, ..weight(part) };
        let (biases, head_norms, post_norms) = (family.has_biases(), family.norms_heads(), family.norms_results());
        Ok(Self {
            attention_norm: source.vector(weight(ATTENTION_NORM), hidden)?,
            query: source.matrix(weight(QUERY), queries, hidden)?,
            key: source.matrix(weight(KEY), keys, hidden)?,
            value: source.matrix(weight(VALUE), keys, hidden)?,
            query_bias: optional(source, biases, bias(QUERY), queries)?,
            key_bias: optional(source, biases, bias(KEY), keys)?,
            value_bias: optional(source, biases, bias(VALUE), keys)?,
            query_norm: optional(source, head_norms, weight(QUERY_NORM), head_dim)?,
            key_norm: optional(source, head_norms, weight(KEY_NORM), head_dim)?,
            output: source.matrix(weight(OUTPUT), hidden, queries)?,
            post_attention_norm: optional(source, post_norms, weight(GEMMA_POST_ATTENTION_NORM), hidden)?,
            mlp_norm: source.vector(weight(if post_norms { GEMMA_MLP_NORM } else { MLP_NORM }), hidden)?,
            gate: source.matrix(weight(GATE), intermediate, hidden)?,
            up: source.matrix(weight(UP), intermediate, hidden)?,
            down: source.matrix(weight(DOWN), hidden, intermediate)?,
            post_mlp_norm: optional(source, post_norms, weight(GEMMA_POST_MLP_NORM), hidden)?,
        })
    }
}
