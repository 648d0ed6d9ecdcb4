//! The weights of the whole model in the kernels' layout, and the numbers that the walk needs.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor};

use super::super::config::{Activation, DecoderConfig};
use super::super::rope::{RopeTable, frequencies};
use super::super::weights::{DecoderWeights, LayerWeights, Matrix};
use super::rows::Gate;
use crate::nn::kernel::pack::{Kind, Packed};

pub(super) struct Model {
    pub(super) config: DecoderConfig,
    pub(super) gate: Gate,
    pub(super) embedding: Arc<Packed>,
    pub(super) layers: Vec<Layer>,
    pub(super) norm: Vec<f32>,
    /// The embedding itself where tied.
    pub(super) head: Arc<Packed>,
}

pub(super) struct Layer {
    pub(super) attention_norm: Vec<f32>,
    /// Queries, keys and values: one step of the walk.
    pub(super) heads: [Packed; 3],
    /// Of all three, one after the other.
    pub(super) bias: Option<Vec<f32>>,
    pub(super) query_norm: Option<Vec<f32>>,
    pub(super) key_norm: Option<Vec<f32>>,
    pub(super) output: Packed,
    pub(super) post_attention_norm: Option<Vec<f32>>,
    pub(super) mlp_norm: Vec<f32>,
    pub(super) gate: Packed,
    pub(super) up: Packed,
    pub(super) down: Packed,
    pub(super) post_mlp_norm: Option<Vec<f32>>,
    /// Positions that it sees: the last so many.
    pub(super) window: usize,
    /// Which of the two rotations.
    pub(super) local: bool,
}

/// Rotations of all positions so far, everywhere and in the layers with a base of their own.
pub(super) struct Rotations {
    frequencies: [Vec<f32>; 2],
    tables: [RopeTable; 2],
}

impl Rotations {
    pub(super) fn new(config: &DecoderConfig, factors: Option<&Tensor>) -> Result<Self> {
        let factors = factors.map(vector).transpose()?;
        let frequencies = [false, true].map(|local| frequencies(config, local, factors.as_deref()));
        let tables = [RopeTable::new(&frequencies[0], 0), RopeTable::new(&frequencies[1], 0)];
        Ok(Self { frequencies, tables })
    }

    pub(super) fn reach(&mut self, positions: usize) {
        for (table, frequencies) in self.tables.iter_mut().zip(&self.frequencies) {
            table.extend(frequencies, positions);
        }
    }

    /// Cosines and sines at a position.
    pub(super) fn at(&self, local: bool, position: usize) -> (&[f32], &[f32]) {
        let (table, half) = (&self.tables[usize::from(local)], self.frequencies[0].len());
        (&table.cosines[position * half..][..half], &table.sines[position * half..][..half])
    }
}

impl Model {
    pub(super) fn new(config: &DecoderConfig, weights: &DecoderWeights) -> Result<Self> {
        let embedding = Arc::new(packed(&weights.embedding)?);
        let head = match &weights.head {
            Some(head) => Arc::new(packed(head)?),
            None => embedding.clone(),
        };
        let layers = weights.layers.iter().enumerate();
        Ok(Self {
            config: config.clone(),
            gate: match config.activation {
                Activation::Silu => Gate::Silu,
                Activation::GeluTanh => Gate::Gelu,
            },
            embedding,
            layers: layers.map(|(index, layer)| Layer::new(config, index, layer)).collect::<Result<_>>()?,
            norm: vector(&weights.norm)?,
            head,
        })
    }
}

impl Layer {
    fn new(config: &DecoderConfig, index: usize, weights: &LayerWeights) -> Result<Self> {
        let optional = |tensor: &Option<Tensor>| tensor.as_ref().map(vector).transpose();
        let biases = [&weights.query_bias, &weights.key_bias, &weights.value_bias];
        let bias = biases.into_iter().map(optional).collect::<Result<Option<Vec<_>>>>()?.map(|parts| parts.concat());
        Ok(Self {
            attention_norm: vector(&weights.attention_norm)?,
            heads: [packed(&weights.query)?, packed(&weights.key)?, packed(&weights.value)?],
            bias,
            query_norm: optional(&weights.query_norm)?,
            key_norm: optional(&weights.key_norm)?,
            output: packed(&weights.output)?,
            post_attention_norm: optional(&weights.post_attention_norm)?,
            mlp_norm: vector(&weights.mlp_norm)?,
            gate: packed(&weights.gate)?,
            up: packed(&weights.up)?,
            down: packed(&weights.down)?,
            post_mlp_norm: optional(&weights.post_mlp_norm)?,
            window: config.window(index).unwrap_or(usize::MAX),
            local: config.turns_locally(index),
        })
    }
}

/// Which forms of activations the matrices read: 8-bit codes, floats.
pub(super) fn reads<'a>(matrices: impl IntoIterator<Item = &'a Packed>) -> (bool, bool) {
    matrices.into_iter().fold((false, false), |(quantized, dense), matrix| match matrix.kind {
        Kind::Quantized(_) => (true, dense),
        _ => (quantized, true),
    })
}

fn packed(matrix: &Matrix) -> Result<Packed> {
    match matrix {
        Matrix::Dense(tensor) => Packed::dense(tensor),
        Matrix::Quantized(tensor) => Packed::quantized(tensor),
    }
}

fn vector(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}
