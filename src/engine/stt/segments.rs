//! Cuts a window's tokens at their timestamps into segments, and finds where the next window begins. Pure; the rules
//! are those of OpenAI's `whisper/transcribe.py`.

use super::tokens::Tokens;

/// Seconds of one timestamp step.
const STEP: f64 = 0.02;

/// Samples of one step at 16 kHz.
const FRAME: usize = 320;
/// Steps before a cut in which a pause is looked for, and how many make one.
const SEARCHED: usize = 15;
const PAUSE: usize = 3;
/// Energy, as a part of the loudest step's, of a pause: -20 dB.
const QUIET: f32 = 0.01;

/// Text between two timestamps, in seconds from the window's beginning.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) start: f64,
    pub(super) end: f64,
    pub(super) tokens: Vec<u32>,
}

/// The pieces of a window of `length` seconds, and how many of those seconds they settle.
pub(super) fn cut(tokens: &Tokens, written: &[u32], length: f64) -> (Vec<Piece>, f64) {
    let time = |id: u32| (f64::from(id - tokens.first_timestamp) * STEP).min(length);
    let (ends, whole) = ends(tokens, written);
    let mut pieces = Vec::new();
    let mut from = 0;
    for to in ends {
        let part = &written[from..to];
        from = to;
        let mut times = part.iter().copied().filter(|&id| tokens.is_timestamp(id));
        let start = times.next();
        let end = times.next_back().map_or(length, time);
        let text: Vec<u32> = part.iter().copied().filter(|&id| id < tokens.end).collect();
        if !text.is_empty() {
            let start = start.map_or(0.0, time).min(end);
            pieces.push(Piece { start, end, tokens: text });
        }
    }
    // What follows the last closed segment is heard again in the next window, unless the window closes with it.
    let settled = if whole {
        length
    } else {
        written[..from].iter().rev().copied().find(|&id| tokens.is_timestamp(id)).map_or(length, time)
    };
    let settled = if settled > 0.0 { settled } else { length };
    (pieces, settled)
}

/// Moves a cut back into the pause just before it, if there is one. Timestamps are some tenths of a second off, and a
/// window that begins within a word loses it. `samples` are the window's, at 16 kHz.
pub(super) fn into_pause(samples: &[f32], cut: f64) -> f64 {
    let energies: Vec<f32> =
        samples.chunks(FRAME).map(|frame| frame.iter().map(|sample| sample * sample).sum()).collect();
    let at = ((cut / STEP) as usize).min(energies.len());
    let loudest = energies.iter().copied().fold(0.0, f32::max);
    let level = |from: &usize| energies[*from..from + PAUSE].iter().copied().fold(0.0, f32::max);
    // A window goes on by more than half its first second, whatever is heard.
    let searched = at.saturating_sub(SEARCHED).max(2 * SEARCHED)..(at + 1).saturating_sub(PAUSE);
    let quietest = searched.rev().min_by(|one, other| level(one).total_cmp(&level(other)));
    let pause = quietest.filter(|from| level(from) <= loudest * QUIET);
    pause.map_or(cut, |from| (from as f64 + PAUSE as f64 / 2.0) * STEP)
}

/// Where pieces end, and whether the last one ends with the window.
fn ends(tokens: &Tokens, written: &[u32]) -> (Vec<usize>, bool) {
    let is_time = |index: usize| written.get(index).is_some_and(|&id| tokens.is_timestamp(id));
    // A segment's end and the next one's beginning stand side by side.
    let mut ends: Vec<usize> = (1..written.len()).filter(|&index| is_time(index - 1) && is_time(index)).collect();
    let last = written.len().saturating_sub(1);
    let closed = written.len() >= 2 && is_time(last) && !is_time(last - 1);
    let whole = closed || ends.is_empty();
    if whole {
        ends.push(written.len());
    }
    (ends, whole)
}

#[cfg(test)]
#[path = "segments_tests.rs"]
mod tests;
