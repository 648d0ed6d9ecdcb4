//! What may be written next: OpenAI's filters on the logits (`whisper/decoding.py`), as pure functions.

use super::tokens::Tokens;
use crate::nn::whisper::log_sum_exp;

/// Timestamp steps within which the first segment has to begin: 1 s.
const FIRST_TIMESTAMP_AT_MOST: u32 = 50;

/// Forbids, by minus infinity, what may not follow `written`.
pub(super) fn restrict(tokens: &Tokens, logits: &mut [f32], written: &[u32]) {
    let forbid = |logits: &mut [f32], from: u32, to: u32| {
        let to = (to as usize).min(logits.len());
        logits[(from as usize).min(to)..to].fill(f32::NEG_INFINITY);
    };
    for &id in &tokens.suppressed {
        logits[id as usize] = f32::NEG_INFINITY;
    }
    if written.is_empty() {
        for &id in &tokens.suppressed_first {
            logits[id as usize] = f32::NEG_INFINITY;
        }
    }
    let (first, beyond) = (tokens.first_timestamp, u32::MAX);
    if written.is_empty() {
        forbid(logits, 0, first);
        forbid(logits, first + FIRST_TIMESTAMP_AT_MOST + 1, beyond);
        return;
    }
    let last_was = written.last().is_some_and(|&id| tokens.is_timestamp(id));
    let one_before_was = written.len() < 2 || tokens.is_timestamp(written[written.len() - 2]);
    if last_was && one_before_was {
        // A segment has begun: now text.
        forbid(logits, first, beyond);
    } else if last_was {
        // A segment has ended: now the next one's beginning, or the end.
        forbid(logits, 0, tokens.end);
    }
    if let Some(&latest) = written.iter().rev().find(|&&id| tokens.is_timestamp(id)) {
        // Time does not run back, and no segment is empty.
        let least = if last_was && !one_before_was { latest } else { latest + 1 };
        forbid(logits, first, least);
    }
    let (text, times) = logits.split_at(first as usize);
    let likeliest_text = text.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if log_sum_exp(times) > likeliest_text {
        forbid(logits, 0, first);
    }
}

/// Whether the end of `written` goes round in circles.
pub(super) fn repeats(written: &[u32]) -> bool {
    period(written).is_some()
}

/// `written` without the rounds after the first, where its end goes round in circles.
pub(super) fn first_round(written: &[u32]) -> &[u32] {
    let Some(period) = period(written) else { return written };
    let again = written[period..].iter().zip(written).rev().take_while(|(token, before)| token == before).count();
    &written[..written.len() - again]
}

/// After how many tokens, 24 at most, the end of `written` says the same again and again: 16 tokens and four rounds of
/// them at least.
fn period(written: &[u32]) -> Option<usize> {
    (1..=24).find(|period| {
        let needed = (4 * period).max(16);
        written.len() >= needed
            && written[written.len() - needed..].windows(period + 1).all(|window| window[0] == window[*period])
    })
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
