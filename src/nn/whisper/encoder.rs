//! The audio encoder: two convolutions over the mel spectrogram, then transformer layers over 20 ms positions.
//!
//! Source: OpenAI's `whisper/model.py`, `AudioEncoder`; names as in transformers' checkpoints. It may be given fewer
//! positions than 1,500: the rest of the window is then not heard at all instead of being heard as silence.

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;
use candle_nn::ops::layer_norm;

use super::attention;
use super::config::Config;
use super::linear::Linear;
use super::{Check, Precision};

/// Scale and shift of a normalised layer.
pub(super) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
}

impl LayerNorm {
    pub(super) fn load(width: usize, name: &str, vb: &VarBuilder) -> Result<Self> {
        let vb = vb.pp(name);
        Ok(Self { weight: vb.get(width, "weight")?, bias: vb.get(width, "bias")? })
    }

    pub(super) fn forward(&self, input: &Tensor) -> Result<Tensor> {
        layer_norm(input, &self.weight, &self.bias, 1e-5)
    }
}

/// A convolution of kernel 3 as one matrix product over three neighbouring frames.
struct Convolution {
    linear: Linear,
    stride: usize,
}

impl Convolution {
    fn load(
        (inner, outer): (usize, usize),
        stride: usize,
        name: &str,
        vb: &VarBuilder,
        precision: Precision,
    ) -> Result<Self> {
        let vb = vb.pp(name);
        let weight = vb.get((outer, inner, 3), "weight")?.transpose(1, 2)?.reshape((outer, 3 * inner))?;
        Ok(Self { linear: Linear::new(weight.contiguous()?, vb.get(outer, "bias")?, precision)?, stride })
    }

    /// Convolves and activates: `[batch, length, inner]` → `[batch, length / stride, outer]`, zeros beyond both ends.
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        let (batch, length, inner) = input.dims3()?;
        let padded = input.pad_with_zeros(1, 1, self.stride)?;
        // Frame t of the input is frame t + 1 of the padded one.
        let every = |first: usize| -> Result<Tensor> {
            if self.stride == 1 {
                return padded.narrow(1, first, length);
            }
            let shape = (batch, length / self.stride, self.stride * inner);
            padded.narrow(1, first, length)?.reshape(shape)?.narrow(2, 0, inner)
        };
        let taps = Tensor::cat(&[every(0)?, every(1)?, every(2)?], 2)?;
        let rows = batch * length / self.stride;
        let out = self.linear.forward_gelu(&taps.reshape((rows, 3 * inner))?)?;
        out.reshape((batch, length / self.stride, ()))
    }
}

struct EncoderLayer {
    self_attn_layer_norm: LayerNorm,
    qkv: Linear,
    out_proj: Linear,
    final_layer_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl EncoderLayer {
    fn load(config: &Config, vb: &VarBuilder, precision: Precision) -> Result<Self> {
        let width = config.d_model;
        let attention = vb.pp("self_attn");
        let parts = [("q_proj", width, true), ("k_proj", width, false), ("v_proj", width, true)];
        Ok(Self {
            self_attn_layer_norm: LayerNorm::load(width, "self_attn_layer_norm", vb)?,
            qkv: Linear::stacked(width, &parts, &attention, precision)?,
            out_proj: Linear::load(width, width, "out_proj", &attention, precision)?,
            final_layer_norm: LayerNorm::load(width, "final_layer_norm", vb)?,
            fc1: Linear::load(width, config.encoder_ffn_dim, "fc1", vb, precision)?,
            fc2: Linear::load(config.encoder_ffn_dim, width, "fc2", vb, precision)?,
        })
    }

    /// `[batch * length, width]` → the same.
    fn forward(&self, input: &Tensor, batch: usize, heads: usize) -> Result<Tensor> {
        let (rows, width) = input.dims2()?;
        let qkv = self.qkv.forward(&self.self_attn_layer_norm.forward(input)?)?;
        let heard = attention::full(&qkv.reshape((batch, rows / batch, 3 * width))?, heads)?;
        let input = (input + self.out_proj.forward(&heard.reshape((rows, width))?)?)?;
        let inner = self.fc1.forward_gelu(&self.final_layer_norm.forward(&input)?)?;
        input + self.fc2.forward(&inner)?
    }
}

pub(super) struct Encoder {
    conv1: Convolution,
    conv2: Convolution,
    embed_positions: Tensor,
    layers: Vec<EncoderLayer>,
    layer_norm: LayerNorm,
    heads: usize,
}

impl Encoder {
    pub(super) fn load(config: &Config, vb: &VarBuilder, precision: Precision) -> Result<Self> {
        let width = config.d_model;
        let layers = vb.pp("layers");
        Ok(Self {
            conv1: Convolution::load((config.num_mel_bins, width), 1, "conv1", vb, precision)?,
            conv2: Convolution::load((width, width), 2, "conv2", vb, precision)?,
            embed_positions: vb.pp("embed_positions").get((config.max_source_positions, width), "weight")?,
            layers: (0..config.encoder_layers)
                .map(|layer| EncoderLayer::load(config, &layers.pp(layer), precision))
                .collect::<Result<_>>()?,
            layer_norm: LayerNorm::load(width, "layer_norm", vb)?,
            heads: config.encoder_attention_heads,
        })
    }

    /// Mel `[windows, frames, bins]` with an even number of frames → `[windows, frames / 2, width]`.
    /// None where `check` answered no between two layers.
    pub(super) fn forward(&self, mel: &Tensor, check: Check) -> Result<Option<Tensor>> {
        let x = self.conv2.forward(&self.conv1.forward(&mel.to_dtype(self.dtype())?)?)?;
        let (batch, length, width) = x.dims3()?;
        let mut x = x.broadcast_add(&self.embed_positions.narrow(0, 0, length)?)?.reshape((batch * length, width))?;
        for layer in &self.layers {
            if !check() {
                return Ok(None);
            }
            x = layer.forward(&x, batch, self.heads)?;
        }
        Ok(Some(self.layer_norm.forward(&x)?.reshape((batch, length, width))?))
    }

    fn dtype(&self) -> DType {
        self.embed_positions.dtype()
    }
}
