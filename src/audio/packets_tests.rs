use proptest::prelude::*;

use super::*;
use crate::audio::{Pcm, resample};

fn tone(samples: usize) -> Speech {
    let step = std::f32::consts::TAU * 440.0 / SPEECH_HZ as f32;
    Speech::new((0..samples).map(|n| (n as f32 * step).sin() * 0.5).collect())
}

fn packets(audio: &Speech, piece: usize) -> Vec<Vec<u8>> {
    let mut encoder = PacketEncoder::new().unwrap();
    let pieces = audio.as_slice().chunks(piece).map(|part| Speech::new(part.to_vec()));
    pieces.flat_map(|part| encoder.push(&part).unwrap()).collect()
}

#[test]
fn the_tail_is_what_libopus_holds_back() {
    let mut encoder = PacketEncoder::new().unwrap();
    assert_eq!(encoder.encoder.get_lookahead().unwrap() as u64, TAIL.0);
}

#[test]
fn what_is_packed_is_heard() {
    let audio = tone(24_000);
    let mut decoder = PacketDecoder::new().unwrap();
    let mut heard = Vec::new();
    let packed = packets(&audio, 1_000);
    assert_eq!(packed.len(), 50);
    for packet in &packed {
        assert_eq!(PacketDecoder::length(packet).unwrap(), Samples::from_millis(20));
        heard.extend_from_slice(decoder.decode(packet).unwrap());
    }
    let heard: Pcm<SPEECH_HZ> = resample(&heard, PACKET_HZ).unwrap();
    let likeness = |late: usize| {
        let pairs = || audio.as_slice()[2_400..20_000].iter().zip(&heard.as_slice()[2_400 + late..]);
        let product: f32 = pairs().map(|(a, b)| a * b).sum();
        let (ours, theirs) = pairs().fold((0.0, 0.0), |(left, right), (a, b)| (left + a * a, right + b * b));
        product / (ours * theirs).sqrt()
    };
    // libopus's inner change of rate makes it a tenth of a millisecond early.
    let best = (0..4).map(|early| likeness(TAIL.as_usize() - early)).fold(0.0, f32::max);
    assert!(best > 0.98, "the same sound, that much later: {best}");
}

#[test]
fn pieces_make_no_difference_and_what_is_left_waits() {
    let audio = tone(10_000);
    assert_eq!(packets(&audio, 10_000), packets(&audio, 77));
    let mut encoder = PacketEncoder::new().unwrap();
    assert_eq!(encoder.push(&tone(500)).unwrap().len(), 1);
    assert_eq!(encoder.waiting(), Samples(20));
    encoder.pad().unwrap();
    assert_eq!(encoder.waiting(), Samples(0));
}

/// 48 frames of 2.5 ms are the most there is; one that claims more is refused before it is decoded.
#[test]
fn no_packet_is_longer_than_120_ms() {
    let mut decoder = PacketDecoder::new().unwrap();
    let longest = [[0x83, 48].as_slice(), &[0; 48]].concat();
    assert_eq!(PacketDecoder::length(&longest).unwrap(), Samples::from_millis(120));
    assert_eq!(decoder.decode(&longest).unwrap().len(), MOST_SAMPLES);
    for bomb in [[0x83, 63].as_slice(), &[0x1b, 63], &[0x9b, 49]] {
        let bomb = [bomb, &[0; 63]].concat();
        assert!(PacketDecoder::length(&bomb).is_err() && decoder.decode(&bomb).is_err(), "{bomb:?}");
    }
    assert_eq!(decoder.decode(&[]), Err(PacketError::Empty));
    assert_eq!(PacketDecoder::length(&[]), Err(PacketError::Empty));
}

proptest! {
    #[test]
    fn any_bytes_are_heard_or_refused(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 1..8)) {
        let mut decoder = PacketDecoder::new().unwrap();
        for packet in packets {
            if let Ok(samples) = decoder.decode(&packet) {
                prop_assert!(!samples.is_empty() && samples.len() <= MOST_SAMPLES);
            }
        }
    }
}
