//! Kokoro's weights from either layout, under one set of names: those of upstream's modules.
//!
//! - the package mirror's model.safetensors: weight norm is folded already;
//! - the hub's kokoro-v1_0.pth: a dict of one state dict per module, keys with a `module.` prefix, weight norm as
//!   `weight_g` and `weight_v`, folded here as each tensor is asked for.
//!
//! Voices are either NAME.bin (f32, little-endian) or NAME.pt (one bare tensor).

mod pickle;
mod pth;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};

use super::LoadError;
use pth::TorchArchive;

/// Opens the weights in `dir`; answers their path, too.
pub(super) fn open(dir: &Path, device: &Device) -> std::result::Result<(VarBuilder<'static>, PathBuf), LoadError> {
    let path = path_in(dir);
    let fault = |reason: String| LoadError { path: path.clone(), reason };
    let archive: Box<dyn Archive> = if path.extension().is_some_and(|extension| extension == "pth") {
        Box::new(TorchArchive::open(&path).map_err(fault)?)
    } else {
        // SAFETY: the map is read while the weights are loaded and dropped then; model files are not written in place.
        #[expect(unsafe_code, reason = "a memory map is the fastest way in, and its only door is unsafe")]
        let mapped = unsafe { MmapedSafetensors::new(&path) };
        Box::new(mapped.map_err(|error| fault(reason_of(&error)))?)
    };
    Ok((VarBuilder::from_backend(Box::new(Weights(archive)), DType::F32, device.clone()), path))
}

/// model.safetensors, or else the first *.pth.
pub(super) fn path_in(dir: &Path) -> PathBuf {
    let safetensors = dir.join("model.safetensors");
    if safetensors.is_file() { safetensors } else { pth_in(dir).unwrap_or(safetensors) }
}

fn pth_in(dir: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(dir).ok()?;
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "pth"));
    files.sort();
    files.into_iter().next()
}

/// One voice: as many rows of `width` values as the model takes symbols, the row at n for utterances of n + 1 symbols.
pub(super) fn read_voice(path: &Path, rows: usize, width: usize) -> std::result::Result<Vec<Vec<f32>>, LoadError> {
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

/// A candle error without its backtrace.
pub(super) fn reason_of(error: &candle_core::Error) -> String {
    match error {
        candle_core::Error::WithBacktrace { inner, .. }
        | candle_core::Error::WithPath { inner, .. }
        | candle_core::Error::Context { inner, .. } => reason_of(inner),
        other => other.to_string(),
    }
}

/// A file of named tensors.
trait Archive: Send + Sync {
    fn contains(&self, name: &str) -> bool;
    fn tensor(&self, name: &str, device: &Device) -> Result<Tensor>;
}

impl Archive for MmapedSafetensors {
    fn contains(&self, name: &str) -> bool {
        self.get(name).is_ok()
    }

    fn tensor(&self, name: &str, device: &Device) -> Result<Tensor> {
        self.load(name, device)
    }
}

/// An archive as candle's layers read it, with weight norm folded.
struct Weights(Box<dyn Archive>);

impl Weights {
    fn read(&self, name: &str, device: &Device) -> Result<Tensor> {
        let Self(archive) = self;
        let direction = format!("{name}_v");
        let magnitude = format!("{name}_g");
        if archive.contains(name) {
            archive.tensor(name, device)?.to_dtype(DType::F32)
        } else if archive.contains(&direction) && archive.contains(&magnitude) {
            let direction = archive.tensor(&direction, device)?.to_dtype(DType::F32)?;
            let magnitude = archive.tensor(&magnitude, device)?.to_dtype(DType::F32)?;
            fold_weight_norm(&direction, &magnitude)
        } else {
            candle_core::bail!("the tensor {name} is missing")
        }
    }
}

/// g * v / |v|, with |v| over all but the first dimension (torch's `weight_norm`, dim 0). A row of zeros stays one.
fn fold_weight_norm(direction: &Tensor, magnitude: &Tensor) -> Result<Tensor> {
    let length = direction.flatten_from(1)?.sqr()?.sum_keepdim(1)?.sqrt()?;
    let factor = magnitude.reshape(length.shape())?.div(&length.maximum(1e-30_f32)?)?;
    direction.flatten_from(1)?.broadcast_mul(&factor)?.reshape(direction.shape())
}

impl SimpleBackend for Weights {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        let tensor = self.get_unchecked(name, dtype, device)?;
        if tensor.shape() == &shape {
            Ok(tensor)
        } else {
            candle_core::bail!("the tensor {name} has the shape {:?} where {shape:?} belongs", tensor.shape())
        }
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        self.read(name, device)?.to_dtype(dtype)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.contains(name) || self.0.contains(&format!("{name}_v"))
    }
}
