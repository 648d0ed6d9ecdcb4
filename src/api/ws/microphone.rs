//! A client's microphone: chunks at any rate in, [`Mic`] out, and no more of it than a person can say.

use tokio::time::Instant;

use crate::api::Limits;
use crate::api::wire::{AudioChunk, Refusal};
use crate::audio::packets::{PACKET_HZ, PRE_SKIP};
use crate::audio::resample::{ResampleError, Resampler};
use crate::audio::wav::{WireError, decode_wire};
use crate::audio::{MIC_HZ, Mic, PacketDecoder};

/// Clients send 10 to 200 ms at once; more than this is a file, not a microphone.
const LONGEST_CHUNK_SECONDS: f64 = 1.0;

/// One client's stream of audio.
pub(super) struct Microphone {
    /// Of the rate that the client sends now; None before its first chunk.
    resampler: Option<Resampler<MIC_HZ>>,
    /// None before its first packet.
    packets: Option<PacketDecoder>,
    /// What is still to be dropped of the first packets, in samples at [`PACKET_HZ`].
    pre_skip: usize,
    allowance: Allowance,
}

impl Microphone {
    /// More than real time lets a client catch up after its network has stalled.
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        let allowance = Allowance::new(limits.microphone_burst.as_secs_f64(), limits.microphone_speed, now);
        Self { resampler: None, packets: None, pre_skip: PRE_SKIP.as_usize(), allowance }
    }

    /// Decodes a chunk and brings it to [`MIC_HZ`]. The resampler's last few milliseconds come with the next chunk.
    pub(super) fn take(&mut self, chunk: &AudioChunk, now: Instant) -> Result<Mic, Refusal> {
        let chunk = decode_wire(chunk.format, &chunk.data, chunk.sample_rate, chunk.channels)
            .map_err(|error| unreadable(&error))?;
        let seconds = chunk.samples.len() as f64 / f64::from(chunk.rate);
        if seconds > LONGEST_CHUNK_SECONDS {
            let message = format!("a chunk of {seconds:.1} s is too long; send 10 to 200 ms at once");
            return Err(Refusal::new("bad_audio", message));
        }
        self.spend(seconds, now)?;
        self.resample(&chunk.samples, chunk.rate).map_err(|error| inaudible(&error))
    }

    /// The same for an Opus packet, which builds on those before it. One that is too long for its time is not decoded.
    /// What the encoder put before the stream's sound is dropped, so that packets are heard as samples are.
    pub(super) fn take_packet(&mut self, packet: &[u8], now: Instant) -> Result<Mic, Refusal> {
        let length = PacketDecoder::length(packet).map_err(|error| inaudible(&error))?;
        self.spend(length.seconds(), now)?;
        let mut decoder = match self.packets.take() {
            Some(decoder) => decoder,
            None => PacketDecoder::new().map_err(|error| inaudible(&error))?,
        };
        let outcome = match decoder.decode(packet) {
            Ok(samples) => {
                let early = self.pre_skip.min(samples.len());
                self.pre_skip -= early;
                self.resample(&samples[early..], PACKET_HZ).map_err(|error| inaudible(&error))
            }
            Err(error) => Err(inaudible(&error)),
        };
        self.packets = Some(decoder);
        outcome
    }

    fn spend(&mut self, seconds: f64, now: Instant) -> Result<(), Refusal> {
        if self.allowance.spend(seconds, now) {
            return Ok(());
        }
        let message = "audio comes too much faster than it is spoken; this chunk was not heard";
        Err(Refusal::new("rate_limited", message).retryable())
    }

    fn resample(&mut self, samples: &[f32], rate: u32) -> Result<Mic, ResampleError> {
        let mut audio = Mic::default();
        let same_rate = self.resampler.as_ref().is_some_and(|resampler| resampler.from_rate() == rate);
        if !same_rate && let Some(mut former) = self.resampler.replace(Resampler::new(rate)?) {
            audio = former.finish()?;
        }
        if let Some(resampler) = &mut self.resampler {
            audio.extend(&resampler.push(samples)?);
        }
        Ok(audio)
    }
}

fn inaudible(error: &impl std::fmt::Display) -> Refusal {
    Refusal::new("bad_audio", format!("audio_chunk: {error}"))
}

fn unreadable(error: &WireError) -> Refusal {
    let code = match error {
        WireError::Rate { .. } => "unsupported_rate",
        WireError::Channels { .. } => "bad_field",
        _ => "bad_audio",
    };
    Refusal::new(code, format!("audio_chunk: {error}"))
}

/// A bucket that fills at a rate and holds a burst.
pub(super) struct Allowance {
    level: f64,
    burst: f64,
    per_second: f64,
    at: Instant,
}

impl Allowance {
    /// A full one.
    pub(super) fn new(burst: f64, per_second: f64, now: Instant) -> Self {
        Self { level: burst, burst, per_second, at: now }
    }

    /// Takes `amount`, where it is there.
    pub(super) fn spend(&mut self, amount: f64, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.level = (self.level + passed * self.per_second).min(self.burst);
        let enough = amount <= self.level;
        if enough {
            self.level -= amount;
        }
        enough
    }
}

#[cfg(test)]
#[path = "microphone_tests.rs"]
mod tests;
