//! Mono PCM whose sample rate is part of its type, and positions counted in its samples.

use std::time::Duration;

/// What every speech recogniser and voice-activity detector here listens at, in hertz.
pub const MIC_HZ: u32 = 16_000;
/// What every speech synthesiser here speaks at, in hertz.
pub const SPEECH_HZ: u32 = 24_000;

/// Microphone audio.
pub type Mic = Pcm<MIC_HZ>;
/// Synthesised audio.
pub type Speech = Pcm<SPEECH_HZ>;

/// Mono samples at `HZ`, every one finite and within [-1, 1].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pcm<const HZ: u32>(Vec<f32>);

impl<const HZ: u32> Pcm<HZ> {
    /// Takes samples as they come: what is beyond full scale is clipped, what is not a number becomes silence.
    pub fn new(mut samples: Vec<f32>) -> Self {
        for sample in &mut samples {
            *sample = if sample.is_finite() { sample.clamp(-1.0, 1.0) } else { 0.0 };
        }
        Self(samples)
    }

    /// `length` samples of nothing.
    pub fn silence(length: Samples<HZ>) -> Self {
        Self(vec![0.0; length.as_usize()])
    }

    /// Reads signed 16-bit little-endian samples; a last odd byte is ignored.
    pub fn from_s16le(bytes: &[u8]) -> Self {
        let sample = |pair: &[u8]| f32::from(i16::from_le_bytes([pair[0], pair[1]])) / 32_768.0;
        Self(bytes.chunks_exact(2).map(sample).collect())
    }

    /// Signed 16-bit little-endian, the wire's PCM.
    pub fn to_s16le(&self) -> Vec<u8> {
        self.to_i16().flat_map(i16::to_le_bytes).collect()
    }

    /// As signed 16-bit samples.
    pub fn to_i16(&self) -> impl Iterator<Item = i16> {
        self.0.iter().map(|sample| to_i16(*sample))
    }

    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }

    pub fn len(&self) -> Samples<HZ> {
        Samples(self.0.len() as u64)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn duration(&self) -> Duration {
        self.len().duration()
    }

    /// Appends `other`.
    pub fn extend(&mut self, other: &Self) {
        self.0.extend_from_slice(&other.0);
    }

    /// The part from `from` up to `to`; both are cut to what is there.
    #[must_use]
    pub fn slice(&self, from: Samples<HZ>, to: Samples<HZ>) -> Self {
        let to = to.as_usize().min(self.0.len());
        Self(self.0[from.as_usize().min(to)..to].to_vec())
    }
}

/// Full scale is 32767 both ways, so that +1 and -1 are equally loud.
fn to_i16(sample: f32) -> i16 {
    (sample * 32_767.0).round() as i16
}

/// A position in, or a length of, audio at `HZ`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Samples<const HZ: u32>(pub u64);

impl<const HZ: u32> Samples<HZ> {
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * HZ as u64 / 1000)
    }

    pub const fn millis(self) -> u64 {
        self.0 * 1000 / HZ as u64
    }

    pub fn seconds(self) -> f64 {
        self.0 as f64 / f64::from(HZ)
    }

    pub fn duration(self) -> Duration {
        Duration::from_secs_f64(self.seconds())
    }

    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// # Panics
    /// Never on a 64-bit machine.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl<const HZ: u32> std::ops::Add for Samples<HZ> {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl<const HZ: u32> std::ops::AddAssign for Samples<HZ> {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}
