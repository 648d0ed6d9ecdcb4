use std::io::Cursor;

use proptest::prelude::*;

use super::*;
use crate::audio::Speech;

fn ramp(length: usize) -> Speech {
    Speech::new((0..length).map(|n| (n as f32 / length as f32) * 2.0 - 1.0).collect())
}

/// A WAV chunk as another library writes it.
fn written(spec: hound::WavSpec, frames: usize) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut bytes, spec).unwrap();
    for _ in 0..frames {
        for channel in 0..spec.channels {
            let value = if channel == 0 { 0.5 } else { -0.25 };
            match spec.sample_format {
                hound::SampleFormat::Float => writer.write_sample(value as f32).unwrap(),
                hound::SampleFormat::Int => {
                    writer.write_sample((value * 2f64.powi(i32::from(spec.bits_per_sample) - 1)) as i32).unwrap();
                }
            }
        }
    }
    writer.finalize().unwrap();
    bytes.into_inner()
}

#[test]
fn another_reader_agrees_on_what_is_written() {
    let audio = ramp(1_000);
    let mut reader = hound::WavReader::new(Cursor::new(encode(&audio))).unwrap();
    let spec = reader.spec();
    assert_eq!((spec.channels, spec.sample_rate, spec.bits_per_sample), (1, 24_000, 16));
    let samples: Vec<i16> = reader.samples::<i16>().map(Result::unwrap).collect();
    let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    assert_eq!(bytes, audio.to_s16le());
}

#[test]
fn a_file_is_written_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.wav");
    write(&path, &ramp(500)).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), encode(&ramp(500)));
    assert!(write(&folder.path().join("no/such/folder.wav"), &ramp(1)).is_err());
}

#[test]
fn every_encoding_of_a_chunk_is_read() {
    for (bits, sample_format) in [
        (8, hound::SampleFormat::Int),
        (16, hound::SampleFormat::Int),
        (24, hound::SampleFormat::Int),
        (32, hound::SampleFormat::Int),
        (32, hound::SampleFormat::Float),
    ] {
        for (channels, expected) in [(1, 0.5), (2, 0.125)] {
            let spec = hound::WavSpec { channels, sample_rate: 44_100, bits_per_sample: bits, sample_format };
            let chunk = decode_wire(WireFormat::Wav, &written(spec, 441), 16_000, 1).unwrap();
            assert_eq!((chunk.rate, chunk.samples.len()), (44_100, 441));
            let close = |sample: &f32| (sample - expected).abs() < 0.01;
            assert!(chunk.samples.iter().all(close), "{bits} {channels}: {}", chunk.samples[0]);
        }
    }
}

#[test]
fn a_chunk_of_pcm_is_read() {
    let bytes: Vec<u8> = [16_384i16, -16_384, 8_192, 8_192].iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let chunk = decode_wire(WireFormat::Pcm, &bytes, 48_000, 2).unwrap();
    assert_eq!(chunk, WireChunk { samples: vec![0.0, 0.25], rate: 48_000 });
    assert!(decode_wire(WireFormat::Pcm, &[], 16_000, 1).unwrap().samples.is_empty());
}

#[test]
fn a_chunk_with_an_unknown_length_is_read_to_its_end() {
    let mut bytes = header(16_000, None).to_vec();
    bytes.extend_from_slice(&[0, 64, 0, 64, 7]);
    assert_eq!(decode_wire(WireFormat::Wav, &bytes, 8_000, 2).unwrap().samples, [0.5, 0.5]);
}

#[test]
fn what_is_wrong_is_named() {
    let pcm = |bytes: &[u8], rate, channels| decode_wire(WireFormat::Pcm, bytes, rate, channels).unwrap_err();
    assert_eq!(pcm(&[0; 3], 16_000, 1), WireError::Cut { bytes: 3, frame: 2 });
    assert_eq!(pcm(&[0; 4], 7_999, 1), WireError::Rate { rate: 7_999 });
    assert_eq!(pcm(&[0; 4], 96_000, 1), WireError::Rate { rate: 96_000 });
    assert_eq!(pcm(&[0; 4], 16_000, 6), WireError::Channels { channels: 6 });
    assert_eq!(pcm(&[0; 4], 16_000, 0), WireError::Channels { channels: 0 });
    let wav = |bytes: &[u8]| decode_wire(WireFormat::Wav, bytes, 16_000, 1).unwrap_err();
    assert!(matches!(wav(b"hello, this is not a wave file"), WireError::NotWav { .. }));
    assert!(matches!(wav(&header(16_000, None)[..36]), WireError::NotWav { .. }));
    let mut adpcm = header(16_000, None);
    adpcm[20] = 2;
    assert_eq!(wav(&adpcm), WireError::Encoding { tag: 2, bits: 16 });
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), keep in 0usize..44) {
        let start = header(16_000, None);
        let kept = keep.min(bytes.len());
        bytes[..kept].copy_from_slice(&start[..kept]);
        for format in [WireFormat::Pcm, WireFormat::Wav] {
            if let Ok(chunk) = decode_wire(format, &bytes, 16_000, 1) {
                prop_assert!(chunk.samples.len() <= bytes.len());
                prop_assert!(chunk.samples.iter().all(|sample| sample.is_finite()));
            }
        }
    }
}
