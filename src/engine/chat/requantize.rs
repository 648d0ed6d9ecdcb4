//! Weights in formats for which candle has no fast CPU kernel, in one that it has.
//!
//! 4- and 5-bit blocks of 32 (Q4_0, Q4_1, Q5_0, Q5_1) run through scalar loops. A small model's become F16, which candle
//! turns into f32 matrices at load: prompts are read many times faster. It also keeps the model off candle's own
//! thread pool for quantized products, whose callers spin until every worker has had its turn; beside another busy
//! thread on two cores that costs a scheduler's slice for each of two hundred products a token. A large model's become
//! Q8_0, for its size. candle-transformers builds its models only from a file, so the result is a file in memory.

use std::io::{Cursor, Read, Seek};

use candle_core::quantized::gguf_file::{self, Content, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Result};
use rayon::prelude::*;

/// Weights that may take four bytes each: 1 GB in all.
const MOST_IN_F32: usize = 256 << 20;

pub(super) fn has_slow_weights(content: &Content) -> bool {
    slow_elements(content) > 0
}

/// Bytes that the slow weights take in the end.
pub(super) fn bytes_after(content: &Content) -> u64 {
    let width = if target(content) == GgmlDType::F16 { size_of::<f32>() } else { 1 };
    (slow_elements(content) * width) as u64
}

/// A whole file with the same tensors and the model's sizes.
pub(super) fn requantize<R: Read + Seek>(content: &Content, reader: &mut R) -> Result<Cursor<Vec<u8>>> {
    let read = |(name, _): (&String, _)| Ok((name.clone(), content.tensor(reader, name, &Device::Cpu)?));
    let tensors: Vec<(String, QTensor)> = content.tensor_infos.iter().map(read).collect::<Result<_>>()?;
    let target = target(content);
    let convert = |(name, tensor): (String, QTensor)| {
        if !is_slow(tensor.dtype()) {
            return Ok((name, tensor));
        }
        Ok((name, QTensor::quantize(&tensor.dequantize(&Device::Cpu)?, target)?))
    };
    let tensors: Vec<(String, QTensor)> = tensors.into_par_iter().map(convert).collect::<Result<_>>()?;
    // The vocabulary has been read; only what describes the model goes along.
    let sizes = content.metadata.iter().filter(|(_, value)| !matches!(value, Value::Array(_)));
    let sizes: Vec<(&str, &Value)> = sizes.map(|(key, value)| (key.as_str(), value)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut file = Cursor::new(Vec::new());
    gguf_file::write(&mut file, &sizes, &tensors)?;
    file.rewind()?;
    Ok(file)
}

fn target(content: &Content) -> GgmlDType {
    if slow_elements(content) <= MOST_IN_F32 { GgmlDType::F16 } else { GgmlDType::Q8_0 }
}

fn slow_elements(content: &Content) -> usize {
    let slow = content.tensor_infos.values().filter(|info| is_slow(info.ggml_dtype));
    slow.map(|info| info.shape.elem_count()).sum()
}

fn is_slow(format: GgmlDType) -> bool {
    matches!(format, GgmlDType::Q4_0 | GgmlDType::Q4_1 | GgmlDType::Q5_0 | GgmlDType::Q5_1)
}
