//! Each channel of [frames, channels] normalised over time: instance norm, which is also a group norm of one channel
//! per group. It collapses to one multiply-add per sample ([`Affine`]), which a following convolution applies as it
//! reads its input.

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

use super::with_elements;

/// Added to a variance before its root.
pub(in crate::nn) const EPSILON: f64 = 1e-5;

/// y = x * scale + shift, per channel.
pub(in crate::nn) struct Affine {
    /// [channels]
    pub(in crate::nn) scale: Tensor,
    /// [channels]
    pub(in crate::nn) shift: Tensor,
}

impl Affine {
    /// Measures `x` [frames, channels] and answers what gives each channel the mean 0 and the variance 1 over time,
    /// then multiplies by `gain` and adds `shift`, each [channels].
    pub(in crate::nn) fn normalising(x: &Tensor, gain: &Tensor, shift: &Tensor) -> Result<Self> {
        let (mean, deviation) = if matches!(x.device(), Device::Cpu) { measure(x)? } else { measure_plain(x)? };
        let scale = (gain / deviation)?;
        let shift = (shift - (&mean * &scale)?)?;
        Ok(Self { scale, shift })
    }
}

/// Mean and deviation over time of each channel, by candle operations.
pub(super) fn measure_plain(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let mean = x.mean(0)?;
    let centred = x.broadcast_sub(&mean)?;
    let variance = centred.sqr()?.mean(0)?;
    Ok((mean, variance.affine(1.0, EPSILON)?.sqrt()?))
}

/// Mean and deviation over time of each channel, on the CPU.
pub(super) fn measure(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let (frames, channels) = x.dims2()?;
    // A block and its sums stay in the inner caches.
    let rows = (1 << 15) / channels.max(1) + 1;
    let (mean, variance) = with_elements(x, |elements| {
        let blocks: Vec<Moments> =
            elements.par_chunks(rows * channels).map(|block| Moments::of(block, channels)).collect();
        let mut total = Moments::empty(channels);
        for block in &blocks {
            total.merge(block);
        }
        Ok((total.mean, total.spread))
    })?;
    let deviation = variance.iter().map(|spread| (spread / frames as f64 + EPSILON).sqrt() as f32).collect::<Vec<_>>();
    let mean = mean.iter().map(|mean| *mean as f32).collect::<Vec<_>>();
    Ok((Tensor::from_vec(mean, channels, x.device())?, Tensor::from_vec(deviation, channels, x.device())?))
}

/// Mean and sum of squared distances from it, per channel, of some frames.
struct Moments {
    frames: f64,
    mean: Vec<f64>,
    spread: Vec<f64>,
}

impl Moments {
    fn empty(channels: usize) -> Self {
        Self { frames: 0.0, mean: vec![0.0; channels], spread: vec![0.0; channels] }
    }

    /// Two passes: the second's differences do not cancel, whatever the mean.
    fn of(block: &[f32], channels: usize) -> Self {
        let frames = (block.len() / channels) as f32;
        let mut mean = vec![0.0_f32; channels];
        for row in block.chunks_exact(channels) {
            mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
        for sum in &mut mean {
            *sum /= frames;
        }
        let mut spread = vec![0.0_f32; channels];
        for row in block.chunks_exact(channels) {
            for ((sum, mean), x) in spread.iter_mut().zip(&mean).zip(row) {
                let distance = x - mean;
                *sum = distance.mul_add(distance, *sum);
            }
        }
        let widen = |values: Vec<f32>| values.into_iter().map(f64::from).collect();
        Self { frames: f64::from(frames), mean: widen(mean), spread: widen(spread) }
    }

    fn merge(&mut self, other: &Self) {
        let frames = self.frames + other.frames;
        let share = other.frames / frames;
        for channel in 0..self.mean.len() {
            let distance = other.mean[channel] - self.mean[channel];
            self.mean[channel] += distance * share;
            self.spread[channel] += other.spread[channel] + distance * distance * self.frames * share;
        }
        self.frames = frames;
    }
}
