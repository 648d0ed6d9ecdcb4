//! Local inference: the models of `nn` behind `provider`'s traits.
//!
//! Each model is owned by one named OS thread (candle's default CUDA stream is per thread: sharing a device between
//! threads is a race). Commands go in, streams of PCM, text and numbers come out; a tensor never crosses a thread.
//! Dropping a reply's stream cancels its work.

mod batch;
pub mod chat;
pub mod device;
pub mod embedding;
pub mod loudness;
pub mod memory;
pub mod precedence;
pub mod speech;
pub mod stt;
pub mod vad;
pub mod worker;

use std::path::PathBuf;

use crate::nn::decoder::DecoderError;
use crate::nn::higgs::HiggsError;
use crate::provider::ProviderError;

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("{}: {reason}", path.display())]
    BadFile { path: PathBuf, reason: String },
    #[error("{what} needs about {needed_mb} MB of memory and {free_mb} MB are free")]
    DoesNotFit { what: String, needed_mb: u64, free_mb: u64 },
    #[error("device {device}: {reason}")]
    Device { device: String, reason: String },
    #[error("the thread {name} failed: {reason}")]
    Thread { name: String, reason: String },
    /// The model loaded but gave a wrong answer to a question with a known one.
    #[error("{what} failed its first check: {reason}")]
    Canary { what: String, reason: String },
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Logs an error of `model` and answers the client's version of it. A card that has no memory left says so in words
/// alone, cuBLAS in others.
fn failure(model: &str, error: &dyn std::error::Error) -> ProviderError {
    tracing::error!(%error, model, "a model failed");
    let what = model.to_owned();
    let text = error.to_string().to_ascii_lowercase();
    if ["out of memory", "out_of_memory", "alloc_failed"].iter().any(|words| text.contains(words)) {
        ProviderError::OutOfMemory { what }
    } else {
        ProviderError::Failed { what }
    }
}

impl From<DecoderError> for EngineError {
    fn from(error: DecoderError) -> Self {
        match error {
            DecoderError::BadFile { path, reason } => Self::BadFile { path, reason },
            DecoderError::Candle(error) => Self::Candle(error),
            error @ DecoderError::BadSpan { .. } => Self::Candle(candle_core::Error::wrap(error)),
        }
    }
}

impl From<HiggsError> for EngineError {
    fn from(error: HiggsError) -> Self {
        match error {
            HiggsError::BadFile { path, reason } => Self::BadFile { path, reason },
            HiggsError::Candle(error) => Self::Candle(error),
            error @ (HiggsError::Unfit(_) | HiggsError::BadCall { .. }) => {
                Self::Candle(candle_core::Error::wrap(error))
            }
        }
    }
}
