//! The door for files: WAV, MP3, FLAC, Ogg (Vorbis, Opus), WebM, M4A (AAC, ALAC) to mono samples at one rate.
//!
//! This is the one place where a sample rate is a run-time value. A file is decoded packet by packet, so that hours of
//! audio need no more memory than seconds; its limits are checked while it is decoded, since what a header claims
//! proves nothing. Decoders meet hostile bytes here: a panic in one becomes an error. A file that breaks off gives
//! what it has up to there; one that is mostly broken gives an error.

use std::fs::File;
use std::io::{Cursor, ErrorKind, Seek as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, LazyLock};
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
/// Priming and padding that a container counts and a decoder drops, in seconds.
const MEASURE_SLACK: f64 = 1.0;
/// Packets are parts of their file, one after the other: those that come to more overlap, to keep their reader busy.
const MAX_OVERLAP: u64 = 2;
/// Packets with nothing in them, or nothing that can be decoded, beyond as many good ones.
const MAX_USELESS: u64 = 10_000;

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

/// Whether it is a file with something in it, and no pipe.
fn holds_bytes(file: &File) -> Result<bool, AudioError> {
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(AudioError::Io(ErrorKind::IsADirectory.into()));
    }
    if metadata.is_file() && metadata.len() == 0 {
        return Err(AudioError::Empty);
    }
    Ok(metadata.is_file())
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
        let file = File::open(path)?;
        if holds_bytes(&file)? {
            measure(Box::new(File::open(path)?), limits)?;
        }
        Self::new(Box::new(file), limits)
    }

    /// Reads a file that has no name from its beginning.
    pub fn from_file(mut file: File, limits: Limits) -> Result<Self, AudioError> {
        holds_bytes(&file)?;
        file.rewind()?;
        measure(Box::new(file.try_clone()?), limits)?;
        file.rewind()?;
        Self::new(Box::new(file), limits)
    }

    pub fn from_bytes(bytes: impl AsRef<[u8]> + Send + Sync + 'static, limits: Limits) -> Result<Self, AudioError> {
        if bytes.as_ref().is_empty() {
            return Err(AudioError::Empty);
        }
        let bytes = Arc::new(bytes);
        measure(Box::new(Cursor::new(Shared(Arc::clone(&bytes)))), limits)?;
        Self::new(Box::new(Cursor::new(Shared(bytes))), limits)
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
                return if self.bad > MAX_USELESS + self.good { Err(self.damaged()) } else { Ok(Pcm::default()) };
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

    fn damaged(&self) -> AudioError {
        AudioError::Damaged { reason: format!("{} of its packets cannot be decoded", self.bad) }
    }

    /// What the resampler still holds, or why what came was no audio.
    fn conclude(&mut self) -> Result<Pcm<HZ>, AudioError> {
        if self.bad > self.good {
            return Err(self.damaged());
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

/// Bytes that are read twice.
struct Shared<B>(Arc<B>);

impl<B: AsRef<[u8]>> AsRef<[u8]> for Shared<B> {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

/// Adds up what a file's packets last, without decoding them, so that one that is much too long is refused in a moment
/// and not after hours of it were decoded. Packets may lie; what is decoded is counted too.
fn measure(source: Box<dyn MediaSource>, limits: Limits) -> Result<(), AudioError> {
    guarded(|| {
        let mut track = Track::open(source)?;
        let mut seconds = 0.0;
        // Where it breaks off is found again, and judged, by whoever decodes it.
        while let Ok(Some(packet)) = track.next_packet() {
            seconds += packet.dur.get() as f64 * track.tick;
            if seconds > limits.duration.as_secs_f64() + MEASURE_SLACK {
                return Err(AudioError::TooLong { limit: limits.duration });
            }
        }
        Ok(())
    })
}

/// One track of a container and its decoder.
struct Track {
    reader: Box<dyn FormatReader>,
    id: u32,
    decoder: Box<dyn AudioDecoder>,
    /// Seconds of a unit of its packets' times; 0 where that is not known.
    tick: f64,
    /// Bytes that packets may still have.
    bytes_left: u64,
    /// Packets without any.
    empty: u64,
}

impl Track {
    fn open(source: Box<dyn MediaSource>) -> Result<Self, AudioError> {
        let bytes_left = source.byte_len().map_or(u64::MAX, |bytes| bytes.saturating_mul(MAX_OVERLAP) + (1 << 20));
        let stream = MediaSourceStream::new(source, symphonia::core::io::MediaSourceStreamOptions::default());
        let metadata =
            MetadataOptions::default().limit_tag_bytes(Limit::Maximum(TAG_BYTES)).limit_visual_bytes(Limit::Maximum(0));
        let reader = symphonia::default::get_probe()
            .probe(&Hint::new(), stream, FormatOptions::default(), metadata)
            .map_err(|error| match error {
                Error::IoError(error) if !is_end(&error) => AudioError::Io(error),
                error => AudioError::NotAudio { reason: error.to_string() },
            })?;
        let (id, tick, decoder) = choose(&*reader)?;
        Ok(Self { reader, id, decoder, tick, bytes_left, empty: 0 })
    }

    /// The track's next packet.
    fn next_packet(&mut self) -> Result<Option<Packet>, Error> {
        loop {
            let packet = self.reader.next_packet();
            if let Ok(Some(packet)) = &packet {
                self.empty += u64::from(packet.data.is_empty());
                self.bytes_left = self.bytes_left.saturating_sub(packet.data.len() as u64 + 1);
                if self.bytes_left == 0 || self.empty > MAX_USELESS {
                    return Err(Error::LimitError("it has more packets than sound"));
                }
            }
            match packet {
                Ok(Some(packet)) if packet.track_id != self.id || packet.data.is_empty() => {}
                // Another stream follows in the same file.
                Err(Error::ResetRequired) => {
                    (self.id, self.tick, self.decoder) =
                        choose(&*self.reader).map_err(|_| Error::Unsupported("the stream goes on in another form"))?;
                }
                other => return other,
            }
        }
    }
}

/// Chooses the audio track, tells its unit of time, and makes its decoder.
fn choose(reader: &dyn FormatReader) -> Result<(u32, f64, Box<dyn AudioDecoder>), AudioError> {
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
    let tick = track.time_base.map_or(0.0, |base| f64::from(base.numer.get()) / f64::from(base.denom.get()));
    Ok((track.id, tick, decoder))
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

#[cfg(test)]
#[path = "hostile_tests.rs"]
mod hostile_tests;
