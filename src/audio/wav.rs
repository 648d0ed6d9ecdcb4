//! RIFF WAVE: written as 16-bit PCM, and read in the small form in which browsers send a microphone's chunks.
//!
//! Files of any kind are [`super::container`]'s business. What is read here is one chunk of 10 to 200 ms that comes
//! many times a second, so it is read in place, with no decoder and no allocation beyond the samples.

use std::io::Write;
use std::ops::RangeInclusive;
use std::path::Path;

use super::{MIC_HZ, Pcm};

/// The rates that a microphone's chunks may have, in hertz.
pub const MICROPHONE_RATES: RangeInclusive<u32> = 8_000..=48_000;
/// Length of the header of [`header`], in bytes.
pub const HEADER_BYTES: usize = 44;
/// What stands for a length that is not known yet.
const UNKNOWN: u32 = u32::MAX;

const TAG_PCM: u16 = 1;
const TAG_FLOAT: u16 = 3;
const TAG_EXTENSIBLE: u16 = 0xFFFE;

/// The header of mono 16-bit PCM at `rate` hertz. `data_bytes` of None is for a stream whose length is not known:
/// players then read until it ends.
pub fn header(rate: u32, data_bytes: Option<u32>) -> [u8; HEADER_BYTES] {
    let data = data_bytes.unwrap_or(UNKNOWN);
    let riff = data_bytes.map_or(UNKNOWN, |bytes| bytes.saturating_add(HEADER_BYTES as u32 - 8));
    let mut header = [0; HEADER_BYTES];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        header[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(b"RIFF");
    put(&riff.to_le_bytes());
    put(b"WAVEfmt ");
    put(&16u32.to_le_bytes());
    put(&TAG_PCM.to_le_bytes());
    put(&1u16.to_le_bytes());
    put(&rate.to_le_bytes());
    put(&(rate * 2).to_le_bytes());
    put(&2u16.to_le_bytes());
    put(&16u16.to_le_bytes());
    put(b"data");
    put(&data.to_le_bytes());
    header
}

/// A whole WAV file of 16-bit PCM.
pub fn encode<const HZ: u32>(audio: &Pcm<HZ>) -> Vec<u8> {
    let samples = audio.to_s16le();
    let mut file = Vec::with_capacity(HEADER_BYTES + samples.len());
    file.extend_from_slice(&header(HZ, u32::try_from(samples.len()).ok()));
    file.extend_from_slice(&samples);
    file
}

/// Writes a whole WAV file of 16-bit PCM.
pub fn write<const HZ: u32>(path: &Path, audio: &Pcm<HZ>) -> std::io::Result<()> {
    std::fs::File::create(path)?.write_all(&encode(audio))
}

/// One chunk of a microphone as it came over the wire, mixed to mono, not resampled.
#[derive(Clone, Debug, PartialEq)]
pub struct WireChunk {
    pub samples: Vec<f32>,
    /// In hertz, 8000 to 48 000.
    pub rate: u32,
}

/// How a client packs its chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WireFormat {
    /// Signed 16-bit little-endian; rate and channels stand beside it.
    #[default]
    Pcm,
    /// Each chunk a whole RIFF file, whose header tells rate and channels.
    Wav,
}

/// Why a chunk cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("a sample rate of {rate} Hz is not supported; send 8000 to 48000 Hz, best {MIC_HZ}")]
    Rate { rate: u32 },
    #[error("{channels} channels are not supported; send 1 or 2")]
    Channels { channels: u32 },
    #[error("the chunk has {bytes} bytes, which is no whole number of {frame}-byte frames")]
    Cut { bytes: usize, frame: usize },
    #[error("the chunk is not a WAV file: {reason}")]
    NotWav { reason: &'static str },
    #[error("WAV with format tag {tag} and {bits} bits is not supported; send 16-bit PCM or 32-bit float")]
    Encoding { tag: u16, bits: u16 },
}

/// Reads one chunk. `rate` and `channels` are what the client says; a WAV chunk's own header outweighs them.
pub fn decode_wire(format: WireFormat, bytes: &[u8], rate: u32, channels: u32) -> Result<WireChunk, WireError> {
    match format {
        WireFormat::Pcm => Layout { tag: TAG_PCM, bits: 16, rate, channels }.read(bytes),
        WireFormat::Wav => {
            let (layout, data) = parse(bytes)?;
            // A length that is not a whole number of frames is the encoder's padding, not a fault of the client.
            let frame = layout.checked_frame_bytes()?;
            layout.read(&data[..data.len() / frame * frame])
        }
    }
}

/// What a `fmt ` chunk says.
struct Layout {
    tag: u16,
    bits: u16,
    rate: u32,
    channels: u32,
}

impl Layout {
    fn checked_frame_bytes(&self) -> Result<usize, WireError> {
        if !MICROPHONE_RATES.contains(&self.rate) {
            return Err(WireError::Rate { rate: self.rate });
        }
        if !(1..=2).contains(&self.channels) {
            return Err(WireError::Channels { channels: self.channels });
        }
        match (self.tag, self.bits) {
            (TAG_PCM, 8 | 16 | 24 | 32) | (TAG_FLOAT, 32) => Ok(usize::from(self.bits) / 8 * self.channels as usize),
            (tag, bits) => Err(WireError::Encoding { tag, bits }),
        }
    }

    fn read(&self, data: &[u8]) -> Result<WireChunk, WireError> {
        let frame = self.checked_frame_bytes()?;
        if !data.len().is_multiple_of(frame) {
            return Err(WireError::Cut { bytes: data.len(), frame });
        }
        let sample: fn(&[u8]) -> f32 = match (self.tag, self.bits) {
            (TAG_FLOAT, _) => |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            (_, 8) => |b| (f32::from(b[0]) - 128.0) / 128.0,
            (_, 16) => |b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32_768.0,
            (_, 24) => |b| i32::from_le_bytes([0, b[0], b[1], b[2]]) as f32 / 2_147_483_648.0,
            _ => |b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]) as f32 / 2_147_483_648.0,
        };
        let scale = 1.0 / self.channels as f32;
        let width = frame / self.channels as usize;
        let mix = |frame: &[u8]| {
            let mean = frame.chunks_exact(width).map(sample).sum::<f32>() * scale;
            if mean.is_finite() { mean } else { 0.0 }
        };
        Ok(WireChunk { samples: data.chunks_exact(frame).map(mix).collect(), rate: self.rate })
    }
}

/// Finds the `fmt ` and `data` chunks of a RIFF file. A data length beyond the end, which streaming writers leave,
/// means all that is there.
fn parse(bytes: &[u8]) -> Result<(Layout, &[u8]), WireError> {
    let missing = |reason| move || WireError::NotWav { reason };
    if bytes.get(..4) != Some(b"RIFF") || bytes.get(8..12) != Some(b"WAVE") {
        return Err(WireError::NotWav { reason: "it does not begin with RIFF and WAVE" });
    }
    let mut rest = &bytes[12..];
    let mut layout = None;
    loop {
        let (head, body) = rest.split_first_chunk::<8>().ok_or_else(missing("it has no data chunk"))?;
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let content = &body[..length.min(body.len())];
        match &head[..4] {
            b"fmt " => layout = Some(parse_layout(content)?),
            b"data" => return Ok((layout.ok_or_else(missing("its data comes before its format"))?, content)),
            _ => {}
        }
        // Chunks are padded to an even length.
        rest = body.get(length.saturating_add(length % 2)..).unwrap_or_default();
    }
}

fn parse_layout(content: &[u8]) -> Result<Layout, WireError> {
    let short = || WireError::NotWav { reason: "its format chunk is too short" };
    let at = |offset: usize| content.get(offset..offset + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let (low, high) = at(4).zip(at(6)).ok_or_else(short)?;
    let mut tag = at(0).ok_or_else(short)?;
    if tag == TAG_EXTENSIBLE {
        // The first two bytes of the sub-format's identifier are the tag that it stands for.
        tag = at(24).ok_or_else(short)?;
    }
    Ok(Layout {
        tag,
        bits: at(14).ok_or_else(short)?,
        rate: u32::from(low) | u32::from(high) << 16,
        channels: u32::from(at(2).ok_or_else(short)?),
    })
}

#[cfg(test)]
#[path = "wav_tests.rs"]
mod tests;
