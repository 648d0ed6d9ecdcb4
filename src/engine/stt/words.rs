//! When each word was said: dynamic time warping over the cross-attention of the heads that follow speech.
//!
//! Source: OpenAI's `whisper/timing.py`. Pure but for its input, the attention of a pass over the written text.

use std::time::Duration;

use super::tokens::Tokens;

/// Seconds of one encoder position.
const POSITION: f64 = 0.02;
/// Neighbouring positions that a weight is replaced by the median of.
const MEDIAN: usize = 7;
/// Samples of one position at 16 kHz.
const FRAME: usize = 320;
/// Energy, as a part of the loudest, below which a word's edge is a pause: -20 dB.
const QUIET: f32 = 0.01;
const OPENING: &str = "\"'“¿([{-";
const CLOSING: &str = "\"'.。,，!！?？:：”)]}、";

/// A word, its tokens and its time in seconds from the window's beginning.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TimedWord {
    pub(super) text: String,
    pub(super) tokens: usize,
    pub(super) start: f64,
    pub(super) end: f64,
}

impl TimedWord {
    pub(super) fn at(&self, offset: Duration) -> (Duration, Duration) {
        (offset + Duration::from_secs_f64(self.start), offset + Duration::from_secs_f64(self.end))
    }
}

/// Times the words of `text`, which begins after `before` of the tokens that were read. `heads`: per head
/// `[read, positions]`, of which the first `used` positions hold audio.
pub(super) fn time(tokens: &Tokens, text: &[u32], before: usize, heads: &[Vec<f32>], used: usize) -> Vec<TimedWord> {
    let read = before + text.len() + 1;
    let positions = heads.first().map_or(0, |head| head.len() / read);
    let used = used.min(positions);
    if used == 0 || before == 0 || text.is_empty() {
        return Vec::new();
    }
    let rows = text.len() + 1;
    let mut cost = vec![0.0_f32; rows * used];
    for head in heads {
        let normal = normalised(head, read, positions, used);
        // What attends to a token's sound is the step that writes it: the one that reads the token before.
        for (cost, weight) in cost.iter_mut().zip(&normal[(before - 1) * used..]) {
            *cost -= weight / heads.len() as f32;
        }
    }
    let begins = begin_times(&cost, rows, used);
    let mut words = split(tokens, text);
    let mut index = 0;
    for word in &mut words {
        word.start = begins[index];
        index += word.tokens;
        word.end = begins[index].max(word.start);
    }
    join_punctuation(words)
}

/// Moves the edges of words inwards, past what is quiet beside the word itself: attention gives a pause to either
/// neighbour. `samples` are the window's, at 16 kHz.
pub(super) fn trim_pauses(words: &mut [TimedWord], samples: &[f32]) {
    let frames: Vec<f32> = samples.chunks(FRAME).map(|frame| frame.iter().map(|x| x * x).sum::<f32>()).collect();
    for word in words {
        let (from, to) = ((word.start / POSITION) as usize, (word.end / POSITION).ceil() as usize);
        let to = to.min(frames.len());
        let Some(inside) = frames.get(from..to) else { continue };
        let loud = inside.iter().copied().fold(0.0, f32::max) * QUIET;
        if let (Some(first), Some(last)) =
            (inside.iter().position(|&energy| energy > loud), inside.iter().rposition(|&energy| energy > loud))
        {
            word.start = (from + first) as f64 * POSITION;
            word.end = (from + last + 1) as f64 * POSITION;
        }
    }
}

/// The softmaxed weights of one head over the used positions, each position's standardised over the tokens and
/// smoothed by a median over time.
fn normalised(head: &[f32], read: usize, positions: usize, used: usize) -> Vec<f32> {
    let mut normal = vec![0.0; read * used];
    for position in 0..used {
        let column = |token: usize| head[token * positions + position];
        let mean = (0..read).map(column).sum::<f32>() / read as f32;
        let variance = (0..read).map(|token| (column(token) - mean).powi(2)).sum::<f32>() / read as f32;
        let deviation = variance.sqrt().max(1e-10);
        for token in 0..read {
            normal[token * used + position] = (column(token) - mean) / deviation;
        }
    }
    let half = MEDIAN / 2;
    let mut smooth = normal.clone();
    for (row, out) in normal.chunks(used).zip(smooth.chunks_mut(used)) {
        for (position, out) in out.iter_mut().enumerate() {
            let mut window = [0.0; MEDIAN];
            for (offset, value) in window.iter_mut().enumerate() {
                // Mirrored at both ends.
                let place = (position + offset).abs_diff(half);
                *value = row[if place >= used { (2 * used - 2).saturating_sub(place).min(used - 1) } else { place }];
            }
            window.sort_by(f32::total_cmp);
            *out = window[half];
        }
    }
    smooth
}

/// The cheapest monotonic path through `[rows, columns]`: the time at which each row begins.
fn begin_times(cost: &[f32], rows: usize, columns: usize) -> Vec<f64> {
    let width = columns + 1;
    let mut total = vec![f32::INFINITY; (rows + 1) * width];
    let mut from = vec![0_u8; (rows + 1) * width];
    total[0] = 0.0;
    for row in 1..=rows {
        for column in 1..=columns {
            let (diagonal, up, left) = (
                total[(row - 1) * width + column - 1],
                total[(row - 1) * width + column],
                total[row * width + column - 1],
            );
            let (best, way) = if diagonal < up && diagonal < left {
                (diagonal, 0)
            } else if up < diagonal && up < left {
                (up, 1)
            } else {
                (left, 2)
            };
            total[row * width + column] = best + cost[(row - 1) * columns + column - 1];
            from[row * width + column] = way;
        }
    }
    let mut begins = vec![0.0; rows];
    let (mut row, mut column) = (rows, columns);
    while row > 0 && column > 0 {
        begins[row - 1] = (column - 1) as f64 * POSITION;
        match from[row * width + column] {
            0 => (row, column) = (row - 1, column - 1),
            1 => row -= 1,
            _ => column -= 1,
        }
    }
    begins
}

/// Words as runs of tokens: a word begins with a space, or, in writing without spaces, with every character.
fn split(tokens: &Tokens, text: &[u32]) -> Vec<TimedWord> {
    let mut words: Vec<TimedWord> = Vec::new();
    let mut pending = Vec::new();
    let spaced = tokens.decode(text).trim().contains(char::is_whitespace) || text.len() < 4;
    for &id in text {
        pending.push(id);
        let piece = tokens.decode(&pending);
        // Part of a character that the next token completes.
        if piece.contains(char::REPLACEMENT_CHARACTER) {
            continue;
        }
        let begins = piece.starts_with(char::is_whitespace) || !spaced;
        match words.last_mut() {
            Some(word) if !begins => {
                word.text.push_str(&piece);
                word.tokens += pending.len();
            }
            _ => words.push(TimedWord { text: piece, tokens: pending.len(), start: 0.0, end: 0.0 }),
        }
        pending.clear();
    }
    if let Some(word) = words.last_mut() {
        word.tokens += pending.len();
    }
    words
}

/// Punctuation belongs to the word before it, opening brackets and quotes to the one after.
fn join_punctuation(words: Vec<TimedWord>) -> Vec<TimedWord> {
    let mut joined: Vec<TimedWord> = Vec::new();
    let mut opening: Option<TimedWord> = None;
    for mut word in words {
        let bare = word.text.trim().to_owned();
        if !bare.is_empty() && bare.chars().all(|c| OPENING.contains(c)) && word.text.starts_with(' ') {
            opening = Some(word);
        } else if !bare.is_empty() && bare.chars().all(|c| CLOSING.contains(c)) && !joined.is_empty() {
            if let Some(last) = joined.last_mut() {
                last.text.push_str(&bare);
                last.tokens += word.tokens;
            }
        } else {
            if let Some(before) = opening.take() {
                word.text = format!("{}{}", before.text, word.text.trim_start());
                word.tokens += before.tokens;
            }
            joined.push(word);
        }
    }
    joined.extend(opening);
    for word in &mut joined {
        word.text = word.text.trim().to_owned();
    }
    joined
}

#[cfg(test)]
#[path = "words_tests.rs"]
mod tests;
