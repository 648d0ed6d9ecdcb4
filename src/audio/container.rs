//! The door for files: WAV, MP3, FLAC, Ogg (Vorbis, Opus), WebM, M4A (AAC, ALAC) to mono samples at one rate.
//!
//! This is the one place where a sample rate is a run-time value. A file is decoded packet by packet, so that hours of
//! audio need no more memory than seconds; its limits are checked while it is decoded, since what a header claims
//! proves nothing. Decoders meet hostile bytes here: a panic in one becomes an error. A file that breaks off gives
//! what it has up to there; one that is mostly broken gives an error.

use std::fs::File;
use std::io::{Cursor, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::codecs::registry::CodecRegistry;
use symphonia::core::common::Limit;
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;
use symphonia_adapter_libopus::OpusDecoder;

use super::resample::{MAX_CHANNELS, RATES};
use super::{Pcm, ResampleError, Resampler, downmix};

/// Text that a tag may take, in bytes. Pictures are of no use here.
const TAG_BYTES: usize = 64 * 1024;
/// No codec makes more frames of one packet; a header that says so wants memory.
const MAX_FRAMES_PER_PACKET: u64 = 1 << 20;

/// symphonia's own registry has no Opus.
static CODECS: LazyLock<CodecRegistry> = LazyLock::new(|| {
    let mut codecs = CodecRegistry::new();
    symphonia::default::register_enabled_codecs(&mut codecs);
    codecs.register_audio_decoder::<OpusDecoder>();
    codecs
});

/// How much a file may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub duration: Duration,
    /// Decoded samples of all channels together, which bounds the work.
    pub samples: u64,
}

impl Limits {
    /// Up to `duration` of stereo at the highest rate.
    pub fn up_to(duration: Duration) -> Self {
        Self { duration, samples: duration.as_secs().saturating_mul(u64::from(*RATES.end()) * 2) }
    }
}

impl Default for Limits {
    /// 25 minutes.
    fn default() -> Self {
        Self::up_to(Duration::from_mins(25))
    }
}

/// Why a file gave no audio.
#[derive(Debug, thiserror::Error)]
pub enum AudioError {
    /// Not its `source`: the message holds it.
    #[error("the audio cannot be read: {0}")]
    Io(std::io::Error),
    #[error("the audio file is empty")]
    Empty,
    #[error("this is not an audio file that can be read ({reason}); send WAV, MP3, FLAC, Ogg, WebM or M4A")]
    NotAudio { reason: String },
    #[error("the file has no audio track")]
    NoTrack,
    #[error("the audio's encoding is not supported ({reason}); send PCM, MP3, FLAC, Vorbis, Opus or AAC")]
    Encoding { reason: String },
    #[error(transparent)]
    Shape(#[from] ResampleError),
    #[error("the audio file holds no sound: its audio track has no samples")]
    NoSamples,
    #[error("the audio is longer than the {} s that are allowed", limit.as_secs())]
    TooLong { limit: Duration },
    #[error("the audio has more samples than the {limit} that are allowed; send fewer channels or a lower rate")]
    TooLarge { limit: u64 },
    #[error("the audio file is damaged: {reason}")]
    Damaged { reason: String },
}

impl From<std::io::Error> for AudioError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// Decodes a whole file into memory.
pub fn decode_file<const HZ: u32>(path: &Path, limits: Limits) -> Result<Pcm<HZ>, AudioError> {
    Decoder::open(path, limits)?.decode()
}

/// Decodes a whole file that is in memory already.
pub fn decode_bytes<const HZ: u32>(
    bytes: impl AsRef<[u8]> + Send + Sync + 'static,
    limits: Limits,
) -> Result<Pcm<HZ>, AudioError> {
    Decoder::from_bytes(bytes, limits)?.decode()
}

/// Refuses what is longer than `limits` allow by its packets' own account, without decoding it: in a second or two
/// instead of when the time has come. What a damaged file holds is for the decoder to say. Reads from where `file` is.
pub fn refuse_too_long(file: File, limits: Limits) -> Result<(), AudioError> {
    refuse_empty(&file)?;
    guarded(|| {
        let mut track = Track::open(Box::new(file))?;
        let mut seconds = 0.0;
        while let Ok(Some(packet)) = track.next_packet() {
            seconds += track.seconds(packet.dur.get());
            if seconds > limits.duration.as_secs_f64() {
                return Err(AudioError::TooLong { limit: limits.duration });
            }
        }
        Ok(())
    })
}

fn refuse_empty(file: &File) -> Result<(), AudioError> {
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(AudioError::Io(ErrorKind::IsADirectory.into()));
    }
    if metadata.is_file() && metadata.len() == 0 {
        return Err(AudioError::Empty);
    }
    Ok(())
}

/// A file's audio as an iterator of blocks, a packet's worth each (usually 10 to 100 ms). It blocks while it reads and
/// decodes. An error is the last item.
pub struct Decoder<const HZ: u32> {
    track: Track,
    limits: Limits,
    resampler: Option<Resampler<HZ>>,
    interleaved: Vec<f32>,
    /// Decoded so far: time, samples of all channels, packets that could and could not be decoded.
    seconds: f64,
    samples: u64,
    good: u64,
    bad: u64,
    /// Why the file ended early.
    broken: Option<String>,
    ended: bool,
}

impl<const HZ: u32> Decoder<HZ> {
    pub fn open(path: &Path, limits: Limits) -> Result<Self, AudioError> {
        Self::from_file(File::open(path)?, limits)
    }

    /// Reads from where `file` is.
    pub fn from_file(file: File, limits: Limits) -> Result<Self, AudioError> {
        refuse_empty(&file)?;
        Self::new(Box::new(file), limits)
    }

    pub fn from_bytes(bytes: impl AsRef<[u8]> + Send + Sync + 'static, limits: Limits) -> Result<Self, AudioError> {
        if bytes.as_ref().is_empty() {
            return Err(AudioError::Empty);
        }
        Self::new(Box::new(Cursor::new(bytes)), limits)
    }

    fn new(source: Box<dyn MediaSource>, limits: Limits) -> Result<Self, AudioError> {
        Ok(Self {
            track: guarded(|| Track::open(source))?,
            limits,
            resampler: None,
            interleaved: Vec::new(),
            seconds: 0.0,
            samples: 0,
            good: 0,
            bad: 0,
            broken: None,
            ended: false,
        })
    }

    /// All that is left, in one piece.
    pub fn decode(self) -> Result<Pcm<HZ>, AudioError> {
        let mut whole = Pcm::default();
        for block in self {
            whole.extend(&block?);
        }
        Ok(whole)
    }

    /// The next block that is not empty; None at the end.
    fn next_block(&mut self) -> Result<Option<Pcm<HZ>>, AudioError> {
        loop {
            let packet = match self.track.next_packet() {
                Ok(Some(packet)) => packet,
                Ok(None) => return Ok(None),
                Err(Error::IoError(error)) if !is_end(&error) => return Err(AudioError::Io(error)),
                Err(error) => {
                    self.broken = Some(error.to_string());
                    return Ok(None);
                }
            };
            let block = self.decode_packet(&packet)?;
            if !block.is_empty() {
                return Ok(Some(block));
            }
        }
    }

    fn decode_packet(&mut self, packet: &Packet) -> Result<Pcm<HZ>, AudioError> {
        let (rate, channels) = match self.track.decoder.decode(packet) {
            Ok(buffer) => {
                buffer.copy_to_vec_interleaved(&mut self.interleaved);
                (buffer.spec().rate(), buffer.spec().channels().count())
            }
            Err(Error::DecodeError(_) | Error::IoError(_)) => {
                self.bad += 1;
                return Ok(Pcm::default());
            }
            Err(error) => return Err(AudioError::Encoding { reason: error.to_string() }),
        };
        self.good += 1;
        if self.interleaved.is_empty() {
            return Ok(Pcm::default());
        }
        let mono = downmix(&self.interleaved, channels)?;
        let mut block = Pcm::default();
        if self.resampler.as_ref().is_none_or(|resampler| resampler.from_rate() != rate) {
            // A stream may go on at another rate; what the old filter holds belongs before it.
            if let Some(mut old) = self.resampler.replace(Resampler::new(rate)?) {
                block.extend(&old.finish()?);
            }
        }
        self.samples += self.interleaved.len() as u64;
        self.seconds += mono.len() as f64 / f64::from(rate);
        if self.seconds > self.limits.duration.as_secs_f64() {
            return Err(AudioError::TooLong { limit: self.limits.duration });
        }
        if self.samples > self.limits.samples {
            return Err(AudioError::TooLarge { limit: self.limits.samples });
        }
        if let Some(resampler) = &mut self.resampler {
            block.extend(&resampler.push(&mono)?);
        }
        Ok(block)
    }

    /// What the resampler still holds, or why what came was no audio.
    fn conclude(&mut self) -> Result<Pcm<HZ>, AudioError> {
        if self.bad > self.good {
            return Err(AudioError::Damaged { reason: format!("{} of its packets cannot be decoded", self.bad) });
        }
        match (&mut self.resampler, self.broken.take()) {
            (Some(resampler), broken) => {
                if let Some(reason) = broken {
                    tracing::warn!(reason, seconds = self.seconds, "the audio file breaks off");
                }
                Ok(resampler.finish()?)
            }
            (None, Some(reason)) => Err(AudioError::Damaged { reason }),
            (None, None) => Err(AudioError::NoSamples),
        }
    }
}

impl<const HZ: u32> Iterator for Decoder<HZ> {
    type Item = Result<Pcm<HZ>, AudioError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let block = match guarded(|| self.next_block()) {
            Ok(Some(block)) => return Some(Ok(block)),
            Ok(None) => self.conclude(),
            Err(error) => Err(error),
        };
        self.ended = true;
        block.map(|tail| (!tail.is_empty()).then_some(tail)).transpose()
    }
}

/// One track of a container and its decoder.
struct Track {
    reader: Box<dyn FormatReader>,
    id: u32,
    decoder: Box<dyn AudioDecoder>,
}

impl Track {
    fn open(source: Box<dyn MediaSource>) -> Result<Self, AudioError> {
        let stream = MediaSourceStream::new(source, symphonia::core::io::MediaSourceStreamOptions::default());
        let metadata =
            MetadataOptions::default().limit_tag_bytes(Limit::Maximum(TAG_BYTES)).limit_visual_bytes(Limit::Maximum(0));
        let reader = symphonia::default::get_probe()
            .probe(&Hint::new(), stream, FormatOptions::default(), metadata)
            .map_err(|error| match error {
                Error::IoError(error) if !is_end(&error) => AudioError::Io(error),
                error => AudioError::NotAudio { reason: error.to_string() },
            })?;
        let (id, decoder) = choose(&*reader)?;
        Ok(Self { reader, id, decoder })
    }

    /// A length in the track's own units, in seconds; 0 where they are unknown.
    fn seconds(&self, units: u64) -> f64 {
        let track = self.reader.tracks().iter().find(|track| track.id == self.id);
        let base = track.and_then(|track| track.time_base);
        base.map_or(0.0, |base| units as f64 * f64::from(base.numer.get()) / f64::from(base.denom.get()))
    }

    /// The track's next packet.
    fn next_packet(&mut self) -> Result<Option<Packet>, Error> {
        loop {
            match self.reader.next_packet() {
                Ok(Some(packet)) if packet.track_id != self.id => {}
                // Another stream follows in the same file.
                Err(Error::ResetRequired) => {
                    (self.id, self.decoder) =
                        choose(&*self.reader).map_err(|_| Error::Unsupported("the stream goes on in another form"))?;
                }
                other => return other,
            }
        }
    }
}

/// Chooses the audio track and makes its decoder.
fn choose(reader: &dyn FormatReader) -> Result<(u32, Box<dyn AudioDecoder>), AudioError> {
    let track = reader.default_track(TrackType::Audio).ok_or(AudioError::NoTrack)?;
    let parameters =
        track.codec_params.as_ref().and_then(|parameters| parameters.audio()).ok_or(AudioError::NoTrack)?;
    if let Some(rate) = parameters.sample_rate
        && !RATES.contains(&rate)
    {
        return Err(ResampleError::Rate { rate }.into());
    }
    if let Some(channels) = parameters.channels.as_ref().map(symphonia::core::audio::Channels::count)
        && !(1..=MAX_CHANNELS).contains(&channels)
    {
        return Err(ResampleError::Channels { channels }.into());
    }
    if parameters.max_frames_per_packet.is_some_and(|frames| frames > MAX_FRAMES_PER_PACKET) {
        return Err(AudioError::Damaged { reason: "its packets claim to be impossibly long".to_owned() });
    }
    let decoder = CODECS
        .make_audio_decoder(parameters, &AudioDecoderOptions::default())
        .map_err(|error| AudioError::Encoding { reason: error.to_string() })?;
    Ok((track.id, decoder))
}

/// Runs what meets foreign bytes; a panic there is an error of the file.
fn guarded<T>(work: impl FnOnce() -> Result<T, AudioError>) -> Result<T, AudioError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(AudioError::Damaged { reason: "it makes its decoder fail".to_owned() }))
}

fn is_end(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::UnexpectedEof
}

#[cfg(test)]
#[path = "container_tests.rs"]
mod tests;
