use super::*;
use crate::audio::{Limits, SPEECH_HZ, Samples, decode_bytes};

/// Two tones, one after the other, with a pause between.
fn tones(samples: usize) -> Speech {
    let sample = |n: usize| {
        let time = n as f32 / SPEECH_HZ as f32;
        let frequency = if time < 0.6 { 400.0 } else { 900.0 };
        let level = if (0.5..0.6).contains(&time) { 0.0 } else { 0.5 };
        level * (std::f32::consts::TAU * frequency * time).sin()
    };
    Speech::new((0..samples).map(sample).collect())
}

/// What a listener gets: pushed in pieces, nothing rewritten.
fn streamed(format: Format, audio: &Speech, piece: usize) -> Vec<u8> {
    let mut encoder = format.encoder().unwrap();
    let mut bytes = Vec::new();
    for part in audio.as_slice().chunks(piece) {
        bytes.extend(encoder.push(&Speech::new(part.to_vec())).unwrap());
    }
    bytes.extend(encoder.finish().unwrap().bytes);
    bytes
}

fn decoded(format: Format, bytes: Vec<u8>) -> Speech {
    match format {
        Format::Pcm => Speech::from_s16le(&bytes),
        _ => decode_bytes(bytes, Limits::default()).unwrap_or_else(|error| panic!("{}: {error}", format.name())),
    }
}

/// How alike two sounds are where the second is `delay` samples late, 1 being equal.
fn likeness(a: &[f32], b: &[f32], delay: usize) -> f32 {
    let pairs = || a.iter().zip(b.get(delay..).unwrap_or_default());
    let product: f32 = pairs().map(|(a, b)| a * b).sum();
    let powers = pairs().fold((0.0, 0.0), |(left, right), (a, b)| (left + a * a, right + b * b));
    product / (powers.0 * powers.1).sqrt()
}

#[test]
fn what_is_written_is_read_back() {
    let audio = tones(30_000);
    for format in Format::ALL {
        for piece in [100, 4_800, 30_000] {
            let heard = decoded(format, streamed(format, &audio, piece));
            // What MP3 and ADTS cannot say is how much of their beginning is the encoder's delay.
            let (delays, longest) = match format {
                Format::Mp3 | Format::Aac => (0..4_000, 4_200),
                _ => (0..1, 0),
            };
            // libopus's inner change of rate makes it a tenth of a millisecond early.
            let early = (0..4).map(|early| likeness(heard.as_slice(), audio.as_slice(), early));
            let late = delays.map(|delay| likeness(audio.as_slice(), heard.as_slice(), delay));
            let best = early.chain(late).fold(0.0, f32::max);
            let lossless = matches!(format, Format::Flac | Format::Wav | Format::Pcm);
            assert!(best > if lossless { 0.9999 } else { 0.97 }, "{}: {best}", format.name());
            let longer = heard.as_slice().len().checked_sub(30_000).expect("nothing is cut off");
            assert!(longer <= longest, "{}: {longer} samples longer", format.name());
        }
    }
}

/// Pieces are cut anew inside, so their length changes nothing; for MP3 and AAC that is the libraries' own affair.
#[test]
fn pieces_make_no_difference() {
    let audio = tones(20_000);
    for format in Format::ALL {
        let whole = streamed(format, &audio, usize::MAX);
        assert!(whole == streamed(format, &audio, 777), "{}", format.name());
    }
}

#[test]
fn any_length_is_a_file() {
    for samples in [0, 1, 2, 15, 16, 31, 33, 479, 480, 481, 1_024, 4_096, 4_097, 4_800, 48_000] {
        let audio = tones(samples);
        for format in Format::ALL {
            for bytes in [streamed(format, &audio, 4_800), format.encode(&audio).unwrap()] {
                if samples > 0 || format == Format::Pcm {
                    let heard = decoded(format, bytes).as_slice().len();
                    assert!(heard >= samples && heard < samples + 5_000, "{} {samples}: {heard}", format.name());
                }
            }
        }
    }
}

#[test]
fn a_whole_file_says_its_length() {
    let audio = tones(12_345);
    let wav = Format::Wav.encode(&audio).unwrap();
    assert_eq!(wav, crate::audio::wav::encode(&audio));
    let flac = Format::Flac.encode(&audio).unwrap();
    assert_eq!(u32::from_be_bytes([flac[22], flac[23], flac[24], flac[25]]), 12_345);
    for format in Format::ALL {
        let mut encoder = format.encoder().unwrap();
        let begin = encoder.push(&audio).unwrap();
        let head = encoder.finish().unwrap().head;
        assert!(head.len() <= begin.len(), "{}", format.name());
        assert_eq!(head.get(..4), begin.get(..4).filter(|_| !head.is_empty()), "{}", format.name());
    }
}

/// A listener hears a stream while it is made: no encoder holds back more than a third of a second.
#[test]
fn bytes_come_while_speech_comes() {
    let piece = Speech::new(tones(48_000).as_slice()[..4_800].to_vec());
    for format in Format::ALL {
        let mut encoder = format.encoder().unwrap();
        let mut bytes = Vec::new();
        for _ in 0..10 {
            bytes.extend(encoder.push(&piece).unwrap());
        }
        let heard = decoded(format, bytes).len();
        assert!(heard >= Samples::from_millis(1_650), "{}: {heard:?}", format.name());
    }
}

/// RFC 7845: the two headers have pages of their own, and a page holds at most a fifth of a second.
#[test]
fn opus_pages_are_short_and_placed() {
    let bytes = streamed(Format::Opus, &tones(24_000), 4_800);
    let mut packets = ogg::PacketReader::new(std::io::Cursor::new(bytes));
    let head = packets.read_packet_expected().unwrap();
    assert!(head.first_in_page() && head.last_in_page() && head.data.starts_with(b"OpusHead\x01\x01"));
    let pre_skip = u64::from(u16::from_le_bytes([head.data[10], head.data[11]]));
    assert!((100..1_000).contains(&pre_skip), "{pre_skip}");
    let tags = packets.read_packet_expected().unwrap();
    assert!(tags.first_in_page() && tags.last_in_page() && tags.data.starts_with(b"OpusTags"));
    let (mut count, mut in_page) = (0, 0);
    loop {
        let packet = packets.read_packet_expected().unwrap();
        count += 1;
        in_page = if packet.first_in_page() { 1 } else { in_page + 1 };
        assert!(in_page <= 10);
        if packet.last_in_stream() {
            assert_eq!(packet.absgp_page(), pre_skip + 48_000);
            break;
        }
        if packet.last_in_page() {
            assert_eq!(packet.absgp_page(), 960 * count);
        }
    }
    assert_eq!(count, (pre_skip + 48_000).div_ceil(960));
}

#[test]
fn formats_have_names_and_types() {
    for format in Format::ALL {
        assert_eq!(Format::named(format.name()), Some(format));
        assert!(format.content_type().starts_with("audio/"));
    }
    assert_eq!(Format::named("MP3"), None);
    let error = EncodeError::NotBuilt { format: "aac" }.to_string();
    assert!(error.contains("the cargo feature \"aac\""), "{error}");
}
