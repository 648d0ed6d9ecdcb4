use std::f64::consts::TAU;

use super::*;
use crate::audio::Samples;

const USUAL: [u32; 11] = [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000];

fn tone(hertz: f64, rate: u32, seconds: f64) -> Vec<f32> {
    let count = (seconds * f64::from(rate)) as usize;
    (0..count).map(|n| (0.5 * (TAU * hertz * n as f64 / f64::from(rate)).sin()) as f32).collect()
}

/// Root mean square of the middle, where no filter edge is.
fn level(samples: &[f32]) -> f64 {
    let middle = &samples[samples.len() / 4..samples.len() * 3 / 4];
    (middle.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>() / middle.len() as f64).sqrt()
}

fn decibels(samples: &[f32]) -> f64 {
    20.0 * (level(samples) / (0.5 / 2f64.sqrt())).log10()
}

fn stream<const HZ: u32>(input: &[f32], from: u32, chunk: usize) -> Vec<f32> {
    let mut resampler = Resampler::<HZ>::new(from).unwrap();
    let mut output = Vec::new();
    for part in input.chunks(chunk) {
        output.extend(resampler.push(part).unwrap().as_slice());
    }
    output.extend(resampler.finish().unwrap().as_slice());
    output
}

#[test]
fn a_stream_gives_the_same_samples_as_one_shot() {
    let noise: Vec<f32> =
        (0..44_100u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 8) as f32 / 16_777_216.0 - 0.5).collect();
    let whole = resample::<16_000>(&noise, 44_100).unwrap();
    assert_eq!(whole.len(), Samples(16_000));
    for chunk in [1, 37, 441, 4_410, 10_007] {
        let parts = stream::<16_000>(&noise, 44_100, chunk);
        assert_eq!(parts.len(), whole.as_slice().len());
        let difference = parts.iter().zip(whole.as_slice()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference <= 1e-5, "{chunk}: {difference}");
    }
}

#[test]
fn what_is_above_half_the_rate_is_gone() {
    for rate in [44_100, 48_000, 96_000, 192_000, 44_101] {
        for hertz in [8_050.0, 9_000.0, 12_000.0, 15_000.0, 17_000.0] {
            let output = resample::<16_000>(&tone(hertz, rate, 1.0), rate).unwrap();
            let level = decibels(output.as_slice());
            assert!(level <= -60.0, "{hertz} Hz at {rate} Hz comes out at {level} dB");
        }
    }
}

#[test]
fn the_passband_is_flat() {
    for rate in USUAL.into_iter().chain([44_101]) {
        for hertz in [100.0, 440.0, 1_000.0, 3_000.0, 5_000.0, 7_000.0] {
            if hertz < f64::from(rate) * 0.5 * 0.88 {
                let output = resample::<16_000>(&tone(hertz, rate, 1.0), rate).unwrap();
                let level = decibels(output.as_slice());
                assert!(level.abs() <= 0.1, "{hertz} Hz at {rate} Hz comes out at {level} dB");
            }
        }
    }
}

/// A tone keeps its phase: output sample n is at the time of input sample n * from / to.
#[test]
fn the_delay_is_taken_out() {
    for rate in USUAL.into_iter().chain([44_101]) {
        let output = resample::<24_000>(&tone(440.0, rate, 1.0), rate).unwrap();
        assert_eq!(output.len(), Samples(24_000), "{rate}");
        let expected = tone(440.0, 24_000, 1.0);
        let error: Vec<f32> = output.as_slice().iter().zip(&expected).map(|(a, b)| a - b).collect();
        // Half an output sample of 440 Hz is 0.058 of its amplitude.
        assert!(level(&error) / level(&expected) < 0.06, "{rate}: {}", level(&error) / level(&expected));
    }
}

#[test]
fn lengths_are_right_to_the_sample() {
    for rate in USUAL.into_iter().chain([44_101, 8_001, 191_999]) {
        for length in [0, 1, 7, 63, 320, 441, 4_801usize] {
            let input = vec![0.25; length];
            let expected = (length as f64 * 16_000.0 / f64::from(rate)).round() as usize;
            for chunk in [length.max(1), 441] {
                let output = stream::<16_000>(&input, rate, chunk);
                assert_eq!(output.len(), expected, "{rate} {length}");
            }
        }
    }
}

#[test]
fn little_waits_inside() {
    for rate in [16_001, 22_050, 24_000, 44_100, 48_000] {
        let mut resampler = Resampler::<16_000>::new(rate).unwrap();
        let mut pushed = 0;
        let mut given = 0;
        for _ in 0..50 {
            let chunk = vec![0.1; rate as usize / 100];
            pushed += chunk.len() as u64;
            given += resampler.push(&chunk).unwrap().as_slice().len() as u64;
            let waiting = scale_length(pushed, rate, 16_000) - given;
            assert!(waiting <= 16 * 10, "{rate}: {waiting} samples wait");
        }
    }
}

#[test]
fn equal_rates_change_nothing() {
    let input = tone(7_900.0, 16_000, 0.1);
    assert_eq!(stream::<16_000>(&input, 16_000, 77), input);
}

#[test]
fn what_is_not_a_number_stays_local() {
    let mut input = tone(440.0, 48_000, 0.5);
    input[1_000] = f32::NAN;
    input[2_000] = f32::INFINITY;
    input[3_000] = 1e38;
    let output = resample::<16_000>(&input, 48_000).unwrap();
    assert!(output.as_slice().iter().all(|sample| sample.is_finite() && sample.abs() <= 1.0));
    assert!(level(&output.as_slice()[2_000..]) > 0.3);
}

#[test]
fn a_resampler_can_be_used_again() {
    let input = tone(300.0, 44_100, 0.3);
    let mut resampler = Resampler::<16_000>::new(44_100).unwrap();
    let mut take = || {
        let mut output = resampler.push(&input).unwrap();
        output.extend(&resampler.finish().unwrap());
        output
    };
    assert_eq!(take(), take());
}

#[test]
fn rates_and_channels_are_bounded() {
    for rate in [0, 7_999, 192_001, u32::MAX] {
        assert!(matches!(Resampler::<16_000>::new(rate), Err(ResampleError::Rate { .. })));
    }
    assert!(downmix(&[0.0; 9], 9).is_err());
    assert!(downmix(&[0.0; 9], 0).is_err());
    assert_eq!(downmix(&[1.0, 0.0, -1.0, 1.0, 0.5], 2).unwrap(), [0.5, 0.0]);
    assert_eq!(downmix(&[0.6; 12], 6).unwrap().len(), 2);
}
