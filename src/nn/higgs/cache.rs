//! Keys and values of fixed slots: allocated once, written in place, copied between slots.

use candle_core::{DType, Device, Result, Tensor};

use super::HiggsError;
use super::config::HiggsConfig;

/// How many positions of each slot hold what was read. What lies beyond them is never seen.
pub(super) struct Slots {
    /// Per layer, each `[slots, kv_heads, positions, head_dim]`.
    pub(super) keys: Vec<Tensor>,
    pub(super) values: Vec<Tensor>,
    pub(super) positions: usize,
    lengths: Vec<usize>,
}

impl Slots {
    pub(super) fn new(
        config: &HiggsConfig,
        (slots, positions): (usize, usize),
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let shape = (slots, config.kv_heads, positions, config.head_dim);
        let layers = || (0..config.layers).map(|_| Tensor::zeros(shape, dtype, device)).collect::<Result<Vec<_>>>();
        Ok(Self { keys: layers()?, values: layers()?, positions, lengths: vec![0; slots] })
    }

    pub(super) fn count(&self) -> usize {
        self.lengths.len()
    }

    /// Positions that `slot` holds.
    pub(super) fn length(&self, slot: usize) -> std::result::Result<usize, HiggsError> {
        self.lengths.get(slot).copied().ok_or_else(|| {
            let slots = self.count();
            HiggsError::BadCall { slot, reason: format!("there are {slots} slots") }
        })
    }

    /// The slot is one of them.
    pub(super) fn set_length(&mut self, slot: usize, length: usize) {
        self.lengths[slot] = length;
    }

    /// Makes slot `to` hold the first `positions` positions of slot `from`, and nothing else.
    pub(super) fn copy(&mut self, from: usize, to: usize, positions: usize) -> std::result::Result<(), HiggsError> {
        let held = self.length(from)?;
        self.length(to)?;
        if positions > held {
            let reason = format!("it holds {held} positions, {positions} were asked for");
            return Err(HiggsError::BadCall { slot: from, reason });
        }
        if from != to && positions > 0 {
            self.lengths[to] = 0;
            for memory in self.keys.iter().chain(&self.values) {
                // All heads of a slot are rows of one matrix, whose first columns are the first positions.
                let (slots, heads, capacity, size) = memory.dims4()?;
                let rows = memory.reshape((slots * heads, capacity * size))?;
                let read = rows.narrow(0, from * heads, heads)?.narrow(1, 0, positions * size)?.force_contiguous()?;
                rows.narrow(0, to * heads, heads)?.slice_set(&read, 1, 0)?;
            }
        }
        self.lengths[to] = positions;
        Ok(())
    }

    /// Writes zeros over all of a slot: what is not finite would be multiplied by zero, which is not zero.
    pub(super) fn scrub(&mut self, slot: usize) -> Result<()> {
        self.lengths[slot] = 0;
        for memory in self.keys.iter().chain(&self.values) {
            let (_, heads, capacity, size) = memory.dims4()?;
            let zeros = Tensor::zeros((1, heads, capacity, size), memory.dtype(), memory.device())?;
            memory.slice_set(&zeros, 0, slot)?;
        }
        Ok(())
    }
}
