//! Attention of rows to what their slots hold, a block of 128 positions at a time.
//!
//! A block gives each row its highest score, the sum of its exponentials and the values weighted by them; blocks are
//! added up in the order of their positions ([`Sum::add`]). Blocks begin at multiples of 128 whatever the call, so a row
//! comes out the same bits whether one thread goes through all blocks for many rows (a prompt) or several threads take
//! different blocks of one row (a reply).

#![expect(
    unsafe_code,
    clippy::inline_always,
    reason = "kernels are unsafe behind their doors, and slow unless inlined there"
)]

use half::f16;

use super::store::POSITIONS;
use crate::nn::kernel::simd::{LANES, Lanes};

/// Rows whose scores are computed together.
pub(super) const TOGETHER: usize = 8;

/// The rows of one key head in one task: queries, and what was added up for each.
pub(super) struct Rows {
    dim: usize,
    padded: usize,
    /// `[8 rows together][number][8]`, scaled.
    queries: Vec<f32>,
    /// Positions that each row sees: from the first to before the second.
    seen: Vec<(usize, usize)>,
    sums: Vec<Sum>,
    /// `[row][number]`.
    weighted: Vec<f32>,
    scores: Vec<f32>,
    block: Vec<f32>,
}

/// What is known of a row's softmax.
#[derive(Clone, Copy)]
pub(super) struct Sum {
    pub(super) highest: f32,
    pub(super) total: f32,
}

impl Sum {
    pub(super) const NOTHING: Self = Self { highest: f32::NEG_INFINITY, total: 0.0 };

    /// Adds a later block's sum and weighted values to those of the blocks before.
    ///
    /// # Safety
    /// Behind the door of `L`; both weighted values are whole vectors of one length.
    #[inline(always)]
    pub(super) unsafe fn add<L: Lanes>(&mut self, weighted: &mut [f32], later: Self, later_weighted: &[f32]) {
        if later.highest == f32::NEG_INFINITY {
            return;
        }
        let highest = if self.highest > later.highest { self.highest } else { later.highest };
        let mut factors = [0.0; LANES];
        // SAFETY: the array holds sixteen, chunks are whole.
        unsafe {
            L::splat(self.highest - highest).exp().store(factors.as_mut_ptr());
            let kept = factors[0];
            L::splat(later.highest - highest).exp().store(factors.as_mut_ptr());
            let added = factors[0];
            self.highest = highest;
            self.total = self.total * kept + later.total * added;
            for (sum, later) in weighted.chunks_exact_mut(LANES).zip(later_weighted.chunks_exact(LANES)) {
                let later = L::load(later.as_ptr()).mul(L::splat(added));
                L::load(sum.as_ptr()).mul_add(L::splat(kept), later).store(sum.as_mut_ptr());
            }
        }
    }
}

impl Rows {
    pub(super) fn new(rows: usize, dim: usize) -> Self {
        let (rows, padded) = (rows.next_multiple_of(TOGETHER), dim.next_multiple_of(LANES));
        Self {
            dim,
            padded,
            queries: vec![0.0; rows * dim],
            seen: vec![(0, 0); rows],
            sums: vec![Sum::NOTHING; rows],
            weighted: vec![0.0; rows * padded],
            scores: vec![0.0; TOGETHER * POSITIONS],
            block: vec![0.0; TOGETHER * padded],
        }
    }

    /// Begins with no rows seen.
    pub(super) fn clear(&mut self) {
        self.seen.fill((0, 0));
        self.sums.fill(Sum::NOTHING);
        self.weighted.fill(0.0);
    }

    /// Sets a row's query, times `scale`, and the positions that it sees.
    pub(super) fn put(&mut self, row: usize, query: &[f32], scale: f32, seen: (usize, usize)) {
        self.seen[row] = seen;
        let to = &mut self.queries[row / TOGETHER * TOGETHER * self.dim + row % TOGETHER..];
        for (to, value) in to.iter_mut().step_by(TOGETHER).zip(query) {
            *to = value * scale;
        }
    }

    /// A row's sum and its weighted values, which the total has yet to divide.
    pub(super) fn result(&self, row: usize) -> (Sum, &[f32]) {
        (self.sums[row], &self.weighted[row * self.padded..][..self.padded])
    }

    /// Adds a block of positions from `start` on to the first `rows` rows.
    ///
    /// # Safety
    /// Behind the door of `L`.
    #[inline(always)]
    pub(super) unsafe fn attend<L: Lanes>(&mut self, rows: usize, start: usize, keys: &[f16], values: &[f16]) {
        assert!(keys.len() >= POSITIONS * self.dim && values.len() >= POSITIONS * self.padded, "half a block");
        for first in (0..rows).step_by(TOGETHER) {
            // SAFETY: passed on to the caller; blocks are whole.
            unsafe {
                if rows - first <= TOGETHER / 2 {
                    self.attend_together::<L, { TOGETHER / 2 }, 2>(first, start, keys, values);
                } else {
                    self.attend_together::<L, TOGETHER, 1>(first, start, keys, values);
                }
            }
        }
    }

    /// `ROWS` rows, `VECTORS` times 16 positions at a time.
    #[inline(always)]
    unsafe fn attend_together<L: Lanes, const ROWS: usize, const VECTORS: usize>(
        &mut self,
        first: usize,
        start: usize,
        keys: &[f16],
        values: &[f16],
    ) {
        let seen: [(usize, usize); ROWS] = std::array::from_fn(|row| {
            let (from, to) = self.seen[first + row];
            (from.saturating_sub(start).min(POSITIONS), to.saturating_sub(start).min(POSITIONS))
        });
        let end = seen.iter().map(|seen| seen.1).max().unwrap_or(0);
        if seen.iter().all(|(from, to)| from >= to) {
            return;
        }
        let queries = &self.queries[first * self.dim..][..TOGETHER * self.dim];
        // SAFETY: keys and values are whole blocks, queries whole groups, scores and sums as large as `new` made them.
        unsafe {
            scores::<L, ROWS, VECTORS>(queries, keys, self.dim, end, &mut self.scores);
            let mut sums = [Sum::NOTHING; ROWS];
            let length = end.next_multiple_of(LANES * VECTORS);
            for (row, sum) in sums.iter_mut().enumerate() {
                *sum = exponentials::<L>(&mut self.scores[row * POSITIONS..][..length], seen[row]);
            }
            for row in (0..ROWS).step_by(4) {
                let mut column = 0;
                while column + 4 * LANES <= self.padded {
                    weigh::<L, 4>(&self.scores, values, (row, end), self.padded, column, &mut self.block);
                    column += 4 * LANES;
                }
                while column < self.padded {
                    weigh::<L, 1>(&self.scores, values, (row, end), self.padded, column, &mut self.block);
                    column += LANES;
                }
            }
            for (row, sum) in sums.into_iter().enumerate() {
                let weighted = &mut self.weighted[(first + row) * self.padded..][..self.padded];
                self.sums[first + row].add::<L>(weighted, sum, &self.block[row * self.padded..][..self.padded]);
            }
        }
    }
}

/// Queries times keys, up to position `end` of the block: `[row][128]`.
#[inline(always)]
unsafe fn scores<L: Lanes, const ROWS: usize, const VECTORS: usize>(
    queries: &[f32],
    keys: &[f16],
    dim: usize,
    end: usize,
    out: &mut [f32],
) {
    for position in (0..end).step_by(LANES * VECTORS) {
        // SAFETY: 16 keys are `dim` vectors, and a block's positions are a multiple of what is taken at once.
        unsafe {
            let mut sums = [[L::splat(0.0); VECTORS]; ROWS];
            for number in 0..dim {
                let keys: [L; VECTORS] = std::array::from_fn(|vector| {
                    L::load_half(keys[(position + vector * LANES) * dim + number * LANES..].as_ptr())
                });
                let queries = queries.as_ptr().add(number * TOGETHER);
                for (row, sums) in sums.iter_mut().enumerate() {
                    let query = L::splat(*queries.add(row));
                    for vector in 0..VECTORS {
                        sums[vector] = keys[vector].mul_add(query, sums[vector]);
                    }
                }
            }
            for (row, sums) in sums.into_iter().enumerate() {
                for (vector, sum) in sums.into_iter().enumerate() {
                    sum.store(out[row * POSITIONS + position + vector * LANES..].as_mut_ptr());
                }
            }
        }
    }
}

/// Replaces scores by their exponentials relative to the highest; by zeros where the row does not see.
#[inline(always)]
unsafe fn exponentials<L: Lanes>(scores: &mut [f32], seen: (usize, usize)) -> Sum {
    if seen.0 >= seen.1 {
        scores.fill(0.0);
        return Sum::NOTHING;
    }
    scores[..seen.0].fill(f32::NEG_INFINITY);
    scores[seen.1..].fill(f32::NEG_INFINITY);
    // SAFETY: chunks are whole.
    unsafe {
        let (chunks, _) = scores.as_chunks_mut::<LANES>();
        let lowest = L::splat(f32::NEG_INFINITY);
        let highest = chunks.iter().fold(lowest, |highest, chunk| highest.max(L::load(chunk.as_ptr()))).highest();
        let mut total = L::splat(0.0);
        for chunk in chunks {
            let power = L::load(chunk.as_ptr()).sub(L::splat(highest)).exp();
            power.store(chunk.as_mut_ptr());
            total = total.add(power);
        }
        Sum { highest, total: total.sum() }
    }
}

/// The values up to position `end`, weighted by the exponentials of four rows: `VECTORS` times 16 numbers of each.
#[inline(always)]
unsafe fn weigh<L: Lanes, const VECTORS: usize>(
    exponentials: &[f32],
    values: &[f16],
    (first, end): (usize, usize),
    padded: usize,
    column: usize,
    out: &mut [f32],
) {
    let exponentials = &exponentials[first * POSITIONS..][..4 * POSITIONS];
    assert!(end <= POSITIONS && end * padded <= values.len(), "half a block");
    // SAFETY: `column` and the vectors after it are within a value, as the caller steps; positions as checked.
    unsafe {
        let mut sums = [[L::splat(0.0); VECTORS]; 4];
        for position in 0..end {
            let value = values.as_ptr().add(position * padded + column);
            let value: [L; VECTORS] = std::array::from_fn(|vector| L::load_half(value.add(vector * LANES)));
            for (row, sums) in sums.iter_mut().enumerate() {
                let factor = L::splat(*exponentials.as_ptr().add(row * POSITIONS + position));
                for vector in 0..VECTORS {
                    sums[vector] = value[vector].mul_add(factor, sums[vector]);
                }
            }
        }
        for (row, sums) in sums.into_iter().enumerate() {
            for (vector, sum) in sums.into_iter().enumerate() {
                sum.store(out[(first + row) * padded + column + vector * LANES..][..LANES].as_mut_ptr());
            }
        }
    }
}
