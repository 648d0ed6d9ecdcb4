//! GGUF's blocks opened up: every format read as unsigned codes, a scale and a minimum for each group of codes.
//!
//! A weight is `scale * code + minimum`, where the scale of the K formats is `outer * inner`: a half-precision number
//! for 256 codes times a small integer for the group. Formats without minima have codes around a middle, so that
//! their minimum is `-middle * scale`. Nothing is rounded: these are the numbers as stored. Source: ggml's block
//! structures (`ggml-common.h`) and their dequantisation.

use candle_core::quantized::GgmlDType;
use half::f16;

/// How the scales of a format are laid out, and how wide its codes are once packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    /// Codes that share a scale: 32 or 16.
    pub(crate) group: usize,
    /// Bits of a packed code: 4 or 8.
    pub(crate) bits: usize,
    /// Whether scales are an outer one for 256 codes times an inner one.
    pub(crate) nested: bool,
    /// Whether minima are stored. They are `-middle * scale` otherwise.
    pub(crate) minima: bool,
    pub(crate) middle: u8,
    /// Codes and bytes of a block as stored.
    pub(crate) block: usize,
    pub(crate) bytes: usize,
}

impl Format {
    /// The format of a quantized type; none for types that hold floats, or that no weights are stored in.
    pub(super) fn of(dtype: GgmlDType) -> Option<Self> {
        let plain = Self {
            group: 32,
            bits: 8,
            nested: false,
            minima: false,
            middle: 0,
            block: dtype.block_size(),
            bytes: dtype.type_size(),
        };
        let nested = Self { nested: true, ..plain };
        Some(match dtype {
            GgmlDType::Q4_0 => Self { bits: 4, middle: 8, ..plain },
            GgmlDType::Q4_1 => Self { bits: 4, minima: true, ..plain },
            GgmlDType::Q5_0 => Self { middle: 16, ..plain },
            GgmlDType::Q5_1 => Self { minima: true, ..plain },
            GgmlDType::Q8_0 => Self { middle: 128, ..plain },
            GgmlDType::Q2K => Self { group: 16, bits: 4, minima: true, ..nested },
            GgmlDType::Q3K => Self { group: 16, bits: 4, middle: 4, ..nested },
            GgmlDType::Q4K => Self { bits: 4, minima: true, ..nested },
            GgmlDType::Q5K => Self { minima: true, ..nested },
            GgmlDType::Q6K => Self { group: 16, middle: 32, ..nested },
            _ => return None,
        })
    }
}

/// One block opened up: at most 256 codes in 16 groups.
pub(super) struct Block {
    pub(super) codes: [u8; 256],
    /// Of the block: the scale, or what every group's scale is multiplied with.
    pub(super) scale: f16,
    pub(super) minimum: f16,
    /// Of each group: small integers, for nested formats only. A group's minimum is `minimum * inner_minima[group]`.
    pub(super) inner_scales: [i8; 16],
    pub(super) inner_minima: [u8; 16],
}

impl Block {
    pub(super) fn open(dtype: GgmlDType, bytes: &[u8]) -> Self {
        let mut block = Self {
            codes: [0; 256],
            scale: half(bytes, 0),
            minimum: f16::ZERO,
            inner_scales: [0; 16],
            inner_minima: [0; 16],
        };
        match dtype {
            GgmlDType::Q4_0 => block.halves(&bytes[2..18], &[]),
            GgmlDType::Q4_1 => {
                block.minimum = half(bytes, 2);
                block.halves(&bytes[4..20], &[]);
            }
            GgmlDType::Q5_0 => block.halves(&bytes[6..22], &bytes[2..6]),
            GgmlDType::Q5_1 => {
                block.minimum = half(bytes, 2);
                block.halves(&bytes[8..24], &bytes[4..8]);
            }
            GgmlDType::Q8_0 => {
                for (code, byte) in block.codes.iter_mut().zip(&bytes[2..34]) {
                    *code = byte ^ 0x80;
                }
            }
            GgmlDType::Q2K => block.two_bits(bytes),
            GgmlDType::Q3K => block.three_bits(bytes),
            GgmlDType::Q4K => {
                block.six_bit_scales(&bytes[2..16]);
                block.fours(&bytes[16..144], &[]);
            }
            GgmlDType::Q5K => {
                block.six_bit_scales(&bytes[2..16]);
                block.fours(&bytes[48..176], &bytes[16..48]);
            }
            _ => block.six_bits(bytes),
        }
        block
    }

    /// 32 codes: the low halves of 16 bytes, then the high halves; fifth bits in order where there are any.
    fn halves(&mut self, bytes: &[u8], fifth: &[u8]) {
        for (index, byte) in bytes.iter().enumerate() {
            self.codes[index] = byte & 15;
            self.codes[index + 16] = byte >> 4;
        }
        for (index, byte) in fifth.iter().enumerate() {
            for bit in 0..8 {
                self.codes[8 * index + bit] |= (byte >> bit & 1) << 4;
            }
        }
    }

    /// 256 codes: for each 64, the low halves of 32 bytes, then the high halves; fifth bits one plane per 32 codes.
    fn fours(&mut self, bytes: &[u8], fifth: &[u8]) {
        for (sixty_four, bytes) in bytes.chunks(32).enumerate() {
            for (index, byte) in bytes.iter().enumerate() {
                self.codes[64 * sixty_four + index] = byte & 15;
                self.codes[64 * sixty_four + index + 32] = byte >> 4;
            }
        }
        for (index, byte) in fifth.iter().enumerate() {
            for plane in 0..8 {
                self.codes[32 * plane + index] |= (byte >> plane & 1) << 4;
            }
        }
    }

    /// The outer minimum, which is subtracted, and eight pairs of six bits, as `Q4_K` and `Q5_K` store them.
    fn six_bit_scales(&mut self, bytes: &[u8]) {
        self.minimum = -half(bytes, 0);
        let packed = &bytes[2..14];
        for group in 0..4 {
            self.inner_scales[group] = (packed[group] & 63).cast_signed();
            self.inner_minima[group] = packed[group + 4] & 63;
            self.inner_scales[group + 4] = (packed[group + 8] & 15 | packed[group] >> 6 << 4).cast_signed();
            self.inner_minima[group + 4] = packed[group + 8] >> 4 | packed[group + 4] >> 6 << 4;
        }
    }

    fn two_bits(&mut self, bytes: &[u8]) {
        (self.scale, self.minimum) = (half(bytes, 80), -half(bytes, 82));
        for (group, packed) in bytes[..16].iter().enumerate() {
            self.inner_scales[group] = (packed & 15).cast_signed();
            self.inner_minima[group] = packed >> 4;
        }
        self.pairs(&bytes[16..80]);
    }

    fn three_bits(&mut self, bytes: &[u8]) {
        self.scale = half(bytes, 108);
        self.pairs(&bytes[32..96]);
        // The third bits: one plane of the 32 bytes for each 32 codes.
        for (index, byte) in bytes[..32].iter().enumerate() {
            for plane in 0..8 {
                self.codes[32 * plane + index] |= (byte >> plane & 1) << 2;
            }
        }
        // Six bits a group: four below, two above, around 32.
        let packed = &bytes[96..108];
        for group in 0..16 {
            let low = packed[group % 8] >> (group / 8 * 4) & 15;
            let high = packed[8 + group % 4] >> (group / 4 * 2) & 3;
            self.inner_scales[group] = (low | high << 4).cast_signed() - 32;
        }
    }

    /// 256 codes of two bits: for each 128, four planes of 32 bytes.
    fn pairs(&mut self, bytes: &[u8]) {
        for (half, bytes) in bytes.chunks(32).enumerate() {
            for (index, byte) in bytes.iter().enumerate() {
                for plane in 0..4 {
                    self.codes[128 * half + 32 * plane + index] = byte >> (2 * plane) & 3;
                }
            }
        }
    }

    fn six_bits(&mut self, bytes: &[u8]) {
        self.scale = half(bytes, 208);
        for (inner, byte) in self.inner_scales.iter_mut().zip(&bytes[192..208]) {
            *inner = byte.cast_signed();
        }
        for half in 0..2 {
            let (low, high) = (&bytes[64 * half..][..64], &bytes[128 + 32 * half..][..32]);
            for index in 0..32 {
                let codes = &mut self.codes[128 * half + index..];
                codes[0] = low[index] & 15 | (high[index] & 3) << 4;
                codes[32] = low[index + 32] & 15 | (high[index] >> 2 & 3) << 4;
                codes[64] = low[index] >> 4 | (high[index] >> 4 & 3) << 4;
                codes[96] = low[index + 32] >> 4 | (high[index] >> 6) << 4;
            }
        }
    }
}

fn half(bytes: &[u8], at: usize) -> f16 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]])
}
