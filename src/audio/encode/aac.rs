//! AAC by Fraunhofer's library: low complexity, mono, in ADTS frames, which need no container.

use fdk_aac::enc::{AudioObjectType, BitRate, ChannelMode, EncoderParams, Transport};

use super::{EncodeError, Encoder, Ending, Format};
use crate::audio::{SPEECH_HZ, Speech};

/// Clear for speech at 24 kHz, in bits per second.
const BIT_RATE: u32 = 64_000;
/// No ADTS frame of one channel is longer.
const FRAME_BYTES: usize = 2048;
/// Samples in a frame.
const FRAME: usize = 1024;

pub(super) struct Aac {
    encoder: fdk_aac::enc::Encoder,
    /// Samples that come out after they went in.
    delay: usize,
}

impl Aac {
    pub(super) fn new() -> Result<Self, EncodeError> {
        let encoder = fdk_aac::enc::Encoder::new(EncoderParams {
            bit_rate: BitRate::Cbr(BIT_RATE),
            sample_rate: SPEECH_HZ,
            transport: Transport::Adts,
            channels: ChannelMode::Mono,
            audio_object_type: AudioObjectType::Mpeg4LowComplexity,
        });
        let encoder = encoder.map_err(|error| Format::Aac.failed(error))?;
        let delay = encoder.info().map_err(|error| Format::Aac.failed(error))?.nDelay as usize;
        Ok(Self { encoder, delay })
    }

    fn encode(&self, mut samples: &[i16]) -> Result<Vec<u8>, EncodeError> {
        let mut bytes = Vec::new();
        let mut frame = [0; FRAME_BYTES];
        while !samples.is_empty() {
            let done = self.encoder.encode(samples, &mut frame).map_err(|error| Format::Aac.failed(error))?;
            bytes.extend_from_slice(&frame[..done.output_size]);
            if done.input_consumed == 0 && done.output_size == 0 {
                return Err(Format::Aac.failed("the encoder takes no more"));
            }
            samples = &samples[done.input_consumed..];
        }
        Ok(bytes)
    }
}

impl Encoder for Aac {
    fn push(&mut self, audio: &Speech) -> Result<Vec<u8>, EncodeError> {
        self.encode(&audio.to_i16().collect::<Vec<_>>())
    }

    /// Silence pushes out what the encoder holds: its delay, and the frame that is not full.
    fn finish(&mut self) -> Result<Ending, EncodeError> {
        Ok(Ending { bytes: self.encode(&vec![0; self.delay + FRAME])?, head: Vec::new() })
    }
}
