//! How long a text may take, and when to speak it again: the model sometimes says nothing, and sometimes never stops.

use crate::nn::higgs::Outcome;

/// Frames of a second.
const RATE: f64 = 25.0;
/// Slow speech, in letters a second.
const LETTERS: f64 = 11.0;
/// Of scripts whose letters are syllables or words.
const SYLLABLES: f64 = 3.5;
/// A digit is a word.
const DIGITS: f64 = 2.0;
/// A full stop's silence, in seconds.
const PAUSE: f64 = 0.6;
/// A laugh or a cough.
const SOUND: f64 = 3.0;
/// A song, whose length nobody can tell from its text.
const SONG: f64 = 30.0;
/// The slowest voices take so many times as long,
const PATIENCE: f64 = 2.0;
/// and may begin and end with silence, in seconds.
const SILENCE: f64 = 3.0;
/// Times that a text is tried, the first among them.
const ATTEMPTS: u32 = 3;

/// Frames after which speech for `text` ([`super::text::fit_to_speak`]) has run away.
pub fn most_frames(text: &str) -> usize {
    frames(seconds(text) * PATIENCE)
}

/// Frames that a slow speaker takes: with less, speech for `text` may be cut off before its end.
pub fn needed_frames(text: &str) -> usize {
    frames(seconds(text))
}

fn frames(seconds: f64) -> usize {
    ((seconds + SILENCE) * RATE).ceil() as usize
}

/// What a slow speaker takes for `text`, without the silence around it.
pub fn seconds(text: &str) -> f64 {
    let mut seconds = text.matches("<SE>").count() as f64 * SOUND + text.matches("<SE_s>").count() as f64 * SONG;
    let mut in_pause = false;
    for character in text.chars() {
        let is_pause = matches!(character, '.' | '!' | '?' | ';' | ':' | ',' | '\n');
        seconds += if is_pause { f64::from(u8::from(!in_pause)) * PAUSE } else { seconds_of(character) };
        in_pause = is_pause;
    }
    seconds
}

/// What a slow speaker takes for a character, without pauses.
pub fn seconds_of(character: char) -> f64 {
    match character {
        _ if character.is_numeric() => 1.0 / DIGITS,
        _ if is_syllable(character) => 1.0 / SYLLABLES,
        _ if character.is_alphabetic() => 1.0 / LETTERS,
        // Signs are read out: a percent, a dollar.
        _ if !character.is_whitespace() && !character.is_ascii_punctuation() => 1.0 / DIGITS,
        _ => 0.0,
    }
}

/// Kana, Chinese characters, Hangul and what else is wide.
fn is_syllable(character: char) -> bool {
    matches!(character, '\u{1100}'..='\u{11FF}' | '\u{2E80}'..='\u{A4CF}' | '\u{AC00}'..='\u{D7FF}' | '\u{F900}'..='\u{FAFF}'
        | '\u{20000}'..='\u{3FFFF}')
}

/// Whether to speak a text again after `attempt` (from 0) had this outcome. Not where somebody has heard of it: nothing
/// restarts after its first item.
pub fn is_worth_another(outcome: Outcome, attempt: u32, was_heard: bool) -> bool {
    outcome != Outcome::Spoken && !was_heard && attempt + 1 < ATTEMPTS
}

/// The same name has the same voice wherever the model chooses one, today and after the next start.
pub fn seed_of(name: &str) -> u64 {
    // FNV-1a: what the standard library hashes with may change.
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

/// Another for each attempt, the voice's own for the first.
pub fn attempt_seed(seed: u64, attempt: u32) -> u64 {
    seed.wrapping_add(u64::from(attempt).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}
