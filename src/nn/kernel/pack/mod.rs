//! Weights of one matrix, laid out for the kernels.
//!
//! ```text
//! matrix  = tiles, one for every 16 outputs (the last one filled up with zeros)
//! tile    = scales | minima | inner scales | inner minima | codes       each from a cache line on, read front to back
//! scales  = for every 32 inputs (every 256 where nested): 16 × f16      minima alike, where stored
//! inner   = for every group of codes: 16 × i8 (u8 for minima)           nested formats only
//! codes   = for every 4 inputs: 16 outputs × 4 codes                    one register: one vpdpbusd
//!           (4 bits: for every 8 inputs, inputs 0-3 in the low halves of the bytes, 4-7 in the high halves)
//! dense   = for every input: 16 × the float as stored
//! ```

mod unpack;

use candle_core::quantized::QTensor;
use candle_core::{DType, Device, Result, Tensor, bail};
use half::{bf16, f16};
use rayon::prelude::*;

use super::simd::LANES;
use unpack::{Block, Format};

/// What a matrix is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nn) enum Kind {
    Quantized(Format),
    F32,
    F16,
    Brain,
}

/// A cache line, so that tiles begin at one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Where a tile's parts begin, in bytes.
#[derive(Clone, Copy, Default)]
pub(in crate::nn) struct Regions {
    pub(in crate::nn) minima: usize,
    pub(in crate::nn) inner_scales: usize,
    pub(in crate::nn) inner_minima: usize,
    pub(in crate::nn) codes: usize,
    pub(in crate::nn) end: usize,
}

/// A matrix `[outputs, inputs]`.
pub(in crate::nn) struct Packed {
    pub(in crate::nn) kind: Kind,
    pub(in crate::nn) outputs: usize,
    pub(in crate::nn) inputs: usize,
    pub(in crate::nn) regions: Regions,
    lines: Vec<Line>,
}

impl Packed {
    pub(in crate::nn) fn quantized(weights: &QTensor) -> Result<Self> {
        let (outputs, inputs) = weights.shape().dims2()?;
        let Some(format) = Format::of(weights.dtype()) else {
            return Self::dense(&weights.dequantize(&Device::Cpu)?);
        };
        if inputs % format.block != 0 {
            bail!("a quantized matrix has {inputs} inputs, which {} does not divide", format.block);
        }
        let regions = Regions::of(&format, inputs);
        let mut packed = Self::zeros(Kind::Quantized(format), outputs, inputs, regions);
        let (dtype, data) = (weights.dtype(), weights.data()?);
        let row = inputs / format.block * format.bytes;
        packed.fill(|output, lane, tile| {
            for (index, bytes) in data[output * row..(output + 1) * row].chunks(format.bytes).enumerate() {
                regions.put(&format, &Block::open(dtype, bytes), index * format.block, lane, tile);
            }
        });
        Ok(packed)
    }

    /// Floats stay as wide as they are.
    pub(in crate::nn) fn dense(weights: &Tensor) -> Result<Self> {
        let (outputs, inputs) = weights.dims2()?;
        let (kind, width) = match weights.dtype() {
            DType::BF16 => (Kind::Brain, 2),
            DType::F16 => (Kind::F16, 2),
            _ => (Kind::F32, 4),
        };
        let regions = Regions { end: (inputs * LANES * width).next_multiple_of(64), ..Regions::default() };
        let mut packed = Self::zeros(kind, outputs, inputs, regions);
        let flat = weights.flatten_all()?;
        match kind {
            Kind::Brain => packed.fill_dense(&flat.to_vec1::<bf16>()?, bf16::to_le_bytes),
            Kind::F16 => packed.fill_dense(&flat.to_vec1::<f16>()?, f16::to_le_bytes),
            _ => packed.fill_dense(&flat.to_dtype(DType::F32)?.to_vec1::<f32>()?, f32::to_le_bytes),
        }
        Ok(packed)
    }

    pub(in crate::nn) fn tiles(&self) -> usize {
        self.outputs.div_ceil(LANES)
    }

    /// The bytes of one tile.
    pub(in crate::nn) fn tile(&self, index: usize) -> &[u8] {
        let lines = self.regions.end / 64;
        self.lines[index * lines..(index + 1) * lines].as_flattened_bytes()
    }

    /// Writes the weights of one output: `inputs` numbers.
    pub(in crate::nn) fn row(&self, output: usize, out: &mut [f32]) {
        let (tile, lane) = (self.tile(output / LANES), output % LANES);
        for (input, out) in out.iter_mut().enumerate() {
            let at = input * LANES + lane;
            *out = match self.kind {
                Kind::F32 => f32::from_le_bytes([tile[4 * at], tile[4 * at + 1], tile[4 * at + 2], tile[4 * at + 3]]),
                Kind::F16 => f16::from_le_bytes([tile[2 * at], tile[2 * at + 1]]).to_f32(),
                Kind::Brain => bf16::from_le_bytes([tile[2 * at], tile[2 * at + 1]]).to_f32(),
                Kind::Quantized(format) => self.regions.weight(&format, tile, lane, input),
            };
        }
    }

    fn zeros(kind: Kind, outputs: usize, inputs: usize, regions: Regions) -> Self {
        let lines = vec![Line([0; 64]); outputs.div_ceil(LANES) * regions.end / 64];
        Self { kind, outputs, inputs, regions, lines }
    }

    /// Calls `put(output, lane, bytes of its tile)` for every output.
    fn fill(&mut self, put: impl Fn(usize, usize, &mut [u8]) + Sync) {
        let outputs = self.outputs;
        self.lines.par_chunks_mut(self.regions.end / 64).enumerate().for_each(|(tile, lines)| {
            let bytes = lines.as_flattened_bytes_mut();
            for lane in 0..LANES.min(outputs - tile * LANES) {
                put(tile * LANES + lane, lane, bytes);
            }
        });
    }

    fn fill_dense<T: Copy + Sync, const BYTES: usize>(&mut self, values: &[T], bytes: fn(T) -> [u8; BYTES]) {
        let inputs = self.inputs;
        self.fill(|output, lane, tile| {
            for (input, value) in values[output * inputs..(output + 1) * inputs].iter().enumerate() {
                tile[(input * LANES + lane) * BYTES..][..BYTES].copy_from_slice(&bytes(*value));
            }
        });
    }
}

impl Regions {
    fn of(format: &Format, inputs: usize) -> Self {
        let outer = (inputs / format.block * LANES * 2).next_multiple_of(64);
        let inner = if format.nested { (inputs / format.group * LANES).next_multiple_of(64) } else { 0 };
        let minima = outer;
        let inner_scales = minima + if format.minima { outer } else { 0 };
        let inner_minima = inner_scales + inner;
        let codes = inner_minima + if format.minima { inner } else { 0 };
        Self { minima, inner_scales, inner_minima, codes, end: codes + inputs * LANES * format.bits / 8 }
    }

    /// Writes a block that begins at `input` into a tile.
    fn put(&self, format: &Format, block: &Block, input: usize, lane: usize, tile: &mut [u8]) {
        let outer = (input / format.block * LANES + lane) * 2;
        tile[outer..outer + 2].copy_from_slice(&block.scale.to_le_bytes());
        if format.minima {
            tile[self.minima + outer..][..2].copy_from_slice(&block.minimum.to_le_bytes());
        }
        if format.nested {
            for group in 0..format.block / format.group {
                let inner = (input / format.group + group) * LANES + lane;
                tile[self.inner_scales + inner] = block.inner_scales[group].cast_unsigned();
                if format.minima {
                    tile[self.inner_minima + inner] = block.inner_minima[group];
                }
            }
        }
        for (index, code) in block.codes[..format.block].iter().enumerate() {
            let (at, shift) = code_at(format, input + index, lane);
            tile[self.codes + at] |= code << shift;
        }
    }

    fn weight(&self, format: &Format, tile: &[u8], lane: usize, input: usize) -> f32 {
        let outer = (input / format.block * LANES + lane) * 2;
        let half = |at: usize| f16::from_le_bytes([tile[at], tile[at + 1]]).to_f32();
        let inner = input / format.group * LANES + lane;
        let mut scale = half(outer);
        if format.nested {
            scale *= f32::from(tile[self.inner_scales + inner].cast_signed());
        }
        let mut minimum = -f32::from(format.middle) * scale;
        if format.minima {
            minimum = half(self.minima + outer);
            if format.nested {
                minimum *= f32::from(tile[self.inner_minima + inner]);
            }
        }
        let (at, shift) = code_at(format, input, lane);
        let code = tile[self.codes + at] >> shift & if format.bits == 4 { 15 } else { 255 };
        scale.mul_add(f32::from(code), minimum)
    }
}

/// The byte and the bit in it at which the code of an input stands.
fn code_at(format: &Format, input: usize, lane: usize) -> (usize, usize) {
    if format.bits == 4 {
        (input / 8 * 64 + lane * 4 + input % 4, input / 4 % 2 * 4)
    } else {
        (input / 4 * 64 + lane * 4 + input % 4, 0)
    }
}

/// Cache lines as the bytes in them.
trait FlattenedBytes {
    fn as_flattened_bytes(&self) -> &[u8];
    fn as_flattened_bytes_mut(&mut self) -> &mut [u8];
}

impl FlattenedBytes for [Line] {
    #[expect(unsafe_code, reason = "a line is nothing but its bytes")]
    fn as_flattened_bytes(&self) -> &[u8] {
        // SAFETY: `Line` is 64 bytes without padding, and bytes need no alignment.
        unsafe { std::slice::from_raw_parts(self.as_ptr().cast(), self.len() * 64) }
    }

    #[expect(unsafe_code, reason = "a line is nothing but its bytes")]
    fn as_flattened_bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, borrowed exclusively; every value of a byte is a valid line.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr().cast(), self.len() * 64) }
    }
}
