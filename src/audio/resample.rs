//! From whatever rate a microphone or a file has to the rate that a type names, and from many channels to one.
//!
//! A windowed sinc (rubato) that is band-limited to the lower of the two rates: flat to about 90 % of the lower
//! Nyquist frequency, and at least 80 dB down above it. Chunks of any length give the same samples as one call, since
//! what rubato sees is always cut into the same blocks. The filter's delay is taken out: output sample 0 is input
//! sample 0, and after [`Resampler::finish`] the length is right to the sample.

use audioadapter_buffers::direct::SequentialSlice;
use rubato::{
    Async, FixedAsync, Resampler as _, SincInterpolationParameters, SincInterpolationType, WindowFunction,
    calculate_cutoff,
};

use super::Pcm;

/// The rates that can be converted from, in hertz.
pub const RATES: std::ops::RangeInclusive<u32> = 8_000..=192_000;
/// Most channels that are mixed down.
pub const MAX_CHANNELS: usize = 8;

/// The filter's length in samples of the lower rate: 10 ms at 16 kHz.
const FILTER_LENGTH: usize = 160;
/// Block given to rubato at once, in milliseconds of input. It and half the filter make the latency: 9 ms at most
/// from 16 kHz up.
const BLOCK_MILLIS: u32 = 4;
/// Up to so many positions between two input samples are each given their own filter, which makes the result exact.
/// All usual pairs of rates need fewer; for odd ones (44 101 Hz) the filter is interpolated.
const MAX_PHASES: u32 = 640;
const INTERPOLATED_PHASES: usize = 256;
const WINDOW: WindowFunction = WindowFunction::BlackmanHarris;

/// Why audio cannot be brought to another rate.
#[derive(Debug, thiserror::Error)]
pub enum ResampleError {
    #[error("a sample rate of {rate} Hz is not supported; send {} to {} Hz", RATES.start(), RATES.end())]
    Rate { rate: u32 },
    #[error("{channels} channels are not supported; send 1 to {MAX_CHANNELS}")]
    Channels { channels: usize },
    #[error("resampling failed: {reason}")]
    Failed { reason: String },
}

/// Mixes interleaved channels to one by their mean; a last incomplete frame is ignored.
pub fn downmix(interleaved: &[f32], channels: usize) -> Result<Vec<f32>, ResampleError> {
    match channels {
        1 => Ok(interleaved.to_vec()),
        2..=MAX_CHANNELS => {
            let scale = 1.0 / channels as f32;
            Ok(interleaved.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() * scale).collect())
        }
        _ => Err(ResampleError::Channels { channels }),
    }
}

/// Brings a whole clip of mono samples at `from` hertz to `HZ`.
pub fn resample<const HZ: u32>(samples: &[f32], from: u32) -> Result<Pcm<HZ>, ResampleError> {
    let mut resampler = Resampler::new(from)?;
    let mut output = resampler.push(samples)?;
    output.extend(&resampler.finish()?);
    Ok(output)
}

/// Brings a stream of mono samples to `HZ`.
pub struct Resampler<const HZ: u32> {
    from: u32,
    /// None where the rates are equal.
    sinc: Option<Sinc>,
    pushed: u64,
}

impl<const HZ: u32> Resampler<HZ> {
    pub fn new(from: u32) -> Result<Self, ResampleError> {
        if !RATES.contains(&from) {
            return Err(ResampleError::Rate { rate: from });
        }
        let sinc = if from == HZ { None } else { Some(Sinc::new(from, HZ)?) };
        Ok(Self { from, sinc, pushed: 0 })
    }

    /// The rate of what is pushed, in hertz.
    pub fn from_rate(&self) -> u32 {
        self.from
    }

    /// Takes samples and gives those that are ready; the last few milliseconds wait for what comes next.
    pub fn push(&mut self, samples: &[f32]) -> Result<Pcm<HZ>, ResampleError> {
        self.pushed += samples.len() as u64;
        match &mut self.sinc {
            None => Ok(Pcm::new(samples.to_vec())),
            Some(sinc) => sinc.push(samples).map(Pcm::new),
        }
    }

    /// Gives what still waits, and begins anew: what is pushed after this is another clip.
    pub fn finish(&mut self) -> Result<Pcm<HZ>, ResampleError> {
        let pushed = std::mem::take(&mut self.pushed);
        match &mut self.sinc {
            None => Ok(Pcm::default()),
            Some(sinc) => sinc.finish(scale_length(pushed, self.from, HZ)).map(Pcm::new),
        }
    }
}

/// How long a clip of `length` samples becomes, to the nearest sample.
fn scale_length(length: u64, from: u32, to: u32) -> u64 {
    let (from, to) = (u128::from(from), u128::from(to));
    u64::try_from((u128::from(length) * to + from / 2) / from).unwrap_or(u64::MAX)
}

/// rubato's resampler, fed with blocks of one length.
struct Sinc {
    inner: Async<f32>,
    block: usize,
    waiting: Vec<f32>,
    output: Vec<f32>,
    /// Output samples before input sample 0.
    delay: usize,
    to_skip: usize,
    given: u64,
}

impl Sinc {
    fn new(from: u32, to: u32) -> Result<Self, ResampleError> {
        let ratio = f64::from(to) / f64::from(from);
        let length = (FILTER_LENGTH * from.max(to) as usize / to as usize).next_multiple_of(8);
        let phases = to / greatest_common_divisor(from, to);
        let (interpolation, oversampling_factor) = if phases <= MAX_PHASES {
            (SincInterpolationType::Nearest, phases as usize)
        } else {
            (SincInterpolationType::Cubic, INTERPOLATED_PHASES)
        };
        // What is above the lower Nyquist frequency must be gone: the wider transition of a filter that is short in
        // samples of the lower rate has to lie below it.
        let lower_rate_length = (length as f64 * ratio.min(1.0)) as usize;
        let parameters = SincInterpolationParameters {
            sinc_len: length,
            f_cutoff: Some(calculate_cutoff::<f32>(lower_rate_length, WINDOW)),
            oversampling_factor,
            interpolation,
            window: WINDOW,
        };
        let block = (from * BLOCK_MILLIS / 1000) as usize;
        let inner = Async::new_sinc(ratio, 1.0, &parameters, block, 1, FixedAsync::Input).map_err(failed)?;
        let output = vec![0.0; inner.output_frames_max()];
        // rubato's output sample m lies at input (m + 1) / ratio - length / 2 + 1 / phases.
        let delay = ((length as f64 / 2.0 - 1.0 / oversampling_factor as f64) * ratio - 1.0).round().max(0.0) as usize;
        Ok(Self { inner, block, waiting: Vec::with_capacity(block), output, delay, to_skip: delay, given: 0 })
    }

    fn push(&mut self, mut samples: &[f32]) -> Result<Vec<f32>, ResampleError> {
        let mut output = Vec::with_capacity(samples.len() * self.output.len() / self.block + self.output.len());
        while self.waiting.len() + samples.len() >= self.block {
            let (head, tail) = samples.split_at(self.block - self.waiting.len());
            self.fill(head);
            self.process(&mut output)?;
            samples = tail;
        }
        self.fill(samples);
        self.given += output.len() as u64;
        Ok(output)
    }

    fn finish(&mut self, length: u64) -> Result<Vec<f32>, ResampleError> {
        let missing = usize::try_from(length.saturating_sub(self.given)).unwrap_or(usize::MAX);
        let mut output = Vec::new();
        while output.len() < missing {
            self.waiting.resize(self.block, 0.0);
            self.process(&mut output)?;
        }
        output.truncate(missing);
        self.inner.reset();
        self.waiting.clear();
        (self.to_skip, self.given) = (self.delay, 0);
        Ok(output)
    }

    /// What is not a number would spread over the length of the filter: it becomes silence here.
    fn fill(&mut self, samples: &[f32]) {
        self.waiting.extend(samples.iter().map(|sample| if sample.is_finite() { *sample } else { 0.0 }));
    }

    fn process(&mut self, output: &mut Vec<f32>) -> Result<(), ResampleError> {
        let frames = self.output.len();
        let input = SequentialSlice::new(&self.waiting, 1, self.block).map_err(failed)?;
        let mut buffer = SequentialSlice::new_mut(&mut self.output, 1, frames).map_err(failed)?;
        let (_, written) = self.inner.process_into_buffer(&input, &mut buffer, None).map_err(failed)?;
        let skipped = self.to_skip.min(written);
        self.to_skip -= skipped;
        output.extend_from_slice(&self.output[skipped..written]);
        self.waiting.clear();
        Ok(())
    }
}

fn failed(error: impl std::fmt::Display) -> ResampleError {
    ResampleError::Failed { reason: error.to_string() }
}

fn greatest_common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
#[path = "resample_tests.rs"]
mod tests;
