//! Keys and values of every layer and slot, in half precision, written in place.
//!
//! ```text
//! keys    [layer][slot][head][16 positions together][number][16]     a number of 16 keys is one register: scores of
//!                                                                    16 positions grow side by side, without sums
//!                                                                    across lanes
//! values  [layer][slot][head][position][number, filled up to 16]     a value is read along its numbers
//! ```

#![expect(
    unsafe_code,
    clippy::inline_always,
    reason = "kernels are unsafe behind their doors, and slow unless inlined there"
)]

use half::f16;

use crate::nn::kernel::shared::Shared;
use crate::nn::kernel::simd::{LANES, Lanes};

/// Positions that attention takes at once; slots end at a multiple of it, so that it never reads beyond one.
pub(super) const POSITIONS: usize = 128;

pub(in crate::nn::decoder) struct CpuStore {
    slots: usize,
    layers: usize,
    heads: usize,
    /// Numbers of a key.
    dim: usize,
    /// Numbers of a value, with those that fill it up.
    padded: usize,
    /// Positions of a slot, with those that fill it up.
    positions: usize,
    keys: Box<Shared<f16>>,
    values: Box<Shared<f16>>,
}

impl CpuStore {
    /// Of one number.
    pub(in crate::nn::decoder) const ELEMENT_BYTES: usize = size_of::<f16>();

    pub(super) fn new(layers: usize, heads: usize, dim: usize, slots: usize, positions: usize) -> Self {
        let (padded, positions) = (dim.next_multiple_of(LANES), positions.next_multiple_of(POSITIONS));
        let rows = layers * slots * heads * positions;
        let (keys, values) = (Shared::new(rows * dim), Shared::new(rows * padded));
        Self { slots, layers, heads, dim, padded, positions, keys, values }
    }

    /// Copies the first `positions` positions of one slot to another.
    pub(in crate::nn::decoder) fn copy(&mut self, from: usize, to: usize, positions: usize) {
        // Keys lie 16 positions together; those beyond are not read before they are written.
        let whole = positions.next_multiple_of(LANES);
        for layer in 0..self.layers {
            for head in 0..self.heads {
                let (from, to) = (self.row(layer, from, head), self.row(layer, to, head));
                self.keys.as_mut_slice().copy_within(from * self.dim..(from + whole) * self.dim, to * self.dim);
                let values = from * self.padded..(from + positions) * self.padded;
                self.values.as_mut_slice().copy_within(values, to * self.padded);
            }
        }
    }

    fn row(&self, layer: usize, slot: usize, head: usize) -> usize {
        assert!(layer < self.layers && slot < self.slots && head < self.heads, "no such slot");
        ((layer * self.slots + slot) * self.heads + head) * self.positions
    }

    /// Keys and values of a block of positions, and how wide a value is.
    ///
    /// # Safety
    /// Nobody writes them meanwhile.
    pub(super) unsafe fn block(&self, layer: usize, slot: usize, head: usize, block: usize) -> (&[f16], &[f16]) {
        assert!((block + 1) * POSITIONS <= self.positions, "a slot ends before");
        let row = self.row(layer, slot, head) + block * POSITIONS;
        // SAFETY: passed on to the caller.
        unsafe {
            (
                self.keys.read(row * self.dim, POSITIONS * self.dim),
                self.values.read(row * self.padded, POSITIONS * self.padded),
            )
        }
    }

    /// Writes key and value of one head at one position.
    ///
    /// # Safety
    /// Behind the door of `L`; nobody else reads or writes this position meanwhile.
    #[inline(always)]
    pub(super) unsafe fn write<L: Lanes>(
        &self,
        (layer, slot, head, position): (usize, usize, usize, usize),
        key: &[f32],
        value: &[f32],
    ) {
        assert!(
            position < self.positions && key.len() == self.dim && value.len() == self.dim,
            "not a key of this model"
        );
        let row = self.row(layer, slot, head);
        let mut halves = [f16::ZERO; LANES];
        // SAFETY: positions and numbers are within, as checked. A key's numbers stand 16 apart, between them those of its
        // neighbours, which others may write; a value is alone in its row.
        unsafe {
            let to = self.keys.from((row + position / LANES * LANES) * self.dim + position % LANES);
            let values = self.values.write((row + position) * self.padded, self.padded);
            for (chunk, (key, value)) in key.chunks(LANES).zip(value.chunks(LANES)).enumerate() {
                narrow::<L>(key, &mut halves);
                for (index, half) in halves[..key.len()].iter().enumerate() {
                    to.add((chunk * LANES + index) * LANES).write(*half);
                }
                narrow::<L>(value, &mut halves);
                values[chunk * LANES..][..LANES].copy_from_slice(&halves);
            }
        }
    }
}

/// At most 16 numbers in half precision, and zeros.
///
/// # Safety
/// Behind the door of `L`.
#[inline(always)]
unsafe fn narrow<L: Lanes>(from: &[f32], to: &mut [f16; LANES]) {
    let mut whole = [0.0; LANES];
    whole[..from.len()].copy_from_slice(from);
    // SAFETY: both hold sixteen.
    unsafe { L::load(whole.as_ptr()).store_half(to.as_mut_ptr()) };
}
