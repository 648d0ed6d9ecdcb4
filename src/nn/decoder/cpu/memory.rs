//! What a forward writes, and how its threads share it.

use std::sync::Mutex;

use super::attention::Rows;
use super::model::{Layer, Model, reads};
use super::plan::{Plan, ROWS, TILE};
use crate::nn::kernel::activations::{Activations, BLOCK};
use crate::nn::kernel::pack::Packed;
use crate::nn::kernel::product::Product;
use crate::nn::kernel::shared::Shared;
use crate::nn::kernel::simd::LANES;

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
pub(super) struct Own {
    pub(super) rows: Rows,
    pub(super) products: [Product; 2],
    pub(super) line: Vec<f32>,
}

/// [`Memory`] while threads share it.
pub(super) struct Lent<'a> {
    pub(super) stream: &'a Shared<f32>,
    pub(super) result: &'a Shared<f32>,
    pub(super) heads: &'a Shared<f32>,
    pub(super) attended: &'a Shared<f32>,
    pub(super) splits: &'a Shared<f32>,
    pub(super) logits: &'a Shared<f32>,
    pub(super) normed: &'a Activations,
    pub(super) mixed: &'a Activations,
    pub(super) gated: &'a Activations,
    pub(super) last: &'a Activations,
    pub(super) own: &'a [Mutex<Own>],
    pub(super) padded: usize,
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
