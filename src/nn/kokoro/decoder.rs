//! The decoder's trunk: aligned phonemes, pitch and energy to the features that the generator turns into sound.
//!
//! Source: hexgrad/kokoro 0.9.4, istftnet.py `AdainResBlk1d` and `Decoder`.

use std::f32::consts::FRAC_1_SQRT_2;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::config::Config;
use super::ops::norm::{DoublingPool, Modulation, StyleTableBuilder, StyledNorm, double_frames};
use crate::nn::frames::conv::{Before, Conv1d, Walk};
use crate::nn::frames::scaled_sum;

/// Channels of the text that ride along beside the trunk.
const TEXT_RESIDUAL: usize = 64;
/// The trunk's width.
const WIDTH: usize = 1024;

pub(super) struct DecoderTrunk {
    pitch_conv: Conv1d,
    energy_conv: Conv1d,
    encode: AdainResBlock,
    text_residual: Conv1d,
    decode: Vec<AdainResBlock>,
}

impl DecoderTrunk {
    pub(super) fn load(config: &Config, styles: &mut StyleTableBuilder, vb: &VarBuilder<'_>) -> Result<Self> {
        let halving = Walk { padding: 1, stride: 2, dilation: 1 };
        let hidden = config.hidden_dim;
        let joined = WIDTH + TEXT_RESIDUAL + 2;
        let out = config.istftnet.upsample_initial_channel;
        let mut block = |name: &str, input: usize, output: usize, doubles: bool| {
            AdainResBlock::load((input, output), doubles, config.style_dim, styles, &vb.pp(name))
        };
        Ok(Self {
            encode: block("encode", hidden + 2, WIDTH, false)?,
            decode: vec![
                block("decode.0", joined, WIDTH, false)?,
                block("decode.1", joined, WIDTH, false)?,
                block("decode.2", joined, WIDTH, false)?,
                block("decode.3", joined, out, true)?,
            ],
            pitch_conv: Conv1d::load((1, 1, 3), halving, &vb.pp("F0_conv"))?,
            energy_conv: Conv1d::load((1, 1, 3), halving, &vb.pp("N_conv"))?,
            text_residual: Conv1d::load((TEXT_RESIDUAL, hidden, 1), Walk::same(1, 1), &vb.pp("asr_res.0"))?,
        })
    }

    /// `text` [frames, hidden], `pitch` and `energy` [2 * frames, 1], to [2 * frames, upsample_initial_channel].
    pub(super) fn forward(
        &self,
        text: &Tensor,
        pitch: &Tensor,
        energy: &Tensor,
        modulation: &Modulation,
    ) -> Result<Tensor> {
        let x = self.encode(text, pitch, energy, modulation)?;
        self.decode
            .iter()
            .try_fold(x, |x, block| {
                let joined = Tensor::cat(&[&x.features, &x.text, &x.pitch, &x.energy], 1)?;
                Ok(Trunk { features: block.forward(&joined, modulation)?, ..x })
            })
            .map(|trunk: Trunk| trunk.features)
    }

    fn encode(&self, text: &Tensor, pitch: &Tensor, energy: &Tensor, modulation: &Modulation) -> Result<Trunk> {
        let pitch = self.pitch_conv.forward(pitch, Before::Nothing, None)?;
        let energy = self.energy_conv.forward(energy, Before::Nothing, None)?;
        let features = self.encode.forward(&Tensor::cat(&[text, &pitch, &energy], 1)?, modulation)?;
        let text = self.text_residual.forward(text, Before::Nothing, None)?;
        Ok(Trunk { features, text, pitch, energy })
    }
}

/// What every block of the trunk is told, at 40 frames per second.
struct Trunk {
    features: Tensor,
    text: Tensor,
    pitch: Tensor,
    energy: Tensor,
}

/// (residual + shortcut) / √2, each half styled, optionally at twice the frame rate.
pub(super) struct AdainResBlock {
    norm1: StyledNorm,
    pool: Option<DoublingPool>,
    conv1: Conv1d,
    norm2: StyledNorm,
    conv2: Conv1d,
    shortcut: Option<Conv1d>,
}

impl AdainResBlock {
    pub(super) fn load(
        (input, output): (usize, usize),
        doubles: bool,
        style_dim: usize,
        styles: &mut StyleTableBuilder,
        vb: &VarBuilder<'_>,
    ) -> Result<Self> {
        let shortcut = || Conv1d::new(vb.get((output, input, 1), "conv1x1.weight")?, None, Walk::same(1, 1));
        Ok(Self {
            norm1: styles.norm(input, style_dim, &vb.pp("norm1"))?,
            pool: doubles.then(|| DoublingPool::load(input, &vb.pp("pool"))).transpose()?,
            conv1: Conv1d::load((output, input, 3), Walk::same(3, 1), &vb.pp("conv1"))?,
            norm2: styles.norm(output, style_dim, &vb.pp("norm2"))?,
            conv2: Conv1d::load((output, output, 3), Walk::same(3, 1), &vb.pp("conv2"))?,
            shortcut: (input != output).then(shortcut).transpose()?,
        })
    }

    /// [frames, input] to [frames, output], or to [2 * frames, output].
    pub(super) fn forward(&self, x: &Tensor, modulation: &Modulation) -> Result<Tensor> {
        let before1 = self.norm1.affine(x, modulation)?;
        let before1 = Before::NormLeakyRelu(&before1, 0.2);
        let (inner, shortcut) = match &self.pool {
            None => (self.conv1.forward(x, before1, None)?, x.clone()),
            Some(pool) => {
                let doubled = pool.forward(&before1.apply(x)?)?;
                (self.conv1.forward(&doubled, Before::Nothing, None)?, double_frames(x)?)
            }
        };
        let shortcut = match &self.shortcut {
            None => shortcut,
            Some(conv) => conv.forward(&shortcut, Before::Nothing, None)?,
        };
        let before2 = self.norm2.affine(&inner, modulation)?;
        let residual = self.conv2.forward(&inner, Before::NormLeakyRelu(&before2, 0.2), Some(&shortcut))?;
        scaled_sum(&[residual], FRAC_1_SQRT_2)
    }
}
