//! The harmonic-plus-noise source (hn-NSF): a pitch curve to the buzz and hiss that the generator shapes into speech.
//!
//! Source: hexgrad/kokoro 0.9.4, istftnet.py `SineGen` and `SourceModuleHnNSF`, with two simplifications that change
//! nothing: pitch is constant within a frame, so upstream's resampling of it is the frame's own value and its random
//! first phase is never read; and the harmonics' independent noises, which a linear layer sums, are one noise of the
//! summed variance. Runs on the CPU whatever the device: it is a small part of the work.

use candle_core::Result;
use candle_nn::VarBuilder;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rayon::prelude::*;

use crate::nn::frames::scalar;

const HARMONICS: usize = 9;
const SINE_AMPLITUDE: f32 = 0.1;
/// Deviation of the noise under voiced sound.
const VOICED_NOISE: f32 = 0.003;
/// Below this pitch, in hertz, a frame has no voice.
const VOICED_ABOVE: f32 = 10.0;
const SAMPLE_RATE: f64 = 24_000.0;

/// Whether and how the source hisses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noise {
    /// The same seed gives the same noise.
    Seeded(u64),
    /// None at all, to compare with a reference.
    Silent,
}

pub(super) struct Source {
    /// Of the harmonics' sum.
    weights: [f32; HARMONICS],
    bias: f32,
    samples_per_frame: usize,
}

impl Source {
    pub(super) fn load(samples_per_frame: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let vb = vb.pp("l_linear");
        let read = vb.get((1, HARMONICS), "weight")?.flatten_all()?.to_vec1::<f32>()?;
        let mut weights = [0.0; HARMONICS];
        weights.copy_from_slice(&read);
        let bias = vb.get(1, "bias")?.to_vec1::<f32>()?[0];
        Ok(Self { weights, bias, samples_per_frame })
    }

    /// `pitch` in hertz, 80 frames per second, to samples at 24 kHz.
    pub(super) fn forward(&self, pitch: &[f32], noise: Noise) -> Vec<f32> {
        let hop = self.samples_per_frame;
        let phases = Phases::accumulate(pitch, hop);
        let mut samples = vec![0.0; pitch.len() * hop];
        let loudness = self.weights.iter().map(|weight| weight * weight).sum::<f32>().sqrt();
        samples.par_chunks_mut(hop).zip(pitch).enumerate().for_each(|(frame, (samples, pitch))| {
            let voiced = *pitch > VOICED_ABOVE;
            if voiced {
                for (harmonic, weight) in self.weights.iter().enumerate() {
                    phases.add_sine(frame, harmonic, weight * SINE_AMPLITUDE, samples);
                }
            }
            if let Noise::Seeded(seed) = noise {
                let deviation = loudness * if voiced { VOICED_NOISE } else { SINE_AMPLITUDE / 3.0 };
                // A generator for each frame: the noise does not depend on how threads share the frames.
                let seed = seed.wrapping_add((frame as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
                add_gaussian(&mut StdRng::seed_from_u64(seed), deviation, samples);
            }
            for sample in samples {
                // To the last bit: `Spectrum` says what hangs on it where there is no sound.
                *sample = f64::from(*sample + self.bias).tanh() as f32;
            }
        });
        samples
    }
}

/// Box and Muller's transform, two samples at a time.
fn add_gaussian(random: &mut StdRng, deviation: f32, samples: &mut [f32]) {
    for pair in samples.chunks_mut(2) {
        let radius = deviation * (-2.0 * (1.0 - random.random::<f32>()).ln()).sqrt();
        let cycles = random.random::<f32>();
        pair[0] += radius * scalar::sin_of_cycles(cycles);
        if let Some(second) = pair.get_mut(1) {
            *second += radius * scalar::sin_of_cycles(cycles + 0.25);
        }
    }
}

/// Each harmonic's phase at the frames' centres, in cycles.
struct Phases {
    /// The whole cycles removed.
    at_frame: Vec<[f64; HARMONICS]>,
    /// What a frame adds per sample.
    per_sample: Vec<[f64; HARMONICS]>,
    hop: usize,
}

impl Phases {
    fn accumulate(pitch: &[f32], hop: usize) -> Self {
        let step = |pitch: &f32| {
            std::array::from_fn(|harmonic| {
                let hertz = f64::from(*pitch * (harmonic + 1) as f32);
                (hertz / SAMPLE_RATE).rem_euclid(1.0)
            })
        };
        let per_sample: Vec<[f64; HARMONICS]> = pitch.iter().map(step).collect();
        let sum = |total: &mut [f64; HARMONICS], step: &[f64; HARMONICS]| {
            for (total, step) in total.iter_mut().zip(step) {
                *total = (*total + step * hop as f64).rem_euclid(1.0);
            }
            Some(*total)
        };
        let at_frame = per_sample.iter().scan([0.0; HARMONICS], sum).collect();
        Self { at_frame, per_sample, hop }
    }

    /// Adds a frame's sine; the phase runs straight from each frame's centre to the next's.
    fn add_sine(&self, frame: usize, harmonic: usize, amplitude: f32, samples: &mut [f32]) {
        let half = self.hop / 2;
        let last = self.at_frame.len() - 1;
        let (early, late) = samples.split_at_mut(half);
        // Before the first centre and beyond the last the phase stands still, as upstream's interpolation clamps.
        let stretch = |from: usize, to: usize| {
            let slope = if from == to { 0.0 } else { self.per_sample[to][harmonic] };
            (self.at_frame[from][harmonic], slope)
        };
        let (base, slope) = stretch(frame.saturating_sub(1), frame);
        let start = self.hop - half;
        for (at, sample) in early.iter_mut().enumerate() {
            *sample += amplitude * sine(base, slope, (start + at) as f64 + 0.5);
        }
        let (base, slope) = stretch(frame, (frame + 1).min(last));
        for (at, sample) in late.iter_mut().enumerate() {
            *sample += amplitude * sine(base, slope, at as f64 + 0.5);
        }
    }
}

#[inline]
fn sine(base: f64, slope: f64, at: f64) -> f32 {
    let cycles = slope.mul_add(at, base);
    scalar::sin_of_cycles((cycles - cycles.round_ties_even()) as f32)
}
