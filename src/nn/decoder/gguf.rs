//! The front door for GGUF files: checks a header before candle's parser sees it, and reads typed metadata.
//!
//! A file comes from a download, so it may be cut short or damaged. The walk here follows the header by the GGUF
//! specification (versions 2 and 3, little-endian) and refuses any count or length that the file cannot hold, so that
//! nothing later allocates by a damaged number. Tensor data is read by name, once the file is known to hold it.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use candle_core::Device;
use candle_core::quantized::ggml_file::qtensor_from_ggml;
use candle_core::quantized::gguf_file::{Content, TensorInfo, Value};
use candle_core::quantized::{GgmlDType, QTensor};

use super::DecoderError;

/// Most entries of metadata and most tensors: real files have under 100 and about 1,000.
const MAX_ENTRIES: u64 = 1 << 16;
/// Longest string: chat templates have tens of kilobytes.
const MAX_STRING: u64 = 1 << 22;
/// Elements of all arrays together: a large vocabulary has 260,000 tokens, scores, types and merges.
const MAX_ELEMENTS: u64 = 1 << 22;
/// Elements of one tensor.
const MAX_TENSOR: u64 = 1 << 36;

/// A checked header with the reader behind it.
pub struct GgufFile {
    path: PathBuf,
    content: Content,
    reader: BufReader<File>,
    bytes: u64,
}

impl GgufFile {
    /// # Errors
    /// [`DecoderError::BadFile`] says what is wrong with the file.
    pub fn open(path: &Path) -> Result<Self, DecoderError> {
        let bad_file = |reason: String| DecoderError::bad_file(path, reason);
        let unreadable = |error: io::Error| bad_file(error.to_string());
        let file = File::open(path).map_err(unreadable)?;
        let bytes = file.metadata().map_err(unreadable)?.len();
        let mut reader = BufReader::with_capacity(1 << 16, file);
        Walk { reader: &mut reader, left: bytes, elements: 0 }
            .header()
            .map_err(|reason| bad_file(format!("it is not a whole GGUF file: {reason}")))?;
        reader.rewind().map_err(unreadable)?;
        let content = catch_unwind(AssertUnwindSafe(|| Content::read(&mut reader)))
            .map_err(|_| bad_file("its header cannot be read".to_owned()))?
            .map_err(|error| bad_file(format!("its header cannot be used: {error}")))?;
        let file = Self { path: path.to_owned(), content, reader, bytes };
        file.holds_its_tensors()?;
        Ok(file)
    }

    fn holds_its_tensors(&self) -> Result<(), DecoderError> {
        for (name, info) in &self.content.tensor_infos {
            let begin = self.content.tensor_data_offset.checked_add(info.offset);
            let end = data_bytes(info).and_then(|bytes| begin?.checked_add(bytes));
            if end.is_none_or(|end| end > self.bytes) {
                let reason = format!("it is cut short: it has {} bytes and the data of {name} go beyond", self.bytes);
                return Err(self.error(reason));
            }
        }
        Ok(())
    }

    pub fn error(&self, reason: impl Into<String>) -> DecoderError {
        DecoderError::bad_file(&self.path, reason)
    }

    /// Size of the whole file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that the tensors take in memory once loaded: quantized ones as stored, the others in f32 on a CPU and as
    /// stored elsewhere.
    pub fn weight_bytes(&self, on_cpu: bool) -> u64 {
        let is_dense = |format| matches!(format, GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16);
        let bytes = |info: &TensorInfo| match info.ggml_dtype {
            format if on_cpu && is_dense(format) => (info.shape.elem_count() * size_of::<f32>()) as u64,
            _ => data_bytes(info).unwrap_or(0),
        };
        self.content.tensor_infos.values().map(bytes).sum()
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        self.content.metadata.get(key)?.to_string().ok().map(String::as_str)
    }

    pub fn flag(&self, key: &str) -> Option<bool> {
        self.content.metadata.get(key)?.to_bool().ok()
    }

    /// Any integer type; negative numbers are none.
    pub fn number(&self, key: &str) -> Option<u64> {
        whole(self.content.metadata.get(key)?)
    }

    /// Either float type.
    pub fn float(&self, key: &str) -> Option<f64> {
        match self.content.metadata.get(key)? {
            Value::F32(value) => Some(f64::from(*value)),
            Value::F64(value) => Some(*value),
            _ => None,
        }
    }

    pub fn array(&self, key: &str) -> Option<&[Value]> {
        self.content.metadata.get(key)?.to_vec().ok().map(Vec::as_slice)
    }

    /// # Errors
    /// Names the key that is missing or out of `range`.
    pub fn size(&self, key: &str, range: std::ops::RangeInclusive<u64>) -> Result<usize, DecoderError> {
        let value = self.number(key).ok_or_else(|| self.error(format!("its metadata has no {key}")))?;
        if !range.contains(&value) {
            return Err(self.error(format!("{key} is {value}, expected {} to {}", range.start(), range.end())));
        }
        usize::try_from(value).map_err(|_| self.error(format!("{key} is too large")))
    }

    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.content.tensor_infos.keys().map(String::as_str)
    }

    /// Sizes of a tensor, the outermost first, and its format.
    pub fn tensor_shape(&self, name: &str) -> Option<(&[usize], GgmlDType)> {
        self.content.tensor_infos.get(name).map(|info| (info.shape.dims(), info.ggml_dtype))
    }

    /// Reads a tensor onto `device`, as stored, but for the order of its rows: row `row` is the file's row
    /// `order(row)`.
    ///
    /// # Errors
    /// Where there is no such tensor, its rows are no whole blocks, or the file cannot be read.
    pub(super) fn tensor(
        &mut self,
        name: &str,
        device: &Device,
        order: Option<&dyn Fn(usize) -> usize>,
    ) -> Result<QTensor, DecoderError> {
        let Some(info) = self.content.tensor_infos.get(name) else {
            return Err(self.error(format!("it has no tensor {name}")));
        };
        let dims = info.shape.dims().to_vec();
        let format = info.ggml_dtype;
        let whole_rows = dims.last().is_some_and(|row| row.is_multiple_of(format.block_size()));
        let Some(bytes) = data_bytes(info).filter(|_| whole_rows) else {
            return Err(self.error(format!("{name} has the shape {dims:?}, which does not fit {format:?}")));
        };
        let begin = self.content.tensor_data_offset + info.offset;
        // No more than the file's length, as `open` has seen.
        let mut data = vec![0; bytes as usize];
        let read = self.reader.seek(SeekFrom::Start(begin)).and_then(|_| self.reader.read_exact(&mut data));
        read.map_err(|error| self.error(format!("{name} cannot be read: {error}")))?;
        if let Some(order) = order {
            let rows = dims[0];
            let width = data.len() / rows;
            data = (0..rows).flat_map(|row| &data[order(row) * width..][..width]).copied().collect();
        }
        Ok(qtensor_from_ggml(format, &data, dims, device)?)
    }
}

/// None where the elements are no whole blocks or too many.
fn data_bytes(info: &TensorInfo) -> Option<u64> {
    let elements = info.shape.dims().iter().try_fold(1usize, |product, size| product.checked_mul(*size))?;
    let block = info.ggml_dtype.block_size();
    let blocks = elements.is_multiple_of(block).then(|| elements / block)?;
    blocks.checked_mul(info.ggml_dtype.type_size()).map(|bytes| bytes as u64)
}

/// Negative numbers are none.
pub(super) fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::U8(value) => Some(u64::from(*value)),
        Value::U16(value) => Some(u64::from(*value)),
        Value::U32(value) => Some(u64::from(*value)),
        Value::U64(value) => Some(*value),
        Value::I8(value) => u64::try_from(*value).ok(),
        Value::I16(value) => u64::try_from(*value).ok(),
        Value::I32(value) => u64::try_from(*value).ok(),
        Value::I64(value) => u64::try_from(*value).ok(),
        _ => None,
    }
}

/// A reader that knows how many bytes the file has left.
struct Walk<R> {
    reader: R,
    left: u64,
    elements: u64,
}

impl<R: Read> Walk<R> {
    fn header(&mut self) -> Result<(), String> {
        if self.take::<4>()? != *b"GGUF" {
            return Err("it does not begin with GGUF".to_owned());
        }
        let version = self.u32()?;
        if !(2..=3).contains(&version) {
            return Err(format!("version {version} is not supported"));
        }
        let tensors = self.count("tensors", MAX_ENTRIES)?;
        let entries = self.count("metadata entries", MAX_ENTRIES)?;
        for _ in 0..entries {
            let key = self.string()?;
            let kind = self.u32()?;
            if key == b"general.alignment" && kind == 4 {
                let alignment = self.u32()?;
                if !alignment.is_power_of_two() || alignment > 1 << 16 {
                    return Err(format!("the alignment is {alignment}"));
                }
            } else {
                self.value(kind)?;
            }
        }
        for _ in 0..tensors {
            self.tensor()?;
        }
        Ok(())
    }

    fn value(&mut self, kind: u32) -> Result<(), String> {
        match kind {
            8 => self.string().map(drop),
            9 => {
                let kind = self.u32()?;
                let count = self.count("array elements", MAX_ELEMENTS)?;
                self.elements += count;
                if self.elements > MAX_ELEMENTS {
                    return Err("its arrays are too long".to_owned());
                }
                match kind {
                    8 => (0..count).try_for_each(|_| self.string().map(drop)),
                    _ => self.skip(count * width(kind).ok_or_else(|| format!("an array of type {kind}"))?),
                }
            }
            _ => self.skip(width(kind).ok_or_else(|| format!("a value of type {kind}"))?),
        }
    }

    fn tensor(&mut self) -> Result<(), String> {
        self.string()?;
        let dimensions = self.u32()?;
        if dimensions > 4 {
            return Err(format!("a tensor has {dimensions} dimensions"));
        }
        let mut elements = 1u64;
        for _ in 0..dimensions {
            let size = self.u64()?;
            elements = elements
                .checked_mul(size)
                .filter(|elements| (1..=MAX_TENSOR).contains(elements))
                .ok_or_else(|| format!("a tensor has a dimension of {size}"))?;
        }
        // Type and offset: `length` compares them with the file's.
        self.skip(4 + 8)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes).map_err(|_| "it ends too early".to_owned())?;
        self.left = self.left.saturating_sub(N as u64);
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.take().map(u64::from_le_bytes)
    }

    fn count(&mut self, what: &str, most: u64) -> Result<u64, String> {
        let count = self.u64()?;
        if count > most {
            return Err(format!("it claims {count} {what}"));
        }
        // Whatever is counted takes at least a byte.
        if count > self.left {
            return Err(format!("it ends too early: it claims {count} {what} and has {} bytes left", self.left));
        }
        Ok(count)
    }

    fn string(&mut self) -> Result<Vec<u8>, String> {
        let length = self.u64()?;
        if length > MAX_STRING {
            return Err(format!("it claims a text of {length} bytes"));
        }
        if length > self.left {
            return Err(format!("it ends too early: it claims a text of {length} bytes and has {} left", self.left));
        }
        // No more than MAX_STRING, so it fits.
        let mut bytes = vec![0; length as usize];
        self.reader.read_exact(&mut bytes).map_err(|_| "it ends too early".to_owned())?;
        self.left -= length;
        Ok(bytes)
    }

    fn skip(&mut self, length: u64) -> Result<(), String> {
        if length > self.left {
            return Err("it ends too early".to_owned());
        }
        let skipped = io::copy(&mut (&mut self.reader).take(length), &mut io::sink());
        if !skipped.is_ok_and(|skipped| skipped == length) {
            return Err("it ends too early".to_owned());
        }
        self.left -= length;
        Ok(())
    }
}

/// Bytes of a value of fixed size.
fn width(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}
