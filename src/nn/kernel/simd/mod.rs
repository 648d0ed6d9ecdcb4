//! Sixteen numbers at a time: what the kernels ask of a processor, and the processors' answers.
//!
//! A kernel is written once against [`Lanes`] and compiled once per instruction set behind a `#[target_feature]` door
//! ([`Instructions::detect`] says which door). Every operation below gives the same bits on every instruction set:
//! products of floats are fused, sums run in the order written, products of codes are exact integers.

#![expect(
    unsafe_code,
    clippy::inline_always,
    reason = "operations are unsafe behind their doors, and slow unless inlined there"
)]

#[cfg(target_arch = "x86_64")]
pub(in crate::nn) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(in crate::nn) mod avx512;
pub(in crate::nn) mod portable;

use half::f16;

/// Lanes of one vector, and outputs of one tile of weights.
pub(in crate::nn) const LANES: usize = 16;

/// What this processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nn) enum Instructions {
    /// AVX-512 with VNNI: four products of codes a lane in one instruction.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Instructions {
    pub(in crate::nn) fn detect() -> Self {
        Self::all().into_iter().next().unwrap_or(Self::Portable)
    }

    /// All that this processor can run, the fastest first.
    pub(in crate::nn) fn all() -> Vec<Self> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni")
            {
                found.push(Self::Avx512);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
                found.push(Self::Avx2);
            }
        }
        found.push(Self::Portable);
        found
    }
}

/// Sixteen f32. Implementors may only be used behind the door of their instruction set, and pointers have to be valid
/// for what a method reads or writes: that is the whole contract of every `unsafe` method here.
pub(in crate::nn) trait Lanes: Copy {
    /// Sixteen i32.
    type Whole: Copy;
    /// Four unsigned codes for each of the sixteen lanes.
    type Codes: Copy;

    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn load_half(from: *const f16) -> Self;
    unsafe fn store_half(self, to: *mut f16);
    /// Sixteen bfloat16, given as their bits.
    unsafe fn load_brain(from: *const u16) -> Self;
    unsafe fn load_signed(from: *const i8) -> Self;
    unsafe fn load_unsigned(from: *const u8) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    /// The greater of each two; `other` where they cannot be compared.
    unsafe fn max(self, other: Self) -> Self;
    unsafe fn abs(self) -> Self;
    /// `self * factor + term`, rounded once.
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self;
    /// `self` where `probe` is at least `limit`, else zero.
    unsafe fn zero_where_below(self, probe: Self, limit: Self) -> Self;
    /// Adds the lowest bits of `exponent` to the exponents of `self`.
    unsafe fn raise(self, exponent: Self) -> Self;
    /// Rounds to whole numbers, half to even. For values within i32.
    unsafe fn round(self) -> Self::Whole;
    /// Writes the lowest byte of each.
    unsafe fn store_bytes(whole: Self::Whole, to: *mut i8);
    unsafe fn whole_zero() -> Self::Whole;
    unsafe fn whole_add(a: Self::Whole, b: Self::Whole) -> Self::Whole;
    unsafe fn whole_sum(whole: Self::Whole) -> i32;
    unsafe fn float(whole: Self::Whole) -> Self;
    /// 64 codes of 8 bits.
    unsafe fn bytes(from: *const u8) -> Self::Codes;
    /// 128 codes of 4 bits: those in the low halves of the bytes, and those in the high halves.
    unsafe fn nibbles(from: *const u8) -> (Self::Codes, Self::Codes);
    /// Adds to each lane the products of its four codes with the same four activations. Codes below 128.
    unsafe fn dot_small(sum: Self::Whole, codes: Self::Codes, activations: *const i8) -> Self::Whole;
    /// As [`Lanes::dot_small`], for any code.
    unsafe fn dot(sum: Self::Whole, codes: Self::Codes, activations: *const i8) -> Self::Whole;
    /// Asks for the cache line at `at`; any address will do.
    unsafe fn prefetch(at: *const u8);

    /// The sum of the lanes, always in the same order.
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let mut lanes = [0.0; LANES];
        // SAFETY: the array holds sixteen.
        unsafe { self.store(lanes.as_mut_ptr()) };
        let mut width = LANES / 2;
        while width > 0 {
            for lane in 0..width {
                lanes[lane] += lanes[lane + width];
            }
            width /= 2;
        }
        lanes[0]
    }

    /// The greatest lane.
    #[inline(always)]
    unsafe fn highest(self) -> f32 {
        let mut lanes = [0.0; LANES];
        // SAFETY: the array holds sixteen.
        unsafe { self.store(lanes.as_mut_ptr()) };
        let mut width = LANES / 2;
        while width > 0 {
            for lane in 0..width {
                lanes[lane] = if lanes[lane] > lanes[lane + width] { lanes[lane] } else { lanes[lane + width] };
            }
            width /= 2;
        }
        lanes[0]
    }

    /// e to the power of each lane, for lanes up to 88; exactly 0 below -87. Relative error about 2e-7 (Cephes' `expf`).
    #[inline(always)]
    unsafe fn exp(self) -> Self {
        // Adding it rounds to a whole number, which is then in the lowest bits.
        const ROUND: f32 = 12_582_912.0;
        const LOWEST: f32 = -87.0;
        // SAFETY: arithmetic on values, behind the caller's door.
        unsafe {
            let limit = Self::splat(LOWEST);
            let x = self.max(limit);
            let shifted = x.mul_add(Self::splat(std::f32::consts::LOG2_E), Self::splat(ROUND));
            let whole = shifted.sub(Self::splat(ROUND));
            let rest = whole.mul_add(Self::splat(-0.693_359_4), x);
            let rest = whole.mul_add(Self::splat(2.121_944_4e-4), rest);
            let mut power = Self::splat(1.987_569_1e-4);
            for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
                power = power.mul_add(rest, Self::splat(coefficient));
            }
            let power = power.mul_add(rest.mul(rest), rest).add(Self::splat(1.0));
            power.raise(shifted).zero_where_below(self, limit)
        }
    }
}

/// Calls `generic::<L>(arguments)` with the lanes of the instructions found, behind their door.
macro_rules! behind_door {
    ($instructions:expr, $generic:ident($($argument:ident: $type:ty),* $(,)?)) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        unsafe fn avx512($($argument: $type),*) {
            // SAFETY: passed on to the caller.
            unsafe { $generic::<$crate::nn::kernel::simd::avx512::Avx512>($($argument),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn avx2($($argument: $type),*) {
            // SAFETY: passed on to the caller.
            unsafe { $generic::<$crate::nn::kernel::simd::avx2::Avx2>($($argument),*) }
        }
        match $instructions {
            #[cfg(target_arch = "x86_64")]
            $crate::nn::kernel::simd::Instructions::Avx512 => avx512($($argument),*),
            #[cfg(target_arch = "x86_64")]
            $crate::nn::kernel::simd::Instructions::Avx2 => avx2($($argument),*),
            $crate::nn::kernel::simd::Instructions::Portable => {
                $generic::<$crate::nn::kernel::simd::portable::Portable>($($argument),*);
            }
        }
    }};
}
pub(in crate::nn) use behind_door;
