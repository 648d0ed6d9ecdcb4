//! What the sequences have read: keys and values of every layer, in fixed slots.
//!
//! This file knows how much each slot holds and refuses whatever would read beyond it. The memory itself belongs to the
//! backend that writes it.

use super::cpu::CpuStore;
use super::tensor::TensorStore;
use super::{DecoderError, Span};

/// Keys and values of several sequences. A slot is empty at first; what it holds stays until it is overwritten.
pub struct KvCache {
    store: Store,
    positions: usize,
    /// Of each slot.
    lengths: Vec<usize>,
    elements_per_position: usize,
}

/// The backend's part.
pub(super) enum Store {
    Tensor(TensorStore),
    Cpu(CpuStore),
}

impl KvCache {
    pub(super) fn new(store: Store, slots: usize, positions: usize, elements_per_position: usize) -> Self {
        Self { store, positions, lengths: vec![0; slots], elements_per_position }
    }

    pub fn slots(&self) -> usize {
        self.lengths.len()
    }

    /// Most tokens of a slot.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Tokens that `slot` holds; 0 where there is no such slot.
    pub fn length(&self, slot: usize) -> usize {
        self.lengths.get(slot).copied().unwrap_or(0)
    }

    /// Memory that one token of one slot takes, over all layers.
    pub fn bytes_per_position(&self) -> usize {
        let width = match &self.store {
            Store::Tensor(store) => store.element_bytes(),
            Store::Cpu(_) => CpuStore::ELEMENT_BYTES,
        };
        self.elements_per_position * width
    }

    /// Makes slot `to` hold the first `positions` tokens of slot `from`, and nothing else.
    ///
    /// # Errors
    /// [`DecoderError::BadSpan`] where a slot does not exist or `from` holds less.
    pub fn copy(&mut self, from: usize, to: usize, positions: usize) -> Result<(), DecoderError> {
        for slot in [from, to] {
            if slot >= self.slots() {
                return Err(DecoderError::bad_span(slot, format!("there are {} slots", self.slots())));
            }
        }
        let held = self.lengths[from];
        if positions > held {
            return Err(DecoderError::bad_span(from, format!("it holds {held} positions, {positions} were asked for")));
        }
        if from != to && positions > 0 {
            self.lengths[to] = 0;
            match &mut self.store {
                Store::Tensor(store) => store.copy(from, to, positions)?,
                Store::Cpu(store) => store.copy(from, to, positions),
            }
        }
        self.lengths[to] = positions;
        Ok(())
    }

    pub(super) fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    pub(super) fn set_length(&mut self, slot: usize, length: usize) {
        self.lengths[slot] = length;
    }

    /// What a backend may rely on: slots exist and differ, spans continue what they hold and fit, ids are below
    /// `vocabulary` (an id beyond it would poison a CUDA context).
    pub(super) fn check(&self, spans: &[Span<'_>], vocabulary: usize) -> Result<(), DecoderError> {
        for (index, &Span { slot, start, tokens, .. }) in spans.iter().enumerate() {
            let bad = |reason: String| Err(DecoderError::bad_span(slot, reason));
            let Some(&held) = self.lengths.get(slot) else {
                return bad(format!("there are {} slots", self.slots()));
            };
            if spans[..index].iter().any(|other| other.slot == slot) {
                return bad("it is in this call twice".to_owned());
            }
            if tokens.is_empty() {
                return bad("there are no tokens to read".to_owned());
            }
            if start > held {
                return bad(format!("it holds {held} positions, reading cannot begin at {start}"));
            }
            if tokens.len() > self.positions - start {
                return bad(format!("{} tokens at {start} exceed its {} positions", tokens.len(), self.positions));
            }
            if let Some(id) = tokens.iter().find(|id| **id as usize >= vocabulary) {
                return bad(format!("token {id} is beyond the vocabulary of {vocabulary}"));
            }
        }
        Ok(())
    }
}
