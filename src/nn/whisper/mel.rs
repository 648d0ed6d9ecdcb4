//! The log-mel spectrogram that Whisper hears: 25 ms Hann windows every 10 ms, Slaney's mel scale, log10 with a floor
//! 8 below the loudest point. The reference is OpenAI's `audio.py` and transformers' `WhisperFeatureExtractor`, which
//! pad what is shorter than 30 s with silence; here the padding is never transformed, its value is known.

use std::sync::Arc;

use rayon::prelude::*;
use realfft::{RealFftPlanner, RealToComplex};

use super::config::WINDOW_FRAMES;

/// Samples of one Fourier transform.
const FFT: usize = 400;
/// Samples between two frames: 10 ms.
pub const HOP: usize = 160;
/// Samples in 30 s, the longest that can be heard at once.
pub const WINDOW_SAMPLES: usize = HOP * WINDOW_FRAMES;
const SAMPLE_RATE: f64 = 16_000.0;
/// The least power, so that silence has a logarithm.
const POWER_FLOOR: f32 = 1e-10;

/// A planned transform and the filters of one number of mel bins.
pub struct MelFrontEnd {
    transform: Arc<dyn RealToComplex<f32>>,
    window: Vec<f32>,
    filters: Vec<Filter>,
}

/// One triangle over neighbouring frequencies.
struct Filter {
    first: usize,
    weights: Vec<f32>,
}

impl MelFrontEnd {
    pub fn new(bins: usize) -> Self {
        let hann = |n: usize| 0.5 - 0.5 * (std::f64::consts::TAU * n as f64 / FFT as f64).cos();
        Self {
            transform: RealFftPlanner::new().plan_fft_forward(FFT),
            window: (0..FFT).map(|n| hann(n) as f32).collect(),
            filters: slaney_filters(bins),
        }
    }

    /// The first `frames` frames of the 30 s that begin with `samples` and go on in silence, row by row:
    /// `[frames, bins]`. What is beyond 30 s is not heard.
    ///
    /// # Errors
    /// None in practice: the transform fails only on buffers of another length than its plan's.
    pub fn log_mel(&self, samples: &[f32], frames: usize) -> candle_core::Result<Vec<f32>> {
        let samples = &samples[..samples.len().min(WINDOW_SAMPLES)];
        let bins = self.filters.len();
        let mut mel = vec![POWER_FLOOR.log10(); frames * bins];
        // A frame reaches half a transform to the right of its centre; later frames hear nothing.
        let heard = frames.min((samples.len() + FFT / 2).div_ceil(HOP));
        mel[..heard * bins]
            .par_chunks_mut(bins * 16)
            .enumerate()
            .try_for_each(|(chunk, rows)| self.fill(samples, chunk * 16, rows))
            .map_err(candle_core::Error::wrap)?;
        let loudest = mel.iter().copied().fold(f32::MIN, f32::max);
        for value in &mut mel {
            *value = (value.max(loudest - 8.0) + 4.0) / 4.0;
        }
        Ok(mel)
    }

    /// Writes the frames from `first` on.
    fn fill(&self, samples: &[f32], first: usize, rows: &mut [f32]) -> Result<(), realfft::FftError> {
        let (mut frame, mut spectrum) = (self.transform.make_input_vec(), self.transform.make_output_vec());
        let mut scratch = self.transform.make_scratch_vec();
        let mut power = vec![0.0; spectrum.len()];
        for (index, row) in rows.chunks_mut(self.filters.len()).enumerate() {
            let centre = (first + index) * HOP;
            for (n, (value, weight)) in frame.iter_mut().zip(&self.window).enumerate() {
                *value = weight * sample_at(samples, (centre + n).cast_signed() - (FFT / 2).cast_signed());
            }
            self.transform.process_with_scratch(&mut frame, &mut spectrum, &mut scratch)?;
            for (power, bin) in power.iter_mut().zip(&spectrum) {
                *power = bin.norm_sqr();
            }
            for (value, filter) in row.iter_mut().zip(&self.filters) {
                let energy: f32 = power[filter.first..].iter().zip(&filter.weights).map(|(p, w)| p * w).sum();
                *value = energy.max(POWER_FLOOR).log10();
            }
        }
        Ok(())
    }
}

/// Sample `index` of the padded window, mirrored at both of its ends.
fn sample_at(samples: &[f32], index: isize) -> f32 {
    let (last, index) = (WINDOW_SAMPLES - 1, index.unsigned_abs());
    let mirrored = if index > last { 2 * last - index } else { index };
    samples.get(mirrored).copied().unwrap_or(0.0)
}

/// Triangles of equal area, equally spaced on Slaney's mel scale from 0 Hz to half the sample rate (librosa's default).
fn slaney_filters(bins: usize) -> Vec<Filter> {
    let top = hertz_to_mel(SAMPLE_RATE / 2.0);
    let corner = |n: usize| mel_to_hertz(top * n as f64 / (bins + 1) as f64);
    let frequencies = FFT / 2 + 1;
    (0..bins)
        .map(|bin| {
            let (low, centre, high) = (corner(bin), corner(bin + 1), corner(bin + 2));
            let weight = |n: usize| {
                let hertz = n as f64 * SAMPLE_RATE / FFT as f64;
                let slope = ((hertz - low) / (centre - low)).min((high - hertz) / (high - centre));
                (slope.max(0.0) * 2.0 / (high - low)) as f32
            };
            let first = (0..frequencies).find(|&n| weight(n) > 0.0).unwrap_or(0);
            let weights = (first..frequencies).map(weight).take_while(|&weight| weight > 0.0).collect();
            Filter { first, weights }
        })
        .collect()
}

/// Linear below 1 kHz, logarithmic above.
fn hertz_to_mel(hertz: f64) -> f64 {
    if hertz < 1_000.0 { hertz * 3.0 / 200.0 } else { 15.0 + (hertz / 1_000.0).ln() * 27.0 / 6.4_f64.ln() }
}

fn mel_to_hertz(mel: f64) -> f64 {
    if mel < 15.0 { mel * 200.0 / 3.0 } else { 1_000.0 * ((mel - 15.0) * 6.4_f64.ln() / 27.0).exp() }
}
