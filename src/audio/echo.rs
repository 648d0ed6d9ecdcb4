//! Whether what a microphone hears is an echo of what is being played.
//!
//! The loudness of both in 16 bands, every 16 ms, is correlated over about the last 0.4 s, for every delay up to 2 s. An
//! echo of speech, 20 dB softer and with noise 13 dB below it, correlates above 0.9, in a furnished room above 0.75.
//! Other speech, even in the same voice, stays below 0.65 but for its first 0.3 s, in which one onset is like another. So
//! a delay is believed once it has held for half a second of sound; from then on what correlates at about that delay is
//! an echo at once.

use std::collections::VecDeque;
use std::sync::Arc;

use realfft::num_complex::Complex32;
use realfft::{RealFftPlanner, RealToComplex};

/// Samples of the microphone, and of what is played, that are compared at a time: 32 ms.
pub const HEARD_FRAME: usize = 512;
pub const PLAYED_FRAME: usize = 768;

/// The spectrum moves on by this part of a frame: 16 ms.
const HOPS: usize = 2;
const BANDS: usize = 16;
/// Where the bands begin and end, in bins of 31.25 Hz: 200 to 4,000 Hz in equal ratios.
const EDGES: [usize; BANDS + 1] = [7, 8, 10, 12, 14, 17, 20, 24, 29, 35, 42, 51, 61, 73, 89, 107, 128];
/// Power to loudness: loud bands then do not drown the others, nor does noise in the silent ones count.
const COMPRESSION: f32 = 0.3;
/// Hops of delay that are told apart, from none on: 2 s.
const DELAYS: usize = 125;
/// What a hop leaves of the weight of what came before: 400 ms until a third is left.
const DECAY: f32 = 0.960_8;
/// After so many hops without a sound nothing played is to be heard any more.
const FORGOTTEN: usize = DELAYS + 200;
/// From this correlation on it is an echo, and no longer below the other.
const SURE: f32 = 0.75;
const UNSURE: f32 = 0.65;
/// Hops of sound in which the delay must hold.
const HELD: usize = 32;
/// How far a client's buffers may move a delay from one reply to the next, in hops.
const NEAR: usize = 6;
/// A smaller variance is rounding.
const LEAST_VARIANCE: f32 = 1e-5;

/// Of each band.
type Loudness = [f32; BANDS];

/// Compares one microphone with what is played beside it.
pub struct EchoDetector {
    heard: Sound,
    played: Sound,
    /// What was played, the latest first.
    past: VecDeque<Moment>,
    /// Decaying means of what is heard now times what was played so many hops before.
    products: Vec<Loudness>,
    /// Hops since something was played.
    silent: usize,
    /// A delay, and for how many hops of sound it has held.
    candidate: Option<(usize, usize)>,
    /// The delay of this microphone's echoes. None: none was heard.
    delay: Option<usize>,
    is_echo: bool,
    may_be_echo: bool,
}

/// What was played at one hop, and up to it.
struct Moment {
    loudness: Loudness,
    mean: Loudness,
    variance: f32,
}

impl Default for EchoDetector {
    fn default() -> Self {
        Self {
            heard: Sound::new(HEARD_FRAME / HOPS),
            played: Sound::new(PLAYED_FRAME / HOPS),
            past: VecDeque::with_capacity(DELAYS),
            products: vec![[0.0; BANDS]; DELAYS],
            silent: FORGOTTEN,
            candidate: None,
            delay: None,
            is_echo: false,
            may_be_echo: false,
        }
    }
}

impl EchoDetector {
    /// Takes the next 32 ms of both: 16 and 24 kHz. Silence where nothing is played.
    pub fn hear(&mut self, heard: &[f32; HEARD_FRAME], played: &[f32; PLAYED_FRAME]) {
        let hops = heard.chunks_exact(HEARD_FRAME / HOPS).zip(played.chunks_exact(PLAYED_FRAME / HOPS));
        for (heard, played) in hops {
            self.step(heard, played);
        }
    }

    /// What was heard last is an echo.
    pub const fn is_echo(&self) -> bool {
        self.is_echo
    }

    /// What was heard last may be an echo of a delay that is not known yet.
    pub const fn may_be_echo(&self) -> bool {
        self.may_be_echo
    }

    fn step(&mut self, heard: &[f32], played: &[f32]) {
        let heard = self.heard.push(heard);
        let is_loud = heard.iter().sum::<f32>() > self.heard.mean.iter().sum();
        let loudness = self.played.push(played);
        self.past.truncate(DELAYS - 1);
        self.past.push_front(Moment { loudness, mean: self.played.mean, variance: self.played.variance() });
        self.silent = if loudness.iter().any(|band| *band > 0.0) { 0 } else { self.silent.saturating_add(1) };
        if self.silent >= FORGOTTEN {
            if self.silent == FORGOTTEN {
                self.products.fill([0.0; BANDS]);
            }
            (self.candidate, self.is_echo, self.may_be_echo) = (None, false, false);
            return;
        }
        let (best, near) = self.correlate(&heard);
        self.believe(best, is_loud);
        let is_known = self.delay.is_some_and(|known| known.abs_diff(best.0) <= NEAR);
        self.may_be_echo = best.1 >= UNSURE && !is_known;
        self.is_echo = self.delay.is_some() && near >= if self.is_echo { UNSURE } else { SURE };
    }

    /// The delay that is most like an echo and how like, and the latter at the delay that is known.
    fn correlate(&mut self, heard: &Loudness) -> ((usize, f32), f32) {
        let (mean, variance) = (self.heard.mean, self.heard.variance());
        let (mut best, mut near) = ((0, f32::MIN), f32::MIN);
        for (delay, (product, played)) in self.products.iter_mut().zip(&self.past).enumerate() {
            let mut covariance = 0.0;
            for band in 0..BANDS {
                product[band] += (1.0 - DECAY) * (heard[band] * played.loudness[band] - product[band]);
                covariance += product[band] - mean[band] * played.mean[band];
            }
            if variance.min(played.variance) < LEAST_VARIANCE {
                continue;
            }
            let correlation = covariance / (variance * played.variance).sqrt();
            if correlation > best.1 {
                best = (delay, correlation);
            }
            if self.delay.is_some_and(|known| known.abs_diff(delay) <= NEAR) {
                near = near.max(correlation);
            }
        }
        (best, near)
    }

    fn believe(&mut self, (delay, correlation): (usize, f32), is_loud: bool) {
        if correlation >= SURE && is_loud {
            let (first, held) = match self.candidate {
                Some((first, held)) if first.abs_diff(delay) <= 1 => (first, held + 1),
                _ => (delay, 1),
            };
            self.candidate = Some((first, held));
            if held >= HELD {
                self.delay = Some(delay);
            }
        } else if correlation < UNSURE {
            self.candidate = None;
        }
    }
}

/// A sound's loudness, its mean and its spread.
struct Sound {
    fft: Arc<dyn RealToComplex<f32>>,
    window: Vec<f32>,
    /// The window's.
    energy: f32,
    /// The window's samples.
    recent: Vec<f32>,
    mean: Loudness,
    /// Decaying means of the squares.
    square: Loudness,
}

impl Sound {
    /// With a window of two hops.
    fn new(hop: usize) -> Self {
        let length = 2 * hop;
        let hann = |n: usize| 0.5 - 0.5 * (std::f32::consts::TAU * n as f32 / length as f32).cos();
        let window: Vec<f32> = (0..length).map(hann).collect();
        Self {
            fft: RealFftPlanner::new().plan_fft_forward(length),
            energy: window.iter().map(|weight| weight * weight).sum(),
            window,
            recent: vec![0.0; length],
            mean: [0.0; BANDS],
            square: [0.0; BANDS],
        }
    }

    fn push(&mut self, hop: &[f32]) -> Loudness {
        self.recent.drain(..hop.len());
        self.recent.extend_from_slice(hop);
        let loudness = self.loudness();
        for ((value, mean), square) in loudness.iter().zip(&mut self.mean).zip(&mut self.square) {
            *mean += (1.0 - DECAY) * (value - *mean);
            *square += (1.0 - DECAY) * (value * value - *square);
        }
        loudness
    }

    /// Of the window.
    fn loudness(&self) -> Loudness {
        // Most of the time nothing is played.
        if self.recent.iter().all(|sample| *sample == 0.0) {
            return [0.0; BANDS];
        }
        let mut frame: Vec<f32> =
            self.recent.iter().zip(&self.window).map(|(sample, weight)| sample * weight).collect();
        let mut spectrum = self.fft.make_output_vec();
        // The lengths are the plan's own.
        let _ = self.fft.process(&mut frame, &mut spectrum);
        std::array::from_fn(|band| {
            let bins = &spectrum[EDGES[band]..EDGES[band + 1]];
            let power = bins.iter().map(Complex32::norm_sqr).sum::<f32>() / (bins.len() as f32 * self.energy);
            power.powf(COMPRESSION)
        })
    }

    /// Of all bands together.
    fn variance(&self) -> f32 {
        self.square.iter().zip(&self.mean).map(|(square, mean)| square - mean * mean).sum()
    }
}

#[cfg(test)]
#[path = "echo_tests.rs"]
mod tests;
