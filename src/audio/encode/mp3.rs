//! MP3 by LAME: MPEG-2 layer III, mono, constant bit rate, so that players know a stream's length from its size.

use std::sync::{Mutex, PoisonError};

use mp3lame_encoder::{Bitrate, Builder, FlushGap, Mode, MonoPcm, Quality, max_required_buffer_size};

use super::{EncodeError, Encoder, Ending, Format};
use crate::audio::{SPEECH_HZ, Speech};

/// Clear for speech at 24 kHz.
const BIT_RATE: Bitrate = Bitrate::Kbps96;
/// What LAME may still hold: less than three frames.
const REST_BYTES: usize = 7200;

/// LAME fills tables of the whole process while an encoder is made.
static MAKING: Mutex<()> = Mutex::new(());

pub(super) struct Mp3(mp3lame_encoder::Encoder);

impl Mp3 {
    pub(super) fn new() -> Result<Self, EncodeError> {
        let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        let build = || {
            Builder::new()
                .ok_or(mp3lame_encoder::BuildError::NoMem)?
                .with_num_channels(1)?
                .with_mode(Mode::Mono)?
                .with_sample_rate(SPEECH_HZ)?
                .with_brate(BIT_RATE)?
                .with_quality(Quality::Good)?
                // A first frame that says the length could only be written at the end.
                .with_to_write_vbr_tag(false)?
                .build()
        };
        build().map(Self).map_err(|error| Format::Mp3.failed(error))
    }
}

impl Encoder for Mp3 {
    fn push(&mut self, audio: &Speech) -> Result<Vec<u8>, EncodeError> {
        let samples = audio.as_slice();
        let mut bytes = Vec::with_capacity(max_required_buffer_size(samples.len()));
        self.0.encode_to_vec(MonoPcm(samples), &mut bytes).map_err(|error| Format::Mp3.failed(error))?;
        Ok(bytes)
    }

    fn finish(&mut self) -> Result<Ending, EncodeError> {
        let mut bytes = Vec::with_capacity(REST_BYTES);
        self.0.flush_to_vec::<FlushGap>(&mut bytes).map_err(|error| Format::Mp3.failed(error))?;
        Ok(Ending { bytes, head: Vec::new() })
    }
}
