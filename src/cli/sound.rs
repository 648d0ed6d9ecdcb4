//! Sound files as commands take and give them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;

use crate::audio::container::{AudioError, Decoder, Limits};
use crate::audio::{MIC_HZ, Mic, Pcm, Samples, wav};

/// Decoded blocks that wait for the listener: a few seconds, so that a long file needs little memory.
const AHEAD: usize = 64;
/// The longest file there may be.
pub(super) const LONGEST: Duration = Duration::from_hours(4);
/// Headerless files are read in pieces of this length.
const RAW_BLOCK: Samples<MIC_HZ> = Samples::from_millis(100);

/// A sound file that has been opened and recognised.
pub(super) struct Sound {
    path: PathBuf,
    blocks: Box<dyn Iterator<Item = Result<Mic, AudioError>> + Send>,
}

impl Sound {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let blocks = if is_headerless(path) { headerless(path) } else { decoded(path) };
        Ok(Self { blocks: blocks.with_context(|| path.display().to_string())?, path: path.to_owned() })
    }

    /// Decodes on a thread of its own, as fast as the stream is read. What went wrong on the way, and how much there
    /// was, comes at the end.
    pub(super) fn stream(self) -> (BoxStream<'static, Mic>, JoinHandle<anyhow::Result<Duration>>) {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let decoding = tokio::task::spawn_blocking(move || {
            let mut length = Samples::default();
            for block in self.blocks {
                let block = block.with_context(|| self.path.display().to_string())?;
                length += block.len();
                if sender.blocking_send(block).is_err() {
                    break;
                }
            }
            Ok(length.duration())
        });
        (ReceiverStream::new(receiver).boxed(), decoding)
    }

    /// All of it.
    pub(super) fn whole(self, longest: Duration) -> anyhow::Result<Mic> {
        let shown = self.path.display().to_string();
        let mut whole = Mic::default();
        for block in self.blocks {
            whole.extend(&block.with_context(|| shown.clone())?);
            anyhow::ensure!(
                whole.duration() <= longest,
                "{shown}: one utterance is at most {} s long; for longer files use `aichat transcribe`",
                longest.as_secs()
            );
        }
        Ok(whole)
    }
}

fn decoded(path: &Path) -> Result<Box<dyn Iterator<Item = Result<Mic, AudioError>> + Send>, AudioError> {
    Ok(Box::new(Decoder::<MIC_HZ>::open(path, Limits::up_to(LONGEST))?))
}

fn headerless(path: &Path) -> Result<Box<dyn Iterator<Item = Result<Mic, AudioError>> + Send>, AudioError> {
    let bytes = std::fs::read(path)?;
    if bytes.is_empty() {
        return Err(AudioError::Empty);
    }
    let blocks: Vec<_> = bytes.chunks(2 * RAW_BLOCK.as_usize()).map(|block| Ok(Mic::from_s16le(block))).collect();
    Ok(Box::new(blocks.into_iter()))
}

/// Files without a header are taken for 16-bit mono at 16 kHz.
fn is_headerless(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("raw"))
}

/// Writes a WAV file; `-` is standard output.
pub(super) fn write<const HZ: u32>(path: &Path, audio: &Pcm<HZ>) -> anyhow::Result<()> {
    let written = if path.as_os_str() == "-" {
        std::io::stdout().lock().write_all(&wav::encode(audio))
    } else {
        wav::write(path, audio)
    };
    written.with_context(|| path.display().to_string())
}
