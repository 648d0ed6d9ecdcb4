//! Chooses the next token from a model's logits: temperature, top-k, top-p, repetition penalty, seed.
//!
//! On the host, over one row of f32 logits. The same seed, logits and settings give the same token. The order of the
//! steps is transformers': penalty, temperature, top-k, top-p.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How many of the latest tokens the repetition penalty looks at.
pub const PENALTY_WINDOW: usize = 64;
/// A token this many nats below the best, at its temperature, is never drawn: even a vocabulary of a quarter of a
/// million of them would weigh less than 1e-5.
const NEGLIGIBLE: f32 = 24.0;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingOptions {
    /// 0 takes the likeliest token.
    pub temperature: f32,
    /// 0 is off.
    pub top_k: usize,
    /// 1 is off.
    pub top_p: f32,
    /// Divides positive logits of recent tokens and multiplies negative ones. 1 is off.
    pub repetition_penalty: f32,
}

/// A logit was NaN, or none was finite: the model's state is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model's logits are not finite")]
pub struct NotFinite;

pub struct Sampler {
    options: SamplingOptions,
    random: StdRng,
    /// Kept between calls to save the allocation.
    candidates: Vec<(u32, f32)>,
}

impl Sampler {
    pub fn new(options: SamplingOptions, seed: u64) -> Self {
        Self { options, random: StdRng::seed_from_u64(seed), candidates: Vec::new() }
    }

    /// The next token: an index into `logits`, which are changed by the penalty. Of `history`, the tokens so far, the
    /// last [`PENALTY_WINDOW`] count.
    ///
    /// # Errors
    /// [`NotFinite`]
    pub fn choose(&mut self, logits: &mut [f32], history: &[u32]) -> Result<u32, NotFinite> {
        penalise(logits, &history[history.len().saturating_sub(PENALTY_WINDOW)..], self.options.repetition_penalty);
        let (best, highest) = likeliest(logits)?;
        if self.options.temperature <= 0.0 || self.options.top_k == 1 {
            return Ok(best);
        }
        self.gather(logits, highest, self.options.temperature, self.options.top_k);
        Ok(self.draw(self.options.top_p))
    }

    /// A token from the whole distribution as the model gave it: temperature 1, nothing cut, whatever the options say.
    ///
    /// # Errors
    /// [`NotFinite`]
    pub fn choose_from_all(&mut self, logits: &[f32]) -> Result<u32, NotFinite> {
        let (_, highest) = likeliest(logits)?;
        self.gather(logits, highest, 1.0, 0);
        Ok(self.draw(1.0))
    }

    /// Fills `candidates` with weights relative to the best one's, cut to top-k and sorted, heaviest first.
    fn gather(&mut self, logits: &[f32], highest: f32, temperature: f32, top_k: usize) {
        let by_weight = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        self.candidates.clear();
        let nats = logits.iter().map(|logit| (logit - highest) / temperature);
        let worth = (0..).zip(nats).filter(|(_, nats)| *nats > -NEGLIGIBLE);
        self.candidates.extend(worth.map(|(token, nats)| (token, nats.exp())));
        if top_k > 0 && top_k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(top_k, by_weight);
            self.candidates.truncate(top_k);
        }
        self.candidates.sort_unstable_by(by_weight);
    }

    /// Draws from the fewest heaviest candidates that weigh `top_p` together.
    fn draw(&mut self, top_p: f32) -> u32 {
        let total: f32 = self.candidates.iter().map(|(_, weight)| weight).sum();
        let wanted = top_p * total;
        let mut nucleus = 0.0;
        let mut kept = 0;
        for (_, weight) in &self.candidates {
            nucleus += weight;
            kept += 1;
            if nucleus >= wanted {
                break;
            }
        }
        let mut point = self.random.random::<f32>() * nucleus;
        for (token, weight) in &self.candidates[..kept] {
            point -= weight;
            if point < 0.0 {
                return *token;
            }
        }
        // Rounding may leave the point just past the end. There is always a best candidate.
        self.candidates[kept - 1].0
    }
}

fn penalise(logits: &mut [f32], recent: &[u32], penalty: f32) {
    if penalty.to_bits() == 1.0f32.to_bits() {
        return;
    }
    for (place, token) in recent.iter().enumerate() {
        // A token counts once, however often it came.
        if recent[..place].contains(token) {
            continue;
        }
        if let Some(logit) = logits.get_mut(*token as usize) {
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        }
    }
}

/// The first of the highest logits.
fn likeliest(logits: &[f32]) -> Result<(u32, f32), NotFinite> {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, logit) in (0..).zip(logits) {
        if logit.is_nan() {
            return Err(NotFinite);
        }
        if *logit > best.1 {
            best = (token, *logit);
        }
    }
    if best.1.is_finite() { Ok(best) } else { Err(NotFinite) }
}

#[cfg(test)]
#[path = "sampling_tests.rs"]
mod tests;
