//! Elementary functions as short polynomials, so that loops over them vectorise (the C library's do not).
//!
//! Errors are within 3e-7 absolute for the bounded functions and 3e-7 relative for [`exp`].

use std::f32::consts::LOG2_E;

/// Adding this to |x| < 2^22 leaves x, rounded, in the low bits of the sum.
const ROUND: f32 = 12_582_912.0;

/// e^x; saturates beyond ±87.
#[inline]
pub(in crate::nn) fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 87.0);
    let shifted = x.mul_add(LOG2_E, ROUND);
    let whole = shifted - ROUND;
    // ln 2 in two parts keeps the remainder exact.
    let rest = whole.mul_add(-0.693_145_75, x);
    let rest = whole.mul_add(-1.428_606_8e-6, rest);
    let series = rest.mul_add(1.0 / 720.0, 1.0 / 120.0);
    let series = rest.mul_add(series, 1.0 / 24.0);
    let series = rest.mul_add(series, 1.0 / 6.0);
    let series = rest.mul_add(series, 0.5);
    let series = rest.mul_add(series, 1.0);
    let series = rest.mul_add(series, 1.0);
    series * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

#[inline]
pub(in crate::nn) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[inline]
pub(in crate::nn) fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (1.0 + exp(2.0 * x))
}

/// GELU in its tanh form: x·σ(2y) with y = √(2/π)·(x + 0.044715·x³).
#[inline]
pub(in crate::nn) fn gelu(x: f32) -> f32 {
    x * sigmoid(x * (x * x).mul_add(0.071_354_82, 1.595_769))
}

/// GELU by the error function, that after Abramowitz and Stegun 7.1.26: absolute error under 2e-7.
#[inline]
pub(in crate::nn) fn gelu_erf(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let polynomial = ((((1.061_405_4 * t - 1.453_152) * t + 1.421_413_8) * t - 0.284_496_74) * t + 0.254_829_6) * t;
    let erf = 1.0 - polynomial * exp(-z * z);
    0.5 * x * (1.0 + if x < 0.0 { -erf } else { erf })
}

/// ELU: x where it is positive, else e^x - 1.
#[inline]
pub(in crate::nn) fn elu(x: f32) -> f32 {
    if x > 0.0 { x } else { exp(x) - 1.0 }
}

/// sin(2π·cycles).
#[inline]
pub(in crate::nn) fn sin_of_cycles(cycles: f32) -> f32 {
    // sin(2π·x) = sin(π·(1 - 2x)) folds the outer quarters onto the inner half.
    let rest = cycles - cycles.round_ties_even();
    let folded = if rest.abs() > 0.25 { 0.5_f32.copysign(rest) - rest } else { rest };
    sin_pi(2.0 * folded)
}

/// sin²(π·halves).
#[inline]
pub(in crate::nn) fn sin_squared_of_halves(halves: f32) -> f32 {
    let sine = sin_pi(halves - halves.round_ties_even());
    sine * sine
}

/// sin(πx) for |x| ≤ 1/2, by its Taylor series.
#[inline]
fn sin_pi(x: f32) -> f32 {
    let square = x * x;
    let series = square.mul_add(-0.007_370_431, 0.082_145_89);
    let series = square.mul_add(series, -0.599_264_5);
    let series = square.mul_add(series, 2.550_164);
    let series = square.mul_add(series, -5.167_712_8);
    let series = square.mul_add(series, std::f32::consts::PI);
    x * series
}
