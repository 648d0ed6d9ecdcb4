//! Opus in Ogg, RFC 7845: frames of 20 ms, in pages of a fifth of a second, so that a player has little to wait for.

use ogg::{PacketWriteEndInfo, PacketWriter};

use super::{EncodeError, Encoder, Ending, Format};
use crate::audio::packets::{PACKET, PACKET_HZ, PRE_SKIP};
use crate::audio::{PacketEncoder, SPEECH_HZ, Speech};

/// Positions in Ogg count samples at 48 kHz, whatever the rate is.
const TICKS: u64 = (PACKET_HZ / SPEECH_HZ) as u64;
const FRAMES_PER_PAGE: u64 = 10;
/// Of the one stream in the file.
const SERIAL: u32 = 1;

pub(super) struct Opus {
    encoder: PacketEncoder,
    pages: PacketWriter<'static, Vec<u8>>,
    /// Samples pushed.
    length: u64,
    frames: u64,
}

impl Opus {
    pub(super) fn new() -> Result<Self, EncodeError> {
        let encoder = PacketEncoder::new()?;
        let mut pages = PacketWriter::new(Vec::new());
        for header in [head(PRE_SKIP.0 as u16), tags()] {
            pages
                .write_packet(header, SERIAL, PacketWriteEndInfo::EndPage, 0)
                .map_err(|error| Format::Opus.failed(error))?;
        }
        Ok(Self { encoder, pages, length: 0, frames: 0 })
    }

    /// `end` is the file's last position, on its last packet.
    fn write(&mut self, packet: Vec<u8>, end: Option<u64>) -> Result<(), EncodeError> {
        self.frames += 1;
        let place = match end {
            Some(_) => PacketWriteEndInfo::EndStream,
            None if self.frames.is_multiple_of(FRAMES_PER_PAGE) => PacketWriteEndInfo::EndPage,
            None => PacketWriteEndInfo::NormalPacket,
        };
        let position = end.unwrap_or(self.frames * PACKET.0 * TICKS);
        self.pages.write_packet(packet, SERIAL, place, position).map_err(|error| Format::Opus.failed(error))
    }

    fn ready(&mut self) -> Vec<u8> {
        std::mem::take(self.pages.inner_mut())
    }
}

impl Encoder for Opus {
    fn push(&mut self, audio: &Speech) -> Result<Vec<u8>, EncodeError> {
        self.length += audio.len().0;
        for packet in self.encoder.push(audio)? {
            self.write(packet, None)?;
        }
        Ok(self.ready())
    }

    /// The decoder's delay has to be pushed out, which takes at least one more frame.
    fn finish(&mut self) -> Result<Ending, EncodeError> {
        let end = PRE_SKIP.0 + self.length * TICKS;
        let frames = end.div_ceil(PACKET.0 * TICKS);
        while self.frames < frames {
            let packet = self.encoder.pad()?;
            let last = self.frames + 1 == frames;
            self.write(packet, last.then_some(end))?;
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
