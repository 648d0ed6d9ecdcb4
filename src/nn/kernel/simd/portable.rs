//! [`Lanes`] in arrays, for any processor.

#![expect(unsafe_code, reason = "operations are unsafe as their twins are")]

use half::f16;

use super::{LANES, Lanes};

#[derive(Clone, Copy)]
pub(in crate::nn) struct Portable([f32; LANES]);

impl Portable {
    fn each(self, operation: impl Fn(f32) -> f32) -> Self {
        Self(self.0.map(operation))
    }

    fn with(self, other: Self, operation: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|lane| operation(self.0[lane], other.0[lane])))
    }
}

#[expect(unsafe_op_in_unsafe_fn, reason = "the methods are short, under the trait's contract")]
impl Lanes for Portable {
    type Whole = [i32; LANES];
    type Codes = [u8; 4 * LANES];

    unsafe fn splat(value: f32) -> Self {
        Self([value; LANES])
    }
    unsafe fn load(from: *const f32) -> Self {
        Self(from.cast::<[f32; LANES]>().read_unaligned())
    }
    unsafe fn store(self, to: *mut f32) {
        to.cast::<[f32; LANES]>().write_unaligned(self.0);
    }
    unsafe fn load_half(from: *const f16) -> Self {
        Self(from.cast::<[f16; LANES]>().read_unaligned().map(f16::to_f32))
    }
    unsafe fn store_half(self, to: *mut f16) {
        to.cast::<[f16; LANES]>().write_unaligned(self.0.map(f16::from_f32));
    }
    unsafe fn load_brain(from: *const u16) -> Self {
        Self(from.cast::<[u16; LANES]>().read_unaligned().map(|bits| f32::from_bits(u32::from(bits) << 16)))
    }
    unsafe fn load_signed(from: *const i8) -> Self {
        Self(from.cast::<[i8; LANES]>().read_unaligned().map(f32::from))
    }
    unsafe fn load_unsigned(from: *const u8) -> Self {
        Self(from.cast::<[u8; LANES]>().read_unaligned().map(f32::from))
    }
    unsafe fn add(self, other: Self) -> Self {
        self.with(other, |a, b| a + b)
    }
    unsafe fn sub(self, other: Self) -> Self {
        self.with(other, |a, b| a - b)
    }
    unsafe fn mul(self, other: Self) -> Self {
        self.with(other, |a, b| a * b)
    }
    unsafe fn div(self, other: Self) -> Self {
        self.with(other, |a, b| a / b)
    }
    unsafe fn max(self, other: Self) -> Self {
        self.with(other, |a, b| if a > b { a } else { b })
    }
    unsafe fn abs(self) -> Self {
        self.each(f32::abs)
    }
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane].mul_add(factor.0[lane], term.0[lane])))
    }
    unsafe fn zero_where_below(self, probe: Self, limit: Self) -> Self {
        Self(std::array::from_fn(|lane| if probe.0[lane] >= limit.0[lane] { self.0[lane] } else { 0.0 }))
    }
    unsafe fn raise(self, exponent: Self) -> Self {
        self.with(exponent, |value, exponent| f32::from_bits(value.to_bits().wrapping_add(exponent.to_bits() << 23)))
    }
    unsafe fn round(self) -> Self::Whole {
        self.0.map(|value| value.round_ties_even() as i32)
    }
    unsafe fn store_bytes(whole: Self::Whole, to: *mut i8) {
        to.cast::<[i8; LANES]>().write_unaligned(whole.map(|value| value as i8));
    }
    unsafe fn whole_zero() -> Self::Whole {
        [0; LANES]
    }
    unsafe fn whole_add(a: Self::Whole, b: Self::Whole) -> Self::Whole {
        std::array::from_fn(|lane| a[lane] + b[lane])
    }
    unsafe fn whole_sum(whole: Self::Whole) -> i32 {
        whole.iter().sum()
    }
    unsafe fn float(whole: Self::Whole) -> Self {
        Self(whole.map(|value| value as f32))
    }
    unsafe fn bytes(from: *const u8) -> Self::Codes {
        from.cast::<Self::Codes>().read_unaligned()
    }
    unsafe fn nibbles(from: *const u8) -> (Self::Codes, Self::Codes) {
        let both = Self::bytes(from);
        (both.map(|byte| byte & 15), both.map(|byte| byte >> 4))
    }
    unsafe fn dot_small(sum: Self::Whole, codes: Self::Codes, activations: *const i8) -> Self::Whole {
        Self::dot(sum, codes, activations)
    }
    unsafe fn dot(sum: Self::Whole, codes: Self::Codes, activations: *const i8) -> Self::Whole {
        let four = activations.cast::<[i8; 4]>().read_unaligned().map(i32::from);
        std::array::from_fn(|lane| {
            (0..4).fold(sum[lane], |sum, index| sum + i32::from(codes[4 * lane + index]) * four[index])
        })
    }
    unsafe fn prefetch(_at: *const u8) {}
}
