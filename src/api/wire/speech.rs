//! A session's speech on its way to one client: pieces in, and out what the client's format makes of them.
//!
//! Compressed sound is a stream: a packet builds on the one before it, and pieces need not be whole packets. Opus goes
//! on over a reply; MP3 is a file for each sentence. What a piece says besides sound, its words, is never lost.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use utoipa::ToSchema;

use super::outbound::millis;
use crate::audio::packets::PACKET;
use crate::audio::{EncodeError, Encoder, Format, PacketEncoder, SPEECH_HZ, wav};
use crate::provider::{Word, WordMark};
use crate::session::event::{AudioPiece, Turn};
use crate::session::settings::AudioFormat;

/// Packs the speech of one session for one client.
#[derive(Default)]
pub(in crate::api) struct Packer {
    /// Whose pieces came last.
    turn: Option<Turn>,
    stream: Option<Stream>,
    /// Those of pieces of which nothing left yet.
    words: Vec<WordMark>,
}

/// What is under way, and of which sentence.
enum Stream {
    Opus(u64, PacketEncoder),
    Mp3(u64, Box<dyn Encoder>),
}

/// What leaves at once.
#[derive(Debug, PartialEq)]
pub(in crate::api) struct Chunk {
    pub(super) pts: Duration,
    pub(super) bytes: Vec<u8>,
    pub(super) words: Vec<WordMark>,
}

/// Sound, and where in the reply it begins.
type Timed = (Duration, Vec<u8>);

impl Packer {
    /// What is ready of this piece and of those before it, which may be nothing.
    ///
    /// # Errors
    /// Where the sound cannot be packed. The next piece begins a new stream.
    pub(in crate::api) fn pack(&mut self, piece: &AudioPiece) -> Result<Vec<Chunk>, EncodeError> {
        if self.turn.replace(piece.turn) != Some(piece.turn) {
            self.stream = None;
            self.words.clear();
        }
        self.words.extend_from_slice(&piece.words);
        let packed = match piece.format {
            AudioFormat::Pcm => vec![(piece.pts, piece.audio.to_s16le())],
            AudioFormat::Wav => vec![(piece.pts, wav::encode(&piece.audio))],
            AudioFormat::Mp3 => self.mp3(piece)?,
            AudioFormat::Opus => self.opus(piece)?,
        };
        let chunk = |(pts, bytes)| Chunk { pts, bytes, words: std::mem::take(&mut self.words) };
        Ok(packed.into_iter().map(chunk).collect())
    }

    fn mp3(&mut self, piece: &AudioPiece) -> Result<Vec<Timed>, EncodeError> {
        let mut encoder = match self.stream.take() {
            Some(Stream::Mp3(sentence, encoder)) if sentence == piece.sequence_number => encoder,
            _ => Format::Mp3.encoder()?,
        };
        let mut bytes = encoder.push(&piece.audio)?;
        if piece.last {
            bytes.extend(encoder.finish()?.bytes);
        } else {
            self.stream = Some(Stream::Mp3(piece.sequence_number, encoder));
        }
        Ok(if bytes.is_empty() { Vec::new() } else { vec![(piece.pts, bytes)] })
    }

    fn opus(&mut self, piece: &AudioPiece) -> Result<Vec<Timed>, EncodeError> {
        let mut encoder = match self.stream.take() {
            Some(Stream::Opus(sentence, mut encoder)) => {
                // A sentence is whole packets. What is left of one that broke off is no part of the next.
                if sentence != piece.sequence_number {
                    encoder.forget();
                }
                encoder
            }
            _ => PacketEncoder::new()?,
        };
        let begins = piece.pts.saturating_sub(encoder.waiting().duration());
        let packets = encoder.push(&piece.audio)?;
        self.stream = Some(Stream::Opus(piece.sequence_number, encoder));
        Ok((0..).zip(packets).map(|(index, packet)| (begins + PACKET.duration() * index, packet)).collect())
    }
}

/// A piece of a reply's sound.
#[derive(Serialize, ToSchema)]
#[schema(as = AudioChunk)]
pub(in crate::api) struct AudioBody<'a> {
    character_id: &'a str,
    /// Base64. Absent on a WebSocket where binary frames follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required, value_type = String)]
    audio_data: Option<String>,
    sequence_number: u64,
    format: &'static str,
    sample_rate: u32,
    item_id: &'a str,
    turn: u64,
    pts_ms: u64,
    words: Vec<TimedWord<'a>>,
}

impl<'a> AudioBody<'a> {
    pub(in crate::api) fn of(piece: &'a AudioPiece, chunk: &'a Chunk) -> Self {
        Self {
            audio_data: Some(STANDARD.encode(&chunk.bytes)),
            pts_ms: millis(chunk.pts),
            words: chunk.words.iter().map(TimedWord::spoken).collect(),
            ..Self::before(piece)
        }
    }

    /// What binary frames do not say.
    pub(super) fn before(piece: &'a AudioPiece) -> Self {
        Self {
            character_id: &piece.character_id,
            audio_data: None,
            sequence_number: piece.sequence_number,
            format: format_name(piece.format),
            sample_rate: SPEECH_HZ,
            item_id: &piece.item_id,
            turn: piece.turn.0,
            pts_ms: millis(piece.pts),
            words: piece.words.iter().map(TimedWord::spoken).collect(),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = SpokenWord)]
pub(super) struct TimedWord<'a> {
    text: &'a str,
    start_ms: u64,
    end_ms: u64,
}

impl<'a> TimedWord<'a> {
    pub(super) fn heard(word: &'a Word) -> Self {
        Self { text: &word.text, start_ms: millis(word.start), end_ms: millis(word.end) }
    }

    fn spoken(word: &'a WordMark) -> Self {
        Self { text: &word.text, start_ms: millis(word.start), end_ms: millis(word.end) }
    }
}

pub(super) const fn format_name(format: AudioFormat) -> &'static str {
    match format {
        AudioFormat::Pcm => "pcm",
        AudioFormat::Wav => "wav",
        AudioFormat::Mp3 => "mp3",
        AudioFormat::Opus => "opus",
    }
}

#[cfg(test)]
#[path = "speech_tests.rs"]
mod tests;
