//! What happens to one row of activations between two products: norms, rotation, the activation function.

#![expect(
    unsafe_code,
    clippy::inline_always,
    reason = "kernels are unsafe behind their doors, and slow unless inlined there"
)]

use crate::nn::kernel::simd::{LANES, Lanes};

/// Functions between the two halves of the feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    Silu,
    /// GELU by tanh.
    Gelu,
}

/// `out = row / rms(row) * weight`.
///
/// # Safety
/// Behind the door of `L`.
#[inline(always)]
pub(super) unsafe fn normalize<L: Lanes>(row: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let (chunks, rest) = row.as_chunks::<LANES>();
    // SAFETY: whole chunks are loaded.
    let squares = unsafe {
        let sum = chunks.iter().fold(L::splat(0.0), |sum, chunk| {
            let chunk = L::load(chunk.as_ptr());
            chunk.mul_add(chunk, sum)
        });
        sum.sum()
    };
    let squares = rest.iter().fold(squares, |sum, value| value.mul_add(*value, sum));
    let factor = 1.0 / (squares / row.len() as f32 + epsilon).sqrt();
    for ((out, value), weight) in out.iter_mut().zip(row).zip(weight) {
        *out = value * factor * weight;
    }
}

/// Rotates a head in place: number `i` of the first half with number `i` of the second, by angle `i`.
pub(super) fn rotate(head: &mut [f32], cosines: &[f32], sines: &[f32]) {
    let (first, second) = head.split_at_mut(cosines.len());
    for (((a, b), cosine), sine) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
        (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
    }
}

/// `gate = function(gate) * up`, 16 numbers.
///
/// # Safety
/// Behind the door of `L`.
#[inline(always)]
pub(super) unsafe fn gate<L: Lanes>(function: Gate, gate: &mut [f32; LANES], up: &[f32; LANES]) {
    // SAFETY: whole vectors.
    unsafe {
        let (x, one) = (L::load(gate.as_ptr()), L::splat(1.0));
        // Both functions are x times a logistic curve: silu(x) = x / (1 + exp(-x)), and the tanh of GELU is one of 2y.
        let exponent = match function {
            Gate::Silu => x.mul(L::splat(-1.0)),
            Gate::Gelu => {
                let cubed = x.mul(x).mul(x);
                cubed.mul_add(L::splat(0.044_715), x).mul(L::splat(-2.0 * 0.797_884_6))
            }
        };
        // Beyond 88 the exponential would not fit; the quotient is 0 there anyway.
        let below = L::splat(-88.0);
        let exponent = exponent.mul(L::splat(-1.0)).max(below).mul(L::splat(-1.0));
        let logistic = one.div(one.add(exponent.exp()));
        x.mul(logistic).mul(L::load(up.as_ptr())).store(gate.as_mut_ptr());
    }
}
