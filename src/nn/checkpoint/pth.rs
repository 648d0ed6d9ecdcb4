//! PyTorch's archives: a zip file whose data.pkl describes tensors that lie beside it as raw storages.
//!
//! candle's own reader knows a flat dict only; Kokoro's files are a dict of dicts and bare tensors. Checksums of the
//! entries are verified by the zip reader, so a flipped bit in the weights is found here.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use candle_core::{Device, Result, Tensor};
use zip::ZipArchive;

use super::Archive;
use super::pickle::{self, Element, Pickle, Stored};

/// data.pkl holds names and shapes only; a megabyte is ten times what these models need.
const LONGEST_PICKLE: u64 = 8 << 20;

/// An open archive.
pub(in crate::nn) struct TorchArchive {
    tensors: HashMap<String, Stored>,
    bare: Option<Stored>,
    /// Where in the zip the storages are.
    prefix: String,
    zip: Mutex<ZipArchive<BufReader<File>>>,
}

impl TorchArchive {
    pub(in crate::nn) fn open(path: &Path) -> std::result::Result<Self, String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let mut zip = ZipArchive::new(BufReader::new(file)).map_err(|error| error.to_string())?;
        let names: Vec<String> =
            zip.file_names().filter_map(|name| name.ok().map(std::borrow::Cow::into_owned)).collect();
        let index = names.iter().find(|name| name.ends_with("/data.pkl")).ok_or("it holds no data.pkl")?;
        let prefix = index.trim_end_matches("data.pkl").to_owned();
        let mut bytes = Vec::new();
        let entry = zip.by_name(index).map_err(|error| error.to_string())?;
        entry.take(LONGEST_PICKLE).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        let Pickle { tensors, bare } = pickle::read(&bytes).map_err(|reason| format!("data.pkl: {reason}"))?;
        // Kokoro was trained under DataParallel, which puts `module.` before every key.
        let plain = |(name, stored): (String, Stored)| match name.split_once(".module.") {
            Some((module, rest)) => (format!("{module}.{rest}"), stored),
            None => (name, stored),
        };
        Ok(Self { tensors: tensors.into_iter().map(plain).collect(), bare, prefix, zip: Mutex::new(zip) })
    }

    /// The values of an archive that is one tensor.
    pub(in crate::nn) fn bare_tensor(&self) -> std::result::Result<Vec<f32>, String> {
        let stored = self.bare.as_ref().ok_or("it does not hold one bare tensor")?;
        self.values(stored)
    }

    fn values(&self, stored: &Stored) -> std::result::Result<Vec<f32>, String> {
        let name = format!("{}data/{}", self.prefix, stored.storage);
        let size = stored.element.size();
        let wanted = stored.shape.iter().try_fold(size, |product, size| product.checked_mul(*size));
        let skipped = stored.offset.checked_mul(size);
        let (Some(wanted), Some(skipped)) = (wanted, skipped) else {
            return Err(format!("the storage {name} is said to be larger than memory"));
        };
        let mut zip = self.zip.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entry = zip.by_name(&name).map_err(|error| format!("{name}: {error}"))?;
        if skipped.checked_add(wanted).is_none_or(|end| end as u64 > entry.size()) {
            return Err(format!("the storage {name} is shorter than its tensor"));
        }
        // Read to the end, so that the checksum is verified.
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(|error| format!("{name}: {error}"))?;
        let bytes = bytes.get(skipped..skipped + wanted).ok_or_else(|| format!("the storage {name} is cut short"))?;
        Ok(match stored.element {
            Element::F32 => bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            Element::F16 => {
                bytes.as_chunks::<2>().0.iter().map(|bytes| half::f16::from_le_bytes(*bytes).to_f32()).collect()
            }
            Element::Bf16 => {
                bytes.as_chunks::<2>().0.iter().map(|bytes| half::bf16::from_le_bytes(*bytes).to_f32()).collect()
            }
        })
    }
}

impl Archive for TorchArchive {
    fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn tensor(&self, name: &str, device: &Device) -> Result<Tensor> {
        let Some(stored) = self.tensors.get(name) else { candle_core::bail!("the tensor {name} is missing") };
        let values =
            self.values(stored).map_err(|reason| candle_core::Error::Msg(format!("the tensor {name}: {reason}")))?;
        Tensor::from_vec(values, stored.shape.as_slice(), device)
    }
}
