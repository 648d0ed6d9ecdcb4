//! Files that mean harm: damaged at random, and small ones that would become large.
//!
//! Each format is damaged `AUDIO_MUTATIONS` times with a fixed seed, by default as often as a test run has time for;
//! `AUDIO_MUTATIONS=10000 cargo nextest run --lib hostile` is the whole campaign.

use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::tests::{clip, wav_clip};
use super::*;
use crate::testing;

/// What a hostile file may cost beyond what an honest one does.
const MEGABYTES: u64 = 256;
const LONGEST: Duration = Duration::from_secs(5);
/// Of each kind, in a usual test run.
const MUTATIONS: usize = 1_000;

/// The most memory that this process ever had, in megabytes.
fn peak_megabytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Makes damaged Ogg pages pass their checksum, so that what is in them is read.
fn mend_ogg_checksums(bytes: &mut [u8]) {
    let mut at = 0;
    while bytes.len() >= at + 27 && bytes[at..].starts_with(b"OggS") {
        let segments = at + 27 + usize::from(bytes[at + 26]);
        let Some(table) = bytes.get(at + 27..segments) else { return };
        let end = segments + table.iter().map(|length| usize::from(*length)).sum::<usize>();
        let Some(page) = bytes.get_mut(at..end) else { return };
        page[22..26].fill(0);
        let checksum = page.iter().fold(0u32, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte) << 24, |sum, _| sum << 1 ^ if sum >> 31 == 1 { 0x04C1_1DB7 } else { 0 })
        });
        page[22..26].copy_from_slice(&checksum.to_le_bytes());
        at = end;
    }
}

/// Damages a file once: its header mostly, where its lengths are.
fn damage(bytes: &mut Vec<u8>, random: &mut StdRng) {
    let reach = if random.random_bool(0.7) { bytes.len().min(600) } else { bytes.len() };
    let at = random.random_range(0..reach);
    let width = [1, 2, 4, 8][random.random_range(0..4)].min(bytes.len() - at);
    match random.random_range(0..9) {
        0 => bytes[at] = random.random(),
        1 | 2 => bytes[at] ^= 1 << random.random_range(0..8),
        // Lengths at their extremes: all ones, the largest that is not negative, the smallest that is, nothing.
        3 => bytes[at..at + width].fill(0xFF),
        4 => {
            bytes[at..at + width].fill(0xFF);
            let end = if random.random() { at } else { at + width - 1 };
            bytes[end] = 0x7F;
        }
        5 => {
            bytes[at..at + width].fill(0);
            bytes[at] = 0x80;
        }
        6 => bytes[at..at + width].fill(0),
        // A piece of it once more, elsewhere.
        7 => {
            let from = random.random_range(0..bytes.len());
            let piece = bytes[from..bytes.len().min(from + random.random_range(1..64))].to_vec();
            bytes.splice(at..at, piece);
        }
        // A piece is missing.
        _ => drop(bytes.drain(at..(at + random.random_range(1..64)).min(bytes.len()))),
    }
}

/// Decodes to the end or the limit, and says how much there was and what went wrong.
fn decode_all(bytes: Vec<u8>, limits: Limits) -> (f64, Option<AudioError>) {
    let mut seconds = 0.0;
    match Decoder::<16_000>::from_bytes(bytes, limits) {
        Ok(decoder) => {
            for block in decoder {
                match block {
                    Ok(block) => seconds += block.len().seconds(),
                    Err(error) => return (seconds, Some(error)),
                }
            }
            (seconds, None)
        }
        Err(error) => (seconds, Some(error)),
    }
}

fn mutate(name: &str, original: &[u8]) {
    let limits = Limits { duration: Duration::from_millis(300), ..Limits::default() };
    let mut random = StdRng::seed_from_u64(7);
    let before = peak_megabytes();
    let begin = Instant::now();
    let rounds = testing::rounds("AUDIO_MUTATIONS", MUTATIONS);
    let (mut decoded, mut slowest) = (0, Duration::ZERO);
    for round in 0..rounds {
        let mut bytes = original.to_vec();
        for _ in 0..random.random_range(1..=4) {
            if bytes.len() > 1 {
                damage(&mut bytes, &mut random);
            }
        }
        if random.random_bool(0.1) {
            bytes.truncate(random.random_range(0..=bytes.len()));
        }
        if round % 2 == 0 {
            mend_ogg_checksums(&mut bytes);
        }
        let start = Instant::now();
        let (seconds, error) = decode_all(bytes, limits);
        assert!(error.as_ref().is_none_or(|error| !error.to_string().is_empty()));
        decoded += usize::from(seconds > 0.0 || matches!(error, Some(AudioError::TooLong { .. })));
        assert!(seconds <= 0.31, "{name} {round}: {seconds} s of audio");
        slowest = slowest.max(start.elapsed());
        assert!(slowest < LONGEST, "{name} {round}: took {slowest:?}");
        let grown = peak_megabytes() - before;
        assert!(grown < MEGABYTES, "{name} {round}: {grown} MB");
    }
    println!(
        "{name}: {decoded} of {rounds} were decoded or too long, {:?}, the slowest took {slowest:?}, {} MB more",
        begin.elapsed(),
        peak_megabytes() - before
    );
    assert!(decoded > rounds / 100, "{name}: the mutations leave nothing to decode");
}

fn mutate_clip(name: &str) {
    mutate(name, &std::fs::read(clip(name)).unwrap());
}

#[test]
fn damaged_mp3() {
    mutate_clip("tone.mp3");
}

#[test]
fn damaged_flac() {
    mutate_clip("tone.flac");
}

#[test]
fn damaged_ogg_vorbis() {
    mutate_clip("tone-vorbis.ogg");
}

#[test]
fn damaged_ogg_opus() {
    mutate_clip("tone-opus.ogg");
}

#[test]
fn damaged_webm_opus() {
    mutate_clip("tone-opus.webm");
}

#[test]
fn damaged_live_webm() {
    mutate_clip("tone-live.webm");
}

#[test]
fn damaged_webm_vorbis() {
    mutate_clip("tone-vorbis.webm");
}

#[test]
fn damaged_m4a_aac() {
    mutate_clip("tone.m4a");
}

#[test]
fn damaged_m4a_alac() {
    mutate_clip("tone-alac.m4a");
}

#[test]
fn damaged_adts() {
    mutate_clip("tone.aac");
}

#[test]
fn damaged_wav() {
    mutate("16-bit WAV", &wav_clip(16_000, 1, 16, hound::SampleFormat::Int));
}

#[test]
fn damaged_float_wav() {
    mutate("float WAV", &wav_clip(8_000, 2, 32, hound::SampleFormat::Float));
}
