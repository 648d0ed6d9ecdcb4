//! One pass over the weights, as each thread walks it.

#![expect(
    unsafe_code,
    clippy::inline_always,
    reason = "steps share memory by their items; kernels are slow unless inlined behind their doors"
)]

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::activations::{Activations, BLOCK, GROUP};
use super::attention::{Rows, Sum};
use super::lockstep::Worker;
use super::model::{Layer, Model, Rotations, reads};
use super::pack::Packed;
use super::plan::{Plan, ROWS, TILE, Task};
use super::product::{Product, multiply};
use super::rows::{gate, normalize, rotate};
use super::shared::Shared;
use super::simd::{Instructions, LANES, Lanes, behind_door};
use super::store::CpuStore;

/// What passes write, kept from one to the next.
pub(super) struct Memory {
    /// The stream of rows that layers add to, `[rows, hidden]`.
    stream: Vec<f32>,
    /// What a layer adds, where it is normed first.
    result: Vec<f32>,
    /// Queries, keys and values of each row.
    heads: Vec<f32>,
    /// `[rows, heads * head_dim]`.
    attended: Vec<f32>,
    /// Sums of blocks of attention, with their weighted values.
    splits: Vec<f32>,
    /// The rows as the products read them: after a norm, after attention, after the gate, before the logits.
    normed: Activations,
    mixed: Activations,
    gated: Activations,
    last: Activations,
    own: Vec<Mutex<Own>>,
    padded: usize,
}

/// One thread's.
struct Own {
    rows: Rows,
    products: [Product; 2],
    line: Vec<f32>,
}

/// [`Memory`] while threads share it.
pub(super) struct Lent<'a> {
    stream: &'a Shared<f32>,
    result: &'a Shared<f32>,
    heads: &'a Shared<f32>,
    attended: &'a Shared<f32>,
    splits: &'a Shared<f32>,
    logits: &'a Shared<f32>,
    normed: &'a Activations,
    mixed: &'a Activations,
    gated: &'a Activations,
    last: &'a Activations,
    own: &'a [Mutex<Own>],
    padded: usize,
}

impl Memory {
    pub(super) fn new(model: &Model, threads: usize) -> Self {
        let config = &model.config;
        let queries = config.heads * config.head_dim;
        let every = |pick: fn(&Layer) -> Vec<&Packed>| reads(model.layers.iter().flat_map(pick));
        let activations = |width, (quantized, dense)| Activations::new(ROWS, width, quantized, dense);
        let own = || Own {
            rows: Rows::new(TILE * config.heads / config.kv_heads, config.head_dim),
            products: [[0.0; BLOCK * LANES]; 2],
            line: vec![0.0; config.hidden.max(config.head_dim.next_multiple_of(LANES))],
        };
        Self {
            stream: vec![0.0; ROWS * config.hidden],
            result: vec![0.0; ROWS * config.hidden],
            heads: vec![0.0; ROWS * (queries + 2 * config.kv_heads * config.head_dim)],
            attended: vec![0.0; ROWS * queries],
            splits: Vec::new(),
            normed: activations(
                config.hidden,
                every(|layer| layer.heads.iter().chain([&layer.gate, &layer.up]).collect()),
            ),
            mixed: activations(queries, every(|layer| vec![&layer.output])),
            gated: activations(config.intermediate, every(|layer| vec![&layer.down])),
            last: activations(config.hidden, reads([&*model.head])),
            own: (0..threads).map(|_| Mutex::new(own())).collect(),
            padded: config.head_dim.next_multiple_of(LANES),
        }
    }

    pub(super) fn lend<'a>(&'a mut self, plan: &Plan, logits: &'a mut [f32]) -> Lent<'a> {
        let splits = plan.splits * (self.padded + LANES);
        if self.splits.len() < splits {
            // Some blocks more, so that not every block of a reply allocates.
            self.splits.resize(splits.next_power_of_two(), 0.0);
        }
        Lent {
            stream: Shared::lend(&mut self.stream),
            result: Shared::lend(&mut self.result),
            heads: Shared::lend(&mut self.heads),
            attended: Shared::lend(&mut self.attended),
            splits: Shared::lend(&mut self.splits),
            logits: Shared::lend(logits),
            normed: &self.normed,
            mixed: &self.mixed,
            gated: &self.gated,
            last: &self.last,
            own: &self.own,
            padded: self.padded,
        }
    }
}

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

    fn own(&self, worker: &Worker<'_>) -> MutexGuard<'_, Own> {
        self.memory.own[worker.index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rows(&self) -> usize {
        self.plan.rows.len()
    }

    /// How many of `items` a thread takes at once: few enough that all end together, enough that taking them is cheap.
    fn together(&self, items: usize) -> usize {
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
            stream.iter_mut().for_each(|value| *value *= config.embedding_scale);
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

/// Attention of all rows, or its blocks.
#[inline(always)]
unsafe fn attend<L: Lanes>(walk: &Walk<'_>, worker: &Worker<'_>, (index, layer): (usize, &Layer)) {
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
                    attention.attend::<L>(rows.len() * group, block * super::store::POSITIONS, keys, values);
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
unsafe fn mix<L: Lanes>(walk: &Walk<'_>, worker: &Worker<'_>) {
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
