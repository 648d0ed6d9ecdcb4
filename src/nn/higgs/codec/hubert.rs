//! HuBERT: 16 kHz sound to one vector per 20 ms, the mean of what every layer makes of it.
//!
//! Source: transformers' `HubertModel` with the base model's settings: group norm in the first convolution only, no
//! convolution has a bias, norms follow the residual sums. One recording at a time, no mask.

use candle_core::{IndexOp, Result, Tensor};
use candle_nn::{Linear, Module, VarBuilder, linear};

use super::config::HubertConfig;
use crate::nn::frames::conv::{Before, Conv1d, Walk};
use crate::nn::frames::norm::Affine;

pub(super) struct Hubert {
    convolutions: Vec<Conv1d>,
    /// Gain and shift of the norm after the first convolution.
    group_norm: (Tensor, Tensor),
    projection_norm: Norm,
    projection: Linear,
    positions: PositionalConv,
    layer_norm: Norm,
    layers: Vec<Layer>,
}

impl Hubert {
    pub(super) fn load(config: &HubertConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let hidden = config.hidden_size;
        let layers = vb.pp("feature_extractor.conv_layers");
        let mut input = 1;
        let mut convolutions = Vec::with_capacity(config.conv_dim.len());
        let shapes = config.conv_dim.iter().zip(&config.conv_kernel).zip(&config.conv_stride);
        for (index, ((output, taps), stride)) in shapes.enumerate() {
            let weight = layers.pp(index).get((*output, input, *taps), "conv.weight")?;
            convolutions.push(Conv1d::new(weight, None, Walk { padding: 0, stride: *stride, dilation: 1 })?);
            input = *output;
        }
        let (first, last) = (config.conv_dim.first().copied(), config.conv_dim.last().copied());
        let (first, last) = (first.unwrap_or(1), last.unwrap_or(1));
        let group_norm = layers.pp(0).pp("layer_norm");
        let (projection, encoder) = (vb.pp("feature_projection"), vb.pp("encoder"));
        let epsilon = config.layer_norm_eps as f32;
        let layer = |index| Layer::load(config, &encoder.pp("layers").pp(index));
        Ok(Self {
            convolutions,
            group_norm: (group_norm.get(first, "weight")?, group_norm.get(first, "bias")?),
            projection_norm: Norm::load(last, epsilon, &projection.pp("layer_norm"))?,
            projection: linear(last, hidden, projection.pp("projection"))?,
            positions: PositionalConv::load(config, &encoder.pp("pos_conv_embed.conv"))?,
            layer_norm: Norm::load(hidden, epsilon, &encoder.pp("layer_norm"))?,
            layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_>>()?,
        })
    }

    /// [samples, 1] to [positions, hidden]: the mean of the first layer's input and every layer's output.
    pub(super) fn forward(&self, samples: &Tensor) -> Result<Tensor> {
        let projected = self.projection.forward(&self.projection_norm.forward(&self.features(samples)?)?)?;
        let mut x = self.layer_norm.forward(&(self.positions.forward(&projected)? + projected)?)?;
        let mut sum = x.clone();
        for layer in &self.layers {
            x = layer.forward(&x)?;
            sum = (sum + &x)?;
        }
        sum.affine(1.0 / (self.layers.len() + 1) as f64, 0.0)
    }

    /// [samples, 1] to [positions, conv_dim]
    fn features(&self, samples: &Tensor) -> Result<Tensor> {
        let Some((first, rest)) = self.convolutions.split_first() else { return Ok(samples.clone()) };
        let x = first.forward(samples, Before::Nothing, None)?;
        let norm = Affine::normalising(&x, &self.group_norm.0, &self.group_norm.1)?;
        let mut before = Before::NormGelu(&norm);
        let mut x = x;
        for convolution in rest {
            x = convolution.forward(&x, before, None)?;
            before = Before::Gelu;
        }
        before.apply(&x)
    }
}

struct Norm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f32,
}

impl Norm {
    fn load(size: usize, epsilon: f32, vb: &VarBuilder<'_>) -> Result<Self> {
        Ok(Self { weight: vb.get(size, "weight")?, bias: vb.get(size, "bias")?, epsilon })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        candle_nn::ops::layer_norm(x, &self.weight, &self.bias, self.epsilon)
    }
}

/// What says where a position is: a long convolution of its neighbourhood, each group of channels by itself.
struct PositionalConv {
    groups: Vec<Conv1d>,
    width: usize,
}

impl PositionalConv {
    fn load(config: &HubertConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let (hidden, taps) = (config.hidden_size, config.num_conv_pos_embeddings);
        let width = hidden / config.num_conv_pos_embedding_groups;
        let weight = vb.get((hidden, width, taps), "weight")?;
        let bias = vb.get(hidden, "bias")?;
        let walk = Walk { padding: taps / 2, stride: 1, dilation: 1 };
        let group = |index: usize| {
            let part = |of: &Tensor| of.narrow(0, index * width, width)?.contiguous();
            Conv1d::new(part(&weight)?, Some(part(&bias)?), walk)
        };
        let groups = (0..config.num_conv_pos_embedding_groups).map(group).collect::<Result<_>>()?;
        Ok(Self { groups, width })
    }

    /// [positions, hidden] to the same; an even kernel's surplus position is dropped.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let group = |(index, conv): (usize, &Conv1d)| {
            let x = x.narrow(1, index * self.width, self.width)?.contiguous()?;
            conv.forward(&x, Before::Nothing, None)
        };
        let groups = self.groups.iter().enumerate().map(group).collect::<Result<Vec<_>>>()?;
        Before::Gelu.apply(&Tensor::cat(&groups, 1)?.narrow(0, 0, x.dim(0)?)?.contiguous()?)
    }
}

#[expect(clippy::struct_field_names, reason = "the checkpoint's names")]
struct Layer {
    /// Query, key and value as one, the query's part scaled by 1/√(head size).
    qkv: Linear,
    out_proj: Linear,
    layer_norm: Norm,
    intermediate_dense: Linear,
    output_dense: Linear,
    final_layer_norm: Norm,
    heads: usize,
}

impl Layer {
    fn load(config: &HubertConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let (hidden, inner, heads) = (config.hidden_size, config.intermediate_size, config.num_attention_heads);
        let epsilon = config.layer_norm_eps as f32;
        let (attention, feed_forward) = (vb.pp("attention"), vb.pp("feed_forward"));
        let query_scale = ((hidden / heads) as f64).powf(-0.5);
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        for (name, scale) in [("q_proj", query_scale), ("k_proj", 1.0), ("v_proj", 1.0)] {
            let vb = attention.pp(name);
            weights.push(vb.get((hidden, hidden), "weight")?.affine(scale, 0.0)?);
            biases.push(vb.get(hidden, "bias")?.affine(scale, 0.0)?);
        }
        Ok(Self {
            qkv: Linear::new(Tensor::cat(&weights, 0)?, Some(Tensor::cat(&biases, 0)?)),
            out_proj: linear(hidden, hidden, attention.pp("out_proj"))?,
            layer_norm: Norm::load(hidden, epsilon, &vb.pp("layer_norm"))?,
            intermediate_dense: linear(hidden, inner, feed_forward.pp("intermediate_dense"))?,
            output_dense: linear(inner, hidden, feed_forward.pp("output_dense"))?,
            final_layer_norm: Norm::load(hidden, epsilon, &vb.pp("final_layer_norm"))?,
            heads,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let attended = self.layer_norm.forward(&(self.attend(x)? + x)?)?;
        let inner = Before::Gelu.apply(&self.intermediate_dense.forward(&attended)?)?;
        self.final_layer_norm.forward(&(self.output_dense.forward(&inner)? + attended)?)
    }

    fn attend(&self, x: &Tensor) -> Result<Tensor> {
        let (positions, hidden) = x.dims2()?;
        let shape = (positions, 3, self.heads, hidden / self.heads);
        let qkv = self.qkv.forward(x)?.reshape(shape)?.permute((1, 2, 0, 3))?;
        let part = |index: usize| qkv.i(index)?.contiguous();
        let weights = candle_nn::ops::softmax_last_dim(&part(0)?.matmul(&part(1)?.transpose(1, 2)?)?)?;
        let context = weights.matmul(&part(2)?)?.transpose(0, 1)?.contiguous()?.reshape((positions, hidden))?;
        self.out_proj.forward(&context)
    }
}
