//! Adaptive instance norm: each channel normalised over time, then scaled and shifted by the style.
//!
//! The style's part (gamma and beta of every such layer) depends on nothing but the style row, so all layers' linear
//! projections are stacked into one product per row ([`StyleTable`]). The norm itself collapses to one multiply-add
//! per sample ([`Affine`]), which the following convolution applies as it reads its input.

use candle_core::{D, IndexOp, Result, Tensor};
use candle_nn::VarBuilder;

use crate::nn::frames::norm::Affine;

/// Collects the style projections (`fc`) of many norms, to compute them at once.
#[derive(Default)]
pub(in crate::nn::kokoro) struct StyleTableBuilder {
    weights: Vec<Tensor>,
    biases: Vec<Tensor>,
    rows: usize,
}

impl StyleTableBuilder {
    /// Reads `fc` of the norm at `vb`, which has `channels` channels.
    pub(in crate::nn::kokoro) fn norm(
        &mut self,
        channels: usize,
        style_dim: usize,
        vb: &VarBuilder<'_>,
    ) -> Result<StyledNorm> {
        let fc = vb.pp("fc");
        self.weights.push(fc.get((2 * channels, style_dim), "weight")?);
        self.biases.push(fc.get(2 * channels, "bias")?);
        let norm = StyledNorm { offset: self.rows, channels };
        self.rows += 2 * channels;
        Ok(norm)
    }

    pub(in crate::nn::kokoro) fn build(self) -> Result<StyleTable> {
        Ok(StyleTable { weight: Tensor::cat(&self.weights, 0)?, bias: Tensor::cat(&self.biases, 0)? })
    }
}

/// The style projections of many norms as one linear layer.
pub(in crate::nn::kokoro) struct StyleTable {
    weight: Tensor,
    bias: Tensor,
}

impl StyleTable {
    /// [style_dim] to every norm's gammas and betas.
    pub(in crate::nn::kokoro) fn project(&self, style: &Tensor) -> Result<Modulation> {
        let projected = self.weight.matmul(&style.unsqueeze(1)?)?.squeeze(1)?;
        Ok(Modulation((projected + &self.bias)?))
    }
}

/// Every norm's gammas and betas for one style row.
pub(in crate::nn::kokoro) struct Modulation(Tensor);

/// One norm's place in its [`StyleTable`].
pub(in crate::nn::kokoro) struct StyledNorm {
    offset: usize,
    channels: usize,
}

impl StyledNorm {
    /// (1 + gamma, beta), each [channels].
    pub(in crate::nn::kokoro) fn gain_and_shift(&self, modulation: &Modulation) -> Result<(Tensor, Tensor)> {
        let gain = modulation.0.narrow(0, self.offset, self.channels)?.affine(1.0, 1.0)?;
        Ok((gain, modulation.0.narrow(0, self.offset + self.channels, self.channels)?))
    }

    /// Measures `x` [frames, channels] and answers the multiply-add that normalises and modulates it.
    pub(in crate::nn::kokoro) fn affine(&self, x: &Tensor, modulation: &Modulation) -> Result<Affine> {
        let (gain, shift) = self.gain_and_shift(modulation)?;
        Affine::normalising(x, &gain, &shift)
    }
}

/// Layer norm over the channels of [frames, channels], with a gain and a shift.
pub(in crate::nn::kokoro) fn layer_norm(x: &Tensor, gain: &Tensor, shift: &Tensor, epsilon: f32) -> Result<Tensor> {
    candle_nn::ops::layer_norm(x, gain, shift, epsilon)
}

/// `style` [n] under every frame of `x` [frames, c], giving [frames, c + n].
pub(in crate::nn::kokoro) fn append_style(x: &Tensor, style: &Tensor) -> Result<Tensor> {
    let frames = x.dim(0)?;
    let rows = style.unsqueeze(0)?.broadcast_as((frames, style.dim(D::Minus1)?))?;
    Tensor::cat(&[x, &rows.contiguous()?], 1)
}

/// Each frame of [frames, channels] twice.
pub(in crate::nn::kokoro) fn double_frames(x: &Tensor) -> Result<Tensor> {
    let (frames, channels) = x.dims2()?;
    Tensor::stack(&[x, x], 1)?.reshape((2 * frames, channels))
}

/// Upstream's `pool`: a depthwise transposed convolution of kernel 3, stride 2, padding 1, output padding 1. Written
/// out: y[2t] = w1·x[t] + b and y[2t+1] = w2·x[t] + w0·x[t+1] + b.
pub(in crate::nn::kokoro) struct DoublingPool {
    /// [3, channels]
    weight: Tensor,
    bias: Tensor,
}

impl DoublingPool {
    pub(in crate::nn::kokoro) fn load(channels: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let weight = vb.get((channels, 1, 3), "weight")?.squeeze(1)?.t()?.contiguous()?;
        Ok(Self { weight, bias: vb.get(channels, "bias")? })
    }

    /// [frames, channels] to [2 * frames, channels].
    pub(in crate::nn::kokoro) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (frames, channels) = x.dims2()?;
        let end = Tensor::zeros((1, channels), x.dtype(), x.device())?;
        let next = Tensor::cat(&[&x.narrow(0, 1, frames - 1)?, &end], 0)?;
        let even = x.broadcast_mul(&self.weight.i(1)?)?;
        let odd = (x.broadcast_mul(&self.weight.i(2)?)? + next.broadcast_mul(&self.weight.i(0)?)?)?;
        Tensor::stack(&[even, odd], 1)?.reshape((2 * frames, channels))?.broadcast_add(&self.bias)
    }
}
