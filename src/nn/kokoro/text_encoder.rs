//! The text encoder: phonemes to what the decoder is told about each of them.
//!
//! Source: hexgrad/kokoro 0.9.4, modules.py `TextEncoder`.

use candle_core::{Result, Tensor};
use candle_nn::{Embedding, Module, VarBuilder, embedding};

use super::config::Config;
use super::ops::lstm::BiLstm;
use super::ops::norm::layer_norm;
use crate::nn::frames::conv::{Before, Conv1d, Walk};
use crate::nn::frames::norm::EPSILON;

/// [symbols] ids to [symbols, hidden_dim].
pub(super) struct TextEncoder {
    embedding: Embedding,
    blocks: Vec<Block>,
    lstm: BiLstm,
}

struct Block {
    conv: Conv1d,
    gamma: Tensor,
    beta: Tensor,
}

impl TextEncoder {
    pub(super) fn load(config: &Config, vb: &VarBuilder<'_>) -> Result<Self> {
        let hidden = config.hidden_dim;
        let taps = config.text_encoder_kernel_size;
        let walk = Walk { padding: (taps - 1) / 2, stride: 1, dilation: 1 };
        let block = |index: usize| {
            let vb = vb.pp("cnn").pp(index);
            Ok(Block {
                conv: Conv1d::load((hidden, hidden, taps), walk, &vb.pp("0"))?,
                gamma: vb.get(hidden, "1.gamma")?,
                beta: vb.get(hidden, "1.beta")?,
            })
        };
        Ok(Self {
            embedding: embedding(config.n_token, hidden, vb.pp("embedding"))?,
            blocks: (0..config.n_layer).map(block).collect::<Result<_>>()?,
            lstm: BiLstm::load(hidden, hidden / 2, &vb.pp("lstm"))?,
        })
    }

    pub(super) fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let mut x = self.embedding.forward(ids)?;
        for block in &self.blocks {
            let y = block.conv.forward(&x, Before::Nothing, None)?;
            let y = layer_norm(&y, &block.gamma, &block.beta, EPSILON as f32)?;
            x = Before::LeakyRelu(0.2).apply(&y)?;
        }
        self.lstm.forward(&x)
    }
}
