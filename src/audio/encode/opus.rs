//! Opus in Ogg, RFC 7845: frames of 20 ms, in pages of a fifth of a second, so that a player has little to wait for.

use ogg::{PacketWriteEndInfo, PacketWriter};
use opus::{Application, Bitrate, Channels, Signal};

use super::{EncodeError, Encoder, Ending, Format};
use crate::audio::{SPEECH_HZ, Speech};

/// Samples in a frame.
const FRAME: usize = SPEECH_HZ as usize / 50;
/// Positions in Ogg count samples at 48 kHz, whatever the rate is.
const TICKS: u64 = 48_000 / SPEECH_HZ as u64;
const FRAMES_PER_PAGE: u64 = 10;
/// Transparent for speech, in bits per second.
const BIT_RATE: i32 = 40_000;
/// The longest packet there is.
const PACKET_BYTES: usize = 1275;
/// Of the one stream in the file.
const SERIAL: u32 = 1;

pub(super) struct Opus {
    encoder: opus::Encoder,
    pages: PacketWriter<'static, Vec<u8>>,
    /// Samples that fill no frame yet.
    waiting: Vec<f32>,
    /// In ticks: what a decoder drops at the beginning.
    pre_skip: u64,
    /// Samples pushed.
    length: u64,
    frames: u64,
}

impl Opus {
    pub(super) fn new() -> Result<Self, EncodeError> {
        let make = || {
            let mut encoder = opus::Encoder::new(SPEECH_HZ, Channels::Mono, Application::Audio)?;
            encoder.set_bitrate(Bitrate::Bits(BIT_RATE))?;
            encoder.set_signal(Signal::Voice)?;
            let lookahead = encoder.get_lookahead()?;
            Ok((encoder, lookahead.unsigned_abs()))
        };
        let (encoder, lookahead) = make().map_err(|error: opus::Error| Format::Opus.failed(error))?;
        let pre_skip = u64::from(lookahead) * TICKS;
        let mut pages = PacketWriter::new(Vec::new());
        for header in [head(pre_skip as u16), tags()] {
            pages
                .write_packet(header, SERIAL, PacketWriteEndInfo::EndPage, 0)
                .map_err(|error| Format::Opus.failed(error))?;
        }
        Ok(Self { encoder, pages, waiting: Vec::new(), pre_skip, length: 0, frames: 0 })
    }

    /// Encodes the frame that waits. `end` is the file's last position, on its last frame.
    fn write_frame(&mut self, frame: &[f32], end: Option<u64>) -> Result<(), EncodeError> {
        let packet = self.encoder.encode_vec_float(frame, PACKET_BYTES).map_err(|error| Format::Opus.failed(error))?;
        self.frames += 1;
        let place = match end {
            Some(_) => PacketWriteEndInfo::EndStream,
            None if self.frames.is_multiple_of(FRAMES_PER_PAGE) => PacketWriteEndInfo::EndPage,
            None => PacketWriteEndInfo::NormalPacket,
        };
        let position = end.unwrap_or(self.frames * FRAME as u64 * TICKS);
        self.pages.write_packet(packet, SERIAL, place, position).map_err(|error| Format::Opus.failed(error))
    }

    fn ready(&mut self) -> Vec<u8> {
        std::mem::take(self.pages.inner_mut())
    }
}

impl Encoder for Opus {
    fn push(&mut self, audio: &Speech) -> Result<Vec<u8>, EncodeError> {
        self.length += audio.len().0;
        self.waiting.extend_from_slice(audio.as_slice());
        let waiting = std::mem::take(&mut self.waiting);
        let mut frames = waiting.chunks_exact(FRAME);
        for frame in &mut frames {
            self.write_frame(frame, None)?;
        }
        self.waiting = frames.remainder().to_vec();
        Ok(self.ready())
    }

    /// The decoder's delay has to be pushed out, which takes at least one more frame.
    fn finish(&mut self) -> Result<Ending, EncodeError> {
        let end = self.pre_skip + self.length * TICKS;
        let frame_ticks = FRAME as u64 * TICKS;
        let frames = end.div_ceil(frame_ticks);
        while self.frames < frames {
            let mut frame = std::mem::take(&mut self.waiting);
            frame.resize(FRAME, 0.0);
            let last = self.frames + 1 == frames;
            self.write_frame(&frame, last.then_some(end))?;
        }
        Ok(Ending { bytes: self.ready(), head: Vec::new() })
    }
}

/// Version 1, one channel, no gain, channel mapping 0.
fn head(pre_skip: u16) -> Vec<u8> {
    let mut head = b"OpusHead\x01\x01".to_vec();
    head.extend(pre_skip.to_le_bytes());
    head.extend(SPEECH_HZ.to_le_bytes());
    head.extend([0, 0, 0]);
    head
}

/// Who wrote it, and no comments.
fn tags() -> Vec<u8> {
    let vendor = "aichat";
    let mut tags = b"OpusTags".to_vec();
    tags.extend((vendor.len() as u32).to_le_bytes());
    tags.extend(vendor.as_bytes());
    tags.extend(0u32.to_le_bytes());
    tags
}
