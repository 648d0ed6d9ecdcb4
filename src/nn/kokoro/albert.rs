//! The phoneme encoder, a PL-BERT: an ALBERT, which is one transformer layer applied again and again.
//!
//! Source: hexgrad/kokoro 0.9.4 (`CustomAlbert`) over transformers' `AlbertModel`. One utterance at a time, no mask.

use candle_core::{D, Device, IndexOp, Result, Tensor};
use candle_nn::{Embedding, Linear, Module, VarBuilder, embedding, linear};

use super::config::AlbertConfig;
use super::ops::norm::layer_norm;
use crate::nn::frames::{map, scalar};

const EPSILON: f32 = 1e-12;

/// [symbols] ids to [symbols, hidden_size].
pub(super) struct Albert {
    words: Embedding,
    /// [max_position_embeddings, embedding_size], the one token type's embedding added.
    positions: Tensor,
    embedding_norm: Norm,
    mapping_in: Linear,
    layer: Layer,
    repeats: usize,
}

impl Albert {
    pub(super) fn load(config: &AlbertConfig, symbols: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let embeddings = vb.pp("embeddings");
        let size = config.embedding_size;
        let positions = embeddings.get((config.max_position_embeddings, size), "position_embeddings.weight")?;
        let types = embeddings.get((2, size), "token_type_embeddings.weight")?;
        let encoder = vb.pp("encoder");
        Ok(Self {
            words: embedding(symbols, size, embeddings.pp("word_embeddings"))?,
            positions: positions.broadcast_add(&types.i(0)?)?,
            embedding_norm: Norm::load(size, &embeddings.pp("LayerNorm"))?,
            mapping_in: linear(size, config.hidden_size, encoder.pp("embedding_hidden_mapping_in"))?,
            layer: Layer::load(config, &encoder.pp("albert_layer_groups.0.albert_layers.0"))?,
            repeats: config.num_hidden_layers,
        })
    }

    pub(super) fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let embedded = (self.words.forward(ids)? + self.positions.narrow(0, 0, ids.dim(0)?)?)?;
        let mut x = self.mapping_in.forward(&self.embedding_norm.forward(&embedded)?)?;
        for _ in 0..self.repeats {
            x = self.layer.forward(&x)?;
        }
        Ok(x)
    }
}

struct Norm {
    weight: Tensor,
    bias: Tensor,
}

impl Norm {
    fn load(size: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        Ok(Self { weight: vb.get(size, "weight")?, bias: vb.get(size, "bias")? })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        layer_norm(x, &self.weight, &self.bias, EPSILON)
    }
}

struct Layer {
    /// Query, key and value as one, the query's part scaled by 1/√(head size).
    qkv: Linear,
    dense: Linear,
    attention_norm: Norm,
    ffn: Linear,
    ffn_output: Linear,
    full_norm: Norm,
    heads: usize,
}

impl Layer {
    fn load(config: &AlbertConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let hidden = config.hidden_size;
        let attention = vb.pp("attention");
        let projection = |name: &str, scale: f64| {
            let vb = attention.pp(name);
            Ok::<_, candle_core::Error>((
                vb.get((hidden, hidden), "weight")?.affine(scale, 0.0)?,
                vb.get(hidden, "bias")?.affine(scale, 0.0)?,
            ))
        };
        let head = hidden / config.num_attention_heads;
        let (query, query_bias) = projection("query", 1.0 / (head as f64).sqrt())?;
        let (key, key_bias) = projection("key", 1.0)?;
        let (value, value_bias) = projection("value", 1.0)?;
        let qkv = Tensor::cat(&[query, key, value], 0)?;
        Ok(Self {
            qkv: Linear::new(qkv, Some(Tensor::cat(&[query_bias, key_bias, value_bias], 0)?)),
            dense: linear(hidden, hidden, attention.pp("dense"))?,
            attention_norm: Norm::load(hidden, &attention.pp("LayerNorm"))?,
            ffn: linear(hidden, config.intermediate_size, vb.pp("ffn"))?,
            ffn_output: linear(config.intermediate_size, hidden, vb.pp("ffn_output"))?,
            full_norm: Norm::load(hidden, &vb.pp("full_layer_layer_norm"))?,
            heads: config.num_attention_heads,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (symbols, hidden) = x.dims2()?;
        let qkv = self.qkv.forward(x)?.reshape((symbols, 3, self.heads, hidden / self.heads))?.permute((1, 2, 0, 3))?;
        let part = |index: usize| qkv.i(index)?.contiguous();
        let scores = part(0)?.matmul(&part(1)?.transpose(1, 2)?)?;
        let weights = candle_nn::ops::softmax(&scores, D::Minus1)?;
        let context = weights.matmul(&part(2)?)?.transpose(0, 1)?.contiguous()?.reshape((symbols, hidden))?;
        let attended = self.attention_norm.forward(&(self.dense.forward(&context)? + x)?)?;
        let inner = gelu(&self.ffn.forward(&attended)?)?;
        self.full_norm.forward(&(self.ffn_output.forward(&inner)? + attended)?)
    }
}

/// GELU by tanh ("gelu_new"), vectorised on the CPU.
fn gelu(x: &Tensor) -> Result<Tensor> {
    if matches!(x.device(), Device::Cpu) { map(x, scalar::gelu) } else { x.gelu() }
}
