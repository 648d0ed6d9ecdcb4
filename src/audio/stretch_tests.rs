use super::*;
use crate::audio::{SPEECH_HZ, Speech};

const SPEEDS: [f32; 9] = [0.25, 0.33, 0.5, 0.8, 1.0, 1.3, 2.0, 3.1, 4.0];

/// A voice of sorts: a buzz of changing pitch whose loudness swells eight times a second.
fn buzz(seconds: f64, pitch: f64) -> Speech {
    let rate = f64::from(SPEECH_HZ);
    let mut phase = 0.0;
    let sample = |n: usize| {
        let time = n as f64 / rate;
        phase += std::f64::consts::TAU * pitch * (1.0 + 0.02 * (4.0 * time).sin()) / rate;
        let wave: f64 = (1..12).map(|harmonic| (phase * f64::from(harmonic)).sin() / f64::from(harmonic)).sum();
        (wave * 0.3 * (0.6 + 0.4 * (std::f64::consts::TAU * 8.0 * time).sin())) as f32
    };
    Speech::new((0..(seconds * rate) as usize).map(sample).collect())
}

fn stretched(audio: &Speech, speed: f32, chunk: usize) -> Speech {
    let mut stretch = Stretch::new(speed);
    let mut output = Speech::default();
    for part in audio.as_slice().chunks(chunk) {
        output.extend(&stretch.push(&Speech::new(part.to_vec())));
    }
    output.extend(&stretch.finish());
    output
}

/// The strongest period within a third of that of `near` hertz, as a frequency: any multiple of it is as strong.
fn pitch(samples: &[f32], near: f64) -> f64 {
    let period = (f64::from(SPEECH_HZ) / near) as usize;
    let product = |lag: usize| samples.iter().zip(&samples[lag..]).map(|(a, b)| a * b).sum::<f32>();
    let likeness = |lag: usize| product(lag) / (samples.len() - lag) as f32;
    let best = (period * 2 / 3..period * 4 / 3).max_by(|a, b| likeness(*a).total_cmp(&likeness(*b))).unwrap();
    f64::from(SPEECH_HZ) / best as f64
}

#[test]
fn the_length_is_right_to_the_sample() {
    for samples in [0, 1, 100, 287, 288, 5_000, 48_001] {
        let audio = Speech::new(buzz(2.1, 120.0).as_slice()[..samples].to_vec());
        for speed in SPEEDS {
            let expected = (samples as f64 / f64::from(speed)).round() as usize;
            assert_eq!(stretched(&audio, speed, 4_800).as_slice().len(), expected, "{samples} at {speed}");
        }
    }
}

#[test]
fn chunks_make_no_difference() {
    let audio = buzz(1.0, 150.0);
    for speed in SPEEDS {
        let whole = stretched(&audio, speed, usize::MAX);
        for chunk in [1, 77, 480, 4_800] {
            assert_eq!(stretched(&audio, speed, chunk), whole, "{chunk} at {speed}");
        }
    }
}

#[test]
fn natural_speed_changes_nothing() {
    let audio = buzz(1.0, 150.0);
    assert_eq!(stretched(&audio, 1.0, 1_000), audio);
    assert_eq!(stretched(&audio, f32::NAN, 1_000), audio);
}

#[test]
fn the_pitch_stays() {
    for voice in [85.0, 140.0, 260.0] {
        let audio = buzz(3.0, voice);
        for speed in SPEEDS {
            let output = stretched(&audio, speed, 4_800);
            let samples = output.as_slice();
            let middle = samples.len() / 2;
            let heard = pitch(&samples[middle - 2_000..middle + 2_000], voice);
            assert!((heard / voice - 1.0).abs() < 0.06, "{voice} Hz at {speed} became {heard}");
        }
    }
}

/// Windows that do not join would click: no step is larger than in the original.
#[test]
fn windows_join_smoothly() {
    let step = |audio: &Speech| audio.as_slice().windows(2).map(|pair| (pair[0] - pair[1]).abs()).fold(0.0, f32::max);
    let audio = buzz(2.0, 130.0);
    for speed in SPEEDS {
        let output = stretched(&audio, speed, 4_800);
        assert!(step(&output) < step(&audio) * 1.3, "{speed}: {} of {}", step(&output), step(&audio));
    }
}

#[test]
fn loudness_and_silence_stay() {
    let power = |audio: &Speech| {
        audio.as_slice().iter().map(|sample| sample * sample).sum::<f32>() / audio.as_slice().len() as f32
    };
    let audio = buzz(2.0, 130.0);
    for speed in SPEEDS {
        let ratio = power(&stretched(&audio, speed, 4_800)) / power(&audio);
        assert!((0.7..1.3).contains(&ratio), "{speed}: {ratio}");
        let silence = stretched(&Speech::silence(Samples::from_millis(500)), speed, 480);
        assert!(silence.as_slice().iter().all(|sample| *sample == 0.0));
    }
}
