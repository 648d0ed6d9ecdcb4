//! Weights in formats for which candle has no fast CPU kernel, in one that it has.
//!
//! 4- and 5-bit blocks of 32 (Q4_0, Q4_1, Q5_0, Q5_1) run through scalar loops, at half the speed of Q8_0 or less. So
//! on the CPU they become Q8_0 at load, which adds next to no error to what they hold and takes twice their memory.
//! candle-transformers builds its models only from a file, so the result is a file in memory.

use std::io::{Cursor, Read, Seek};

use candle_core::quantized::gguf_file::{self, Content, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Result};
use rayon::prelude::*;

/// Bytes of a weight in Q8_0 for one in the slowest of the formats: for estimates.
pub(super) const GROWTH: u64 = 2;

pub(super) fn has_slow_weights(content: &Content) -> bool {
    content.tensor_infos.values().any(|info| is_slow(info.ggml_dtype))
}

/// A whole file with the same tensors and the model's sizes.
pub(super) fn requantize<R: Read + Seek>(content: &Content, reader: &mut R) -> Result<Cursor<Vec<u8>>> {
    let read = |(name, _): (&String, _)| Ok((name.clone(), content.tensor(reader, name, &Device::Cpu)?));
    let tensors: Vec<(String, QTensor)> = content.tensor_infos.iter().map(read).collect::<Result<_>>()?;
    let convert = |(name, tensor): (String, QTensor)| {
        if !is_slow(tensor.dtype()) {
            return Ok((name, tensor));
        }
        Ok((name, QTensor::quantize(&tensor.dequantize(&Device::Cpu)?, GgmlDType::Q8_0)?))
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

fn is_slow(format: GgmlDType) -> bool {
    matches!(format, GgmlDType::Q4_0 | GgmlDType::Q4_1 | GgmlDType::Q5_0 | GgmlDType::Q5_1)
}
