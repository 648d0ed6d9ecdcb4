//! Rotary positions: how fast each pair of a head turns, and the tables of both backends.

use super::config::{DecoderConfig, RopeScaling};

/// Cosines and sines, `[positions, head_dim / 2]`, row by row.
pub(in crate::nn) struct RopeTable {
    pub(in crate::nn) cosines: Vec<f32>,
    pub(in crate::nn) sines: Vec<f32>,
}

impl RopeTable {
    pub(in crate::nn) fn new(frequencies: &[f32], positions: usize) -> Self {
        let mut table = Self { cosines: Vec::new(), sines: Vec::new() };
        table.extend(frequencies, positions);
        table
    }

    /// Adds rows until there are `positions`.
    pub(super) fn extend(&mut self, frequencies: &[f32], positions: usize) {
        for position in self.cosines.len() / frequencies.len()..positions {
            // In f32, as the models were trained.
            let angles = frequencies.iter().map(|frequency| position as f32 * frequency);
            let (sines, cosines): (Vec<f32>, Vec<f32>) = angles.map(f32::sin_cos).unzip();
            self.cosines.extend(cosines);
            self.sines.extend(sines);
        }
    }
}

/// Radians per position of each of the `head_dim / 2` pairs. `local`: of the layers with a base of their own.
/// `factors`: the file's, which divide the others'.
pub(super) fn frequencies(config: &DecoderConfig, local: bool, factors: Option<&[f32]>) -> Vec<f32> {
    let half = config.head_dim / 2;
    let theta = if local { config.rope.local_theta } else { None }.unwrap_or(config.rope.theta);
    if local {
        return scaled_frequencies(half, theta, RopeScaling::None).map(|frequency| frequency as f32).collect();
    }
    let factor = |pair: usize| factors.map_or(1.0, |factors| f64::from(factors[pair]));
    let scaled = scaled_frequencies(half, theta, config.rope.scaling).enumerate();
    scaled.map(|(pair, frequency)| (frequency / factor(pair)) as f32).collect()
}

/// Radians per position of each of `half` pairs.
pub(in crate::nn) fn scaled_frequencies(half: usize, theta: f64, scaling: RopeScaling) -> impl Iterator<Item = f64> {
    (0..half).map(move |pair| scale(theta.powf(-(pair as f64) / half as f64), scaling))
}

fn scale(frequency: f64, scaling: RopeScaling) -> f64 {
    match scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / factor,
        RopeScaling::Llama3 { factor, low_frequency, high_frequency, original_context } => {
            let turns = original_context * frequency / std::f64::consts::TAU;
            let kept = ((turns - low_frequency) / (high_frequency - low_frequency)).clamp(0.0, 1.0);
            kept * frequency + (1.0 - kept) * frequency / factor
        }
    }
}
