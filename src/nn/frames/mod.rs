//! Layers over sequences of [frames, channels], on two kinds of device: what the speech models are made of.
//!
//! Every sequence is a contiguous f32 tensor of [frames, channels]: with the channels innermost a convolution is one
//! matrix product over overlapping rows, and norms and activations run along the vector units. On the CPU the
//! operations here are written by hand (fused, spread over rayon's threads); elsewhere each is a few plain candle
//! operations with the same meaning. The tests hold the two against each other.

pub(in crate::nn) mod conv;
mod matrix;
pub(in crate::nn) mod norm;
pub(in crate::nn) mod scalar;
#[cfg(test)]
pub(in crate::nn) mod tests;
mod toom;

use candle_core::{CpuStorage, Device, Result, Storage, Tensor};
use rayon::prelude::*;

/// Hands the elements of a contiguous f32 tensor on the CPU to `read`.
pub(in crate::nn) fn with_elements<R>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("a {:?} tensor is not contiguous", tensor.shape())
    };
    match &*storage {
        Storage::Cpu(CpuStorage::F32(elements)) => read(&elements[start..end]),
        _ => candle_core::bail!("a {:?} tensor is not f32 on the CPU", tensor.shape()),
    }
}

/// `apply` to every element of a contiguous f32 tensor on the CPU.
pub(in crate::nn) fn map(tensor: &Tensor, apply: impl Fn(f32) -> f32 + Sync) -> Result<Tensor> {
    let mut mapped = with_elements(tensor, |elements| Ok(elements.to_vec()))?;
    mapped.par_chunks_mut(CHUNK).for_each(|chunk| chunk.iter_mut().for_each(|element| *element = apply(*element)));
    Tensor::from_vec(mapped, tensor.shape(), tensor.device())
}

/// The sum of tensors of one shape, times `factor`.
pub(in crate::nn) fn scaled_sum(terms: &[Tensor], factor: f32) -> Result<Tensor> {
    let Some((first, rest)) = terms.split_first() else { candle_core::bail!("nothing to add") };
    if !matches!(first.device(), Device::Cpu) {
        return rest.iter().try_fold(first.clone(), |sum, term| sum + term)?.affine(f64::from(factor), 0.0);
    }
    if rest.is_empty() {
        return map(first, |element| element * factor);
    }
    let mut sum = with_elements(first, |elements| Ok(elements.to_vec()))?;
    for (index, term) in rest.iter().enumerate() {
        let factor = if index + 1 == rest.len() { factor } else { 1.0 };
        with_elements(term, |elements| {
            sum.par_chunks_mut(CHUNK).zip(elements.par_chunks(CHUNK)).for_each(|(sum, term)| {
                sum.iter_mut().zip(term).for_each(|(sum, term)| *sum = (*sum + term) * factor);
            });
            Ok(())
        })?;
    }
    Tensor::from_vec(sum, first.shape(), first.device())
}

/// Elements that one task of an elementwise loop takes.
const CHUNK: usize = 1 << 14;
