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

/// The left side of a product: `rows` rows of the matrix's depth, each `stride` elements after the one before.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) elements: &'a [f32],
    pub(super) rows: usize,
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
            let mut part = vec![0.0; left.rows * width];
            add_panel(self.depth, left, panel, width, &mut part, width);
            part
        };
        let parts: Vec<Vec<f32>> =
            self.panels.par_chunks((self.depth * PANEL).max(1)).map(panel_product).collect();
        for (index, part) in parts.iter().enumerate() {
            let width = part.len() / left.rows.max(1);
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
    if left.rows == 0 || width == 0 || depth == 0 {
        return;
    }
    let last = left.rows - 1;
    assert!(left.elements.len() >= last * left.stride + depth, "the left matrix is too short");
    assert!(out.len() >= last * stride + width, "the product has no room");
    assert!(panel.len() >= depth * width, "the panel is too short");
    assert!(left.rows == 1 || stride >= width, "rows of the product overlap");
    #[cfg(target_feature = "avx512f")]
    if width == PANEL {
        avx512::add_panel(depth, left, panel, out, stride);
        return;
    }
    // SAFETY: the assertions above bound every element that the strides reach, and `out` is borrowed alone.
    #[expect(unsafe_code, reason = "gemm's only door takes pointers")]
    unsafe {
        gemm::gemm(
            left.rows,
            width,
            depth,
            out.as_mut_ptr(),
            1,
            stride as isize,
            true,
            left.elements.as_ptr(),
            1,
            left.stride as isize,
            panel.as_ptr(),
            1,
            width as isize,
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
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_storeu_ps};

    use super::{PANEL, Rows};

    /// Rows of the product in registers at once: 24 of the 32 registers hold sums.
    const BLOCK: usize = 6;

    /// The caller has checked every bound.
    pub(super) fn add_panel(depth: usize, left: Rows<'_>, panel: &[f32], out: &mut [f32], stride: usize) {
        let mut row = 0;
        while row < left.rows {
            let rows = (left.rows - row).min(BLOCK);
            let from = &left.elements[row * left.stride..];
            let to = &mut out[row * stride..];
            match rows {
                BLOCK => block::<BLOCK>(depth, from, left.stride, panel, to, stride),
                5 => block::<5>(depth, from, left.stride, panel, to, stride),
                4 => block::<4>(depth, from, left.stride, panel, to, stride),
                3 => block::<3>(depth, from, left.stride, panel, to, stride),
                2 => block::<2>(depth, from, left.stride, panel, to, stride),
                _ => block::<1>(depth, from, left.stride, panel, to, stride),
            }
            row += rows;
        }
    }

    /// `ROWS` rows of `out` += those of `left` * `panel`.
    #[expect(unsafe_code, reason = "vector loads and stores take pointers")]
    #[inline]
    fn block<const ROWS: usize>(
        depth: usize,
        left: &[f32],
        left_stride: usize,
        panel: &[f32],
        out: &mut [f32],
        stride: usize,
    ) {
        debug_assert!(left.len() >= (ROWS - 1) * left_stride + depth && panel.len() >= depth * PANEL);
        debug_assert!(out.len() >= (ROWS - 1) * stride + PANEL);
        // SAFETY: `super::add_panel` has checked that all rows of the strides lie within the slices, and that a panel
        // has `depth` rows of 64; this file is compiled only where the CPU it is built for has AVX-512.
        unsafe {
            let (left, panel, out) = (left.as_ptr(), panel.as_ptr(), out.as_mut_ptr());
            let mut sums: [[_; 4]; ROWS] = std::array::from_fn(|row| {
                std::array::from_fn(|vector| _mm512_loadu_ps(out.add(row * stride + vector * 16)))
            });
            for at in 0..depth {
                let weights: [_; 4] = std::array::from_fn(|vector| _mm512_loadu_ps(panel.add(at * PANEL + vector * 16)));
                for row in 0..ROWS {
                    let x = _mm512_set1_ps(*left.add(row * left_stride + at));
                    for vector in 0..4 {
                        sums[row][vector] = _mm512_fmadd_ps(weights[vector], x, sums[row][vector]);
                    }
                }
            }
            for (row, sums) in sums.iter().enumerate() {
                for (vector, sum) in sums.iter().enumerate() {
                    _mm512_storeu_ps(out.add(row * stride + vector * 16), *sum);
                }
            }
        }
    }
}
