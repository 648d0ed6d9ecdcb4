//! Rows of activations as the product kernels read them: 8-bit codes with a scale for each 32 numbers, or floats.
//!
//! ```text
//! rows come in blocks of 16, the last one filled up:
//! codes   [block][32 inputs][16 rows][32]      scales, sums   [block][32 inputs][16 rows]
//! halves  [block][32 inputs][2][16 rows]       dense          [block][input][16 rows]
//! ```
//! `sums` are those of a row's 32 codes times their scale, `halves` of the first and the last 16 codes. The rows of a
//! block stand at constant distances, so that a kernel addresses all of them from one pointer.

#![expect(
    unsafe_code,
    clippy::inline_always,
    reason = "kernels are unsafe behind their doors, and slow unless inlined there"
)]

use super::shared::Shared;
use super::simd::Lanes;

/// Rows in a block.
pub(in crate::nn) const BLOCK: usize = 16;
/// Numbers with one scale.
pub(in crate::nn) const GROUP: usize = 32;

pub(in crate::nn) struct Activations {
    /// Numbers in a row.
    width: usize,
    /// What the products that read these rows want.
    quantized: bool,
    dense: bool,
    codes: Box<Shared<i8>>,
    scales: Box<Shared<f32>>,
    sums: Box<Shared<f32>>,
    halves: Box<Shared<f32>>,
    floats: Box<Shared<f32>>,
}

/// Pointers to one block of rows.
#[derive(Clone, Copy)]
pub(in crate::nn) struct BlockOfRows {
    pub(in crate::nn) codes: *const i8,
    pub(in crate::nn) scales: *const f32,
    pub(in crate::nn) sums: *const f32,
    pub(in crate::nn) halves: *const f32,
    pub(in crate::nn) floats: *const f32,
}

impl Activations {
    pub(in crate::nn) fn new(rows: usize, width: usize, quantized: bool, dense: bool) -> Self {
        let blocks = rows.div_ceil(BLOCK);
        let groups = if quantized { blocks * width.div_ceil(GROUP) } else { 0 };
        Self {
            width,
            quantized,
            dense,
            codes: Shared::new(groups * GROUP * BLOCK),
            scales: Shared::new(groups * BLOCK),
            sums: Shared::new(groups * BLOCK),
            halves: Shared::new(groups * 2 * BLOCK),
            floats: Shared::new(if dense { blocks * width * BLOCK } else { 0 }),
        }
    }

    pub(in crate::nn) fn width(&self) -> usize {
        self.width
    }

    /// The rows from `16 * block` on.
    ///
    /// # Safety
    /// Nobody writes them meanwhile.
    pub(in crate::nn) unsafe fn block(&self, block: usize) -> BlockOfRows {
        // What no product reads has no memory.
        let group = if self.quantized { block * self.width.div_ceil(GROUP) } else { 0 };
        let float = if self.dense { block * self.width * BLOCK } else { 0 };
        // SAFETY: passed on to the caller.
        unsafe {
            BlockOfRows {
                codes: self.codes.from(group * GROUP * BLOCK),
                scales: self.scales.from(group * BLOCK),
                sums: self.sums.from(group * BLOCK),
                halves: self.halves.from(group * 2 * BLOCK),
                floats: self.floats.from(float),
            }
        }
    }

    /// Writes numbers of one row that begin at `start`, a multiple of 32, in whole groups but at the row's end.
    ///
    /// # Safety
    /// Behind the door of `L`; nobody else reads or writes these numbers meanwhile.
    #[inline(always)]
    pub(in crate::nn) unsafe fn write<L: Lanes>(&self, row: usize, start: usize, values: &[f32]) {
        let (block, lane) = (row / BLOCK, row % BLOCK);
        assert!(start.is_multiple_of(GROUP) && start + values.len() <= self.width, "numbers beside the row");
        // SAFETY: block, group and lane are within what `new` made room for; the caller vouches for the rest.
        unsafe {
            if self.dense {
                let to = self.floats.from(block * self.width * BLOCK);
                for (index, value) in values.iter().enumerate() {
                    to.add((start + index) * BLOCK + lane).write(*value);
                }
            }
            if self.quantized {
                for (index, values) in values.as_chunks::<GROUP>().0.iter().enumerate() {
                    let group = block * self.width.div_ceil(GROUP) + start / GROUP + index;
                    self.quantize::<L>(values, group, lane);
                }
            }
        }
    }

    /// # Safety
    /// As [`Activations::write`].
    #[inline(always)]
    unsafe fn quantize<L: Lanes>(&self, values: &[f32; GROUP], group: usize, lane: usize) {
        // SAFETY: two vectors are read of 32 numbers; the places written are the caller's.
        unsafe {
            let (low, high) = (L::load(values.as_ptr()), L::load(values.as_ptr().add(16)));
            let highest = low.abs().max(high.abs()).highest();
            let scale = highest / 127.0;
            let inverse = L::splat(if highest > 0.0 { 127.0 / highest } else { 0.0 });
            let (low, high) = (low.mul(inverse).round(), high.mul(inverse).round());
            let codes = self.codes.from((group * BLOCK + lane) * GROUP);
            L::store_bytes(low, codes);
            L::store_bytes(high, codes.add(16));
            let sums = [L::whole_sum(low) as f32 * scale, L::whole_sum(high) as f32 * scale];
            self.scales.from(group * BLOCK + lane).write(scale);
            self.sums.from(group * BLOCK + lane).write(L::whole_sum(L::whole_add(low, high)) as f32 * scale);
            let halves = self.halves.from(group * 2 * BLOCK + lane);
            halves.write(sums[0]);
            halves.add(BLOCK).write(sums[1]);
        }
    }
}
