//! Rotary positions: how fast each pair of a head turns, and the tables of both backends.

use super::config::{DecoderConfig, RopeScaling};

/// Cosines and sines, `[positions, head_dim / 2]`, row by row.
pub(super) struct RopeTable {
    pub(super) cosines: Vec<f32>,
    pub(super) sines: Vec<f32>,
}

impl RopeTable {
    pub(super) fn new(frequencies: &[f32], positions: usize) -> Self {
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
    let plain = (0..half).map(|pair| theta.powf(-(pair as f64) / half as f64));
    if local {
        return plain.map(|frequency| frequency as f32).collect();
    }
    let factor = |pair: usize| factors.map_or(1.0, |factors| f64::from(factors[pair]));
    let scaled = plain.enumerate().map(|(pair, frequency)| scale(frequency, config.rope.scaling) / factor(pair));
    scaled.map(|frequency| frequency as f32).collect()
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
