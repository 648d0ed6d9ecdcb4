//! WAV and bare PCM: signed 16-bit little-endian samples, with a header or without.

use super::{EncodeError, Encoder, Ending};
use crate::audio::{SPEECH_HZ, Speech, wav};

/// Samples and nothing else.
pub(super) struct Bare;

impl Encoder for Bare {
    fn push(&mut self, audio: &Speech) -> Result<Vec<u8>, EncodeError> {
        Ok(audio.to_s16le())
    }

    fn finish(&mut self) -> Result<Ending, EncodeError> {
        Ok(Ending::default())
    }
}

/// RIFF WAVE. Streamed, its header says the greatest length: players then read until it ends.
#[derive(Default)]
pub(super) struct Wav {
    begun: bool,
    bytes: u64,
}

impl Wav {
    fn header(&mut self) -> Vec<u8> {
        if std::mem::replace(&mut self.begun, true) { Vec::new() } else { wav::header(SPEECH_HZ, None).to_vec() }
    }
}

impl Encoder for Wav {
    fn push(&mut self, audio: &Speech) -> Result<Vec<u8>, EncodeError> {
        let mut bytes = self.header();
        bytes.extend(audio.to_s16le());
        self.bytes += 2 * audio.len().0;
        Ok(bytes)
    }

    fn finish(&mut self) -> Result<Ending, EncodeError> {
        Ok(Ending { bytes: self.header(), head: wav::header(SPEECH_HZ, u32::try_from(self.bytes).ok()).to_vec() })
    }
}
