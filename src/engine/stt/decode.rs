//! Writes one window's tokens: by beam search or sampling, over the same loop, or greedily along a draft.
//!
//! Source: OpenAI's `whisper/decoding.py`. A beam's hypotheses are rows of one decoder state, so that five of them
//! read the weights once. A draft is what was written for a little less of the same audio: it is read in one pass, and
//! kept as far as the model would have written it itself.

use candle_core::Result;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::rules;
use super::tokens::Tokens;
use crate::nn::whisper::{Check, Heard, Whisper, log_sum_exp};
use crate::text::repetition::{compression_ratio, is_said_twice};

/// A hypothesis is not waited for when one that has ended is this much likelier (in nats).
const HOPELESS: f32 = 3.0;

/// OpenAI's threshold: what compresses better says the same again and again.
const MOST_COMPRESSED: f32 = 2.4;

/// What to write after.
pub(super) struct Ask {
    /// Everything that comes before the text, the start token among it.
    pub(super) prompt: Vec<u32>,
    /// Where in `prompt` the start token is.
    pub(super) start: usize,
    /// Tokens to write at most.
    pub(super) limit: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Strategy {
    /// Keep the likeliest so many hypotheses.
    Beam(usize),
    /// Draw each token; the same seed draws the same.
    Sample { temperature: f32, seed: u64 },
}

/// What was written.
#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    /// Without prompt and end token.
    pub(super) tokens: Vec<u32>,
    /// Mean over the tokens, the end included.
    pub(super) mean_log_probability: f32,
    /// Probability that the window holds no speech.
    pub(super) no_speech: f32,
    /// It went round in circles, or did not end within the limit.
    pub(super) broken: bool,
    /// It ended, but says the same again and again.
    pub(super) repetitive: bool,
    /// It says all of it twice, as the model often does where the silence after the words is cut off.
    pub(super) doubled: bool,
    /// Log probability of the least likely token of the text, marks and times left out.
    pub(super) least_log_probability: f32,
}

#[derive(Clone, Default)]
struct Hypothesis {
    tokens: Vec<u32>,
    /// Sum of log probabilities.
    score: f32,
}

impl Hypothesis {
    fn mean(&self) -> f32 {
        self.score / (self.tokens.len() + 1) as f32
    }

    fn followed_by(&self, token: u32, score: f32) -> Self {
        let mut tokens = self.tokens.clone();
        tokens.push(token);
        Self { tokens, score }
    }
}

/// Tokens of a draft, about where one is expected, among which what was written instead is looked for.
const BEHIND: usize = 2;
const AHEAD: usize = 4;
/// Tokens of a draft that are read in one pass: each takes memory for the logits of a vocabulary.
const READ: usize = 32;

/// Writes greedily what was heard. `draft` may be anything: the outcome is the same, only sooner where the draft is good.
/// None where `check` answered no between two passes.
pub(super) fn follow(
    whisper: &Whisper,
    tokens: &Tokens,
    heard: &Heard,
    ask: &Ask,
    draft: &[u32],
    check: Check,
) -> Result<Option<Written>> {
    let mut state = whisper.open(1, ask.prompt.len() + ask.limit)?;
    let limit = ask.limit.min(state.capacity().saturating_sub(ask.prompt.len()));
    let mut written = Hypothesis::default();
    let (mut next, mut place, mut no_speech, mut least) = (ask.prompt.clone(), 0, None, 0.0_f32);
    let broken = 'passes: loop {
        if written.tokens.len() >= limit || rules::repeats(&written.tokens) {
            break true;
        }
        if !check() {
            return Ok(None);
        }
        let ahead = &draft[place.min(draft.len())..];
        let ahead = &ahead[..ahead.len().min(READ).min(limit - written.tokens.len() - 1)];
        let (sure, before) = (next.len(), state.length());
        next.extend(ahead);
        let mut wanted: Vec<usize> = (sure - 1..next.len()).collect();
        if no_speech.is_none() {
            wanted.insert(0, ask.start);
        }
        let mut logits = whisper.read(heard, &mut state, &next, &wanted)?.into_iter();
        if no_speech.is_none() {
            no_speech = logits.next().map(|at_start| no_speech_of(tokens, &at_start));
        }
        let mut kept = 0;
        for mut logits in logits {
            rules::restrict(tokens, &mut logits, &written.tokens);
            let Some(&token) = likeliest(&logits, 1).first() else { break 'passes true };
            let score = logits[token as usize] - log_sum_exp(&logits);
            written.score += score;
            if token == tokens.end {
                break 'passes false;
            }
            if token < tokens.end && tokens.mark(token).is_none() {
                least = least.min(score);
            }
            written.tokens.push(token);
            next = vec![token];
            if ahead.get(kept) != Some(&token) || rules::repeats(&written.tokens) {
                break;
            }
            kept += 1;
        }
        state.forget(before + sure + kept);
        place = beyond(draft, place + kept, next[0]);
    };
    Ok(Some(outcome(tokens, written, no_speech.unwrap_or(0.0), broken, least)))
}

/// Where in the draft to go on after `token`, which stands in it near `place`, or instead of what is there.
fn beyond(draft: &[u32], place: usize, token: u32) -> usize {
    let near = (place.saturating_sub(BEHIND)..draft.len().min(place + AHEAD)).filter(|&at| draft[at] == token);
    near.min_by_key(|at| at.abs_diff(place)).unwrap_or(place) + 1
}

fn no_speech_of(tokens: &Tokens, at_start: &[f32]) -> f32 {
    (at_start[tokens.no_speech as usize] - log_sum_exp(at_start)).exp()
}

fn outcome(tokens: &Tokens, best: Hypothesis, no_speech: f32, broken: bool, least: f32) -> Written {
    let text = tokens.decode(&best.tokens);
    Written {
        mean_log_probability: best.mean(),
        tokens: best.tokens,
        no_speech,
        broken,
        repetitive: compression_ratio(text.trim()) > MOST_COMPRESSED,
        doubled: is_said_twice(&text),
        least_log_probability: least,
    }
}

/// Writes what was heard. None where `check` answered no between two tokens.
pub(super) fn write(
    whisper: &Whisper,
    tokens: &Tokens,
    heard: &Heard,
    ask: &Ask,
    strategy: Strategy,
    check: Check,
) -> Result<Option<Written>> {
    let mut state = whisper.open(1, ask.prompt.len() + ask.limit)?;
    let limit = ask.limit.min(state.capacity().saturating_sub(ask.prompt.len()));
    let mut logits = whisper.read(heard, &mut state, &ask.prompt, &[ask.start, ask.prompt.len() - 1])?;
    let at_start = logits.remove(0);
    let no_speech = no_speech_of(tokens, &at_start);
    let width = if let Strategy::Beam(width) = strategy { width.max(1) } else { 1 };
    let mut dice = StdRng::seed_from_u64(if let Strategy::Sample { seed, .. } = strategy { seed } else { 0 });
    let (mut live, mut ended) = (vec![Hypothesis::default()], Vec::<Hypothesis>::new());
    for step in 0..limit {
        if !check() {
            return Ok(None);
        }
        let mut next = Vec::new();
        for (parent, (hypothesis, logits)) in live.iter().zip(&mut logits).enumerate() {
            rules::restrict(tokens, logits, &hypothesis.tokens);
            let total = log_sum_exp(logits);
            let chosen = choose(logits, strategy, &mut dice);
            let followed = |token: u32| (hypothesis.score + logits[token as usize] - total, parent, token);
            next.extend(chosen.into_iter().map(followed));
        }
        next.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (mut parents, mut grown) = (Vec::new(), Vec::new());
        for (score, parent, token) in next {
            if token == tokens.end {
                ended.push(Hypothesis { score, ..live[parent].clone() });
            } else if grown.len() < width {
                parents.push(parent as u32);
                grown.push(live[parent].followed_by(token, score));
            }
            if grown.len() == width {
                break;
            }
        }
        let best_ended = ended.iter().map(|one| one.score).fold(f32::NEG_INFINITY, f32::max);
        if ended.len() >= width || grown.first().is_none_or(|best| best.score + HOPELESS < best_ended) {
            break;
        }
        live = grown;
        if step + 1 == limit || rules::repeats(&live[0].tokens) {
            break;
        }
        state.rearrange(&parents)?;
        let last: Vec<u32> = live.iter().filter_map(|one| one.tokens.last().copied()).collect();
        logits = whisper.read(heard, &mut state, &last, &[0])?;
    }
    // One that ended is right even where the search goes on in circles after it.
    let broken = ended.is_empty();
    let candidates = if broken { live } else { ended };
    let best = candidates.into_iter().max_by(|a, b| a.mean().total_cmp(&b.mean())).unwrap_or_default();
    Ok(Some(outcome(tokens, best, no_speech, broken, 0.0)))
}

/// The tokens to go on with: one more than the beam is wide, because one may be the end.
fn choose(logits: &[f32], strategy: Strategy, dice: &mut StdRng) -> Vec<u32> {
    match strategy {
        Strategy::Beam(width) => likeliest(logits, width.max(1) + 1),
        Strategy::Sample { temperature, .. } => vec![draw(logits, temperature, dice)],
    }
}

/// The `count` likeliest tokens, likeliest first.
fn likeliest(logits: &[f32], count: usize) -> Vec<u32> {
    let mut best: Vec<(f32, u32)> = Vec::with_capacity(count + 1);
    let mut threshold = f32::NEG_INFINITY;
    for (id, &logit) in logits.iter().enumerate() {
        if logit > threshold {
            let place = best.partition_point(|(other, _)| *other >= logit);
            best.insert(place, (logit, id as u32));
            best.truncate(count);
            if best.len() == count {
                threshold = best[count - 1].0;
            }
        }
    }
    best.into_iter().map(|(_, id)| id).collect()
}

/// A token by its probability at `temperature`.
fn draw(logits: &[f32], temperature: f32, dice: &mut StdRng) -> u32 {
    let warm: Vec<f32> = logits.iter().map(|logit| logit / temperature).collect();
    let total = log_sum_exp(&warm);
    let mut left: f32 = dice.random();
    let mut last = 0;
    for (id, logit) in warm.iter().enumerate().filter(|(_, logit)| logit.is_finite()) {
        last = id as u32;
        left -= (logit - total).exp();
        if left <= 0.0 {
            break;
        }
    }
    last
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
