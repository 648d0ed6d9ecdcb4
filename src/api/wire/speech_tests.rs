use super::*;
use crate::audio::{PacketDecoder, Samples, Speech, decode_bytes};

fn piece(sequence_number: u64, pts_ms: u64, samples: u64, last: bool, format: AudioFormat) -> AudioPiece {
    let step = std::f32::consts::TAU * 440.0 / SPEECH_HZ as f32;
    AudioPiece {
        turn: Turn(1),
        character_id: "c".into(),
        item_id: "i".into(),
        sequence_number,
        pts: Duration::from_millis(pts_ms),
        audio: Speech::new((0..samples).map(|n| (n as f32 * step).sin() * 0.5).collect()),
        words: vec![WordMark { text: format!("word{pts_ms}"), start: Duration::ZERO, end: Duration::ZERO }],
        last,
        format,
    }
}

fn all_words(chunks: &[Chunk]) -> Vec<&str> {
    chunks.iter().flat_map(|chunk| &chunk.words).map(|word| word.text.as_str()).collect()
}

#[test]
fn packets_are_timed_where_their_sound_begins() {
    let mut packer = Packer::default();
    let mut chunks = Vec::new();
    // 15 ms, 65 ms, 20 ms: no piece but the last ends where a packet does.
    for (pts, samples) in [(0, 360), (15, 1_560), (80, 480)] {
        chunks.extend(packer.pack(&piece(1, pts, samples, pts == 80, AudioFormat::Opus)).unwrap());
    }
    let times: Vec<_> = chunks.iter().map(|chunk| chunk.pts.as_millis()).collect();
    assert_eq!(times, [0, 20, 40, 60, 80]);
    assert_eq!(all_words(&chunks), ["word0", "word15", "word80"], "those of a piece that fills no packet ride later");
    let mut decoder = PacketDecoder::new().unwrap();
    for chunk in &chunks {
        assert_eq!(decoder.decode(&chunk.bytes).unwrap().len(), 960);
    }
}

/// The same two sentences in one stream and in two differ where the second begins.
#[test]
fn opus_goes_on_over_a_reply_and_begins_anew_with_the_next() {
    let packed = |turns: [u64; 2]| {
        let mut packer = Packer::default();
        let mut chunks = Vec::new();
        for (number, turn) in (1..).zip(turns) {
            let piece = piece(number, 100 * (number - 1), 2_400, true, AudioFormat::Opus);
            chunks.extend(packer.pack(&AudioPiece { turn: Turn(turn), ..piece }).unwrap());
        }
        chunks
    };
    let (one, two) = (packed([1, 1]), packed([1, 2]));
    assert_eq!(one[..5], two[..5]);
    assert_ne!(one[5].bytes, two[5].bytes);
    let bytes = |chunks: &[Chunk]| chunks.iter().map(|chunk| chunk.bytes.clone()).collect::<Vec<_>>();
    assert_eq!(bytes(&two[..5]), bytes(&two[5..]), "the same beginning");
}

#[test]
fn what_is_left_of_a_broken_sentence_is_no_part_of_the_next() {
    let mut packer = Packer::default();
    packer.pack(&piece(1, 0, 500, false, AudioFormat::Opus)).unwrap();
    let next = packer.pack(&piece(2, 20, 480, true, AudioFormat::Opus)).unwrap();
    assert_eq!(next.iter().map(|chunk| chunk.pts.as_millis()).collect::<Vec<_>>(), [20]);
}

#[cfg(feature = "mp3")]
#[test]
fn an_mp3_file_is_a_sentence_and_ends_with_it() {
    let mut packer = Packer::default();
    for sentence in [1, 2] {
        let pieces = [(0, 2_400, false), (100, 2_400, false), (200, 2_400, false), (300, 0, true)];
        let mut chunks = Vec::new();
        for (pts, samples, last) in pieces {
            chunks.extend(packer.pack(&piece(sentence, pts, samples, last, AudioFormat::Mp3)).unwrap());
        }
        assert!(chunks.len() > 1, "it streams");
        assert_eq!(all_words(&chunks), ["word0", "word100", "word200", "word300"]);
        let file: Vec<u8> = chunks.into_iter().flat_map(|chunk| chunk.bytes).collect();
        let heard: Speech = decode_bytes(file, crate::audio::Limits::default()).unwrap();
        assert!(heard.len() >= Samples(7_200) && heard.len() < Samples(12_000), "{:?}", heard.len());
    }
}

#[test]
fn pcm_and_wav_leave_as_they_come() {
    let mut packer = Packer::default();
    let pcm = packer.pack(&piece(1, 0, 100, false, AudioFormat::Pcm)).unwrap();
    assert_eq!((pcm.len(), pcm[0].bytes.len()), (1, 200));
    let wav = packer.pack(&piece(1, 5, 100, false, AudioFormat::Wav)).unwrap();
    assert!(wav[0].bytes.starts_with(b"RIFF"));
}
