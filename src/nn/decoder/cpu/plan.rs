//! What one pass over the weights does: its rows, and how their attention is cut into tasks.

use std::ops::Range;

use super::super::{Span, Wants};
use super::store::POSITIONS;

/// Rows of a pass. A longer call makes several passes; the weights are read again for each, which costs little beside
/// the arithmetic of so many rows.
pub(super) const ROWS: usize = 256;
/// Positions of one slot whose attention is one task, with all the query heads of a key head.
pub(super) const TILE: usize = 16;
/// Spans of at most so many rows have the blocks of their attention dealt out to the threads.
const SPLIT: usize = 4;

/// One token to read.
#[derive(Clone, Copy)]
pub(super) struct Row {
    pub(super) token: u32,
    pub(super) slot: usize,
    pub(super) position: usize,
    /// Where its attention's blocks are put together from.
    pub(super) split: Option<Split>,
}

/// Where the sums of a row's blocks lie: those of key head `h`, block `b` and query head `q` of the key head are number
/// `first + ((h * blocks + b) * rows + row) * group + q`.
#[derive(Clone, Copy)]
pub(super) struct Split {
    first: usize,
    blocks: usize,
    rows: usize,
    row: usize,
}

/// Attention of some rows of one slot through one key head.
pub(super) struct Task {
    /// Rows of the pass.
    pub(super) rows: Range<usize>,
    pub(super) slot: usize,
    pub(super) head: usize,
    pub(super) blocks: Range<usize>,
    /// Whether it is one block of many, which another step adds up.
    pub(super) split: bool,
}

/// A pass; its memory serves the next one again.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) rows: Vec<Row>,
    pub(super) tasks: Vec<Task>,
    /// Rows whose logits are wanted.
    pub(super) wanted: Vec<usize>,
    /// Sums of blocks to keep.
    pub(super) splits: usize,
}

impl Split {
    pub(super) fn blocks(&self) -> usize {
        self.blocks
    }

    /// The first of a key head's sums for a block, one for each query head.
    pub(super) fn at(&self, head: usize, block: usize, group: usize) -> usize {
        self.first + ((head * self.blocks + block) * self.rows + self.row) * group
    }
}

impl Plan {
    /// Plans as many rows as fit from row `read` of all spans on.
    pub(super) fn make(&mut self, spans: &[Span<'_>], mut read: usize, kv_heads: usize, group: usize) {
        self.rows.clear();
        self.tasks.clear();
        self.wanted.clear();
        self.splits = 0;
        for span in spans {
            let skipped = read.min(span.tokens.len());
            read -= skipped;
            let count = (span.tokens.len() - skipped).min(ROWS - self.rows.len());
            if count > 0 {
                self.add(span, skipped, count, kv_heads, group);
            }
        }
        // The longest first: the threads finish together.
        self.tasks.sort_unstable_by_key(|task| std::cmp::Reverse((task.blocks.len(), task.rows.len())));
    }

    /// Plans tokens `skipped..skipped + count` of a span.
    fn add(&mut self, span: &Span<'_>, skipped: usize, count: usize, kv_heads: usize, group: usize) {
        let (first, start) = (self.rows.len(), span.start + skipped);
        let blocks = (start + count).div_ceil(POSITIONS);
        let split = count <= SPLIT;
        for index in 0..count {
            let split = split.then_some(Split { first: self.splits, blocks, rows: count, row: index });
            let token = span.tokens[skipped + index];
            self.rows.push(Row { token, slot: span.slot, position: start + index, split });
        }
        if split {
            self.splits += kv_heads * blocks * count * group;
        }
        let ends = skipped + count == span.tokens.len();
        match span.wants {
            Wants::Last if ends => self.wanted.push(first + count - 1),
            Wants::Nothing | Wants::Last => {}
            Wants::All => self.wanted.extend(first..first + count),
        }
        for head in 0..kv_heads {
            if split {
                let task =
                    |block| Task { rows: first..first + count, slot: span.slot, head, blocks: block..block + 1, split };
                self.tasks.extend((0..blocks).map(task));
            } else {
                for from in (0..count).step_by(TILE) {
                    let to = (from + TILE).min(count);
                    let blocks = 0..(start + to).div_ceil(POSITIONS);
                    self.tasks.push(Task { rows: first + from..first + to, slot: span.slot, head, blocks, split });
                }
            }
        }
    }
}
