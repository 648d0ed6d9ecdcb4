use std::fs;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::audio::Mic;
use crate::testing;

fn clip() -> Vec<f32> {
    Mic::from_s16le(&fs::read(testing::fixture("silero/speech.s16")).unwrap()).as_slice().to_vec()
}

fn score_all(stream: &mut dyn VadStream, samples: &[f32]) -> Vec<f32> {
    samples.chunks_exact(VAD_FRAME).map(|frame| stream.score(frame.try_into().unwrap())).collect()
}

#[test]
fn probabilities_equal_the_reference() {
    let expected = fs::read(testing::fixture("silero/probabilities.json")).unwrap();
    let expected: Vec<f32> = serde_json::from_slice(&expected).unwrap();
    let vad = SileroVad::load(&testing::model("silero-vad")).unwrap();
    let got = score_all(&mut *vad.open(), &clip());
    assert_eq!(got.len(), expected.len());
    for (frame, (got, expected)) in got.iter().zip(&expected).enumerate() {
        assert!((got - expected).abs() < 1e-3, "frame {frame}: {got}, expected {expected}");
    }
}

#[test]
fn streams_are_independent_and_start_afresh() {
    let vad = SileroVad::load(&testing::model("silero-vad")).unwrap();
    let samples = clip();
    let alone = score_all(&mut *vad.open(), &samples);
    let (mut first, mut second) = (vad.open(), vad.open());
    for (frame, expected) in samples.chunks_exact(VAD_FRAME).zip(&alone) {
        second.score(&[0.1; VAD_FRAME]);
        assert_eq!(first.score(frame.try_into().unwrap()).to_bits(), expected.to_bits());
    }
}

#[test]
fn a_frame_takes_well_under_a_millisecond() {
    let vad = SileroVad::load(&testing::model("silero-vad")).unwrap();
    let mut stream = vad.open();
    let mut times: Vec<_> = (0..200)
        .map(|_| {
            let start = Instant::now();
            stream.score(&[0.01; VAD_FRAME]);
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("median {:?} a frame", times[times.len() / 2]);
    assert!(times[times.len() / 2].as_micros() < 1000, "{:?}", times[times.len() / 2]);
}

#[test]
fn a_missing_or_broken_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = SileroVad::load(folder.path()).err().unwrap().to_string();
    assert!(error.contains("model.safetensors"), "{error}");
    let whole = fs::read(testing::model("silero-vad").join("model.safetensors")).unwrap();
    let path = folder.path().join("model.safetensors");
    let header = 8 + usize::try_from(u64::from_le_bytes(whole[..8].try_into().unwrap())).unwrap();
    let mut random = StdRng::seed_from_u64(1);
    for round in 0..1000 {
        let mut bytes = whole.clone();
        if round % 4 == 0 {
            bytes.truncate(random.random_range(0..bytes.len()));
        } else {
            for _ in 0..random.random_range(1..4) {
                bytes[random.random_range(0..header)] ^= 1 << random.random_range(0..8);
            }
        }
        fs::write(&path, &bytes).unwrap();
        // A bit may flip where it means nothing, so Ok is an answer too.
        if let Err(error) = SileroVad::load(folder.path()) {
            assert!(error.to_string().contains("model.safetensors"), "{error}");
        }
    }
}
