//! [`Lanes`] in one 512-bit register.

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
pub(in crate::nn) struct Avx512(__m512);
#[expect(unsafe_op_in_unsafe_fn, reason = "each method is one or a few instructions, under the trait's contract")]
impl Lanes for Avx512 {
    type Whole = __m512i;
    type Codes = __m512i;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self(_mm512_set1_ps(value))
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(_mm512_loadu_ps(from))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        _mm512_storeu_ps(to, self.0);
    }
    #[inline(always)]
    unsafe fn load_half(from: *const f16) -> Self {
        Self(_mm512_cvtph_ps(_mm256_loadu_si256(from.cast())))
    }
    #[inline(always)]
    unsafe fn store_half(self, to: *mut f16) {
        _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0));
    }
    #[inline(always)]
    unsafe fn load_brain(from: *const u16) -> Self {
        let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
        Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide)))
    }
    #[inline(always)]
    unsafe fn load_signed(from: *const i8) -> Self {
        Self(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))))
    }
    #[inline(always)]
    unsafe fn load_unsigned(from: *const u8) -> Self {
        Self(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()))))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(_mm512_add_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(_mm512_sub_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(_mm512_mul_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        Self(_mm512_div_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        Self(_mm512_max_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn abs(self) -> Self {
        Self(_mm512_abs_ps(self.0))
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        Self(_mm512_fmadd_ps(self.0, factor.0, term.0))
    }
    #[inline(always)]
    unsafe fn zero_where_below(self, probe: Self, limit: Self) -> Self {
        Self(_mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(probe.0, limit.0), self.0))
    }
    #[inline(always)]
    unsafe fn raise(self, exponent: Self) -> Self {
        let bits = _mm512_slli_epi32::<23>(_mm512_castps_si512(exponent.0));
        Self(_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(self.0), bits)))
    }
    #[inline(always)]
    unsafe fn round(self) -> __m512i {
        _mm512_cvtps_epi32(self.0)
    }
    #[inline(always)]
    unsafe fn store_bytes(whole: __m512i, to: *mut i8) {
        _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(whole));
    }
    #[inline(always)]
    unsafe fn whole_zero() -> __m512i {
        _mm512_setzero_si512()
    }
    #[inline(always)]
    unsafe fn whole_add(a: __m512i, b: __m512i) -> __m512i {
        _mm512_add_epi32(a, b)
    }
    #[inline(always)]
    unsafe fn whole_sum(whole: __m512i) -> i32 {
        _mm512_reduce_add_epi32(whole)
    }
    #[inline(always)]
    unsafe fn float(whole: __m512i) -> Self {
        Self(_mm512_cvtepi32_ps(whole))
    }
    #[inline(always)]
    unsafe fn bytes(from: *const u8) -> __m512i {
        _mm512_loadu_si512(from.cast())
    }
    #[inline(always)]
    unsafe fn nibbles(from: *const u8) -> (__m512i, __m512i) {
        let (both, low) = (_mm512_loadu_si512(from.cast()), _mm512_set1_epi8(15));
        (_mm512_and_si512(both, low), _mm512_and_si512(_mm512_srli_epi16::<4>(both), low))
    }
    #[inline(always)]
    unsafe fn dot_small(sum: __m512i, codes: __m512i, activations: *const i8) -> __m512i {
        Self::dot(sum, codes, activations)
    }
    #[inline(always)]
    unsafe fn dot(sum: __m512i, codes: __m512i, activations: *const i8) -> __m512i {
        _mm512_dpbusd_epi32(sum, codes, _mm512_set1_epi32(activations.cast::<i32>().read_unaligned()))
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
}
