//! The model's samples made fit to listen to: silence trimmed, loudness set, words timed, cut into chunks.

use std::sync::Arc;

use super::CHUNK_SAMPLES;
use super::pieces::{Piece, pause_after};
use crate::audio::{Samples, Speech};
use crate::nn::kokoro::Utterance;
use crate::provider::{SpeechChunk, WordMark};

/// Upstream's ONNX builds, which most people know the voices from, are this much louder than its PyTorch code.
const GAIN: f32 = 1.5;
/// No sample beyond this: a piece that would go there is turned down as a whole, never clipped.
const PEAK: f32 = 0.97;
/// Softer than this, after the gain, is silence.
const SILENCE: f32 = 0.01;
/// Sounds come this much before the model's durations have them: upstream's `join_timestamps` subtracts the same.
const EARLY_FRAMES: usize = 3;
/// What stays of the silence before the first sound and after the last, so that no consonant loses its edge.
const LEAD: usize = 24_000 * 20 / 1000;
const TAIL: usize = 24_000 * 60 / 1000;

/// A piece's audio and its words, timed from the request's first sample.
pub(super) struct Rendered {
    samples: Vec<f32>,
    words: Vec<WordMark>,
}

/// `position` is how much of the request was rendered before; the pause after the piece is part of it.
pub(super) fn render(piece: &Piece, utterance: &Utterance, samples_per_frame: usize, position: usize) -> Rendered {
    let peak = utterance.samples.iter().fold(0.0_f32, |peak, sample| peak.max(sample.abs()));
    let gain = GAIN.min(PEAK / peak.max(1e-6));
    let loud = |sample: &f32| (sample * gain).abs() > SILENCE;
    let first = utterance.samples.iter().position(loud).unwrap_or(0);
    let last = utterance.samples.iter().rposition(loud).unwrap_or(0);
    let start = first.saturating_sub(LEAD);
    let end = (last + TAIL).min(utterance.samples.len()).max(start);
    let mut samples: Vec<f32> = utterance.samples[start..end].iter().map(|sample| sample * gain).collect();
    fade_out(&mut samples);

    // The boundary symbol comes first, so symbol n begins when n + 1 durations have passed.
    let mut passed = 0;
    let ends: Vec<usize> = utterance
        .durations
        .iter()
        .map(|frames| {
            passed += frames * samples_per_frame;
            passed
        })
        .collect();
    let moment = |symbol: usize| {
        let spoken = ends.get(symbol).copied().unwrap_or(passed).saturating_sub(EARLY_FRAMES * samples_per_frame);
        let sample = spoken.clamp(start, end) - start;
        Samples::<24_000>((position + sample) as u64).duration()
    };
    let mark = |word: &super::phonemes::SpokenWord| WordMark {
        text: word.text.clone(),
        start: moment(word.symbols.start),
        end: moment(word.symbols.end),
    };
    let words = piece.words.iter().map(mark).collect();
    samples.resize(samples.len() + Samples::<24_000>::from_millis(pause_after(piece)).as_usize(), 0.0);
    Rendered { samples, words }
}

/// The cut is in near-silence; a few milliseconds' slope make it none at all.
fn fade_out(samples: &mut [f32]) {
    const SLOPE: usize = 240;
    let start = samples.len().saturating_sub(SLOPE);
    let length = samples.len() - start;
    for (at, sample) in samples[start..].iter_mut().enumerate() {
        *sample *= 1.0 - (at + 1) as f32 / length as f32;
    }
}

impl Rendered {
    pub(super) fn len(&self) -> usize {
        self.samples.len()
    }

    /// Chunks of [`CHUNK_SAMPLES`]; `last` marks the final one. `position` as in [`render`].
    pub(super) fn chunks(self, position: usize, last: bool, served_by: &Arc<str>) -> Vec<SpeechChunk> {
        let count = self.samples.len().div_ceil(CHUNK_SAMPLES);
        let mut words = self.words.into_iter().peekable();
        let chunk = |(index, samples): (usize, &[f32])| {
            let end = Samples::<24_000>((position + index * CHUNK_SAMPLES + samples.len()) as u64).duration();
            let is_final = index + 1 == count;
            let mut own = Vec::new();
            while let Some(word) = words.next_if(|word| is_final || word.start < end) {
                own.push(word);
            }
            SpeechChunk {
                audio: Speech::new(samples.to_vec()),
                words: own,
                last: last && is_final,
                served_by: Arc::clone(served_by),
            }
        };
        self.samples.chunks(CHUNK_SAMPLES).enumerate().map(chunk).collect()
    }
}
