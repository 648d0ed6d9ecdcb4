//! The three attentions of Whisper, each by the CPU's own kernel or in plain candle operations for other devices.

use candle_core::{D, Result, Tensor};
use candle_nn::ops::softmax_last_dim;

use super::kernel::{CausalAttention, CrossAttention, FullAttention};

/// Every position attends to every other. `[batch, length, 3 * width]` → `[batch, length, width]`.
pub(super) fn full(qkv: &Tensor, heads: usize) -> Result<Tensor> {
    if qkv.device().is_cpu() { qkv.apply_op1_no_bwd(&FullAttention { heads }) } else { full_plain(qkv, heads) }
}

pub(super) fn full_plain(qkv: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, length, width) = qkv.dims3()?;
    let (width, dim) = (width / 3, width / 3 / heads);
    let part = |index| {
        let part = qkv.narrow(D::Minus1, index * width, width)?;
        part.reshape((batch, length, heads, dim))?.transpose(1, 2)?.contiguous()
    };
    let (query, key, value) = (part(0)?, part(1)?, part(2)?);
    let scores = (query.matmul(&key.t()?)? * (dim as f64).powf(-0.5))?;
    softmax_last_dim(&scores)?.matmul(&value)?.transpose(1, 2)?.reshape((batch, length, width))
}

/// New positions attend to what the encoder heard. Queries `[windows, rows, width]`, keys
/// `[windows, heads, dim, positions]` (scaled), values `[windows, heads, positions, dim]` → `[windows, rows, width]`.
pub(super) fn cross(query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor> {
    if query.device().is_cpu() {
        return query.apply_op3_no_bwd(key, value, &CrossAttention);
    }
    cross_plain(query, key, value)
}

pub(super) fn cross_plain(query: &Tensor, key: &Tensor, value: &Tensor) -> Result<Tensor> {
    let (windows, rows, width) = query.dims3()?;
    let weights = cross_weights(query, key)?;
    weights.matmul(value)?.transpose(1, 2)?.reshape((windows, rows, width))
}

/// How much each new position attends to each heard one: `[windows, heads, rows, positions]`.
pub(super) fn cross_weights(query: &Tensor, key: &Tensor) -> Result<Tensor> {
    let (windows, rows, width) = query.dims3()?;
    let heads = key.dim(1)?;
    let query = query.reshape((windows, rows, heads, width / heads))?.transpose(1, 2)?.contiguous()?;
    softmax_last_dim(&query.matmul(key)?)
}

/// New positions attend to those before them and to themselves. Queries `[batch, new, width]`, caches
/// `[batch, capacity, width]` filled up to and including the new positions, the first of which is `offset`
/// → `[batch, new, width]`.
pub(super) fn causal(query: &Tensor, key: &Tensor, value: &Tensor, heads: usize, offset: usize) -> Result<Tensor> {
    if query.device().is_cpu() {
        return query.apply_op3_no_bwd(key, value, &CausalAttention { heads, offset });
    }
    causal_plain(query, key, value, heads, offset)
}

pub(super) fn causal_plain(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    heads: usize,
    offset: usize,
) -> Result<Tensor> {
    let (batch, new, width) = query.dims3()?;
    let (seen, dim) = (offset + new, width / heads);
    let split = |part: &Tensor, length| {
        part.narrow(1, 0, length)?.reshape((batch, length, heads, dim))?.transpose(1, 2)?.contiguous()
    };
    let (query, key, value) = (split(query, new)?, split(key, seen)?, split(value, seen)?);
    let mut scores = (query.matmul(&key.t()?)? * (dim as f64).powf(-0.5))?;
    if new > 1 {
        let hidden = |row, position| if position > offset + row { f32::NEG_INFINITY } else { 0.0 };
        let mask: Vec<f32> = (0..new).flat_map(|row| (0..seen).map(move |position| hidden(row, position))).collect();
        let mask = Tensor::from_vec(mask, (new, seen), query.device())?.to_dtype(query.dtype())?;
        scores = scores.broadcast_add(&mask)?;
    }
    softmax_last_dim(&scores)?.matmul(&value)?.transpose(1, 2)?.reshape((batch, new, width))
}

#[cfg(test)]
#[path = "attention_tests.rs"]
mod tests;
