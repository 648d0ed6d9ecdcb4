//! A bidirectional LSTM layer. The input's part of the gates is one product for all frames and both directions; only
//! the recurrent part walks the frames, on the CPU with one thread for each direction.

use candle_core::{Device, IndexOp, Result, Tensor};
use candle_nn::VarBuilder;

use crate::nn::frames::{scalar, with_elements};

/// [frames, input] to [frames, 2 * hidden].
pub(in crate::nn::kokoro) struct BiLstm {
    /// [input, 8 * hidden]: the gates i, f, g, o forwards, then backwards.
    input_weight: Tensor,
    /// [8 * hidden], both of torch's biases in one.
    bias: Tensor,
    /// [2, hidden, 4 * hidden]
    recurrent: Tensor,
    hidden: usize,
}

impl BiLstm {
    pub(in crate::nn::kokoro) fn load(input: usize, hidden: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let direction = |suffix: &str| {
            let input_weight = vb.get((4 * hidden, input), &format!("weight_ih_l0{suffix}"))?;
            let recurrent = vb.get((4 * hidden, hidden), &format!("weight_hh_l0{suffix}"))?;
            let bias = vb.get(4 * hidden, &format!("bias_ih_l0{suffix}"))?;
            let bias = (bias + vb.get(4 * hidden, &format!("bias_hh_l0{suffix}"))?)?;
            Ok::<_, candle_core::Error>((input_weight, recurrent.t()?.contiguous()?, bias))
        };
        let forwards = direction("")?;
        let backwards = direction("_reverse")?;
        Ok(Self {
            input_weight: Tensor::cat(&[forwards.0, backwards.0], 0)?.t()?.contiguous()?,
            bias: Tensor::cat(&[forwards.2, backwards.2], 0)?,
            recurrent: Tensor::stack(&[forwards.1, backwards.1], 0)?,
            hidden,
        })
    }

    pub(in crate::nn::kokoro) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let gates = x.matmul(&self.input_weight)?.broadcast_add(&self.bias)?;
        if matches!(x.device(), Device::Cpu) { self.walk_on_cpu(&gates) } else { self.walk_plain(&gates) }
    }

    /// By candle operations, both directions as one batch of two.
    pub(super) fn walk_plain(&self, gates: &Tensor) -> Result<Tensor> {
        let frames = gates.dim(0)?;
        let hidden = self.hidden;
        let gates = gates.reshape((frames, 2, 4 * hidden))?;
        let mut state = Tensor::zeros((2, 1, hidden), gates.dtype(), gates.device())?;
        let mut cell = state.clone();
        let mut forwards = Vec::with_capacity(frames);
        let mut backwards = Vec::with_capacity(frames);
        for step in 0..frames {
            let now = Tensor::stack(&[gates.i((step, 0))?, gates.i((frames - 1 - step, 1))?], 0)?.unsqueeze(1)?;
            let now = (now + state.matmul(&self.recurrent)?)?;
            let gate = |index: usize| now.narrow(2, index * hidden, hidden)?.contiguous();
            let sigmoid = |index: usize| candle_nn::ops::sigmoid(&gate(index)?);
            cell = ((sigmoid(1)? * &cell)? + (sigmoid(0)? * gate(2)?.tanh()?)?)?;
            state = (sigmoid(3)? * cell.tanh()?)?;
            forwards.push(state.i(0)?);
            backwards.push(state.i(1)?);
        }
        backwards.reverse();
        Tensor::cat(&[Tensor::cat(&forwards, 0)?, Tensor::cat(&backwards, 0)?], 1)
    }

    pub(super) fn walk_on_cpu(&self, gates: &Tensor) -> Result<Tensor> {
        let frames = gates.dim(0)?;
        let hidden = self.hidden;
        let (forwards, backwards) = with_elements(gates, |gates| {
            with_elements(&self.recurrent, |recurrent| {
                let (first, second) = recurrent.split_at(4 * hidden * hidden);
                Ok(rayon::join(
                    || walk(gates, first, hidden, 0, (0..frames).collect()),
                    || walk(gates, second, hidden, 4 * hidden, (0..frames).rev().collect()),
                ))
            })
        })?;
        let side = |states: Vec<f32>| Tensor::from_vec(states, (frames, hidden), gates.device());
        Tensor::cat(&[side(forwards)?, side(backwards)?], 1)
    }
}

/// One direction: visits `order`, answers [frames, hidden].
fn walk(gates: &[f32], recurrent: &[f32], hidden: usize, offset: usize, order: Vec<usize>) -> Vec<f32> {
    let width = 4 * hidden;
    let mut states = vec![0.0; order.len() * hidden];
    let mut state = vec![0.0; hidden];
    let mut cell = vec![0.0; hidden];
    let mut now = vec![0.0; width];
    for frame in order {
        let start = frame * 2 * width + offset;
        now.copy_from_slice(&gates[start..start + width]);
        add_product(&state, recurrent, &mut now);
        let (i, rest) = now.split_at(hidden);
        let (f, rest) = rest.split_at(hidden);
        let (g, o) = rest.split_at(hidden);
        for (at, (cell, state)) in cell.iter_mut().zip(&mut state).enumerate() {
            let kept = scalar::sigmoid(f[at]) * *cell;
            *cell = scalar::sigmoid(i[at]).mul_add(scalar::tanh(g[at]), kept);
            *state = scalar::sigmoid(o[at]) * scalar::tanh(*cell);
        }
        states[frame * hidden..][..hidden].copy_from_slice(&state);
    }
    states
}

/// out += state * matrix, with `matrix` [state, out]: eight rows at a time, to write `out` an eighth as often.
fn add_product(state: &[f32], matrix: &[f32], out: &mut [f32]) {
    let width = out.len();
    let mut rows = matrix.chunks_exact(8 * width);
    let mut scales = state.chunks_exact(8);
    for (rows, s) in (&mut rows).zip(&mut scales) {
        let row = |index: usize| &rows[index * width..][..width];
        let (a, b, c, d) = (row(0), row(1), row(2), row(3));
        let (e, f, g, h) = (row(4), row(5), row(6), row(7));
        for (at, out) in out.iter_mut().enumerate() {
            let low = a[at].mul_add(s[0], b[at].mul_add(s[1], c[at].mul_add(s[2], d[at] * s[3])));
            let high = e[at].mul_add(s[4], f[at].mul_add(s[5], g[at].mul_add(s[6], h[at] * s[7])));
            *out += low + high;
        }
    }
    for (row, scale) in rows.remainder().chunks_exact(width).zip(scales.remainder()) {
        out.iter_mut().zip(row).for_each(|(out, weight)| *out = weight.mul_add(*scale, *out));
    }
}
