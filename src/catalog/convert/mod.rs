//! Weights as packages carry them, turned into safetensors with the reference implementation's tensor names.
//!
//! Nothing is rounded: a conversion renames, cuts, transposes and dequantizes, and the same input gives the same bytes
//! on every machine, so that the results' hashes can be pinned in `models/`.

pub(crate) mod ctranslate2;
pub(crate) mod kokoro;
pub(crate) mod onnx;

use std::{collections::HashMap, path::Path};

use safetensors::tensor::View;

/// What is wrong with the input of a conversion.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub String);

impl Malformed {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// Writes `tensors` (name, values) to `path`, through a temporary file beside it.
pub(crate) fn write_safetensors<V: View>(tensors: Vec<(String, V)>, path: &Path) -> Result<(), Malformed> {
    // One entry only: the crate writes metadata in the order of a hash map, which differs from run to run.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(tensors, Some(metadata), path).map_err(|error| Malformed::new(error.to_string()))
}
