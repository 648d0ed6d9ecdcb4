use std::time::Duration;

use tokio::time::Instant;

use super::Microphone;
use crate::api::Limits;
use crate::api::wire::AudioChunk;
use crate::audio::resample::resample;
use crate::audio::wav::{self, WireFormat};
use crate::audio::{Mic, PacketEncoder, Pcm};

fn tone<const HZ: u32>(samples: usize) -> Pcm<HZ> {
    let step = std::f32::consts::TAU * 440.0 / HZ as f32;
    Pcm::new((0..samples).map(|n| (n as f32 * step).sin() * 0.5).collect())
}

fn pcm(data: Vec<u8>, sample_rate: u32, channels: u32) -> AudioChunk {
    AudioChunk { data, format: WireFormat::Pcm, sample_rate, channels }
}

#[test]
fn chunks_of_a_stream_sound_as_one() {
    let now = Instant::now();
    let whole = tone::<44_100>(44_100);
    let mut microphone = Microphone::new(&Limits::default(), now);
    let mut heard = Mic::default();
    for chunk in whole.as_slice().chunks(4_410) {
        let audio = Pcm::<44_100>::new(chunk.to_vec());
        heard.extend(&microphone.take(&pcm(audio.to_s16le(), 44_100, 1), now).unwrap());
    }
    let expected: Mic = resample(whole.as_slice(), 44_100).unwrap();
    let expected = expected.as_slice();
    assert!(heard.as_slice().len() + 400 > expected.len(), "only the filter's tail still waits");
    for (ours, theirs) in heard.as_slice().iter().zip(expected) {
        assert!((ours - theirs).abs() < 1e-4, "16-bit rounding apart, the same");
    }
}

#[test]
fn a_change_of_rate_loses_nothing() {
    let now = Instant::now();
    let mut microphone = Microphone::new(&Limits::default(), now);
    let first = microphone.take(&pcm(tone::<48_000>(24_000).to_s16le(), 48_000, 1), now).unwrap();
    let wav =
        AudioChunk { data: wav::encode(&tone::<16_000>(8_000)), format: WireFormat::Wav, sample_rate: 0, channels: 1 };
    let second = microphone.take(&wav, now).unwrap();
    assert_eq!(first.as_slice().len() + second.as_slice().len(), 16_000, "half a second each");
}

#[test]
fn stereo_is_mixed() {
    let now = Instant::now();
    let both: Vec<u8> = std::iter::repeat_n([8_000_i16, 16_000], 160).flatten().flat_map(i16::to_le_bytes).collect();
    let heard = Microphone::new(&Limits::default(), now).take(&pcm(both, 16_000, 2), now).unwrap();
    assert_eq!(heard.as_slice().len(), 160);
    assert!(heard.as_slice().iter().all(|sample| (sample - 12_000.0 / 32_768.0).abs() < 1e-6));
}

#[test]
fn what_cannot_be_heard_is_refused_by_name() {
    let now = Instant::now();
    let cases = [
        (pcm(vec![0; 4], 7_999, 1), "unsupported_rate"),
        (pcm(vec![0; 4], 48_001, 1), "unsupported_rate"),
        (pcm(vec![0; 4], 0, 1), "unsupported_rate"),
        (pcm(vec![0; 4], 16_000, 0), "bad_field"),
        (pcm(vec![0; 12], 16_000, 3), "bad_field"),
        (pcm(vec![0; 3], 16_000, 1), "bad_audio"),
        (pcm(vec![0; 32_002], 16_000, 1), "bad_audio"),
        (AudioChunk { format: WireFormat::Wav, ..pcm(b"RIFFnothing".to_vec(), 0, 1) }, "bad_audio"),
    ];
    for (chunk, code) in cases {
        let refusal = Microphone::new(&Limits::default(), now).take(&chunk, now).unwrap_err();
        assert_eq!(refusal.code, code, "{chunk:?}: {refusal:?}");
    }
    assert!(Microphone::new(&Limits::default(), now).take(&pcm(vec![], 16_000, 1), now).unwrap().is_empty());
}

#[test]
fn twice_real_time_passes_and_more_does_not() {
    let start = Instant::now();
    let mut microphone = Microphone::new(&Limits::default(), start);
    let chunk = pcm(vec![0; 3_200], 16_000, 1);
    let accepted = |microphone: &mut Microphone, at: Instant, count: usize| {
        (0..count).filter(|_| microphone.take(&chunk, at).is_ok()).count()
    };
    assert!((49..=50).contains(&accepted(&mut microphone, start, 100)), "a burst of five seconds");
    let later = start + Duration::from_secs(1);
    assert!((19..=20).contains(&accepted(&mut microphone, later, 100)), "then two seconds a second");
    let much_later = start + Duration::from_hours(1);
    assert!((49..=50).contains(&accepted(&mut microphone, much_later, 100)), "a burst is never longer");
    let refusal = microphone.take(&chunk, much_later).unwrap_err();
    assert!(refusal.code == "rate_limited" && refusal.retryable);
}

#[test]
fn packets_are_heard_like_samples() {
    let now = Instant::now();
    let whole = tone::<24_000>(24_000);
    let mut encoder = PacketEncoder::new().unwrap();
    let packets = encoder.push(&whole).unwrap();
    let mut microphone = Microphone::new(&Limits::default(), now);
    let mut heard = Mic::default();
    for packet in &packets {
        heard.extend(&microphone.take_packet(packet, now).unwrap());
    }
    assert!((15_700..=16_000).contains(&heard.as_slice().len()), "{}", heard.as_slice().len());
    let loudest = heard.as_slice()[1_600..].iter().fold(0.0_f32, |loudest, sample| loudest.max(sample.abs()));
    assert!((0.4..0.6).contains(&loudest), "{loudest}");
    let samples = microphone.take(&pcm(tone::<16_000>(1_600).to_s16le(), 16_000, 1), now).unwrap();
    assert!(samples.as_slice().len() > 1_600, "a change of packing loses nothing");
}

/// How alike two sounds are: 1 where one is the other, louder or softer.
fn likeness(ours: &[f32], theirs: &[f32]) -> f32 {
    let product: f32 = ours.iter().zip(theirs).map(|(a, b)| a * b).sum();
    let energy = |sound: &[f32]| sound.iter().take(ours.len().min(theirs.len())).map(|a| a * a).sum::<f32>();
    product / (energy(ours) * energy(theirs)).sqrt()
}

/// An encoder's look-ahead of 312 samples comes before the sound; a packet of 2.5 ms holds 120.
#[test]
fn packets_of_any_length_are_heard_in_time() {
    let now = Instant::now();
    let sent = tone::<48_000>(48_000);
    let expected = tone::<16_000>(16_000);
    for length in [120, 240, 480, 960, 1_920] {
        let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Audio).unwrap();
        let mut microphone = Microphone::new(&Limits::default(), now);
        let mut heard = Mic::default();
        for frame in sent.as_slice().chunks_exact(length) {
            let packet = encoder.encode_vec_float(frame, 1_500).unwrap();
            heard.extend(&microphone.take_packet(&packet, now).unwrap());
        }
        let heard = heard.as_slice();
        assert!((15_600..=15_896).contains(&heard.len()), "{length}: {}", heard.len());
        let alike = likeness(&heard[1_600..], &expected.as_slice()[1_600..]);
        assert!(alike > 0.99, "{length}: {alike}");
    }
}

#[test]
fn packets_that_are_none_are_refused_and_the_next_is_heard() {
    let now = Instant::now();
    let mut microphone = Microphone::new(&Limits::default(), now);
    for garbage in [vec![], vec![0xff; 3], vec![0x83, 63, 0, 0], vec![0x9b; 2]] {
        let refusal = microphone.take_packet(&garbage, now).unwrap_err();
        assert_eq!(refusal.code, "bad_audio", "{garbage:?}: {refusal:?}");
    }
    let packet = PacketEncoder::new().unwrap().push(&tone::<24_000>(480)).unwrap().remove(0);
    assert!(!microphone.take_packet(&packet, now).unwrap().is_empty());
    let fast = (0..400).filter(|_| microphone.take_packet(&packet, now).is_ok()).count();
    assert!((240..250).contains(&fast), "five seconds at once and no more: {fast}");
}
