//! The two steps of attention: tasks over rows and blocks, then each row put together.

#![expect(
    unsafe_code,
    clippy::inline_always,
    reason = "steps share memory by their items; kernels are slow unless inlined behind their doors"
)]

use super::super::attention::Sum;
use super::super::lockstep::Worker;
use super::super::model::Layer;
use super::super::plan::Task;
use super::super::store::POSITIONS;
use super::Walk;
use crate::nn::kernel::simd::{LANES, Lanes};

/// Attention of all rows, or its blocks.
#[inline(always)]
pub(super) unsafe fn attend<L: Lanes>(walk: &Walk<'_>, worker: &Worker<'_>, (index, layer): (usize, &Layer)) {
    let config = &walk.model.config;
    let (dim, group) = (config.head_dim, config.heads / config.kv_heads);
    let mut own = walk.own(worker);
    worker.share(walk.plan.tasks.len(), 1, |tasks| {
        for Task { rows, slot, head, blocks, split } in &walk.plan.tasks[tasks] {
            let attention = &mut own.rows;
            attention.clear();
            // SAFETY: rows and cache were written before the last barrier; what is written is the task's.
            unsafe {
                for (number, row) in rows.clone().enumerate() {
                    let seen = walk.plan.rows[row].position + 1;
                    let seen = (seen.saturating_sub(layer.window), seen);
                    let width = (config.heads + 2 * config.kv_heads) * dim;
                    let queries = walk.memory.heads.read(row * width + head * group * dim, group * dim);
                    for (query, values) in queries.chunks(dim).enumerate() {
                        attention.put(number * group + query, values, config.query_scale, seen);
                    }
                }
                for block in blocks.clone() {
                    let (keys, values) = walk.store.block(index, *slot, *head, block);
                    attention.attend::<L>(rows.len() * group, block * POSITIONS, keys, values);
                }
                for (number, row) in rows.clone().enumerate() {
                    for query in 0..group {
                        let (sum, weighted) = attention.result(number * group + query);
                        match walk.plan.rows[row].split.filter(|_| *split) {
                            Some(split) => keep(walk, split.at(*head, blocks.start, group) + query, sum, weighted),
                            None => divide(walk, row, head * group + query, sum, weighted),
                        }
                    }
                }
            }
        }
    });
}

/// Keeps a block's sum.
unsafe fn keep(walk: &Walk<'_>, number: usize, sum: Sum, weighted: &[f32]) {
    let length = walk.memory.padded + LANES;
    // SAFETY: passed on to the caller.
    let to = unsafe { walk.memory.splits.write(number * length, length) };
    (to[0], to[1]) = (sum.highest, sum.total);
    to[LANES..].copy_from_slice(weighted);
}

/// Writes what a row's head attended to.
unsafe fn divide(walk: &Walk<'_>, row: usize, head: usize, sum: Sum, weighted: &[f32]) {
    let (heads, dim) = (walk.model.config.heads, walk.model.config.head_dim);
    // SAFETY: passed on to the caller.
    let to = unsafe { walk.memory.attended.write((row * heads + head) * dim, dim) };
    let inverse = 1.0 / sum.total;
    for (to, value) in to.iter_mut().zip(weighted) {
        *to = value * inverse;
    }
}

/// Adds the blocks up where they were dealt out, then prepares the rows for the next product.
#[inline(always)]
pub(super) unsafe fn mix<L: Lanes>(walk: &Walk<'_>, worker: &Worker<'_>) {
    let config = &walk.model.config;
    let (group, length) = (config.heads / config.kv_heads, walk.memory.padded + LANES);
    let mut own = walk.own(worker);
    worker.share(walk.rows(), walk.together(walk.rows()), |rows| {
        for row in rows {
            // SAFETY: the row is this thread's; sums of blocks were written before the last barrier.
            unsafe {
                if let Some(split) = walk.plan.rows[row].split {
                    for head in 0..config.heads {
                        let (mut sum, weighted) = (Sum::NOTHING, &mut own.line[..walk.memory.padded]);
                        weighted.fill(0.0);
                        for block in 0..split.blocks() {
                            let number = split.at(head / group, block, group) + head % group;
                            let later = walk.memory.splits.read(number * length, length);
                            let (later, values) = (Sum { highest: later[0], total: later[1] }, &later[LANES..]);
                            sum.add::<L>(weighted, later, values);
                        }
                        divide(walk, row, head, sum, weighted);
                    }
                }
                let width = config.heads * config.head_dim;
                walk.memory.mixed.write::<L>(row, 0, walk.memory.attended.read(row * width, width));
            }
        }
    });
}
