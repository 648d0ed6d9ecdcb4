//! The few operations that candle does slowly on a CPU, as operations of its own kind: attention without temporary
//! transposes, GELU with its bias.
//!
//! Each has a plain-candle twin in `attention` or `linear`, which other devices use; tests compare the two. All take
//! contiguous f32 and say so where they do not get it.

use candle_core::{CpuStorage, CustomOp1, CustomOp3, InplaceOp2, Layout, Result, Shape, bail};
use gemm::Parallelism;
use rayon::prelude::*;

use crate::nn::frames::scalar::gelu_erf;

/// Query rows that one task attends at once. The scores of so many rows against 1,500 keys stay in the second-level
/// cache, and packing the keys anew for each task stays cheap.
const ATTENTION_ROWS: usize = 128;
/// Lanes that the loops below are written in: one AVX-512 register, two AVX2 ones. Sums over arrays of a constant
/// length, by index, are what the compiler turns into vector instructions at every level of optimisation.
const LANES: usize = 16;

/// Attention of every position to every position of the same sequence.
/// `[batch, length, 3 * width]`, queries, keys and values beside each other → `[batch, length, width]`.
pub(super) struct FullAttention {
    pub(super) heads: usize,
}

impl CustomOp1 for FullAttention {
    fn name(&self) -> &'static str {
        "whisper-full-attention"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, length, width) = layout.shape().dims3()?;
        let (qkv, width) = (floats(storage, layout)?, width / 3);
        let mut out = vec![0.0; batch * length * width];
        for (qkv, out) in qkv.chunks(length * 3 * width).zip(out.chunks_mut(length * width)) {
            out.par_chunks_mut(ATTENTION_ROWS * width).enumerate().for_each_init(Vec::new, |scores, (block, out)| {
                attend_rows(qkv, length, width, self.heads, block * ATTENTION_ROWS, scores, out);
            });
        }
        Ok((CpuStorage::F32(out), Shape::from((batch, length, width))))
    }
}

/// Attends the rows from `first` on, as many as `out` holds, one head after the other.
fn attend_rows(
    qkv: &[f32],
    length: usize,
    width: usize,
    heads: usize,
    first: usize,
    scores: &mut Vec<f32>,
    out: &mut [f32],
) {
    let (rows, dim, stride) = (out.len() / width, width / heads, 3 * width);
    let scale = 1.0 / (dim as f32).sqrt();
    scores.resize(rows * length, 0.0);
    let mut sums = vec![0.0; rows];
    for head in 0..heads {
        let query = &qkv[first * stride + head * dim..];
        let key = &qkv[width + head * dim..];
        let value = &qkv[2 * width + head * dim..];
        let shape = Product { rows, inner: dim, columns: length, scale };
        multiply(&shape, (query, stride, 1), (key, 1, stride), scores, length);
        for (row, sum) in scores.chunks_mut(length).zip(&mut sums) {
            *sum = exponentials(row);
        }
        let shape = Product { rows, inner: length, columns: dim, scale: 1.0 };
        multiply(&shape, (scores, length, 1), (value, stride, 1), &mut out[head * dim..], width);
        for (row, sum) in out.chunks_mut(width).zip(&sums) {
            let inverse = 1.0 / sum;
            for value in &mut row[head * dim..(head + 1) * dim] {
                *value *= inverse;
            }
        }
    }
}

/// The sizes of a matrix product and the factor on its result.
struct Product {
    rows: usize,
    inner: usize,
    columns: usize,
    scale: f32,
}

/// `out = scale * left x right`. `left` and `right` come with the strides of their rows and columns, `out` with the
/// stride of its rows.
fn multiply(
    shape: &Product,
    left: (&[f32], usize, usize),
    right: (&[f32], usize, usize),
    out: &mut [f32],
    stride: usize,
) {
    let Product { rows, inner, columns, scale } = *shape;
    let last = |rows: usize, row: usize, columns: usize, column: usize| (rows - 1) * row + (columns - 1) * column;
    assert!(last(rows, left.1, inner, left.2) < left.0.len(), "the left matrix ends early");
    assert!(last(inner, right.1, columns, right.2) < right.0.len(), "the right matrix ends early");
    assert!(last(rows, stride, columns, 1) < out.len(), "the product does not fit");
    #[expect(unsafe_code, reason = "gemm takes raw pointers with strides")]
    // SAFETY: the last element that each stride reaches was checked above to be inside its slice; strides are
    // positive, and `out` is borrowed exclusively.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            out.as_mut_ptr(),
            1,
            stride.cast_signed(),
            false,
            left.0.as_ptr(),
            left.2.cast_signed(),
            left.1.cast_signed(),
            right.0.as_ptr(),
            right.2.cast_signed(),
            right.1.cast_signed(),
            0.0,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// Attention of a few new positions to what the encoder heard.
/// Queries `[windows, rows, width]`, keys `[windows, heads, dim, positions]` (transposed and scaled), values
/// `[windows, heads, positions, dim]` → `[windows, rows, width]`.
pub(super) struct CrossAttention;

impl CustomOp3 for CrossAttention {
    fn name(&self) -> &'static str {
        "whisper-cross-attention"
    }

    fn cpu_fwd(
        &self,
        query: &CpuStorage,
        query_layout: &Layout,
        key: &CpuStorage,
        key_layout: &Layout,
        value: &CpuStorage,
        value_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (windows, rows, width) = query_layout.shape().dims3()?;
        let (_, heads, dim, positions) = key_layout.shape().dims4()?;
        let (query, key, value) =
            (floats(query, query_layout)?, floats(key, key_layout)?, floats(value, value_layout)?);
        let mut by_head = vec![0.0; windows * rows * width];
        by_head.par_chunks_mut(rows * dim).enumerate().for_each_init(
            || vec![0.0; positions],
            |scores, (index, out)| {
                let (window, head) = (index / heads, index % heads);
                let key = &key[index * dim * positions..][..dim * positions];
                let value = &value[index * dim * positions..][..dim * positions];
                for (row, out) in out.chunks_mut(dim).enumerate() {
                    let query = &query[(window * rows + row) * width + head * dim..][..dim];
                    scores.fill(0.0);
                    add_scaled_rows(query, key, scores);
                    let sum = exponentials(scores);
                    add_scaled_rows(scores, value, out);
                    for value in out {
                        *value /= sum;
                    }
                }
            },
        );
        Ok((CpuStorage::F32(heads_last(&by_head, windows, heads, rows, dim)), Shape::from((windows, rows, width))))
    }
}

/// `[windows, heads, rows, dim]` → `[windows, rows, heads * dim]`.
fn heads_last(by_head: &[f32], windows: usize, heads: usize, rows: usize, dim: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(by_head.len());
    for window in 0..windows {
        for row in 0..rows {
            for head in 0..heads {
                out.extend_from_slice(&by_head[((window * heads + head) * rows + row) * dim..][..dim]);
            }
        }
    }
    out
}

/// Attention of new positions to those before them and to themselves.
/// Queries `[batch, new, width]`, caches of keys and values `[batch, capacity, width]`, which hold the new positions
/// already → `[batch, new, width]`.
pub(super) struct CausalAttention {
    pub(super) heads: usize,
    /// The first new position.
    pub(super) offset: usize,
}

impl CustomOp3 for CausalAttention {
    fn name(&self) -> &'static str {
        "whisper-causal-attention"
    }

    fn cpu_fwd(
        &self,
        query: &CpuStorage,
        query_layout: &Layout,
        key: &CpuStorage,
        key_layout: &Layout,
        value: &CpuStorage,
        value_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (batch, new, width) = query_layout.shape().dims3()?;
        let capacity = key_layout.shape().dims3()?.1;
        let (query, key, value) =
            (floats(query, query_layout)?, floats(key, key_layout)?, floats(value, value_layout)?);
        let dim = width / self.heads;
        let scale = 1.0 / (dim as f32).sqrt();
        let mut out = vec![0.0; batch * new * width];
        let mut scores = vec![0.0; self.offset + new];
        for (index, (query, out)) in query.chunks(dim).zip(out.chunks_mut(dim)).enumerate() {
            let (row, head) = (index / self.heads, index % self.heads);
            let seen = self.offset + row % new + 1;
            let start = row / new * capacity * width + head * dim;
            let at = |position: usize| start + position * width;
            for (position, score) in scores[..seen].iter_mut().enumerate() {
                *score = scale * dot(query, &key[at(position)..][..dim]);
            }
            let sum = exponentials(&mut scores[..seen]);
            for (position, score) in scores[..seen].iter().enumerate() {
                add_scaled(*score / sum, &value[at(position)..][..dim], out);
            }
        }
        Ok((CpuStorage::F32(out), Shape::from((batch, new, width))))
    }
}

/// In place: `[rows, width]` plus bias `[width]`, then GELU (by the error function, not by tanh).
pub(super) struct BiasGelu;

impl InplaceOp2 for BiasGelu {
    fn name(&self) -> &'static str {
        "whisper-bias-gelu"
    }

    fn cpu_fwd(
        &self,
        storage: &mut CpuStorage,
        layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<()> {
        let bias = floats(bias, bias_layout)?;
        let (CpuStorage::F32(values), Some((from, to))) = (storage, layout.contiguous_offsets()) else {
            bail!("values have to be contiguous f32")
        };
        values[from..to].par_chunks_mut(bias.len() * 8).for_each(|rows| {
            for row in rows.chunks_mut(bias.len()) {
                for (value, bias) in row.iter_mut().zip(bias) {
                    *value = gelu_erf(*value + bias);
                }
            }
        });
        Ok(())
    }
}

/// `ln(sum(exp(values)))`, exact to about 1e-6.
pub fn log_sum_exp(values: &[f32]) -> f32 {
    let highest = highest(values);
    if highest == f32::NEG_INFINITY {
        return highest;
    }
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            sums[lane] += exp(chunk[lane] - highest);
        }
    }
    let rest: f32 = rest.iter().map(|value| exp(value - highest)).sum();
    highest + (sums.iter().sum::<f32>() + rest).ln()
}

fn floats<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(&storage.as_slice::<f32>()?[from..to]),
        None => bail!("operands have to be contiguous"),
    }
}

fn highest(values: &[f32]) -> f32 {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut highest = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            highest[lane] = if chunk[lane] > highest[lane] { chunk[lane] } else { highest[lane] };
        }
    }
    highest.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Replaces every value by `exp(value - highest)` and gives the sum of them.
fn exponentials(row: &mut [f32]) -> f32 {
    let highest = highest(row);
    let (chunks, rest) = row.as_chunks_mut::<LANES>();
    let mut sums = [0.0; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            chunk[lane] = exp(chunk[lane] - highest);
            sums[lane] += chunk[lane];
        }
    }
    let mut sum: f32 = sums.iter().sum();
    for value in rest {
        *value = exp(*value - highest);
        sum += *value;
    }
    sum
}

/// e to the power of `x`, for `x` at most 0; relative error about 2e-7. Written so that the compiler vectorises it:
/// 2 to the whole part goes into the exponent's bits, 2 to the rest is a polynomial (Cephes' `expf`).
#[inline]
fn exp(x: f32) -> f32 {
    // Adding it rounds to a whole number, which is then in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let x = if x > -87.0 { x } else { -87.0 };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let rest = x - whole * 0.693_359_4 + whole * 2.121_944_4e-4;
    let mut power = 1.987_569_1e-4;
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        power = power * rest + coefficient;
    }
    let power = power * rest * rest + rest + 1.0;
    f32::from_bits(power.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// `out += sum of factors[i] * rows[i]`, the rows as long as `out`.
fn add_scaled_rows(factors: &[f32], rows: &[f32], out: &mut [f32]) {
    // Four rows at a time: `out` is read and written a quarter as often.
    let width = out.len();
    let (fours, rest) = factors.split_at(factors.len() / 4 * 4);
    for (factors, rows) in fours.chunks_exact(4).zip(rows.chunks_exact(4 * width)) {
        let (a, others) = rows.split_at(width);
        let (b, others) = others.split_at(width);
        let (c, d) = others.split_at(width);
        for ((((out, a), b), c), d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *out += factors[0] * a + factors[1] * b + (factors[2] * c + factors[3] * d);
        }
    }
    for (factor, row) in rest.iter().zip(rows[fours.len() * width..].chunks(width)) {
        add_scaled(*factor, row, out);
    }
}

fn add_scaled(factor: f32, row: &[f32], out: &mut [f32]) {
    for (out, value) in out.iter_mut().zip(row) {
        *out += factor * value;
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a_chunks, a_rest), (b_chunks, b_rest)) = (a.as_chunks::<{ 4 * LANES }>(), b.as_chunks::<{ 4 * LANES }>());
    let mut sums = [0.0_f32; 4 * LANES];
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..4 * LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    let (low, high) = sums.split_at(2 * LANES);
    let mut quarter = [0.0; LANES];
    for lane in 0..LANES {
        quarter[lane] = (low[lane] + low[LANES + lane]) + (high[lane] + high[LANES + lane]);
    }
    quarter.iter().sum::<f32>() + rest
}

#[cfg(test)]
#[path = "kernel_tests.rs"]
mod tests;
