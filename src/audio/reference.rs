//! A recording of somebody's voice, made fit to be imitated: without the silence around it, no longer than is of use,
//! as loud as others.
//!
//! Pure: whoever calls has the probabilities of speech. A long recording is cut to the part with the most speech in it,
//! at pauses, so that no word is cut in two.

use super::vad::FRAME;
use super::{MIC_HZ, SPEECH_HZ, Samples, Speech};

/// With less no voice is known.
pub const SHORTEST: Samples<SPEECH_HZ> = Samples::from_millis(3_000);
/// With more the prompt is long and the voice no better.
pub const LONGEST: Samples<SPEECH_HZ> = Samples::from_millis(30_000);

/// Samples that one probability is of: 32 ms.
const STEP: usize = FRAME.0 as usize * SPEECH_HZ as usize / MIC_HZ as usize;
/// From this probability on a frame holds speech.
const SPEECH: f32 = 0.5;
/// Frames that stay before the first word and after the last: a breath, and the room's echo.
const BEFORE: usize = 5;
const AFTER: usize = 8;
/// So many frames without speech are a pause between words.
const PAUSE: usize = 6;
/// Root mean square of the loudest 32 ms below which a recording is silence.
const SILENCE: f32 = 3e-3;
/// Of the speech, as a root mean square: 20 dB below full scale.
const LOUDNESS: f32 = 0.1;
/// Peaks stay below full scale.
const PEAK: f32 = 0.89;
/// More amplification than 30 dB brings up noise, no voice.
const MOST_GAIN: f32 = 31.6;

/// A recording that is fit.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    pub audio: Speech,
    /// Which part of it holds speech, 0 to 1.
    pub speech: f32,
    /// Words were left out, since it was too long.
    pub is_cut: bool,
}

/// Why a recording is not fit.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ReferenceError {
    #[error("the recording is silent; check the microphone and record it again")]
    Silent,
    #[error(
        "the recording has {seconds:.1} s of speech where {} are needed; record {} to {} s", SHORTEST.seconds(),
        SHORTEST.seconds(), LONGEST.seconds()
    )]
    TooShort { seconds: f64 },
}

/// Cuts, and brings to the usual loudness. `probabilities` are those of speech, one for each 32 ms.
///
/// # Errors
/// [`ReferenceError`].
pub fn prepare(audio: &Speech, probabilities: &[f32]) -> Result<Reference, ReferenceError> {
    let samples = audio.as_slice();
    let levels: Vec<f32> = samples.chunks(STEP).map(rms).collect();
    let loudest = levels.iter().copied().fold(0.0, f32::max);
    if loudest < SILENCE {
        return Err(ReferenceError::Silent);
    }
    // Where the detector hears no speech at all, what is loud takes its place: laughter, or a song.
    let is_spoken = probabilities.iter().any(|probability| *probability >= SPEECH);
    let spoken: Vec<bool> = (0..levels.len())
        .map(|frame| {
            if is_spoken {
                probabilities.get(frame).is_some_and(|probability| *probability >= SPEECH)
            } else {
                levels[frame] >= loudest / 10.0
            }
        })
        .collect();
    let whole = window(&spoken, 0, spoken.len());
    let (from, to) = if (whole.1 - whole.0) * STEP > LONGEST.as_usize() { best_part(&spoken, whole) } else { whole };
    let end = (to * STEP).min(samples.len());
    let part = &samples[(from * STEP).min(end)..end];
    if part.len() < SHORTEST.as_usize() {
        return Err(ReferenceError::TooShort { seconds: part.len() as f64 / f64::from(SPEECH_HZ) });
    }
    let heard = spoken[from..to].iter().filter(|is_spoken| **is_spoken).count();
    let speech = if is_spoken { heard as f32 / (to - from).max(1) as f32 } else { 0.0 };
    let gain = gain(part, &spoken[from..to]);
    let audio = Speech::new(part.iter().map(|sample| sample * gain).collect());
    Ok(Reference { audio, speech, is_cut: (from, to) != whole })
}

/// From the first frame of speech to the last one in a range, and a little around them.
fn window(spoken: &[bool], from: usize, to: usize) -> (usize, usize) {
    let first = spoken[from..to].iter().position(|is_spoken| *is_spoken).map_or(from, |at| from + at);
    let last = spoken[from..to].iter().rposition(|is_spoken| *is_spoken).map_or(to, |at| from + at + 1);
    (first.saturating_sub(BEFORE), (last + AFTER).min(spoken.len()))
}

/// The part, of those that begin and end at a pause, with the most speech. Where somebody speaks on without one, it
/// ends in the middle.
fn best_part(spoken: &[bool], (first, last): (usize, usize)) -> (usize, usize) {
    let room = LONGEST.as_usize() / STEP;
    let pauses = pauses(spoken, first, last);
    let begins = pauses.iter().map(|(_, end)| end.saturating_sub(BEFORE));
    let part = |from: usize| {
        let latest = (from + room).min(last);
        let at_pause = pauses.iter().map(|(begin, end)| (begin + AFTER).min(*end));
        let end = at_pause.chain([last]).filter(|end| *end > from && *end <= latest).max();
        // Most of the room stays unused only where there is no pause in it.
        (from, end.filter(|end| (end - from) * 3 >= room).unwrap_or(latest))
    };
    let speech = |(from, to): (usize, usize)| spoken[from..to].iter().filter(|is_spoken| **is_spoken).count();
    let mut best = part(first);
    for other in begins.map(part) {
        // Of equal ones the first.
        if speech(other) > speech(best) {
            best = other;
        }
    }
    best
}

/// Where nobody speaks for a while: first frame, and the one after the last.
fn pauses(spoken: &[bool], from: usize, to: usize) -> Vec<(usize, usize)> {
    let mut pauses = Vec::new();
    let mut since = None;
    for (frame, is_spoken) in spoken.iter().enumerate().take(to).skip(from) {
        match (*is_spoken, since) {
            (false, None) => since = Some(frame),
            (true, Some(begin)) => {
                if frame - begin >= PAUSE {
                    pauses.push((begin, frame));
                }
                since = None;
            }
            _ => {}
        }
    }
    pauses
}

/// What brings its speech to the usual loudness.
fn gain(part: &[f32], spoken: &[bool]) -> f32 {
    let frames = part.chunks(STEP).zip(spoken).filter(|(_, is_spoken)| **is_spoken);
    let powers: Vec<f32> = frames.map(|(frame, _)| rms(frame).powi(2)).collect();
    let power = if powers.is_empty() { rms(part).powi(2) } else { powers.iter().sum::<f32>() / powers.len() as f32 };
    let peak = part.iter().fold(0.0_f32, |peak, sample| peak.max(sample.abs()));
    (LOUDNESS / power.sqrt().max(1e-6)).min(PEAK / peak.max(1e-6)).min(MOST_GAIN)
}

fn rms(samples: &[f32]) -> f32 {
    let power: f32 = samples.iter().map(|sample| sample * sample).sum();
    (power / samples.len().max(1) as f32).sqrt()
}

#[cfg(test)]
#[path = "reference_tests.rs"]
mod tests;
