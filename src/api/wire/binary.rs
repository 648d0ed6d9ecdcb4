//! Binary frames: a header of 16 bytes and sound, for clients that asked for them.

use super::inbound::{AudioChunk, ClientMessage};
use super::{Protocol, Refusal};
use crate::audio::wav::WireFormat;

/// What a frame holds.
const MICROPHONE: u8 = 1;
const SPEECH: u8 = 2;

const HEADER_BYTES: usize = 16;

/// How a frame's sound is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Pcm = 0,
    Opus = 1,
}

/// What stands before a piece of speech. Numbers that outgrow their field begin again.
pub(super) struct SpeechHeader {
    pub(super) packing: Packing,
    pub(super) character: u16,
    pub(super) turn: u64,
    pub(super) sequence_number: u64,
    pub(super) pts_ms: u64,
}

impl SpeechHeader {
    /// A whole frame.
    pub(super) fn before(&self, sound: &[u8]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(HEADER_BYTES + sound.len());
        frame.extend([SPEECH, self.packing as u8]);
        frame.extend(self.character.to_le_bytes());
        for number in [self.turn, self.sequence_number, self.pts_ms] {
            frame.extend((number as u32).to_le_bytes());
        }
        frame.extend_from_slice(sound);
        frame
    }
}

/// Reads one binary frame. None: a kind of frame that nobody here knows.
///
/// # Errors
/// `unknown_type` where the client did not ask for binary frames, `bad_audio`, or `bad_field`.
pub(in crate::api) fn read_frame(frame: &[u8], protocol: Protocol) -> Result<Option<ClientMessage>, Refusal> {
    let Protocol::Binary { rate, channels } = protocol else {
        let message = "binary frames are taken where the address says protocol=binary";
        return Err(Refusal::new("unknown_type", message));
    };
    let Some((header, sound)) = frame.split_first_chunk::<HEADER_BYTES>() else {
        let message =
            format!("a binary frame begins with a header of {HEADER_BYTES} bytes; this one has {}", frame.len());
        return Err(Refusal::new("bad_audio", message));
    };
    match (header[0], header[1]) {
        (MICROPHONE, 0) => {
            let chunk = AudioChunk { data: sound.to_vec(), format: WireFormat::Pcm, sample_rate: rate, channels };
            Ok(Some(ClientMessage::Audio(chunk)))
        }
        (MICROPHONE, 1) => Ok(Some(ClientMessage::Packet(sound.to_vec()))),
        (MICROPHONE, other) => {
            let message = format!("format: {other} is none; 0 is PCM16 and 1 an Opus packet");
            Err(Refusal::new("bad_field", message))
        }
        _ => Ok(None),
    }
}
