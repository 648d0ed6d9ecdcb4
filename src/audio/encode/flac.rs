//! FLAC, frame by frame: 16 bits, blocks of a sixth of a second.

use flacenc::bitsink::ByteSink;
use flacenc::component::{BitRepr, StreamInfo};
use flacenc::config;
use flacenc::error::{Verified, Verify};
use flacenc::source::{Fill, FrameBuf};

use super::{EncodeError, Encoder, Ending, Format};
use crate::audio::{SPEECH_HZ, Speech};

/// Samples in a block; only the last may have fewer.
const BLOCK: usize = 4096;
const BITS: usize = 16;

pub(super) struct Flac {
    config: Verified<config::Encoder>,
    info: StreamInfo,
    buffer: FrameBuf,
    begun: bool,
    waiting: Vec<i32>,
    frames: usize,
    /// Samples pushed.
    length: u64,
}

impl Flac {
    pub(super) fn new() -> Result<Self, EncodeError> {
        let failed = |error: &dyn std::fmt::Display| Format::Flac.failed(error);
        Ok(Self {
            config: config::Encoder::default().into_verified().map_err(|(_, error)| failed(&error))?,
            info: StreamInfo::new(SPEECH_HZ as usize, 1, BITS).map_err(|error| failed(&error))?,
            buffer: FrameBuf::with_size(1, BLOCK).map_err(|error| failed(&error))?,
            begun: false,
            waiting: Vec::new(),
            frames: 0,
            length: 0,
        })
    }

    fn begin(&mut self) -> Vec<u8> {
        if std::mem::replace(&mut self.begun, true) { Vec::new() } else { head(0) }
    }

    fn frame(&mut self, block: &[i32]) -> Result<Vec<u8>, EncodeError> {
        self.buffer.fill_interleaved(block).map_err(|error| Format::Flac.failed(error))?;
        let frame = flacenc::encode_fixed_size_frame(&self.config, &self.buffer, self.frames, &self.info)
            .map_err(|error| Format::Flac.failed(error))?;
        self.frames += 1;
        let mut bytes = ByteSink::new();
        frame.write(&mut bytes).map_err(|error| Format::Flac.failed(error))?;
        Ok(bytes.into_inner())
    }
}

impl Encoder for Flac {
    fn push(&mut self, audio: &Speech) -> Result<Vec<u8>, EncodeError> {
        let mut bytes = self.begin();
        self.length += audio.len().0;
        self.waiting.extend(audio.to_i16().map(i32::from));
        let waiting = std::mem::take(&mut self.waiting);
        let mut blocks = waiting.chunks_exact(BLOCK);
        for block in &mut blocks {
            bytes.extend(self.frame(block)?);
        }
        self.waiting = blocks.remainder().to_vec();
        Ok(bytes)
    }

    fn finish(&mut self) -> Result<Ending, EncodeError> {
        let mut bytes = self.begin();
        let rest = std::mem::take(&mut self.waiting);
        if !rest.is_empty() {
            bytes.extend(self.frame(&rest)?);
        }
        Ok(Ending { bytes, head: head(self.length) })
    }
}

/// The marker and STREAMINFO (RFC 9639, 8.2). A length of 0 is "not known", as are the frames' sizes and the digest.
fn head(length: u64) -> Vec<u8> {
    const LAST_BLOCK_STREAM_INFO: u8 = 0x80;
    const STREAM_INFO_BYTES: u8 = 34;
    const LENGTH_BITS: u32 = 36;
    let block = (BLOCK as u16).to_be_bytes();
    let mut head = b"fLaC".to_vec();
    head.extend([LAST_BLOCK_STREAM_INFO, 0, 0, STREAM_INFO_BYTES]);
    head.extend([block, block].concat());
    head.extend([0; 6]);
    // 20 bits of rate, 3 of channels less one, 5 of bits less one, 36 of length.
    let rate = u64::from(SPEECH_HZ) << 44;
    head.extend((rate | (BITS as u64 - 1) << LENGTH_BITS | length & ((1 << LENGTH_BITS) - 1)).to_be_bytes());
    head.extend([0; 16]);
    head
}
