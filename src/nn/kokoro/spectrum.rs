//! The short-time Fourier transform in the small: windows of 20 samples, five apart. So small that sums written out
//! beat a planned transform. Windows are periodic Hann's, centred, the signal reflected at its ends, as torch.stft.
//!
//! Where the source is silent it is a constant, and most bins are nothing but the rounding of its windowed samples. The
//! generator hears their angles, as large as any, in every such frame. So the window and its products are rounded as
//! torch rounds them, in f32, and the sums are not: in f64 they add nothing of their own.

use std::f64::consts::TAU;

use rayon::prelude::*;

use crate::nn::frames::scalar;

pub(super) struct Spectrum {
    size: usize,
    hop: usize,
    window: Vec<f32>,
    /// [size, bins]: cos and sin of bin by sample.
    cos: Vec<f64>,
    sin: Vec<f64>,
}

impl Spectrum {
    /// `size` is a multiple of `hop`.
    pub(super) fn new(size: usize, hop: usize) -> Self {
        let bins = size / 2 + 1;
        let angle = |index: usize| TAU * ((index / bins) * (index % bins) % size) as f64 / size as f64;
        Self {
            size,
            hop,
            window: torch_hann(size),
            cos: (0..size * bins).map(|index| angle(index).cos()).collect(),
            sin: (0..size * bins).map(|index| angle(index).sin()).collect(),
        }
    }

    fn bins(&self) -> usize {
        self.size / 2 + 1
    }

    /// Samples to [samples / hop + 1, 2 * bins]: magnitudes, then angles.
    pub(super) fn analyse(&self, samples: &[f32]) -> Vec<f32> {
        let bins = self.bins();
        let frames = samples.len() / self.hop + 1;
        let mut out = vec![0.0; frames * 2 * bins];
        out.par_chunks_mut(2 * bins * FRAMES_PER_TASK).enumerate().for_each(|(task, out)| {
            let mut real = vec![0.0; bins];
            let mut imaginary = vec![0.0; bins];
            for (at, out) in out.chunks_exact_mut(2 * bins).enumerate() {
                real.fill(0.0);
                imaginary.fill(0.0);
                let start = (task * FRAMES_PER_TASK + at) * self.hop;
                for (offset, window) in self.window.iter().enumerate() {
                    let sample = samples[reflected(start + offset, self.size / 2, samples.len())] * window;
                    let sample = f64::from(sample);
                    let row = offset * bins..(offset + 1) * bins;
                    let (cos, sin) = (&self.cos[row.clone()], &self.sin[row]);
                    for bin in 0..bins {
                        real[bin] += sample * cos[bin];
                        imaginary[bin] -= sample * sin[bin];
                    }
                }
                let (magnitudes, angles) = out.split_at_mut(bins);
                for bin in 0..bins {
                    let (real, imaginary) = (real[bin] as f32, imaginary[bin] as f32);
                    magnitudes[bin] = real.hypot(imaginary);
                    angles[bin] = imaginary.atan2(real);
                }
            }
        });
        out
    }

    /// [frames, 2 * bins] of log magnitudes and of the phases' arguments (a phase is the sine of its argument) to
    /// (frames - 1) * hop samples.
    pub(super) fn synthesise(&self, spectrum: &[f32]) -> Vec<f32> {
        let bins = self.bins();
        let frames = spectrum.len() / (2 * bins);
        let mut pieces = vec![0.0; frames * self.size];
        pieces.par_chunks_mut(self.size).zip(spectrum.par_chunks_exact(2 * bins)).for_each(|(piece, frame)| {
            self.invert(frame, piece);
        });
        let overlaps = self.size / self.hop;
        let trim = self.size / 2;
        let length = frames.saturating_sub(1) * self.hop;
        let mut samples = vec![0.0; length];
        samples.par_iter_mut().with_min_len(4096).enumerate().for_each(|(at, sample)| {
            let position = at + trim;
            let newest = position / self.hop;
            let mut sum = 0.0;
            let mut weight = 0.0;
            for frame in (newest + 1).saturating_sub(overlaps)..(newest + 1).min(frames) {
                let offset = position - frame * self.hop;
                sum += pieces[frame * self.size + offset];
                weight += self.window[offset] * self.window[offset];
            }
            *sample = sum / weight.max(1e-11);
        });
        samples
    }

    /// One frame's samples, windowed.
    fn invert(&self, frame: &[f32], piece: &mut [f32]) {
        let bins = self.bins();
        let (magnitudes, arguments) = frame.split_at(bins);
        let mut real = vec![0.0; bins];
        let mut imaginary = vec![0.0; bins];
        for bin in 0..bins {
            // The first and the last bin have no mirror image, and no imaginary part.
            let ends = bin == 0 || bin + 1 == bins;
            let magnitude = scalar::exp(magnitudes[bin]) * if ends { 1.0 } else { 2.0 } / self.size as f32;
            let cycles = arguments[bin].sin() * std::f32::consts::FRAC_1_PI * 0.5;
            real[bin] = f64::from(magnitude * scalar::sin_of_cycles(cycles + 0.25));
            imaginary[bin] = if ends { 0.0 } else { f64::from(magnitude * scalar::sin_of_cycles(cycles)) };
        }
        for ((offset, sample), window) in piece.iter_mut().enumerate().zip(&self.window) {
            let row = offset * bins..(offset + 1) * bins;
            let (cos, sin) = (&self.cos[row.clone()], &self.sin[row]);
            let sum: f64 = (0..bins).map(|bin| real[bin] * cos[bin] - imaginary[bin] * sin[bin]).sum();
            *sample = sum as f32 * window;
        }
    }
}

const FRAMES_PER_TASK: usize = 256;

/// torch.hann_window: rounded to f32 at every step, and so not quite symmetric.
fn torch_hann(size: usize) -> Vec<f32> {
    let step = (TAU / size as f64) as f32;
    let cosine = |at: usize| f64::from(at as f32 * step).cos() as f32;
    (0..size).map(|at| 0.5 - 0.5 * cosine(at)).collect()
}

/// The sample at `position` of the signal with `margin` samples reflected at each end.
fn reflected(position: usize, margin: usize, length: usize) -> usize {
    let at = position.abs_diff(margin);
    if at < length { at } else { (2 * (length - 1)).saturating_sub(at) }
}
