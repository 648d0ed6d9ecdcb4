//! 24 kHz to 16 kHz as the reference does for HuBERT: a sinc under a squared cosine, six zero crossings to either side.
//!
//! Source: torchaudio's `functional.resample` with its defaults (lowpass_filter_width 6, rolloff 0.99, Hann window).
//! Not the resampler of `audio`, which is steeper: codes depend on this one's response.

use std::f64::consts::PI;

/// The ratio of the rates: three samples in, two samples out.
const FROM: usize = 3;
const TO: usize = 2;
/// The filter's cut-off, as a multiple of the input's rate over three.
const BASE: f64 = TO as f64 * 0.99;
/// Zero crossings to either side.
const CROSSINGS: f64 = 6.0;
/// Taps before the middle: 6 * 3 / 1.98, rounded up.
const BEFORE: usize = 10;
const TAPS: usize = 2 * BEFORE + FROM;

/// Samples at 24 kHz to samples at 16 kHz, two for three, rounded up.
pub(super) fn to_16k(samples: &[f32]) -> Vec<f32> {
    let filters: [[f32; TAPS]; TO] = std::array::from_fn(filter);
    let length = (TO * samples.len()).div_ceil(FROM);
    let sample = |index: usize| {
        let (step, phase) = (index / TO, index % TO);
        let taps = filters[phase].iter().enumerate();
        let product = |(tap, weight): (usize, &f32)| {
            let at = (step * FROM + tap).checked_sub(BEFORE)?;
            samples.get(at).map(|sample| sample * weight)
        };
        taps.filter_map(product).sum()
    };
    (0..length).map(sample).collect()
}

/// The taps for an output that lies `phase` halves of a step behind its input.
fn filter(phase: usize) -> [f32; TAPS] {
    std::array::from_fn(|tap| {
        let offset = (tap as f64 - BEFORE as f64) / FROM as f64 - phase as f64 / TO as f64;
        let t = (offset * BASE).clamp(-CROSSINGS, CROSSINGS);
        let window = (t * PI / CROSSINGS / 2.0).cos().powi(2);
        let sinc = if t == 0.0 { 1.0 } else { (t * PI).sin() / (t * PI) };
        (sinc * window * BASE / FROM as f64) as f32
    })
}
