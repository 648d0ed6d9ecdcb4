//! One pass over the weights, as each thread walks it.

#![expect(
    unsafe_code,
    clippy::inline_always,
    reason = "steps share memory by their items; kernels are slow unless inlined behind their doors"
)]

mod attention;

use std::sync::{MutexGuard, PoisonError};

use super::lockstep::Worker;
use super::memory::{Lent, Own};
use super::model::{Layer, Model, Rotations};
use super::plan::Plan;
use super::rows::{gate, normalize, rotate};
use super::store::CpuStore;
use crate::nn::kernel::activations::{Activations, BLOCK, GROUP};
use crate::nn::kernel::pack::Packed;
use crate::nn::kernel::product::{Product, multiply};
use crate::nn::kernel::shared::Shared;
use crate::nn::kernel::simd::{Instructions, LANES, Lanes, behind_door};
use attention::{attend, mix};

pub(super) struct Walk<'a> {
    pub(super) instructions: Instructions,
    pub(super) model: &'a Model,
    pub(super) rotations: &'a Rotations,
    pub(super) store: &'a CpuStore,
    pub(super) plan: &'a Plan,
    pub(super) memory: Lent<'a>,
}

/// Where a product goes.
#[derive(Clone, Copy)]
enum Target<'a> {
    Place(&'a Shared<f32>),
    Sum(&'a Shared<f32>),
}

impl Walk<'_> {
    pub(super) fn go(&self, worker: &Worker<'_>) {
        let walk = self;
        // SAFETY: `Instructions::detect` found them. Within, each step of `Worker::share` deals its items out once, writes
        // nothing but what belongs to its items, and reads what earlier steps wrote, behind their barriers.
        unsafe {
            behind_door!(self.instructions, all(walk: &Walk<'_>, worker: &Worker<'_>));
        }
    }

    pub(super) fn own(&self, worker: &Worker<'_>) -> MutexGuard<'_, Own> {
        self.memory.own[worker.index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn rows(&self) -> usize {
        self.plan.rows.len()
    }

    /// How many of `items` a thread takes at once: few enough that all end together, enough that taking them is cheap.
    pub(super) fn together(&self, items: usize) -> usize {
        (items / (self.memory.own.len() * 8)).clamp(1, 8)
    }
}

/// # Safety
/// Behind the door of `L`; every thread of the forward walks the same way.
#[inline(always)]
unsafe fn all<L: Lanes>(walk: &Walk<'_>, worker: &Worker<'_>) {
    let (model, memory) = (walk.model, &walk.memory);
    // SAFETY: see `Walk::go`.
    unsafe {
        begin(walk, worker);
        for (index, layer) in model.layers.iter().enumerate() {
            let before = index.checked_sub(1).and_then(|before| model.layers[before].post_mlp_norm.as_deref());
            norm::<L>(walk, worker, before, &layer.attention_norm);
            heads(walk, worker, layer);
            place::<L>(walk, worker, (index, layer));
            attend::<L>(walk, worker, (index, layer));
            mix::<L>(walk, worker);
            let into = |normed: &Option<Vec<f32>>| match normed {
                Some(_) => Target::Place(memory.result),
                None => Target::Sum(memory.stream),
            };
            add(walk, worker, &layer.output, memory.mixed, into(&layer.post_attention_norm));
            norm::<L>(walk, worker, layer.post_attention_norm.as_deref(), &layer.mlp_norm);
            gates::<L>(walk, worker, layer);
            add(walk, worker, &layer.down, memory.gated, into(&layer.post_mlp_norm));
        }
        logits::<L>(walk, worker);
    }
}

/// The embeddings of the rows' tokens.
unsafe fn begin(walk: &Walk<'_>, worker: &Worker<'_>) {
    let config = &walk.model.config;
    worker.share(walk.rows(), walk.together(walk.rows()), |rows| {
        for row in rows {
            // SAFETY: the row is this thread's.
            let stream = unsafe { walk.memory.stream.write(row * config.hidden, config.hidden) };
            walk.model.embedding.row(walk.plan.rows[row].token as usize, stream);
            for value in stream {
                *value *= config.embedding_scale;
            }
        }
    });
}

/// Adds what the last product gave where that has a norm of its own, then norms the rows for the next product.
#[inline(always)]
unsafe fn norm<L: Lanes>(walk: &Walk<'_>, worker: &Worker<'_>, before: Option<&[f32]>, weight: &[f32]) {
    let mut own = walk.own(worker);
    worker.share(walk.rows(), walk.together(walk.rows()), |rows| {
        for row in rows {
            // SAFETY: the row is this thread's.
            unsafe {
                finish::<L>(walk, row, before, &mut own.line);
                normed::<L>(walk, row, weight, walk.memory.normed, row, &mut own.line);
            }
        }
    });
}

/// Adds a normed result to a row of the stream.
#[inline(always)]
unsafe fn finish<L: Lanes>(walk: &Walk<'_>, row: usize, norm: Option<&[f32]>, line: &mut [f32]) {
    let (hidden, epsilon) = (walk.model.config.hidden, walk.model.config.rms_epsilon);
    if let Some(weight) = norm {
        // SAFETY: the row is this thread's.
        unsafe {
            normalize::<L>(walk.memory.result.read(row * hidden, hidden), weight, epsilon, line);
            for (stream, value) in walk.memory.stream.write(row * hidden, hidden).iter_mut().zip(line) {
                *stream += *value;
            }
        }
    }
}

/// Norms a row of the stream into a row of activations.
#[inline(always)]
unsafe fn normed<L: Lanes>(
    walk: &Walk<'_>,
    row: usize,
    weight: &[f32],
    into: &Activations,
    to: usize,
    line: &mut [f32],
) {
    let (hidden, epsilon) = (walk.model.config.hidden, walk.model.config.rms_epsilon);
    // SAFETY: both rows are this thread's.
    unsafe {
        normalize::<L>(walk.memory.stream.read(row * hidden, hidden), weight, epsilon, line);
        into.write::<L>(to, 0, &line[..hidden]);
    }
}

/// Queries, keys and values of all rows.
unsafe fn heads(walk: &Walk<'_>, worker: &Worker<'_>, layer: &Layer) {
    let tiles = layer.heads.each_ref().map(Packed::tiles);
    let width = layer.heads.iter().map(|matrix| matrix.outputs).sum::<usize>();
    let all = tiles.iter().sum();
    let mut own = walk.own(worker);
    worker.share(all, walk.together(all), |range| {
        for index in range {
            let (mut tile, mut matrix, mut column) = (index, 0, 0);
            while tile >= tiles[matrix] {
                tile -= tiles[matrix];
                column += layer.heads[matrix].outputs;
                matrix += 1;
            }
            let matrix = &layer.heads[matrix];
            let bias = layer.bias.as_ref().map(|bias| &bias[column..column + matrix.outputs]);
            // SAFETY: the tile's columns are this thread's.
            unsafe {
                tile_of_rows(
                    walk,
                    matrix,
                    tile,
                    walk.memory.normed,
                    walk.rows(),
                    &mut own.products[0],
                    |row, first, sums| {
                        let to = walk.memory.heads.write(row * width + column + first, sums.len());
                        to.copy_from_slice(sums);
                        if let Some(bias) = bias {
                            to.iter_mut().zip(&bias[first..]).for_each(|(to, bias)| *to += bias);
                        }
                    },
                );
            }
        }
    });
}

/// Multiplies a tile with all rows; `put(row, first column, sums)` gets each row's.
#[inline(always)]
unsafe fn tile_of_rows(
    walk: &Walk<'_>,
    matrix: &Packed,
    tile: usize,
    activations: &Activations,
    rows: usize,
    product: &mut Product,
    mut put: impl FnMut(usize, usize, &[f32]),
) {
    let first = tile * LANES;
    let columns = LANES.min(matrix.outputs - first);
    for block in 0..rows.div_ceil(BLOCK) {
        let count = BLOCK.min(rows - block * BLOCK);
        // SAFETY: the activations were written before the last barrier.
        unsafe { multiply(walk.instructions, matrix, tile, activations, (block, count), product) };
        for (row, sums) in product.chunks(LANES).take(count).enumerate() {
            put(block * BLOCK + row, first, &sums[..columns]);
        }
    }
}

/// Norms and turns the heads and writes keys and values into the cache.
#[inline(always)]
unsafe fn place<L: Lanes>(walk: &Walk<'_>, worker: &Worker<'_>, (index, layer): (usize, &Layer)) {
    let config = &walk.model.config;
    let (dim, queries, keys) = (config.head_dim, config.heads * config.head_dim, config.kv_heads * config.head_dim);
    let width = queries + 2 * keys;
    let mut own = walk.own(worker);
    worker.share(walk.rows(), walk.together(walk.rows()), |rows| {
        for row in rows {
            let planned = &walk.plan.rows[row];
            let (cosines, sines) = walk.rotations.at(layer.local, planned.position);
            // SAFETY: the row is this thread's, and so is its position in the cache: a slot is in a call once.
            unsafe {
                let (turned, values) = walk.memory.heads.write(row * width, width).split_at_mut(queries + keys);
                for (number, head) in turned.chunks_mut(dim).enumerate() {
                    let norm = if number < config.heads { &layer.query_norm } else { &layer.key_norm };
                    if let Some(weight) = norm {
                        normalize::<L>(head, weight, config.rms_epsilon, &mut own.line);
                        head.copy_from_slice(&own.line[..dim]);
                    }
                    rotate(head, cosines, sines);
                }
                let pairs = turned[queries..].chunks(dim).zip(values.chunks(dim));
                for (head, (key, value)) in pairs.enumerate() {
                    walk.store.write::<L>((index, planned.slot, head, planned.position), key, value);
                }
            }
        }
    });
}

/// A product that is added to the stream, or put where it is normed before.
unsafe fn add(walk: &Walk<'_>, worker: &Worker<'_>, matrix: &Packed, from: &Activations, into: Target<'_>) {
    let tiles = matrix.tiles();
    let mut own = walk.own(worker);
    worker.share(tiles, walk.together(tiles), |range| {
        for tile in range {
            // SAFETY: the tile's columns are this thread's.
            unsafe {
                tile_of_rows(walk, matrix, tile, from, walk.rows(), &mut own.products[0], |row, first, sums| {
                    let at = row * matrix.outputs + first;
                    match into {
                        Target::Place(place) => place.write(at, sums.len()).copy_from_slice(sums),
                        Target::Sum(stream) => {
                            let stream = stream.write(at, sums.len());
                            stream.iter_mut().zip(sums).for_each(|(stream, sum)| *stream += sum);
                        }
                    }
                });
            }
        }
    });
}

/// Gate and up, 32 columns at a time, so that they leave as whole groups of codes.
#[inline(always)]
unsafe fn gates<L: Lanes>(walk: &Walk<'_>, worker: &Worker<'_>, layer: &Layer) {
    let (tiles, columns) = (layer.gate.tiles(), layer.gate.outputs);
    let pairs = columns.div_ceil(GROUP);
    let mut own = walk.own(worker);
    worker.share(pairs, walk.together(pairs), |range| {
        for pair in range {
            for block in 0..walk.rows().div_ceil(BLOCK) {
                let count = BLOCK.min(walk.rows() - block * BLOCK);
                // SAFETY: the activations were written before the last barrier; the columns written are this thread's.
                unsafe {
                    let mut line = [[0.0; GROUP]; BLOCK];
                    let [gates, ups] = &mut own.products;
                    for (half, tile) in (2 * pair..tiles.min(2 * pair + 2)).enumerate() {
                        let rows = (block, count);
                        multiply(walk.instructions, &layer.gate, tile, walk.memory.normed, rows, gates);
                        multiply(walk.instructions, &layer.up, tile, walk.memory.normed, rows, ups);
                        let (gates, ups) = (gates.as_chunks_mut::<LANES>().0, ups.as_chunks::<LANES>().0);
                        for ((gated, up), line) in gates.iter_mut().zip(ups).zip(&mut line).take(count) {
                            gate::<L>(walk.model.gate, gated, up);
                            line[half * LANES..][..LANES].copy_from_slice(gated);
                        }
                    }
                    let width = GROUP.min(columns - pair * GROUP);
                    for (row, line) in line[..count].iter().enumerate() {
                        walk.memory.gated.write::<L>(block * BLOCK + row, pair * GROUP, &line[..width]);
                    }
                }
            }
        }
    });
}

/// The logits of the rows that want them.
#[inline(always)]
unsafe fn logits<L: Lanes>(walk: &Walk<'_>, worker: &Worker<'_>) {
    let (model, wanted) = (walk.model, &walk.plan.wanted);
    let before = model.layers.last().and_then(|layer| layer.post_mlp_norm.as_deref());
    let mut own = walk.own(worker);
    worker.share(wanted.len(), 1, |range| {
        for number in range {
            let row = wanted[number];
            // SAFETY: both rows are this thread's.
            unsafe {
                finish::<L>(walk, row, before, &mut own.line);
                normed::<L>(walk, row, &model.norm, walk.memory.last, number, &mut own.line);
            }
        }
    });
    let (tiles, vocabulary) = (if wanted.is_empty() { 0 } else { model.head.tiles() }, model.config.vocabulary);
    worker.share(tiles, walk.together(tiles), |range| {
        for tile in range {
            // SAFETY: the tile's columns are this thread's.
            unsafe {
                let (last, product) = (walk.memory.last, &mut own.products[0]);
                tile_of_rows(walk, &model.head, tile, last, wanted.len(), product, |row, first, sums| {
                    walk.memory.logits.write(row * vocabulary + first, sums.len()).copy_from_slice(sums);
                });
            }
        }
    });
}
