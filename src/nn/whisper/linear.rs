//! A linear layer: in 8 bits on a CPU, in the activations' own type elsewhere and where the reference is compared with.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::Precision;
use super::kernel::BiasGelu;
use crate::nn::frames::scalar::gelu_erf;
use crate::nn::kernel::PackedLinear;

/// `y = x w^T + b`, with `w` as checkpoints store it: `[outer, inner]`.
pub(super) enum Linear {
    Plain { weight: Tensor, bias: Tensor },
    Packed(PackedLinear),
}

impl Linear {
    /// Reads `name.weight` and `name.bias`.
    pub(super) fn load(inner: usize, outer: usize, name: &str, vb: &VarBuilder, precision: Precision) -> Result<Self> {
        Self::stacked(inner, &[(name, outer, true)], vb, precision)
    }

    /// Reads several layers of the same input as one, their outputs one after the other: name, outputs, and whether
    /// there is a bias.
    pub(super) fn stacked(
        inner: usize,
        parts: &[(&str, usize, bool)],
        vb: &VarBuilder,
        precision: Precision,
    ) -> Result<Self> {
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        for (name, outer, has_bias) in parts {
            let vb = vb.pp(name);
            weights.push(vb.get((*outer, inner), "weight")?);
            biases.push(match has_bias {
                true => vb.get(*outer, "bias")?,
                false => Tensor::zeros(*outer, vb.dtype(), vb.device())?,
            });
        }
        Self::new(Tensor::cat(&weights, 0)?, Tensor::cat(&biases, 0)?, precision)
    }

    /// From tensors that are there already: `[outer, inner]` and `[outer]`.
    pub(super) fn new(weight: Tensor, bias: Tensor, precision: Precision) -> Result<Self> {
        let fits = weight.device().is_cpu() && weight.dim(1)?.is_multiple_of(PackedLinear::GROUP);
        Ok(match precision {
            Precision::EightBits if fits => Self::Packed(PackedLinear::rounded(&weight, &bias)?),
            _ => Self::Plain { weight, bias },
        })
    }

    /// `[rows, inner]` → `[rows, outer]`.
    pub(super) fn forward(&self, input: &Tensor) -> Result<Tensor> {
        match self {
            Self::Packed(packed) => packed.forward(input, |value| value),
            Self::Plain { weight, bias } => input.matmul(&weight.t()?)?.broadcast_add(bias),
        }
    }

    /// [`Linear::forward`], then GELU.
    pub(super) fn forward_gelu(&self, input: &Tensor) -> Result<Tensor> {
        match self {
            Self::Packed(packed) => packed.forward(input, gelu_erf),
            Self::Plain { weight, bias } if input.device().is_cpu() => {
                let product = input.matmul(&weight.t()?)?;
                product.inplace_op2(bias, &BiasGelu)?;
                Ok(product)
            }
            Self::Plain { .. } => self.forward(input)?.gelu_erf(),
        }
    }
}
