//! A linear layer over any number of rows.
//!
//! A few rows are bound by the reading of the weights, which happens once for all of them; many by the products, of which
//! a processor does four of codes for one of floats. A row's result is the same bits alone and in a crowd.

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::activations::{Activations, BLOCK};
use super::pack::{Kind, Packed};
use super::product::{self, Product};
use super::shared::Shared;
use super::simd::{Instructions, LANES, Lanes, behind_door};

/// Blocks of rows that one task multiplies with a tile while the tile is in the first-level cache.
const BLOCKS: usize = 4;
/// Tasks for each thread, so that none waits long for the last.
const TASKS: usize = 4;

/// `y = x w^T + b`.
pub(in crate::nn) struct PackedLinear {
    weights: Packed,
    bias: Vec<f32>,
    instructions: Instructions,
}

impl PackedLinear {
    /// Numbers that share a scale: `inner` has to be a multiple of it.
    pub(in crate::nn) const GROUP: usize = super::activations::GROUP;

    /// Rounds weights `[outer, inner]` to 8-bit codes with a half-precision scale for each 32 inputs (ggml's Q8_0);
    /// `bias` is `[outer]`.
    ///
    /// # Errors
    /// Other shapes, and an `inner` that is no multiple of 32.
    pub(in crate::nn) fn rounded(weight: &Tensor, bias: &Tensor) -> Result<Self> {
        let weights = Packed::quantized(&QTensor::quantize(weight, GgmlDType::Q8_0)?)?;
        let bias = bias.to_vec1()?;
        if bias.len() != weights.outputs {
            bail!("a bias of {} does not fit {} outputs", bias.len(), weights.outputs);
        }
        Ok(Self { bias, ..Self::of(weights) })
    }

    /// Without a bias, of weights as they are stored.
    ///
    /// # Errors
    /// A shape other than `[outer, inner]`.
    pub(in crate::nn) fn quantized(weight: &QTensor) -> Result<Self> {
        Packed::quantized(weight).map(Self::of)
    }

    /// Without a bias, of floats that stay as wide as they are.
    ///
    /// # Errors
    /// A shape other than `[outer, inner]`.
    pub(in crate::nn) fn dense(weight: &Tensor) -> Result<Self> {
        Packed::dense(weight).map(Self::of)
    }

    fn of(weights: Packed) -> Self {
        Self { bias: vec![0.0; weights.outputs], weights, instructions: Instructions::detect() }
    }

    /// `[rows, inner]`, f32 → `[rows, outer]`, each number `finish`ed.
    ///
    /// # Errors
    /// An input of another width, type or device.
    pub(in crate::nn) fn forward(&self, input: &Tensor, finish: impl Fn(f32) -> f32 + Send + Sync) -> Result<Tensor> {
        input.apply_op1_no_bwd(&Forward { linear: self, finish })
    }

    fn rows(&self, input: &[f32], rows: usize, finish: impl Fn(f32) -> f32 + Sync) -> Vec<f32> {
        let (inner, outer) = (self.weights.inputs, self.weights.outputs);
        let in_codes = matches!(self.weights.kind, Kind::Quantized(_));
        let activations = &Activations::new(rows, inner, in_codes, !in_codes);
        input.par_chunks(inner).enumerate().with_min_len(BLOCK).for_each(|(row, values)| {
            #[expect(unsafe_code, reason = "a kernel behind its door")]
            // SAFETY: the instructions were detected; each row is written by one task.
            unsafe {
                behind_door!(self.instructions, write(activations: &Activations, row: usize, values: &[f32]));
            }
        });
        let mut out = vec![0.0; rows * outer];
        let (shared, tiles, blocks) = (Shared::lend(&mut out), self.weights.tiles(), rows.div_ceil(BLOCK));
        let groups = blocks.div_ceil(BLOCKS);
        let parts = (TASKS * rayon::current_num_threads()).div_ceil(groups).min(tiles);
        (0..groups * parts).into_par_iter().for_each_init(
            || [0.0; BLOCK * LANES],
            |product, task| {
                let (group, part) = (task / parts, task % parts);
                for tile in part * tiles / parts..(part + 1) * tiles / parts {
                    for block in group * BLOCKS..((group + 1) * BLOCKS).min(blocks) {
                        let count = (rows - block * BLOCK).min(BLOCK);
                        self.multiply(activations, tile, (block, count), product);
                        self.finish(product, tile, (block, count), shared, &finish);
                    }
                }
            },
        );
        out
    }

    fn multiply(&self, activations: &Activations, tile: usize, rows: (usize, usize), out: &mut Product) {
        #[expect(unsafe_code, reason = "a kernel behind its door")]
        // SAFETY: the instructions were detected; all rows are written by now.
        unsafe {
            product::multiply(self.instructions, &self.weights, tile, activations, rows, out);
        }
    }

    fn finish(
        &self,
        product: &Product,
        tile: usize,
        (block, count): (usize, usize),
        out: &Shared<f32>,
        finish: impl Fn(f32) -> f32,
    ) {
        let outer = self.weights.outputs;
        let bias = &self.bias[tile * LANES..outer.min((tile + 1) * LANES)];
        for (row, product) in product.chunks(LANES).take(count).enumerate() {
            let start = (block * BLOCK + row) * outer + tile * LANES;
            #[expect(unsafe_code, reason = "tasks write apart from each other")]
            // SAFETY: these outputs of these rows are this task's alone.
            let out = unsafe { out.write(start, bias.len()) };
            for ((out, value), bias) in out.iter_mut().zip(product).zip(bias) {
                *out = finish(value + bias);
            }
        }
    }
}

#[expect(
    unsafe_code,
    clippy::inline_always,
    reason = "kernels are unsafe behind their doors, and slow unless inlined there"
)]
#[inline(always)]
unsafe fn write<L: Lanes>(activations: &Activations, row: usize, values: &[f32]) {
    // SAFETY: passed on to the caller.
    unsafe { activations.write::<L>(row, 0, values) };
}

struct Forward<'a, F> {
    linear: &'a PackedLinear,
    finish: F,
}

impl<F: Fn(f32) -> f32 + Send + Sync> CustomOp1 for Forward<'_, F> {
    fn name(&self) -> &'static str {
        "packed-linear"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, inner) = layout.shape().dims2()?;
        let Packed { inputs, outputs, .. } = self.linear.weights;
        let Some((from, to)) = layout.contiguous_offsets().filter(|_| inner == inputs) else {
            bail!("{rows} rows of {inner} numbers cannot be multiplied with weights for {inputs}, or lie scattered");
        };
        let out = self.linear.rows(&storage.as_slice::<f32>()?[from..to], rows, &self.finish);
        Ok((CpuStorage::F32(out), Shape::from((rows, outputs))))
    }
}

#[cfg(test)]
#[path = "linear_tests.rs"]
mod tests;
