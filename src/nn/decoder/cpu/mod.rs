//! The decoder on a CPU: raw slices, own kernels, no tensors, and after the first calls no allocation per token.
//!
//! ```text
//! one pass, at most 256 rows; between two steps (│) all threads meet
//!
//! rows ─ norm ─ codes │ queries, keys, values │ rotation ─ cache │ attention │ codes │ output ─ add │
//!        norm ─ codes │ gate, up ─ codes      │ down ─ add │ ... next layer ... │ norm │ logits
//! ```
//! Weights stay as stored; activations are 8-bit codes with a scale for every 32, as in llama.cpp; their products are whole
//! numbers ([`crate::nn::kernel`] has these); keys and values are in half precision ([`store`]).
//! Every row goes through the same operations in the same order whatever else is in the call, so its logits are the
//! same bits alone, in a batch, and however a prompt is cut into passes. The threads share a step's items as they come
//! ([`lockstep`]), which changes who computes a number but not the number.

mod attention;
mod lockstep;
mod memory;
mod model;
mod plan;
mod rows;
mod store;
mod walk;

use candle_core::Result;

use super::Span;
use super::config::DecoderConfig;
use super::weights::DecoderWeights;
use crate::nn::kernel::simd::Instructions;
use lockstep::Lockstep;
use memory::Memory;
use model::{Model, Rotations};
use plan::Plan;
pub(super) use store::CpuStore;
use walk::Walk;

pub(super) struct CpuDecoder {
    instructions: Instructions,
    model: Model,
    rotations: Rotations,
    lockstep: Lockstep,
    memory: Memory,
    plan: Plan,
}

impl CpuDecoder {
    /// Lays out the weights anew and starts the threads: as many as there are cores.
    pub(super) fn new(config: &DecoderConfig, weights: &DecoderWeights) -> Result<Self> {
        Self::with(Instructions::detect(), candle_core::utils::get_num_threads(), config, weights)
    }

    fn with(
        instructions: Instructions,
        threads: usize,
        config: &DecoderConfig,
        weights: &DecoderWeights,
    ) -> Result<Self> {
        let rotations = Rotations::new(config, weights.rope_factors.as_ref())?;
        let model = Model::new(config, weights)?;
        let lockstep = Lockstep::new(threads)?;
        let memory = Memory::new(&model, lockstep.threads());
        Ok(Self { instructions, model, rotations, lockstep, memory, plan: Plan::default() })
    }

    pub(super) fn store(&self, slots: usize, positions: usize) -> CpuStore {
        let config = &self.model.config;
        CpuStore::new(config.layers, config.kv_heads, config.head_dim, slots, positions)
    }

    /// Reads the spans, which the caller has checked, and appends the logits that they want.
    pub(super) fn forward(&mut self, store: &CpuStore, spans: &[Span<'_>], logits: &mut Vec<f32>) {
        let reach = spans.iter().map(|span| span.start + span.tokens.len()).max().unwrap_or(0);
        self.rotations.reach(reach);
        let (vocabulary, kv_heads) = (self.model.config.vocabulary, self.model.config.kv_heads);
        let (total, mut read) = (spans.iter().map(|span| span.tokens.len()).sum(), 0);
        while read < total {
            self.plan.make(spans, read, kv_heads, self.model.config.heads / kv_heads);
            read += self.plan.rows.len();
            let before = logits.len();
            logits.resize(before + self.plan.wanted.len() * vocabulary, 0.0);
            let (model, rotations, plan) = (&self.model, &self.rotations, &self.plan);
            let memory = self.memory.lend(plan, &mut logits[before..]);
            let walk = Walk { instructions: self.instructions, model, rotations, store, plan, memory };
            self.lockstep.run(&|worker| walk.go(worker));
        }
    }
}

#[cfg(test)]
mod tests;
