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

/// A file that is refused, or turns out to be small, in time and memory.
fn survives(name: &str, bytes: Vec<u8>, limits: Limits, is_right: fn(&Result<f64, AudioError>) -> bool) {
    let size = bytes.len();
    let before = peak_megabytes();
    let start = Instant::now();
    let outcome = match decode_all(bytes, limits) {
        (seconds, None) => Ok(seconds),
        (_, Some(error)) => Err(error),
    };
    let (took, grown) = (start.elapsed(), peak_megabytes().saturating_sub(before));
    println!("{name}, {size} bytes: {outcome:?} after {took:?}, {grown} MB more");
    assert!(is_right(&outcome), "{name}: {outcome:?}");
    assert!(took < LONGEST, "{name}: {took:?}");
    assert!(grown < MEGABYTES, "{name}: {grown} MB");
}

fn is_too_long(outcome: &Result<f64, AudioError>) -> bool {
    matches!(outcome, Err(AudioError::TooLong { .. }))
}

fn is_refused(outcome: &Result<f64, AudioError>) -> bool {
    outcome.is_err()
}

/// The longest recording that a server takes anywhere.
fn four_hours() -> Limits {
    Limits::up_to(Duration::from_hours(4))
}

/// Opus in Ogg: `packet` again and again, `seconds` long.
fn opus_bomb(packet: &[u8], packet_seconds: f64, seconds: f64) -> Vec<u8> {
    let mut pages = ogg::PacketWriter::new(Vec::new());
    let head = b"OpusHead\x01\x01\x38\x01\x80\xbb\0\0\0\0\0".to_vec();
    pages.write_packet(head, 1, ogg::PacketWriteEndInfo::EndPage, 0).unwrap();
    let tags = b"OpusTags\x01\0\0\0x\0\0\0\0".to_vec();
    pages.write_packet(tags, 1, ogg::PacketWriteEndInfo::EndPage, 0).unwrap();
    let ticks = (packet_seconds * 48_000.0) as u64;
    let count = (seconds / packet_seconds) as u64;
    for number in 1..=count {
        let place =
            if number == count { ogg::PacketWriteEndInfo::EndStream } else { ogg::PacketWriteEndInfo::NormalPacket };
        pages.write_packet(packet.to_vec(), 1, place, number * ticks).unwrap();
    }
    pages.into_inner()
}

/// Nine hours at 6 kbit/s: the file that took a well-known server 15 GB.
#[test]
fn nine_hours_of_opus() {
    let mut encoder = opus::Encoder::new(16_000, opus::Channels::Mono, opus::Application::Voip).unwrap();
    encoder.set_bitrate(opus::Bitrate::Bits(6_000)).unwrap();
    let mut random = StdRng::seed_from_u64(3);
    let noise: Vec<f32> = (0..960).map(|_| random.random_range(-0.1..0.1)).collect();
    let packet = encoder.encode_vec_float(&noise, 1_275).unwrap();
    let bytes = opus_bomb(&packet, 0.06, 9.0 * 3_600.0);
    survives("9 h of Opus", bytes.clone(), Limits::default(), is_too_long);
    survives("9 h of Opus for a long file", bytes, four_hours(), is_too_long);
}

/// As much Opus as 25 MB can say: two bytes for 60 ms.
#[test]
fn days_of_opus_silence() {
    let bytes = opus_bomb(&[0x58, 0x00], 0.06, 25e6 / 3.1 * 0.06);
    survives("days of Opus", bytes.clone(), Limits::default(), is_too_long);
    survives("days of Opus for a long file", bytes, four_hours(), is_too_long);
}

/// A FLAC frame of silence has 4096 or more samples in 14 bytes.
#[test]
fn hours_of_flac_silence() {
    let mut encoder = crate::audio::Format::Flac.encoder().unwrap();
    let minute = crate::audio::Speech::silence(crate::audio::Samples::from_millis(60_000));
    let mut bytes = Vec::new();
    for _ in 0..9 * 60 {
        bytes.extend(encoder.push(&minute).unwrap());
    }
    survives("9 h of FLAC", bytes.clone(), Limits::default(), is_too_long);
    survives("9 h of FLAC for a long file", bytes.clone(), four_hours(), is_too_long);
    // It says that it has one sample.
    bytes[18 + 7] = 1;
    survives("9 h of FLAC that calls itself short", bytes, four_hours(), is_too_long);
}

/// MP3 and ADTS frames of silence, as often as 25 MB hold them.
#[test]
fn hours_of_small_frames() {
    for name in ["tone.mp3", "tone.aac"] {
        let clip = std::fs::read(clip(name)).unwrap();
        let bytes: Vec<u8> = clip.iter().copied().cycle().take(25_000_000).collect();
        survives(name, bytes.clone(), Limits::default(), is_too_long);
    }
}

#[test]
fn wav_files_that_lie_about_their_sizes() {
    let second = vec![0u8; 32_000];
    let honest = |data: u32| [&crate::audio::wav::header(16_000, Some(data)), &second[..]].concat();
    for data in [0, 1, 31_999, u32::MAX - 100, u32::MAX, 1 << 31] {
        survives("WAV of another length", honest(data), Limits::default(), |_| true);
    }
    // Each field of the header at each extreme.
    for at in (4..44).step_by(2) {
        for value in [0, 1, 0x7FFF_FFFFu32, 0x8000_0000, u32::MAX] {
            let mut bytes = honest(32_000);
            let width = 4.min(44 - at);
            bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
            survives("WAV with a lie", bytes, Limits::default(), |_| true);
        }
    }
    let mut long = crate::audio::wav::header(8_000, None).to_vec();
    long.resize(44 + 25_000_000, 0);
    survives("26 minutes of WAV", long, Limits::default(), is_too_long);
}

/// An MP4 box.
fn boxed(kind: [u8; 4], content: &[u8]) -> Vec<u8> {
    [&(content.len() as u32 + 8).to_be_bytes(), &kind[..], content].concat()
}

/// Replaces the first box of this kind, wherever it is, and mends the sizes of those around it.
fn replace_box(file: &[u8], kind: [u8; 4], content: &[u8]) -> Vec<u8> {
    let parents: [&[u8; 4]; 5] = [b"moov", b"trak", b"mdia", b"minf", b"stbl"];
    let mut out = Vec::new();
    let mut at = 0;
    while at + 8 <= file.len() {
        let size = u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        let size = if size < 8 { file.len() - at } else { size.min(file.len() - at) };
        let found: [u8; 4] = file[at + 4..at + 8].try_into().unwrap();
        let body = &file[at + 8..at + size];
        if found == kind {
            out.extend(boxed(kind, content));
        } else if parents.contains(&&found) {
            out.extend(boxed(found, &replace_box(body, kind, content)));
        } else {
            out.extend_from_slice(&file[at..at + size]);
        }
        at += size;
    }
    out
}

/// 32-bit numbers after a version and flags.
fn table(numbers: &[u32]) -> Vec<u8> {
    [0].iter().chain(numbers).flat_map(|number| number.to_be_bytes()).collect()
}

#[test]
fn mp4_with_fake_sample_tables() {
    let clip = std::fs::read(clip("tone.m4a")).unwrap();
    let most = u32::MAX;
    let mut files = Vec::new();
    for count in [most, 0x7FFF_FFFF, 100_000_000] {
        for size in [0, 1, 1_000, most] {
            // Samples of one size need no table of their own.
            files.push((format!("{count} samples of {size}"), replace_box(&clip, *b"stsz", &table(&[size, count]))));
        }
        for (kind, numbers) in [
            (*b"stts", vec![1, count, 1]),
            (*b"stts", vec![1, count, most]),
            (*b"stts", vec![1, count, 0]),
            (*b"stts", vec![count]),
            (*b"stsc", vec![1, 1, count, 1]),
            (*b"stsc", vec![count, 1, 1, 1]),
            (*b"stco", vec![count, 8]),
            (*b"stsd", vec![count]),
        ] {
            let name = format!("{} {numbers:?}", String::from_utf8_lossy(&kind));
            files.push((name, replace_box(&clip, kind, &table(&numbers))));
        }
    }
    // Every sample of no size, and of no end.
    let endless = replace_box(&clip, *b"stsz", &table(&[0, most]));
    let endless = replace_box(&endless, *b"stsc", &table(&[1, 1, most, 1]));
    files.push(("endless".to_owned(), replace_box(&endless, *b"stts", &table(&[1, most, 0]))));
    // A million chunks at one place, each with as many samples as the file has bytes.
    let chunks: Vec<u32> = std::iter::once(1_000_000).chain(std::iter::repeat_n(40, 1_000_000)).collect();
    let overlapping = replace_box(&clip, *b"stco", &table(&chunks));
    let overlapping = replace_box(&overlapping, *b"stsz", &table(&[1, most]));
    let overlapping = replace_box(&overlapping, *b"stsc", &table(&[1, 1, 4_000, 1]));
    files.push(("overlapping".to_owned(), replace_box(&overlapping, *b"stts", &table(&[1, most, 0]))));
    for (name, bytes) in files {
        survives(&name, bytes, Limits::default(), |_| true);
    }
}

/// A box or an element that says that it has a gigabyte, and has nothing.
#[test]
fn containers_that_claim_to_be_large() {
    let clip = std::fs::read(clip("tone.m4a")).unwrap();
    for kind in [b"ftyp", b"moov", b"mdat", b"udta", b"free", b"meta", b"esds", b"stsd"] {
        for size in [0x4000_0000u32, 0x7FFF_FFFF, u32::MAX] {
            let Some(at) = clip.windows(4).position(|window| window == kind) else { continue };
            let mut bytes = clip.clone();
            bytes[at - 4..at].copy_from_slice(&size.to_be_bytes());
            survives("an MP4 box", bytes, Limits::default(), |_| true);
        }
    }
    // EBML: every byte that could be a size, as eight bytes of a large number.
    for name in ["tone-opus.webm", "tone-live.webm"] {
        let clip = std::fs::read(super::tests::clip(name)).unwrap();
        for at in 4..clip.len().min(500) {
            let mut bytes = clip.clone();
            bytes.splice(at..=at, [0x01, 0, 0, 0, 0x40, 0, 0, 0]);
            survives("an EBML element", bytes, Limits::default(), |_| true);
        }
    }
    // FLAC metadata and ID3 tags of 16 and 256 MB.
    let flac = [b"fLaC\x04\xFF\xFF\xFF".to_vec(), vec![0xFF; 400]].concat();
    survives("a FLAC comment", flac, Limits::default(), is_refused);
    let id3 = [b"ID3\x04\0\0\x7F\x7F\x7F\x7FAPIC\x7F\x7F\x7F\x7F\0\0".to_vec(), vec![0; 400]].concat();
    survives("an ID3 picture", id3, Limits::default(), is_refused);
}
