//! Sentence embeddings by a BERT encoder: candle-transformers' `BertModel`, the mean over a text's tokens, length 1.
//!
//! Source: sentence-transformers' `Transformer` → `Pooling(mean)` → `Normalize`, which is what all-MiniLM-L6-v2 and its
//! kin are made of. Token ids come from outside; every one is checked before it reaches the device.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::BertModel;
pub use candle_transformers::models::bert::Config;

/// An encoder with its pooling.
pub struct SentenceEncoder {
    bert: BertModel,
    vocab_size: usize,
    positions: usize,
    pad: u32,
}

impl SentenceEncoder {
    /// `vb` at the checkpoint's root, f32.
    pub fn load(config: &Config, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            bert: BertModel::load(vb, config)?,
            vocab_size: config.vocab_size,
            positions: config.max_position_embeddings,
            pad: config.pad_token_id as u32,
        })
    }

    /// Bytes that the weights take.
    pub fn weight_bytes(config: &Config) -> u64 {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let embeddings = (config.vocab_size + config.max_position_embeddings + config.type_vocab_size + 2) * hidden;
        let attention = 4 * (hidden * hidden + hidden);
        let feed_forward = 2 * hidden * inner + hidden + inner;
        let layer = attention + feed_forward + 4 * hidden;
        4 * (embeddings + config.num_hidden_layers * layer) as u64
    }

    /// Bytes that a batch of `texts` of `tokens` each takes on top, at the widest point of a layer.
    pub fn activation_bytes(config: &Config, texts: usize, tokens: usize) -> u64 {
        let states = texts * tokens * (8 * config.hidden_size + 2 * config.intermediate_size);
        let scores = 3 * texts * config.num_attention_heads * tokens * tokens;
        4 * (states + scores) as u64
    }

    /// One vector of length 1 per text, in order. `texts`: token ids with the model's own first and last; none is empty.
    ///
    /// # Errors
    /// A text that is empty or longer than the model's positions, an id beyond its vocabulary, or candle's own.
    pub fn embed(&self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>> {
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        if longest > self.positions || texts.iter().any(|text| text.is_empty()) {
            candle_core::bail!("a text of {longest} tokens, or none, for {} positions", self.positions);
        }
        if let Some(id) = texts.iter().copied().flatten().find(|id| **id as usize >= self.vocab_size) {
            candle_core::bail!("token {id} is beyond the vocabulary of {}", self.vocab_size);
        }
        let padded = |fill: u32, of: &dyn Fn(u32) -> u32| -> Vec<u32> {
            let row = |text: &&[u32]| {
                let missing = longest - text.len();
                text.iter().map(|id| of(*id)).chain(std::iter::repeat_n(fill, missing)).collect::<Vec<_>>()
            };
            texts.iter().flat_map(row).collect()
        };
        let shape = (texts.len(), longest);
        let device: &Device = &self.bert.device;
        let ids = Tensor::from_vec(padded(self.pad, &|id| id), shape, device)?;
        let mask = Tensor::from_vec(padded(0, &|_| 1), shape, device)?;
        let states = self.bert.forward(&ids, &ids.zeros_like()?, Some(&mask))?;
        let mask = mask.to_dtype(DType::F32)?.unsqueeze(2)?;
        let mean = states.broadcast_mul(&mask)?.sum(1)?.broadcast_div(&mask.sum(1)?)?;
        let length = mean.sqr()?.sum_keepdim(1)?.sqrt()?.maximum(1e-12)?;
        mean.broadcast_div(&length)?.to_vec2()
    }
}
