//! Convolutions with half of the multiplications: Toom and Cook's (or Winograd's) short filters.
//!
//! Four outputs of four taps need seven products instead of sixteen, once the taps and the seven inputs are carried to
//! seven points. Longer filters are groups of four taps; because a group is as long as a step, all groups share the
//! carried inputs, and their sum is again one matrix product over overlapping rows. In f32 the result differs from the
//! direct one by about a millionth.
//!
//! Source: S. Winograd, Arithmetic Complexity of Computations (1980), by transposition of a Toom-Cook product.

use rayon::prelude::*;

use super::matrix::{Matrix, Rows};

/// Outputs of a step, and taps of a group.
const STEP: usize = 4;
/// Points, and inputs of a step.
const POINTS: usize = 2 * STEP - 1;
/// The seventh point is infinity. Small ones keep rounding errors small.
const FINITE: [f64; POINTS - 1] = [0.0, 1.0, -1.0, 2.0, -0.5, 0.5];
/// Channels that are carried at once: one vector.
const LANES: usize = 16;

/// A filter of `taps` taps at the points.
pub(super) struct ShortFilter {
    /// For each point, [groups * input, output].
    points: Vec<Matrix>,
    groups: usize,
    input: usize,
    output: usize,
    /// Inputs to points.
    carry: [[f32; POINTS]; POINTS],
    /// Points to outputs.
    collect: [[f32; POINTS]; STEP],
}

/// Space that one use leaves to the next.
#[derive(Default)]
pub(super) struct ShortFilterScratch {
    carried: Vec<f32>,
    products: Vec<f32>,
}

impl ShortFilter {
    /// Whether channels fill whole vectors and panels, and taps are enough to gain.
    pub(super) fn suits(input: usize, output: usize, taps: usize) -> bool {
        taps >= 3 && [input, output].iter().all(|channels| (64..=256).contains(channels) && channels.is_multiple_of(64))
    }

    /// `weight` is [output, input, taps].
    pub(super) fn new(weight: &[f32], output: usize, input: usize, taps: usize) -> Self {
        let groups = taps.div_ceil(STEP);
        let point = |point: usize| {
            Matrix::new(groups * input, output, |row, o| {
                let (group, i) = (row / input, row % input);
                let taps_of_group = (group * STEP..taps.min((group + 1) * STEP)).enumerate();
                let sum: f64 = taps_of_group
                    .map(|(at, tap)| power(point, at) * f64::from(weight[(o * input + i) * taps + tap]))
                    .sum();
                sum as f32
            })
        };
        let carry = interpolation().map(|row| row.map(|coefficient| coefficient as f32));
        let collect = std::array::from_fn(|at| std::array::from_fn(|point| power(point, at) as f32));
        Self { points: (0..POINTS).map(point).collect(), groups, input, output, carry, collect }
    }

    /// Frames of input that `rows` outputs read, those of unused taps included.
    pub(super) fn frames_read(&self, rows: usize) -> usize {
        STEP * (rows.div_ceil(STEP) + self.groups) - 1
    }

    /// out += the convolution of `x`, which has [`Self::frames_read`] frames; `out`'s rows are `stride` apart.
    /// `shared` spreads the work over the threads.
    pub(super) fn add(
        &self,
        x: &[f32],
        rows: usize,
        out: &mut [f32],
        stride: usize,
        scratch: &mut ShortFilterScratch,
        shared: bool,
    ) {
        let steps = rows.div_ceil(STEP);
        let carried_frames = steps + self.groups - 1;
        let ShortFilterScratch { carried, products } = scratch;
        carried.resize(POINTS * carried_frames * self.input, 0.0);
        self.carry_all(x, carried_frames, carried);
        products.clear();
        products.resize(POINTS * steps * self.output, 0.0);
        let multiply = |((matrix, carried), products): ((&Matrix, &[f32]), &mut [f32])| {
            let left = Rows { elements: carried, count: steps, stride: self.input };
            matrix.add_product(left, products, self.output);
        };
        let carried = carried.chunks_exact(carried_frames * self.input);
        if shared {
            let carried: Vec<&[f32]> = carried.collect();
            let products = products.par_chunks_exact_mut(steps * self.output);
            self.points.par_iter().zip(carried).zip(products).for_each(multiply);
        } else {
            self.points.iter().zip(carried).zip(products.chunks_exact_mut(steps * self.output)).for_each(multiply);
        }
        self.collect_all(products, rows, out, stride);
    }

    fn carry_all(&self, x: &[f32], frames: usize, carried: &mut [f32]) {
        let width = self.input;
        for frame in 0..frames {
            let start = frame * STEP * width;
            for lane in (0..width).step_by(LANES) {
                let inputs: [&[f32; LANES]; POINTS] = std::array::from_fn(|at| lanes(&x[start + at * width + lane..]));
                for (point, carry) in self.carry.iter().enumerate() {
                    let mut sum = [0.0_f32; LANES];
                    for (input, factor) in inputs.iter().zip(carry) {
                        for (sum, input) in sum.iter_mut().zip(*input) {
                            *sum = input.mul_add(*factor, *sum);
                        }
                    }
                    carried[(point * frames + frame) * width + lane..][..LANES].copy_from_slice(&sum);
                }
            }
        }
    }

    fn collect_all(&self, products: &[f32], rows: usize, out: &mut [f32], stride: usize) {
        let width = self.output;
        let steps = rows.div_ceil(STEP);
        for step in 0..steps {
            for lane in (0..width).step_by(LANES) {
                let at_points: [&[f32; LANES]; POINTS] =
                    std::array::from_fn(|point| lanes(&products[(point * steps + step) * width + lane..]));
                for (row, collect) in (step * STEP..rows).zip(&self.collect) {
                    let out = &mut out[row * stride + lane..][..LANES];
                    for (at_point, factor) in at_points.iter().zip(collect) {
                        for (out, at_point) in out.iter_mut().zip(*at_point) {
                            *out = at_point.mul_add(*factor, *out);
                        }
                    }
                }
            }
        }
    }
}

fn lanes(elements: &[f32]) -> &[f32; LANES] {
    // The caller's channels are a multiple of the lanes, so there always is a whole vector.
    elements.first_chunk().unwrap_or(&[0.0; LANES])
}

/// The point to the power of `exponent` below four; infinity keeps only the highest.
fn power(point: usize, exponent: usize) -> f64 {
    match FINITE.get(point) {
        Some(value) => std::iter::repeat_n(*value, exponent).product(),
        None => f64::from(u8::from(exponent + 1 == STEP)),
    }
}

/// For each point, the coefficients of the polynomial that is one there and zero at the others.
fn interpolation() -> [[f64; POINTS]; POINTS] {
    std::array::from_fn(|point| {
        let mut polynomial = [0.0; POINTS];
        polynomial[0] = 1.0;
        let others = FINITE.iter().enumerate().filter(|(other, _)| *other != point);
        for (degree, (_, root)) in others.enumerate() {
            let scale = FINITE.get(point).map_or(1.0, |value| value - root);
            for at in (0..=degree + 1).rev() {
                let below = if at > 0 { polynomial[at - 1] } else { 0.0 };
                polynomial[at] = (below - root * polynomial[at]) / scale;
            }
        }
        polynomial
    })
}
