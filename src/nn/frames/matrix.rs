//! A weight matrix laid out for products whose left side's rows may overlap, as convolutions' do.
//!
//! The matrix is cut into panels of 64 columns, each contiguous, so that a panel streams through the cache while a
//! block of the product stays in registers. With AVX-512 the inner loop is written out (the `gemm` crate, made for
//! matrices that it may pack first, is half as fast on these shapes); elsewhere it is gemm's.

use rayon::prelude::*;

/// Columns of a panel: four vectors of AVX-512.
const PANEL: usize = 64;

/// [depth, columns]
pub(super) struct Matrix {
    panels: Vec<f32>,
    depth: usize,
    columns: usize,
}

/// The left side of a product: `count` rows of the matrix's depth, each `stride` elements after the one before.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) elements: &'a [f32],
    pub(super) count: usize,
    pub(super) stride: usize,
}

impl Matrix {
    /// `element` answers the element at (row, column).
    pub(super) fn new(depth: usize, columns: usize, element: impl Fn(usize, usize) -> f32 + Sync) -> Self {
        let mut panels = vec![0.0; depth * columns];
        panels.par_chunks_mut((depth * PANEL).max(1)).enumerate().for_each(|(panel, elements)| {
            let width = PANEL.min(columns - panel * PANEL);
            for (row, elements) in elements.chunks_exact_mut(width).enumerate() {
                for (column, slot) in elements.iter_mut().enumerate() {
                    *slot = element(row, panel * PANEL + column);
                }
            }
        });
        Self { panels, depth, columns }
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// out += left * self on this thread; `out`'s rows are `stride` apart.
    pub(super) fn add_product(&self, left: Rows<'_>, out: &mut [f32], stride: usize) {
        for (index, panel) in self.panels.chunks((self.depth * PANEL).max(1)).enumerate() {
            let width = panel.len() / self.depth;
            add_panel(self.depth, left, panel, width, &mut out[index * PANEL..], stride);
        }
    }

    /// As [`Self::add_product`], with the panels shared out over the threads.
    pub(super) fn add_product_shared(&self, left: Rows<'_>, out: &mut [f32], stride: usize) {
        let panel_product = |panel: &[f32]| {
            let width = panel.len() / self.depth;
            let mut part = vec![0.0; left.count * width];
            add_panel(self.depth, left, panel, width, &mut part, width);
            part
        };
        let parts: Vec<Vec<f32>> = self.panels.par_chunks((self.depth * PANEL).max(1)).map(panel_product).collect();
        for (index, part) in parts.iter().enumerate() {
            let width = part.len() / left.count.max(1);
            for (row, part) in part.chunks_exact(width.max(1)).enumerate() {
                let out = &mut out[row * stride + index * PANEL..][..width];
                out.iter_mut().zip(part).for_each(|(out, part)| *out += part);
            }
        }
    }
}

/// out += left * panel, where `panel` is [depth, width].
///
/// # Panics
/// Where a slice is too short for its shape: a fault of the caller, never of the data.
fn add_panel(depth: usize, left: Rows<'_>, panel: &[f32], width: usize, out: &mut [f32], stride: usize) {
    if left.count == 0 || width == 0 || depth == 0 {
        return;
    }
    let last = left.count - 1;
    assert!(left.elements.len() >= last * left.stride + depth, "the left matrix is too short");
    assert!(out.len() >= last * stride + width, "the product has no room");
    assert!(panel.len() >= depth * width, "the panel is too short");
    assert!(left.count == 1 || stride >= width, "rows of the product overlap");
    #[cfg(target_feature = "avx512f")]
    if width == PANEL {
        avx512::add_panel(depth, left, panel, out, stride);
        return;
    }
    // SAFETY: the assertions above bound every element that the strides reach, and `out` is borrowed alone.
    #[expect(unsafe_code, reason = "gemm's only door takes pointers")]
    unsafe {
        gemm::gemm(
            left.count,
            width,
            depth,
            out.as_mut_ptr(),
            1,
            stride.cast_signed(),
            true,
            left.elements.as_ptr(),
            1,
            left.stride.cast_signed(),
            panel.as_ptr(),
            1,
            width.cast_signed(),
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(target_feature = "avx512f")]
mod avx512 {
    use std::arch::x86_64::{
        __m512, _mm_load_ss, _mm512_add_ps, _mm512_broadcastss_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_setzero_ps,
        _mm512_storeu_ps,
    };

    use super::{PANEL, Rows};

    /// Rows of the product in registers at once: 24 of the 32 registers hold sums.
    const BLOCK: usize = 6;
    /// Rows of a panel that stay in the first cache while all rows of the product pass: 24 KB.
    const DEPTH: usize = 96;

    /// The caller has checked every bound.
    pub(super) fn add_panel(depth: usize, left: Rows<'_>, panel: &[f32], out: &mut [f32], stride: usize) {
        for start in (0..depth).step_by(DEPTH) {
            let depth = DEPTH.min(depth - start);
            let panel = &panel[start * PANEL..][..depth * PANEL];
            let whole = left.count / BLOCK * BLOCK;
            for row in (0..whole).step_by(BLOCK) {
                add_six(
                    &left.elements[row * left.stride + start..],
                    left.stride,
                    panel,
                    &mut out[row * stride..],
                    stride,
                );
            }
            for row in whole..left.count {
                add_one(&left.elements[row * left.stride + start..], panel, &mut out[row * stride..]);
            }
        }
    }

    /// Declares four sums for each row, walks the panel, and adds the sums onto the rows of `out`. The sums are single
    /// variables because an array of them does not stay in registers in a profile that checks its indices.
    macro_rules! add_rows {
        ($panel:expr; $($left:expr, $out:expr => $a:ident $b:ident $c:ident $d:ident;)+) => {
            $(
                let (mut $a, mut $b, mut $c, mut $d) =
                    (_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps());
            )+
            for (at, weights) in $panel.as_chunks::<PANEL>().0.iter().enumerate() {
                let weights = weights.as_ptr();
                let first = _mm512_loadu_ps(weights);
                let second = _mm512_loadu_ps(weights.wrapping_add(16));
                let third = _mm512_loadu_ps(weights.wrapping_add(32));
                let fourth = _mm512_loadu_ps(weights.wrapping_add(48));
                $(
                    let x = _mm512_broadcastss_ps(_mm_load_ss($left.wrapping_add(at)));
                    $a = _mm512_fmadd_ps(first, x, $a);
                    $b = _mm512_fmadd_ps(second, x, $b);
                    $c = _mm512_fmadd_ps(third, x, $c);
                    $d = _mm512_fmadd_ps(fourth, x, $d);
                )+
            }
            $( add_onto($out, $a, $b, $c, $d); )+
        };
    }

    /// Six rows of `out` += those of `left` * `panel`.
    #[expect(unsafe_code, reason = "vector loads and stores take pointers")]
    fn add_six(left: &[f32], left_stride: usize, panel: &[f32], out: &mut [f32], stride: usize) {
        debug_assert!(left.len() >= 5 * left_stride + panel.len() / PANEL && out.len() >= 5 * stride + PANEL);
        let left = |row: usize| left.as_ptr().wrapping_add(row * left_stride);
        let [l0, l1, l2, l3, l4, l5] = [left(0), left(1), left(2), left(3), left(4), left(5)];
        let out = out.as_mut_ptr();
        let out = |row: usize| out.wrapping_add(row * stride);
        let [o0, o1, o2, o3, o4, o5] = [out(0), out(1), out(2), out(3), out(4), out(5)];
        // SAFETY: `super::add_panel` has checked that all rows of the strides lie within the slices; this module is
        // compiled only where the CPU it is built for has AVX-512.
        unsafe {
            add_rows! { panel;
                l0, o0 => a0 b0 c0 d0;
                l1, o1 => a1 b1 c1 d1;
                l2, o2 => a2 b2 c2 d2;
                l3, o3 => a3 b3 c3 d3;
                l4, o4 => a4 b4 c4 d4;
                l5, o5 => a5 b5 c5 d5;
            }
        }
    }

    /// One row.
    #[expect(unsafe_code, reason = "vector loads and stores take pointers")]
    fn add_one(left: &[f32], panel: &[f32], out: &mut [f32]) {
        debug_assert!(left.len() >= panel.len() / PANEL && out.len() >= PANEL);
        let (left, out) = (left.as_ptr(), out.as_mut_ptr());
        // SAFETY: as for six rows.
        unsafe {
            add_rows! { panel; left, out => a b c d; }
        }
    }

    /// # Safety
    /// `out` is good for 64 elements.
    #[expect(unsafe_code, reason = "vector loads and stores take pointers")]
    #[inline]
    unsafe fn add_onto(out: *mut f32, a: __m512, b: __m512, c: __m512, d: __m512) {
        for (index, sum) in [a, b, c, d].into_iter().enumerate() {
            let out = out.wrapping_add(index * 16);
            // SAFETY: the caller's promise.
            unsafe { _mm512_storeu_ps(out, _mm512_add_ps(_mm512_loadu_ps(out), sum)) };
        }
    }
}
