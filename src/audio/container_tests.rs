use std::io::Write;
use std::path::PathBuf;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::audio::wav;

/// One second: silence, a 500 Hz tone from 0.25 s to 0.75 s, silence. Made by tests/fixtures/make_audio.py.
const CLIPS: [&str; 10] = [
    "tone.mp3",
    "tone.flac",
    "tone-vorbis.ogg",
    "tone-opus.ogg",
    "tone-opus.webm",
    "tone-live.webm",
    "tone-vorbis.webm",
    "tone.m4a",
    "tone-alac.m4a",
    "tone.aac",
];

pub(super) fn clip(name: &str) -> PathBuf {
    crate::testing::fixture("audio").join(name)
}

fn tone(rate: u32) -> impl Iterator<Item = f64> {
    (0..rate).map(move |n| {
        let time = f64::from(n) / f64::from(rate);
        if (0.25..0.75).contains(&time) { 0.5 * (std::f64::consts::TAU * 500.0 * time).sin() } else { 0.0 }
    })
}

/// The same clip as WAV.
pub(super) fn wav_clip(rate: u32, channels: u16, bits: u16, sample_format: hound::SampleFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let spec = hound::WavSpec { channels, sample_rate: rate, bits_per_sample: bits, sample_format };
    let mut writer = hound::WavWriter::new(&mut bytes, spec).unwrap();
    for value in tone(rate) {
        for _ in 0..channels {
            match sample_format {
                hound::SampleFormat::Float => writer.write_sample(value as f32).unwrap(),
                hound::SampleFormat::Int => {
                    writer.write_sample((value * (2f64.powi(i32::from(bits) - 1) - 1.0)) as i32).unwrap();
                }
            }
        }
    }
    writer.finalize().unwrap();
    bytes.into_inner()
}

fn power(samples: &[f32]) -> f64 {
    samples.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>() / samples.len().max(1) as f64
}

/// That the tone is where it should be, at its level and frequency. Codecs without edit lists leave their priming in.
fn check_tone(name: &str, audio: &Pcm<16_000>) {
    let samples = audio.as_slice();
    let seconds = audio.len().seconds();
    assert!((0.97..1.15).contains(&seconds), "{name}: {seconds} s");
    let onset = samples.iter().position(|sample| sample.abs() > 0.2).unwrap() as f64 / 16_000.0;
    assert!((0.235..0.32).contains(&onset), "{name}: begins at {onset} s");
    let middle = &samples[6_000..10_000];
    let level = power(middle).sqrt() * 2f64.sqrt();
    assert!((level - 0.5).abs() < 0.05, "{name}: level {level}");
    let crossings = middle.windows(2).filter(|pair| pair[0] < 0.0 && pair[1] >= 0.0).count();
    assert!(crossings.abs_diff(125) <= 1, "{name}: {crossings} periods in 0.25 s");
    assert!(power(&samples[15_000..15_500]) < 1e-4, "{name}");
}

#[test]
fn every_format_is_decoded() {
    for name in CLIPS {
        let from_path = decode_file::<16_000>(&clip(name), Limits::default()).unwrap();
        check_tone(name, &from_path);
        let from_bytes = decode_bytes::<16_000>(std::fs::read(clip(name)).unwrap(), Limits::default()).unwrap();
        assert_eq!(from_path, from_bytes);
    }
}

#[test]
fn every_kind_of_wav_is_decoded() {
    use hound::SampleFormat::{Float, Int};
    for (bits, format) in [(8, Int), (16, Int), (24, Int), (32, Int), (32, Float)] {
        for channels in [1, 2, 6, 8] {
            for rate in [8_000, 16_000, 44_100, 192_000] {
                let name = format!("{bits} bit, {channels} channels, {rate} Hz");
                let audio = decode_bytes::<16_000>(wav_clip(rate, channels, bits, format), Limits::default())
                    .unwrap_or_else(|error| panic!("{name}: {error}"));
                check_tone(&name, &audio);
                assert_eq!(audio.len().0, 16_000, "{name}");
            }
        }
    }
}

#[test]
fn double_precision_wav_is_decoded() {
    let mut file = wav::header(16_000, Some(16_000 * 8)).to_vec();
    file[20] = 3;
    file[28..32].copy_from_slice(&(16_000u32 * 8).to_le_bytes());
    file[32] = 8;
    file[34] = 64;
    file.extend(tone(16_000).flat_map(f64::to_le_bytes));
    check_tone("64-bit float", &decode_bytes(file, Limits::default()).unwrap());
}

#[test]
fn a_very_short_clip_is_decoded() {
    let audio = Pcm::<16_000>::new(vec![0.25; 800]);
    let decoded = decode_bytes::<16_000>(wav::encode(&audio), Limits::default()).unwrap();
    assert_eq!(decoded.len(), audio.len());
    let decoded = decode_bytes::<24_000>(wav::encode(&audio), Limits::default()).unwrap();
    assert_eq!(decoded.len().0, 1_200);
}

#[test]
fn what_we_write_we_read() {
    let audio = Pcm::<24_000>::new(tone(24_000).map(|sample| sample as f32).collect());
    let decoded = decode_bytes::<24_000>(wav::encode(&audio), Limits::default()).unwrap();
    let difference = |(a, b): (&f32, &f32)| (a - b).abs();
    assert!(decoded.as_slice().iter().zip(audio.as_slice()).map(difference).fold(0.0, f32::max) < 1e-4);
    assert_eq!(decoded.len(), audio.len());
}

#[test]
fn a_wav_of_unknown_length_is_read_to_its_end() {
    let audio = Pcm::<16_000>::new(vec![0.5; 5_000]);
    let mut file = wav::header(16_000, None).to_vec();
    file.extend(audio.to_s16le());
    assert_eq!(decode_bytes::<16_000>(file, Limits::default()).unwrap().len(), audio.len());
}

#[test]
fn blocks_are_the_whole_in_parts() {
    for name in CLIPS {
        let whole = decode_file::<24_000>(&clip(name), Limits::default()).unwrap();
        let mut parts = Pcm::default();
        let mut longest = 0;
        for block in Decoder::<24_000>::open(&clip(name), Limits::default()).unwrap() {
            let block = block.unwrap();
            assert!(!block.is_empty());
            longest = longest.max(block.len().0);
            parts.extend(&block);
        }
        assert_eq!(parts, whole);
        assert!(longest < 24_000, "{name}: {longest}");
    }
}

#[test]
fn what_is_no_audio_is_named() {
    let open = |bytes: &[u8]| decode_bytes::<16_000>(bytes.to_vec(), Limits::default()).unwrap_err();
    assert!(matches!(open(b""), AudioError::Empty));
    let text = "It was a dark and stormy night; the rain fell in torrents.\n".repeat(400);
    for text in ["no", "hello", text.as_str(), "{\"type\":\"audio_chunk\"}", "RIFF", "RIFF    WAVE"] {
        let error = open(text.as_bytes());
        assert!(matches!(error, AudioError::NotAudio { .. }), "{text:.20}: {error:?}");
    }
    assert!(open(text.as_bytes()).to_string().contains("not an audio file"));
    assert!(matches!(open(&wav::header(16_000, Some(0))), AudioError::NoSamples));
    let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89";
    assert!(matches!(open(png), AudioError::NotAudio { .. }));
    let mut noise = vec![0u8; 100_000];
    StdRng::seed_from_u64(1).fill(&mut noise[..]);
    if let Ok(audio) = decode_bytes::<16_000>(noise, Limits::default()) {
        assert!(audio.len().seconds() < 1.0, "noise became {} s", audio.len().seconds());
    }
}

#[test]
fn what_cannot_be_opened_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &Path| Decoder::<16_000>::open(path, Limits::default()).err().unwrap();
    assert!(matches!(open(&folder.path().join("none.wav")), AudioError::Io(_)));
    assert!(matches!(open(folder.path()), AudioError::Io(_)));
    let empty = folder.path().join("empty.wav");
    File::create(&empty).unwrap();
    assert!(matches!(open(&empty), AudioError::Empty));
}

#[test]
fn shapes_beyond_the_limits_are_named() {
    use hound::SampleFormat::Int;
    let open = |bytes| decode_bytes::<16_000>(bytes, Limits::default()).unwrap_err();
    let error = open(wav_clip(4_000, 1, 16, Int));
    assert!(matches!(error, AudioError::Shape(ResampleError::Rate { rate: 4_000 })), "{error}");
    let error = open(wav_clip(16_000, 12, 16, Int));
    assert!(matches!(error, AudioError::Shape(ResampleError::Channels { channels: 12 })), "{error}");
}

#[test]
fn limits_hold_while_decoding() {
    let short = Limits { duration: Duration::from_millis(500), ..Limits::default() };
    for name in CLIPS {
        let mut decoded = 0.0;
        let mut error = None;
        for block in Decoder::<16_000>::open(&clip(name), short).unwrap() {
            match block {
                Ok(block) => decoded += block.len().seconds(),
                Err(other) => error = Some(other),
            }
        }
        assert!(matches!(error, Some(AudioError::TooLong { .. })), "{name}");
        assert!(decoded <= 0.5, "{name}: {decoded}");
    }
    let few = Limits { samples: 10_000, ..Limits::default() };
    assert!(matches!(decode_file::<16_000>(&clip("tone.mp3"), few), Err(AudioError::TooLarge { limit: 10_000 })));
}

/// A file that breaks off gives what it has.
#[test]
fn a_truncated_file_gives_what_it_has() {
    let mut files: Vec<(String, Vec<u8>)> =
        CLIPS.iter().map(|name| ((*name).to_owned(), std::fs::read(clip(name)).unwrap())).collect();
    files.push(("wav".to_owned(), wav_clip(44_100, 2, 16, hound::SampleFormat::Int)));
    for (name, mut bytes) in files {
        bytes.truncate(bytes.len() * 2 / 3);
        match decode_bytes::<16_000>(bytes, Limits::default()) {
            Ok(audio) => assert!((0.25..0.9).contains(&audio.len().seconds()), "{name}: {}", audio.len().seconds()),
            // An MP4 whose table of contents is at its end holds nothing without it, nor does an Ogg file of one page
            // or a WebM file that says how long it is.
            Err(error) => assert!(
                !["tone.mp3", "tone.flac", "tone.aac", "tone-live.webm", "wav"].contains(&&*name),
                "{name}: {error}"
            ),
        }
    }
}

/// Ten minutes pass through in blocks, from a file that was never whole in memory.
#[test]
fn a_long_file_is_streamed() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&wav::header(44_100, None)).unwrap();
    let second = vec![0; 88_200];
    for _ in 0..600 {
        file.write_all(&second).unwrap();
    }
    let mut seconds = 0.0;
    for block in Decoder::<16_000>::open(file.path(), Limits::default()).unwrap() {
        let block = block.unwrap();
        assert!(block.len().seconds() < 1.0);
        seconds += block.len().seconds();
    }
    assert!((seconds - 600.0).abs() < 0.001, "{seconds}");
}
