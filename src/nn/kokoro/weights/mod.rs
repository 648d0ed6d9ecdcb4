//! Kokoro's weights from either layout, under one set of names: those of upstream's modules.
//!
//! - the package mirror's model.safetensors: weight norm is folded already;
//! - the hub's kokoro-v1_0.pth: a dict of one state dict per module, keys with a `module.` prefix, weight norm as
//!   `weight_g` and `weight_v`, folded as each tensor is asked for.
//!
//! Voices are either NAME.bin (f32, little-endian) or NAME.pt (one bare tensor).

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_nn::VarBuilder;

use super::LoadError;
use crate::nn::checkpoint::{self, TorchArchive, Weights};

/// Opens the weights in `dir`; answers their path, too.
pub(super) fn open(dir: &Path, device: &Device) -> Result<(VarBuilder<'static>, PathBuf), LoadError> {
    let path = checkpoint::path_in(dir);
    let weights = Weights::new(checkpoint::open(&path)?, |name| vec![name.to_owned()]);
    Ok((weights.into_builder(device), path))
}

/// One voice: as many rows of `width` values as the model takes symbols, the row at n for utterances of n + 1 symbols.
pub(super) fn read_voice(path: &Path, rows: usize, width: usize) -> Result<Vec<Vec<f32>>, LoadError> {
    let fault = |reason: String| LoadError { path: path.to_owned(), reason };
    let values = if path.extension().is_some_and(|extension| extension == "pt") {
        let archive = TorchArchive::open(path).map_err(fault)?;
        archive.bare_tensor().map_err(fault)?
    } else {
        let bytes = std::fs::read(path).map_err(|error| fault(error.to_string()))?;
        if !bytes.len().is_multiple_of(4) {
            return Err(fault(format!("{} bytes are not a whole number of f32 values", bytes.len())));
        }
        bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    };
    if values.len() != rows * width {
        return Err(fault(format!("it holds {} values where a voice has {}", values.len(), rows * width)));
    }
    if values.iter().any(|value| !value.is_finite()) {
        return Err(fault("it holds values that are not finite".to_owned()));
    }
    Ok(values.chunks_exact(width).map(<[f32]>::to_vec).collect())
}
