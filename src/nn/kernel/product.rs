//! One tile of weights times rows of activations: where the time goes.
//!
//! For each 32 inputs the codes of a tile are opened into eight registers, then multiplied with the codes of up to
//! sixteen rows: eight integer dot products a row, and one rounding into the row's f32 sum. The sum runs over the groups
//! in one order, whatever the number of rows: a row's result is the same bits alone and in a crowd.

#![expect(
    unsafe_code,
    clippy::inline_always,
    reason = "kernels are unsafe behind their doors, and slow unless inlined there"
)]

use half::f16;

use super::activations::{Activations, BLOCK, BlockOfRows};
use super::pack::{Kind, Packed, Regions};
use super::simd::{Instructions, LANES, Lanes, behind_door};

/// Sixteen outputs of sixteen rows.
pub(in crate::nn) type Product = [f32; BLOCK * LANES];

/// Multiplies tile `index` of `weights` with the first `count` rows of a block: `[count, 16]` into `out`. What comes after
/// them in `out` is nonsense.
///
/// # Safety
/// The processor has the instructions; nobody writes the activations meanwhile.
pub(in crate::nn) unsafe fn multiply(
    instructions: Instructions,
    weights: &Packed,
    index: usize,
    activations: &Activations,
    (block, count): (usize, usize),
    out: &mut Product,
) {
    assert_eq!(weights.inputs, activations.width(), "the matrix is of another width than the activations");
    let tile = weights.tile(index);
    // SAFETY: the caller vouches for the instructions; the block exists, since writing it would have failed otherwise.
    unsafe {
        let rows = activations.block(block);
        behind_door!(
            instructions,
            block_of_rows(weights: &Packed, tile: &[u8], rows: BlockOfRows, count: usize, out: &mut Product)
        );
    }
}

/// Picks the kernel made for the next greater number of rows; the rows beyond `count` come out as nonsense.
#[inline(always)]
unsafe fn block_of_rows<L: Lanes>(weights: &Packed, tile: &[u8], rows: BlockOfRows, count: usize, out: &mut Product) {
    // SAFETY: passed on to the caller.
    unsafe {
        match count {
            1 => by_kind::<L, 1>(weights, tile, rows, out),
            2 => by_kind::<L, 2>(weights, tile, rows, out),
            3..=4 => by_kind::<L, 4>(weights, tile, rows, out),
            5..=8 => by_kind::<L, 8>(weights, tile, rows, out),
            _ => by_kind::<L, 16>(weights, tile, rows, out),
        }
    }
}

#[inline(always)]
unsafe fn by_kind<L: Lanes, const ROWS: usize>(weights: &Packed, tile: &[u8], rows: BlockOfRows, out: &mut Product) {
    // SAFETY: passed on to the caller. The five shapes of scales and codes are those of `Format::of`.
    unsafe {
        match weights.kind {
            Kind::F32 => dense::<L, ROWS, F32>(weights, tile, rows, out),
            Kind::F16 => dense::<L, ROWS, Half>(weights, tile, rows, out),
            Kind::Brain => dense::<L, ROWS, Brain>(weights, tile, rows, out),
            Kind::Quantized(format) => match (format.bits, format.group, format.nested, format.minima) {
                (4, 32, false, false) => quantized::<L, ROWS, 4, 32, false, false>(weights, tile, rows, out),
                (4, 32, false, true) => quantized::<L, ROWS, 4, 32, false, true>(weights, tile, rows, out),
                (4, 32, true, _) => quantized::<L, ROWS, 4, 32, true, true>(weights, tile, rows, out),
                (4, _, _, true) => quantized::<L, ROWS, 4, 16, true, true>(weights, tile, rows, out),
                (4, _, _, false) => quantized::<L, ROWS, 4, 16, true, false>(weights, tile, rows, out),
                (_, 32, false, false) => quantized::<L, ROWS, 8, 32, false, false>(weights, tile, rows, out),
                (_, 32, false, true) => quantized::<L, ROWS, 8, 32, false, true>(weights, tile, rows, out),
                (_, 32, true, _) => quantized::<L, ROWS, 8, 32, true, true>(weights, tile, rows, out),
                (_, _, _, _) => quantized::<L, ROWS, 8, 16, true, false>(weights, tile, rows, out),
            },
        }
    }
}

/// How far ahead of the codes in hand memory is asked for, where few rows leave the processor waiting for it.
const AHEAD: usize = 2048;

#[expect(clippy::needless_range_loop, reason = "so it unrolls over registers")]
#[inline(always)]
unsafe fn quantized<
    L: Lanes,
    const ROWS: usize,
    const BITS: usize,
    const GROUP: usize,
    const NESTED: bool,
    const MINIMA: bool,
>(
    weights: &Packed,
    tile: &[u8],
    rows: BlockOfRows,
    out: &mut Product,
) {
    let Kind::Quantized(format) = weights.kind else { return };
    let (regions, tile) = (weights.regions, tile.as_ptr());
    let parts = 32 / GROUP;
    // SAFETY: offsets follow the layouts of `pack` and `activations`, whose sizes the caller compared.
    unsafe {
        let middle = L::splat(-f32::from(format.middle));
        let scale = |group| scale::<L, GROUP, NESTED, MINIMA>(&regions, middle, tile, group);
        let mut sums = [L::splat(0.0); ROWS];
        for group in 0..weights.inputs / 32 {
            let from = tile.add(regions.codes + group * LANES * 4 * BITS);
            if ROWS <= 4 {
                for line in 0..BITS {
                    L::prefetch(from.wrapping_add(AHEAD + 64 * line));
                }
            }
            let codes = opened::<L, BITS>(from);
            let (scale_a, minimum_a) = scale(group * parts);
            let (scale_b, minimum_b) = if GROUP == 16 { scale(group * parts + 1) } else { (scale_a, minimum_a) };
            for row in 0..ROWS {
                let activations = rows.codes.add((group * BLOCK + row) * 32);
                let of_row = L::splat(*rows.scales.add(group * BLOCK + row));
                let dot = |first: usize, last: usize| {
                    let mut dot = L::whole_zero();
                    for four in first..last {
                        dot = if BITS == 8 && !NESTED {
                            L::dot(dot, codes[four], activations.add(4 * four))
                        } else {
                            L::dot_small(dot, codes[four], activations.add(4 * four))
                        };
                    }
                    L::float(dot).mul(of_row)
                };
                if GROUP == 32 {
                    let sum = scale_a.mul_add(dot(0, 8), sums[row]);
                    sums[row] = minimum_a.mul_add(L::splat(*rows.sums.add(group * BLOCK + row)), sum);
                } else {
                    let halves = rows.halves.add(group * 2 * BLOCK + row);
                    let sum = scale_a.mul_add(dot(0, 4), sums[row]);
                    let sum = minimum_a.mul_add(L::splat(*halves), sum);
                    let sum = scale_b.mul_add(dot(4, 8), sum);
                    sums[row] = minimum_b.mul_add(L::splat(*halves.add(BLOCK)), sum);
                }
            }
        }
        for (row, sum) in sums.into_iter().enumerate() {
            sum.store(out[row * LANES..].as_mut_ptr());
        }
    }
}

/// Scale and minimum of a group of codes.
#[expect(clippy::cast_ptr_alignment, reason = "loads need no alignment")]
#[inline(always)]
unsafe fn scale<L: Lanes, const GROUP: usize, const NESTED: bool, const MINIMA: bool>(
    regions: &Regions,
    middle: L,
    tile: *const u8,
    group: usize,
) -> (L, L) {
    // SAFETY: offsets follow the layout of `pack`; the group exists.
    unsafe {
        let outer = if NESTED { group * GROUP / 256 } else { group } * LANES;
        let mut scale = L::load_half(tile.cast::<f16>().add(outer));
        if NESTED {
            scale = scale.mul(L::load_signed(tile.add(regions.inner_scales + group * LANES).cast()));
        }
        if !MINIMA {
            return (scale, scale.mul(middle));
        }
        let mut minimum = L::load_half(tile.add(regions.minima).cast::<f16>().add(outer));
        if NESTED {
            minimum = minimum.mul(L::load_unsigned(tile.add(regions.inner_minima + group * LANES)));
        }
        (scale, minimum)
    }
}

/// The codes of 32 inputs, four inputs a register.
#[inline(always)]
unsafe fn opened<L: Lanes, const BITS: usize>(from: *const u8) -> [L::Codes; 8] {
    // SAFETY: 32 inputs of 16 outputs are 64 bytes a bit.
    unsafe {
        if BITS == 4 {
            let (a, b) = L::nibbles(from);
            let (c, d) = L::nibbles(from.add(64));
            let (e, f) = L::nibbles(from.add(128));
            let (g, h) = L::nibbles(from.add(192));
            [a, b, c, d, e, f, g, h]
        } else {
            std::array::from_fn(|index| L::bytes(from.add(64 * index)))
        }
    }
}

/// How floats are stored.
trait Precision {
    const BYTES: usize;
    unsafe fn load<L: Lanes>(from: *const u8) -> L;
}

struct F32;
struct Half;
struct Brain;

impl Precision for F32 {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const u8) -> L {
        // SAFETY: passed on to the caller.
        unsafe { L::load(from.cast()) }
    }
}

impl Precision for Half {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const u8) -> L {
        // SAFETY: passed on to the caller.
        unsafe { L::load_half(from.cast()) }
    }
}

impl Precision for Brain {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const u8) -> L {
        // SAFETY: passed on to the caller.
        unsafe { L::load_brain(from.cast()) }
    }
}

#[inline(always)]
unsafe fn dense<L: Lanes, const ROWS: usize, P: Precision>(
    weights: &Packed,
    tile: &[u8],
    rows: BlockOfRows,
    out: &mut Product,
) {
    // SAFETY: offsets follow the layouts of `pack` and `activations`, whose sizes the caller compared.
    unsafe {
        let mut sums = [L::splat(0.0); ROWS];
        for input in 0..weights.inputs {
            let weight = P::load::<L>(tile.as_ptr().add(input * LANES * P::BYTES));
            for (row, sum) in sums.iter_mut().enumerate() {
                *sum = weight.mul_add(L::splat(*rows.floats.add(input * BLOCK + row)), *sum);
            }
        }
        for (row, sum) in sums.into_iter().enumerate() {
            sum.store(out[row * LANES..].as_mut_ptr());
        }
    }
}

#[cfg(test)]
#[path = "product_tests.rs"]
mod tests;
