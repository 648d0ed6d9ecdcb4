//! [`Lanes`] in two 256-bit registers.

#![expect(
    unsafe_code,
    clippy::inline_always,
    reason = "operations are unsafe behind their doors, and slow unless inlined there"
)]

#[allow(clippy::wildcard_imports, reason = "dozens of intrinsics; not `expect`, as tests are exempt")]
use std::arch::x86_64::*;

use half::f16;

use super::Lanes;

#[derive(Clone, Copy)]
pub(in crate::nn) struct Avx2(__m256, __m256);

#[inline(always)]
fn both(a: Avx2, b: Avx2, operation: impl Fn(__m256, __m256) -> __m256) -> Avx2 {
    Avx2(operation(a.0, b.0), operation(a.1, b.1))
}
#[expect(unsafe_op_in_unsafe_fn, reason = "each method is one or a few instructions, under the trait's contract")]
impl Lanes for Avx2 {
    type Whole = (__m256i, __m256i);
    type Codes = (__m256i, __m256i);

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self(_mm256_set1_ps(value), _mm256_set1_ps(value))
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8)))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        _mm256_storeu_ps(to, self.0);
        _mm256_storeu_ps(to.add(8), self.1);
    }
    #[inline(always)]
    unsafe fn load_half(from: *const f16) -> Self {
        let from: *const __m128i = from.cast();
        Self(_mm256_cvtph_ps(_mm_loadu_si128(from)), _mm256_cvtph_ps(_mm_loadu_si128(from.add(1))))
    }
    #[inline(always)]
    unsafe fn store_half(self, to: *mut f16) {
        let to: *mut __m128i = to.cast();
        _mm_storeu_si128(to, _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0));
        _mm_storeu_si128(to.add(1), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.1));
    }
    #[inline(always)]
    unsafe fn load_brain(from: *const u16) -> Self {
        let wide = |from: *const u16| {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        };
        Self(wide(from), wide(from.add(8)))
    }
    #[inline(always)]
    unsafe fn load_signed(from: *const i8) -> Self {
        let wide = |from: *const i8| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast())));
        Self(wide(from), wide(from.add(8)))
    }
    #[inline(always)]
    unsafe fn load_unsigned(from: *const u8) -> Self {
        let wide = |from: *const u8| _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast())));
        Self(wide(from), wide(from.add(8)))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        both(self, other, |a, b| unsafe { _mm256_add_ps(a, b) })
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        both(self, other, |a, b| unsafe { _mm256_sub_ps(a, b) })
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        both(self, other, |a, b| unsafe { _mm256_mul_ps(a, b) })
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        both(self, other, |a, b| unsafe { _mm256_div_ps(a, b) })
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        both(self, other, |a, b| unsafe { _mm256_max_ps(a, b) })
    }
    #[inline(always)]
    unsafe fn abs(self) -> Self {
        both(self, Self::splat(-0.0), |a, sign| unsafe { _mm256_andnot_ps(sign, a) })
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        Self(_mm256_fmadd_ps(self.0, factor.0, term.0), _mm256_fmadd_ps(self.1, factor.1, term.1))
    }
    #[inline(always)]
    unsafe fn zero_where_below(self, probe: Self, limit: Self) -> Self {
        let kept = both(probe, limit, |probe, limit| unsafe { _mm256_cmp_ps::<_CMP_GE_OQ>(probe, limit) });
        both(self, kept, |value, kept| unsafe { _mm256_and_ps(value, kept) })
    }
    #[inline(always)]
    unsafe fn raise(self, exponent: Self) -> Self {
        both(self, exponent, |value, exponent| unsafe {
            let bits = _mm256_slli_epi32::<23>(_mm256_castps_si256(exponent));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(value), bits))
        })
    }
    #[inline(always)]
    unsafe fn round(self) -> Self::Whole {
        (_mm256_cvtps_epi32(self.0), _mm256_cvtps_epi32(self.1))
    }
    #[inline(always)]
    unsafe fn store_bytes(whole: Self::Whole, to: *mut i8) {
        let mut values = [0_i32; 16];
        _mm256_storeu_si256(values.as_mut_ptr().cast(), whole.0);
        _mm256_storeu_si256(values.as_mut_ptr().add(8).cast(), whole.1);
        for (index, value) in values.into_iter().enumerate() {
            to.add(index).write(value as i8);
        }
    }
    #[inline(always)]
    unsafe fn whole_zero() -> Self::Whole {
        (_mm256_setzero_si256(), _mm256_setzero_si256())
    }
    #[inline(always)]
    unsafe fn whole_add(a: Self::Whole, b: Self::Whole) -> Self::Whole {
        (_mm256_add_epi32(a.0, b.0), _mm256_add_epi32(a.1, b.1))
    }
    #[inline(always)]
    unsafe fn whole_sum(whole: Self::Whole) -> i32 {
        let mut values = [0_i32; 8];
        _mm256_storeu_si256(values.as_mut_ptr().cast(), _mm256_add_epi32(whole.0, whole.1));
        values.iter().sum()
    }
    #[inline(always)]
    unsafe fn float(whole: Self::Whole) -> Self {
        Self(_mm256_cvtepi32_ps(whole.0), _mm256_cvtepi32_ps(whole.1))
    }
    #[inline(always)]
    unsafe fn bytes(from: *const u8) -> Self::Codes {
        (_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast()))
    }
    #[inline(always)]
    unsafe fn nibbles(from: *const u8) -> (Self::Codes, Self::Codes) {
        let (both, low) = (Self::bytes(from), _mm256_set1_epi8(15));
        let high = |both| _mm256_and_si256(_mm256_srli_epi16::<4>(both), low);
        ((_mm256_and_si256(both.0, low), _mm256_and_si256(both.1, low)), (high(both.0), high(both.1)))
    }
    #[inline(always)]
    unsafe fn dot_small(sum: Self::Whole, codes: Self::Codes, activations: *const i8) -> Self::Whole {
        // Two products of a code below 128 and an activation fit 16 bits.
        let four = _mm256_set1_epi32(activations.cast::<i32>().read_unaligned());
        let products = |codes| _mm256_madd_epi16(_mm256_maddubs_epi16(codes, four), _mm256_set1_epi16(1));
        (_mm256_add_epi32(sum.0, products(codes.0)), _mm256_add_epi32(sum.1, products(codes.1)))
    }
    #[inline(always)]
    unsafe fn dot(sum: Self::Whole, codes: Self::Codes, activations: *const i8) -> Self::Whole {
        // Those in even places and those in odd places apart, widened to 16 bits.
        let four = _mm256_set1_epi32(activations.cast::<i32>().read_unaligned());
        let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(four));
        let odd = _mm256_srai_epi16::<8>(four);
        let products = |codes| {
            let low = _mm256_and_si256(codes, _mm256_set1_epi16(255));
            let high = _mm256_srli_epi16::<8>(codes);
            _mm256_add_epi32(_mm256_madd_epi16(low, even), _mm256_madd_epi16(high, odd))
        };
        (_mm256_add_epi32(sum.0, products(codes.0)), _mm256_add_epi32(sum.1, products(codes.1)))
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
}
