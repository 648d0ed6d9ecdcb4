//! Checkpoints on disk: one file of named tensors, safetensors or PyTorch's own, as candle's layers read it.
//!
//! A model asks for a tensor by one name; [`Weights`] finds it under the spellings that the model's checkpoints have
//! for it. Weight norm is folded as a tensor is asked for, in either of torch's spellings: `weight_g` and `weight_v`,
//! or `parametrizations.weight.original0` and `original1`. Nothing that is missing or misshapen is guessed: the error
//! names the tensor as the file would. Everything is read as f32.

mod pickle;
mod pth;
#[cfg(test)]
pub(in crate::nn) mod tests;

use std::path::{Path, PathBuf};

use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};

pub(in crate::nn) use pth::TorchArchive;

/// Why a file of a model could not be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct LoadError {
    pub path: PathBuf,
    pub reason: String,
}

/// A candle error without its backtrace.
pub(in crate::nn) fn reason_of(error: &candle_core::Error) -> String {
    match error {
        candle_core::Error::WithBacktrace { inner, .. }
        | candle_core::Error::WithPath { inner, .. }
        | candle_core::Error::Context { inner, .. } => reason_of(inner),
        other => other.to_string(),
    }
}

/// `dir`/model.safetensors, or else its first *.pth.
pub(in crate::nn) fn path_in(dir: &Path) -> PathBuf {
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

/// A file of named tensors.
pub(in crate::nn) trait Archive: Send + Sync {
    fn contains(&self, name: &str) -> bool;
    fn tensor(&self, name: &str, device: &Device) -> Result<Tensor>;
}

/// Opens a checkpoint, PyTorch's where the file is named so, else safetensors.
pub(in crate::nn) fn open(path: &Path) -> std::result::Result<Box<dyn Archive>, LoadError> {
    let fault = |reason: String| LoadError { path: path.to_owned(), reason };
    if path.extension().is_some_and(|extension| extension == "pth") {
        return Ok(Box::new(TorchArchive::open(path).map_err(fault)?));
    }
    // SAFETY: the map is read while the weights are loaded and dropped then; model files are not written in place.
    #[expect(unsafe_code, reason = "a memory map is the fastest way in, and its only door is unsafe")]
    let mapped = unsafe { MmapedSafetensors::new(path) };
    Ok(Box::new(mapped.map_err(|error| fault(reason_of(&error)))?))
}

impl Archive for MmapedSafetensors {
    fn contains(&self, name: &str) -> bool {
        self.get(name).is_ok()
    }

    fn tensor(&self, name: &str, device: &Device) -> Result<Tensor> {
        self.load(name, device)
    }
}

/// For a tensor's name, the names that files may have for it, the usual one first.
pub(in crate::nn) type Spelling = fn(&str) -> Vec<String>;

/// An archive as candle's layers read it, with weight norm folded.
pub(in crate::nn) struct Weights {
    archive: Box<dyn Archive>,
    spelling: Spelling,
}

/// A tensor as a file holds it.
enum Held {
    Whole(String),
    /// Weight norm's direction and magnitude.
    Normed(String, String),
}

impl Weights {
    pub(in crate::nn) fn new(archive: Box<dyn Archive>, spelling: Spelling) -> Self {
        Self { archive, spelling }
    }

    /// The same file under other names.
    pub(in crate::nn) fn spelled(self, spelling: Spelling) -> Self {
        Self { spelling, ..self }
    }

    pub(in crate::nn) fn holds(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// The weights as f32 on `device`.
    pub(in crate::nn) fn into_builder(self, device: &Device) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self), DType::F32, device.clone())
    }

    fn find(&self, name: &str) -> Option<Held> {
        (self.spelling)(name).into_iter().find_map(|name| self.find_spelled(name))
    }

    fn find_spelled(&self, name: String) -> Option<Held> {
        if self.archive.contains(&name) {
            return Some(Held::Whole(name));
        }
        let (module, parameter) = name.rsplit_once('.')?;
        let parametrised = format!("{module}.parametrizations.{parameter}.original");
        let pairs =
            [(format!("{name}_v"), format!("{name}_g")), (format!("{parametrised}1"), format!("{parametrised}0"))];
        let held = |(direction, magnitude): &(String, String)| {
            self.archive.contains(direction) && self.archive.contains(magnitude)
        };
        pairs.into_iter().find(held).map(|(direction, magnitude)| Held::Normed(direction, magnitude))
    }

    /// The tensor, and what the file calls it.
    fn read(&self, name: &str, device: &Device) -> Result<(Tensor, String)> {
        match self.find(name) {
            Some(Held::Whole(name)) => Ok((self.archive.tensor(&name, device)?.to_dtype(DType::F32)?, name)),
            Some(Held::Normed(direction, magnitude)) => {
                let v = self.archive.tensor(&direction, device)?.to_dtype(DType::F32)?;
                let g = self.archive.tensor(&magnitude, device)?.to_dtype(DType::F32)?;
                let Some(folded) = fold_weight_norm(&v, &g)? else {
                    candle_core::bail!(
                        "the tensor {magnitude} has the shape {:?}, which is no magnitude of {direction}'s {:?}",
                        g.shape(),
                        v.shape()
                    )
                };
                Ok((folded, direction))
            }
            None => {
                let usual = (self.spelling)(name).into_iter().next();
                candle_core::bail!("the tensor {} is missing", usual.as_deref().unwrap_or(name))
            }
        }
    }
}

/// g * v / |v|, with |v| over all dimensions in which g has one element (torch's `weight_norm`, dim the other one).
/// What is zero stays zero. None where g has another shape than such a norm of v.
fn fold_weight_norm(direction: &Tensor, magnitude: &Tensor) -> Result<Option<Tensor>> {
    let (v, g) = (direction.dims(), magnitude.dims());
    if v.len() != g.len() || g.iter().zip(v).any(|(g, v)| *g != 1 && g != v) {
        return Ok(None);
    }
    let summed: Vec<usize> = (0..g.len()).filter(|dim| g[*dim] == 1).collect();
    let length = direction.sqr()?.sum_keepdim(summed)?.sqrt()?;
    let factor = magnitude.div(&length.maximum(1e-30_f32)?)?;
    direction.broadcast_mul(&factor).map(Some)
}

impl SimpleBackend for Weights {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        let (tensor, name) = self.read(name, device)?;
        if tensor.shape() == &shape {
            tensor.to_dtype(dtype)
        } else {
            candle_core::bail!("the tensor {name} has the shape {:?} where {shape:?} belongs", tensor.shape())
        }
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        self.read(name, device)?.0.to_dtype(dtype)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.holds(name)
    }
}
