//! Speech as bytes that players know: WAV, bare PCM, MP3, Opus in Ogg, FLAC and AAC.
//!
//! Every encoder streams: it takes audio as it is spoken and gives the bytes that are ready, which together are one
//! file. What begins a file says nothing of its length, since nobody knows it yet; [`Ending::head`] is the beginning
//! that does, for whoever writes to a file and can go back. MP3 and AAC are cargo features for their licences' sake.

#[cfg(feature = "aac")]
mod aac;
mod flac;
#[cfg(feature = "mp3")]
mod mp3;
mod opus;
mod plain;

use super::Speech;

/// How speech is packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Mp3,
    Opus,
    Aac,
    Flac,
    Wav,
    Pcm,
}

/// Why speech cannot be packed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error(
        "{format} is not in this build; build it with the cargo feature \"{format}\", or ask for another of mp3, opus, \
         aac, flac, wav and pcm"
    )]
    NotBuilt { format: &'static str },
    #[error("encoding {format} failed: {reason}")]
    Failed { format: &'static str, reason: String },
}

/// Packs one stream of speech. It takes milliseconds for a second of audio and never waits.
pub trait Encoder: Send {
    /// Takes audio and gives the bytes that are ready, which may be none.
    fn push(&mut self, audio: &Speech) -> Result<Vec<u8>, EncodeError>;

    /// Ends the file. Nothing may be pushed after it.
    fn finish(&mut self) -> Result<Ending, EncodeError>;
}

/// How a file ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// The file's last bytes.
    pub bytes: Vec<u8>,
    /// What the file may begin with now that its length is known, in the place of as many bytes.
    pub head: Vec<u8>,
}

impl Format {
    pub const ALL: [Self; 6] = [Self::Mp3, Self::Opus, Self::Aac, Self::Flac, Self::Wav, Self::Pcm];

    /// As requests name it, and a file's extension.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mp3 => "mp3",
            Self::Opus => "opus",
            Self::Aac => "aac",
            Self::Flac => "flac",
            Self::Wav => "wav",
            Self::Pcm => "pcm",
        }
    }

    /// Whether this build can write it.
    pub const fn is_built(self) -> bool {
        match self {
            Self::Mp3 => cfg!(feature = "mp3"),
            Self::Aac => cfg!(feature = "aac"),
            _ => true,
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Its media type. PCM is signed 16-bit little-endian, mono at 24 kHz, as OpenAI's.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Mp3 => "audio/mpeg",
            Self::Opus => "audio/ogg",
            Self::Aac => "audio/aac",
            Self::Flac => "audio/flac",
            Self::Wav => "audio/wav",
            Self::Pcm => "audio/pcm",
        }
    }

    /// Begins a file.
    ///
    /// # Errors
    /// [`EncodeError::NotBuilt`] where this build cannot write it.
    pub fn encoder(self) -> Result<Box<dyn Encoder>, EncodeError> {
        Ok(match self {
            #[cfg(feature = "mp3")]
            Self::Mp3 => Box::new(mp3::Mp3::new()?),
            #[cfg(feature = "aac")]
            Self::Aac => Box::new(aac::Aac::new()?),
            #[cfg(not(all(feature = "mp3", feature = "aac")))]
            Self::Mp3 | Self::Aac => return Err(EncodeError::NotBuilt { format: self.name() }),
            Self::Opus => Box::new(opus::Opus::new()?),
            Self::Flac => Box::new(flac::Flac::new()?),
            Self::Wav => Box::new(plain::Wav::default()),
            Self::Pcm => Box::new(plain::Bare),
        })
    }

    /// A whole file, which says its length where its format can.
    pub fn encode(self, audio: &Speech) -> Result<Vec<u8>, EncodeError> {
        let mut encoder = self.encoder()?;
        let mut file = encoder.push(audio)?;
        let Ending { bytes, head } = encoder.finish()?;
        file.extend(bytes);
        file[..head.len()].copy_from_slice(&head);
        Ok(file)
    }

    fn failed(self, reason: impl std::fmt::Display) -> EncodeError {
        EncodeError::Failed { format: self.name(), reason: reason.to_string() }
    }
}

#[cfg(test)]
mod tests;
