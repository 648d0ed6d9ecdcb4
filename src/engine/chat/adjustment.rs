//! What a request changes in the logits of its reply before a token is drawn: biases, penalties for what the reply holds
//! already, and no end of turn before its time.
//!
//! Most requests ask for none of it and have no [`Adjustment`] at all.

use std::collections::HashMap;

use super::tokenizer::Tokenizer;
use crate::provider::{ProviderError, Sampling};

pub(super) struct Adjustment {
    bias: Vec<(u32, f32)>,
    presence: f32,
    frequency: f32,
    /// How often each token came in the reply. Filled only where a penalty looks at it.
    counts: HashMap<u32, u32>,
    /// The turn cannot end before so many tokens.
    least: usize,
}

impl Adjustment {
    /// None: the logits stay as they are.
    ///
    /// # Errors
    /// [`ProviderError::InvalidRequest`]: a bias is for a token that there is not.
    pub(super) fn new(sampling: &Sampling, tokenizer: &Tokenizer) -> Result<Option<Self>, ProviderError> {
        let unknown = sampling.logit_bias.iter().find(|(token, _)| *token as usize >= tokenizer.len());
        if let Some((token, _)) = unknown {
            let message = format!("there is no token {token}; the last one is {}", tokenizer.len() - 1);
            return Err(ProviderError::InvalidRequest { field: "logit_bias", message });
        }
        let least = if sampling.ignore_eos { usize::MAX } else { sampling.min_tokens };
        let adjustment = Self {
            bias: sampling.logit_bias.clone(),
            presence: sampling.presence_penalty,
            frequency: sampling.frequency_penalty,
            counts: HashMap::new(),
            least,
        };
        let is_used = !adjustment.bias.is_empty() || adjustment.penalises() || least > 0;
        Ok(is_used.then_some(adjustment))
    }

    /// Changes the logits of the next token, of `written` so far. `ends` are the tokens that end a turn: where nothing
    /// but an end can come, as after a complete shape, it comes all the same.
    pub(super) fn apply(&self, logits: &mut [f32], ends: &[u32], written: usize) {
        for (token, bias) in &self.bias {
            add(logits, *token, *bias);
        }
        for (token, count) in &self.counts {
            add(logits, *token, -self.presence - self.frequency * *count as f32);
        }
        if written >= self.least {
            return;
        }
        let before: Vec<(u32, f32)> = ends.iter().filter_map(|end| Some((*end, *logits.get(*end as usize)?))).collect();
        for end in ends {
            add(logits, *end, f32::NEG_INFINITY);
        }
        if logits.iter().all(|logit| *logit == f32::NEG_INFINITY) {
            for (end, logit) in before {
                logits[end as usize] = logit;
            }
        }
    }

    /// The reply goes on by `token`.
    pub(super) fn count(&mut self, token: u32) {
        if self.penalises() {
            *self.counts.entry(token).or_default() += 1;
        }
    }

    fn penalises(&self) -> bool {
        self.presence != 0.0 || self.frequency != 0.0
    }
}

fn add(logits: &mut [f32], token: u32, amount: f32) {
    if let Some(logit) = logits.get_mut(token as usize) {
        *logit += amount;
    }
}

#[cfg(test)]
#[path = "adjustment_tests.rs"]
mod tests;
