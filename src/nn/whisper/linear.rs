//! A linear layer whose weights are read in the fewest bytes: f32 for the encoder on a CPU, half precision elsewhere.

use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;

use super::kernel::{BiasGelu, HALF_LINEAR_ROWS, HalfLinear};

/// `y = x w^T + b`, with `w` as checkpoints store it: `[outer, inner]`.
pub(super) struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    /// Reads `name.weight`, and `name.bias` if the layer has one.
    pub(super) fn load(inner: usize, outer: usize, name: &str, vb: &VarBuilder) -> Result<Self> {
        Self::stacked(inner, &[(name, outer, true)], vb)
    }

    /// Reads several layers of the same input as one, their outputs one after the other: name, outputs, and whether
    /// there is a bias.
    pub(super) fn stacked(inner: usize, parts: &[(&str, usize, bool)], vb: &VarBuilder) -> Result<Self> {
        let wide = if vb.device().is_cpu() { DType::F32 } else { vb.dtype() };
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        for (name, outer, has_bias) in parts {
            let vb = vb.pp(name);
            weights.push(vb.get((*outer, inner), "weight")?);
            biases.push(match has_bias {
                true => vb.clone().set_dtype(wide).get(*outer, "bias")?,
                false => Tensor::zeros(*outer, wide, vb.device())?,
            });
        }
        Ok(Self { weight: Tensor::cat(&weights, 0)?, bias: Tensor::cat(&biases, 0)? })
    }

    /// From tensors that are there already: `[outer, inner]` and `[outer]`.
    pub(super) fn new(weight: Tensor, bias: Tensor) -> Self {
        Self { weight, bias }
    }

    /// `[rows, inner]` → `[rows, outer]`.
    pub(super) fn forward(&self, input: &Tensor) -> Result<Tensor> {
        if self.reads_halves(input) {
            return input.apply_op3_no_bwd(&self.weight, &self.bias, &HalfLinear);
        }
        self.product(input)?.broadcast_add(&self.bias)
    }

    /// [`Linear::forward`], then GELU.
    pub(super) fn forward_gelu(&self, input: &Tensor) -> Result<Tensor> {
        if self.reads_halves(input) || !input.device().is_cpu() {
            return self.forward(input)?.gelu_erf();
        }
        let product = self.product(input)?;
        product.inplace_op2(&self.bias, &BiasGelu)?;
        Ok(product)
    }

    fn reads_halves(&self, input: &Tensor) -> bool {
        let few = input.dims().first().is_some_and(|&rows| rows <= HALF_LINEAR_ROWS);
        few && input.device().is_cpu() && self.weight.dtype() == DType::F16
    }

    fn product(&self, input: &Tensor) -> Result<Tensor> {
        input.matmul(&self.weight.to_dtype(input.dtype())?.t()?)
    }
}
