//! Opus packet by packet, as a socket carries it: 20 ms in each, and no container around them.
//!
//! Both ways are streams: each packet builds on those before it. Packets from outside are hostile bytes; none of them
//! makes more than 120 ms of sound, whatever it claims.

use opus::{Application, Bitrate, Channels, Signal};

use super::{EncodeError, SPEECH_HZ, Samples, Speech};

/// In a packet of ours.
pub const PACKET: Samples<SPEECH_HZ> = Samples::from_millis(20);
/// What the encoder still holds after its last packet: so much silence pushes the last sound out.
pub const TAIL: Samples<SPEECH_HZ> = Samples(SPEECH_HZ as u64 * 13 / 2000);
/// What packets are decoded at, in hertz.
pub const PACKET_HZ: u32 = 48_000;
/// What comes before the sound in a stream of packets, since libopus's encoder looks that far ahead.
pub const PRE_SKIP: Samples<PACKET_HZ> = Samples(TAIL.0 * PACKET_HZ as u64 / SPEECH_HZ as u64);

/// Transparent for speech, in bits per second.
const BIT_RATE: i32 = 40_000;
/// The longest packet of ours there can be.
const PACKET_BYTES: usize = 1275;
/// The longest sound that any packet can hold.
const MOST_SAMPLES: usize = PACKET_HZ as usize * 120 / 1000;

/// Packs one stream of speech.
pub struct PacketEncoder {
    encoder: opus::Encoder,
    /// Samples that fill no packet yet.
    waiting: Vec<f32>,
}

impl PacketEncoder {
    pub fn new() -> Result<Self, EncodeError> {
        let make = || {
            let mut encoder = opus::Encoder::new(SPEECH_HZ, Channels::Mono, Application::Audio)?;
            encoder.set_bitrate(Bitrate::Bits(BIT_RATE))?;
            encoder.set_signal(Signal::Voice)?;
            Ok(encoder)
        };
        let encoder = make().map_err(|error| failed(&error))?;
        Ok(Self { encoder, waiting: Vec::new() })
    }

    /// Takes audio and gives the packets that are full.
    pub fn push(&mut self, audio: &Speech) -> Result<Vec<Vec<u8>>, EncodeError> {
        self.waiting.extend_from_slice(audio.as_slice());
        let waiting = std::mem::take(&mut self.waiting);
        let mut frames = waiting.chunks_exact(PACKET.as_usize());
        let packets = frames.by_ref().map(|frame| encode(&mut self.encoder, frame)).collect();
        self.waiting = frames.remainder().to_vec();
        packets
    }

    /// A packet of what waits, with silence after it.
    pub fn pad(&mut self) -> Result<Vec<u8>, EncodeError> {
        let mut frame = std::mem::take(&mut self.waiting);
        frame.resize(PACKET.as_usize(), 0.0);
        encode(&mut self.encoder, &frame)
    }

    /// Drops what waits.
    pub fn forget(&mut self) {
        self.waiting.clear();
    }

    /// What has been pushed and is in no packet yet.
    pub fn waiting(&self) -> Samples<SPEECH_HZ> {
        Samples(self.waiting.len() as u64)
    }
}

fn encode(encoder: &mut opus::Encoder, frame: &[f32]) -> Result<Vec<u8>, EncodeError> {
    encoder.encode_vec_float(frame, PACKET_BYTES).map_err(|error| failed(&error))
}

fn failed(error: &opus::Error) -> EncodeError {
    EncodeError::Failed { format: "opus", reason: error.to_string() }
}

/// Why a packet cannot be heard.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    #[error("the packet is empty; send one Opus packet of 20 ms")]
    Empty,
    #[error("this is no Opus packet: {reason}")]
    Broken { reason: String },
}

/// Reads one stream of packets, of one channel or two, mixed to one.
pub struct PacketDecoder {
    decoder: opus::Decoder,
    output: Vec<f32>,
}

impl PacketDecoder {
    pub fn new() -> Result<Self, PacketError> {
        let decoder = opus::Decoder::new(PACKET_HZ, Channels::Mono).map_err(|error| broken(&error))?;
        Ok(Self { decoder, output: vec![0.0; MOST_SAMPLES] })
    }

    /// How long the packet is at [`PACKET_HZ`], by its first bytes.
    pub fn length(packet: &[u8]) -> Result<Samples<PACKET_HZ>, PacketError> {
        if packet.is_empty() {
            return Err(PacketError::Empty);
        }
        let length = opus::packet::get_nb_samples(packet, PACKET_HZ).map_err(|error| broken(&error))?;
        Ok(Samples(length as u64))
    }

    /// The packet's samples at [`PACKET_HZ`]: 120 ms at most.
    pub fn decode(&mut self, packet: &[u8]) -> Result<&[f32], PacketError> {
        // libopus takes nothing for a packet that was lost, and makes one up.
        if packet.is_empty() {
            return Err(PacketError::Empty);
        }
        let length = self.decoder.decode_float(packet, &mut self.output, false).map_err(|error| broken(&error))?;
        Ok(&self.output[..length])
    }
}

fn broken(error: &opus::Error) -> PacketError {
    PacketError::Broken { reason: error.description().to_owned() }
}

#[cfg(test)]
#[path = "packets_tests.rs"]
mod tests;
