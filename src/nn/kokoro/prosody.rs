//! The prosody predictor: how long each phoneme lasts, and the curves of pitch (F0) and energy (N).
//!
//! Source: hexgrad/kokoro 0.9.4, modules.py `DurationEncoder` and `ProsodyPredictor`.

use candle_core::{Result, Tensor};
use candle_nn::{Linear, Module, VarBuilder, linear};

use super::config::Config;
use super::decoder::AdainResBlock;
use super::ops::lstm::BiLstm;
use super::ops::norm::{Modulation, StyleTableBuilder, StyledNorm, append_style, layer_norm};
use crate::nn::frames::conv::{Before, Conv1d, Walk};
use crate::nn::frames::norm::EPSILON;

pub(super) struct ProsodyPredictor {
    text_encoder: DurationEncoder,
    lstm: BiLstm,
    duration_proj: Linear,
    shared: BiLstm,
    pitch: Tower,
    energy: Tower,
}

impl ProsodyPredictor {
    pub(super) fn load(config: &Config, styles: &mut StyleTableBuilder, vb: &VarBuilder<'_>) -> Result<Self> {
        let hidden = config.hidden_dim;
        let styled = hidden + config.style_dim;
        Ok(Self {
            text_encoder: DurationEncoder::load(config, styles, &vb.pp("text_encoder"))?,
            lstm: BiLstm::load(styled, hidden / 2, &vb.pp("lstm"))?,
            duration_proj: linear(hidden, config.max_dur, vb.pp("duration_proj.linear_layer"))?,
            shared: BiLstm::load(styled, hidden / 2, &vb.pp("shared"))?,
            pitch: Tower::load("F0", config, styles, vb)?,
            energy: Tower::load("N", config, styles, vb)?,
        })
    }

    /// The encoded phonemes [symbols, hidden] under a style [style_dim], as [symbols, hidden + style_dim].
    pub(super) fn encode(&self, encoded: &Tensor, style: &Tensor, modulation: &Modulation) -> Result<Tensor> {
        self.text_encoder.forward(encoded, style, modulation)
    }

    /// [symbols, max_dur]: the logits that a frame is held that long.
    pub(super) fn duration_logits(&self, x: &Tensor) -> Result<Tensor> {
        self.duration_proj.forward(&self.lstm.forward(x)?)
    }

    /// Pitch in hertz and energy, each [2 * frames, 1], from `x` repeated to its durations: [frames, hidden + style].
    pub(super) fn curves(&self, x: &Tensor, modulation: &Modulation) -> Result<(Tensor, Tensor)> {
        let x = self.shared.forward(x)?;
        Ok((self.pitch.forward(&x, modulation)?, self.energy.forward(&x, modulation)?))
    }
}

struct DurationEncoder {
    layers: Vec<(BiLstm, StyledNorm)>,
    ones: Tensor,
    zeros: Tensor,
}

impl DurationEncoder {
    fn load(config: &Config, styles: &mut StyleTableBuilder, vb: &VarBuilder<'_>) -> Result<Self> {
        let hidden = config.hidden_dim;
        let mut layer = |index: usize| {
            let lstm = BiLstm::load(hidden + config.style_dim, hidden / 2, &vb.pp("lstms").pp(2 * index))?;
            Ok((lstm, styles.norm(hidden, config.style_dim, &vb.pp("lstms").pp(2 * index + 1))?))
        };
        Ok(Self {
            layers: (0..config.n_layer).map(&mut layer).collect::<Result<_>>()?,
            ones: Tensor::ones(hidden, vb.dtype(), vb.device())?,
            zeros: Tensor::zeros(hidden, vb.dtype(), vb.device())?,
        })
    }

    fn forward(&self, encoded: &Tensor, style: &Tensor, modulation: &Modulation) -> Result<Tensor> {
        let mut x = append_style(encoded, style)?;
        for (lstm, norm) in &self.layers {
            let (gain, shift) = norm.gain_and_shift(modulation)?;
            let normed = layer_norm(&lstm.forward(&x)?, &self.ones, &self.zeros, EPSILON as f32)?;
            x = append_style(&normed.broadcast_mul(&gain)?.broadcast_add(&shift)?, style)?;
        }
        Ok(x)
    }
}

/// One curve's residual blocks, the middle one doubling the frame rate.
struct Tower {
    blocks: Vec<AdainResBlock>,
    projection: Conv1d,
}

impl Tower {
    fn load(name: &str, config: &Config, styles: &mut StyleTableBuilder, vb: &VarBuilder<'_>) -> Result<Self> {
        let hidden = config.hidden_dim;
        let half = hidden / 2;
        let blocks = vb.pp(name);
        let mut block = |index: usize, input: usize, output: usize, doubles: bool| {
            AdainResBlock::load((input, output), doubles, config.style_dim, styles, &blocks.pp(index))
        };
        Ok(Self {
            blocks: vec![block(0, hidden, hidden, false)?, block(1, hidden, half, true)?, block(2, half, half, false)?],
            projection: Conv1d::load((1, half, 1), Walk::same(1, 1), &vb.pp(format!("{name}_proj")))?,
        })
    }

    fn forward(&self, x: &Tensor, modulation: &Modulation) -> Result<Tensor> {
        let x = self.blocks.iter().try_fold(x.clone(), |x, block| block.forward(&x, modulation))?;
        self.projection.forward(&x, Before::Nothing, None)
    }
}
