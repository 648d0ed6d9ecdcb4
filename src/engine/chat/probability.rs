//! How likely a token was: natural logarithms of the softmax over a row of logits.

use crate::provider::TokenLogprob;

/// Of `token`, and of the `most` likeliest. `bytes` gives a token's text.
pub(super) fn of(logits: &[f32], token: u32, most: usize, bytes: impl Fn(u32) -> Vec<u8>) -> TokenLogprob {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - highest).exp()).sum();
    let logprob = |token: u32| {
        let logit = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
        (f64::from(logit - highest) - sum.ln()) as f32
    };
    let mut tokens: Vec<u32> = (0..logits.len() as u32).collect();
    let likelier = |one: &u32, other: &u32| {
        let (one_logit, other_logit) = (logits[*one as usize], logits[*other as usize]);
        other_logit.total_cmp(&one_logit).then(one.cmp(other))
    };
    let most = most.min(tokens.len());
    if most < tokens.len() {
        tokens.select_nth_unstable_by(most, likelier);
        tokens.truncate(most);
    }
    tokens.sort_unstable_by(likelier);
    let top = tokens.into_iter().map(|token| (bytes(token), logprob(token))).collect();
    TokenLogprob { bytes: bytes(token), logprob: logprob(token), top }
}

#[cfg(test)]
#[path = "probability_tests.rs"]
mod tests;
