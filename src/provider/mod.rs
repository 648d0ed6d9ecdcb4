//! The seam between conversation and inference: five object-safe traits, their requests, items and one error.
//!
//! Local engines (`engine`) and remote services (`remote`) implement these traits; `session` and `api` call them and
//! cannot tell which is behind. Streaming is the base case: an answer that is wanted whole is a fold over its stream.
//!
//! The contract of every method:
//! - work starts at the call, not at the first poll;
//! - a stream ends after exactly one terminal item: its last kind of item, or an error;
//! - dropping the stream cancels the work and frees its slot;
//! - a stream never blocks a tokio thread.

pub mod account;
pub mod caller;
pub mod chat;
pub mod embedding;
pub mod error;
pub mod filter;
#[cfg(test)]
pub mod fake;
pub mod fallback;
pub mod limit;
#[cfg(test)]
pub mod missing;
pub mod roster;
pub mod route;
pub mod speech;
pub(crate) mod task;
pub mod transcript;
pub mod voices;

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::BoxStream;

use crate::audio::Mic;
pub use caller::Caller;
pub use chat::{
    ChatMessage, ChatRequest, Delta, FinishReason, OutputShape, Role, Sampling, TokenLogprob, ToolCall, ToolChoice,
    ToolSpec, Usage,
};
pub use embedding::{EmbedRequest, Embeddings};
pub use error::ProviderError;
pub use roster::{
    Capability, LocalModel, ModelCard, ModelShelf, ModelState, ProviderReport, ProviderState, PullProgress,
    RemoteModel, Roster, VoiceNames,
};
pub use speech::{
    Gender, Language, SpeakRequest, SpeechChunk, StoryId, Urgency, VoiceEngine, VoiceInfo, WordMark, at_once,
};
pub use transcript::{Ending, FinalTranscript, Segment, SttOptions, SttTask, Transcript, Word};
pub use voices::{OwnVoice, VoiceBook, VoiceRecording, VoiceReference, VoiceStudio};

/// A stream of `T` that ends after one terminal item.
pub type Flow<T> = BoxStream<'static, Result<T, ProviderError>>;

/// Hears: audio in, text out.
pub trait SpeechToText: Send + Sync {
    /// Transcribes one utterance, which ends where `audio` ends. Yields any number of [`Transcript::Partial`] and one
    /// terminal [`Transcript::Final`].
    fn transcribe(&self, audio: BoxStream<'static, Mic>, options: SttOptions) -> Flow<Transcript>;

    /// The codes that [`SttOptions::languages`] may name.
    fn languages(&self) -> Vec<String>;

    /// Whether [`SttOptions::model`] may be this, as far as that is known before it is asked.
    ///
    /// # Errors
    /// [`ProviderError::UnknownModel`], with the names there are.
    fn check_model(&self, _name: &str) -> Result<(), ProviderError> {
        Ok(())
    }
}

/// Thinks: messages in, text out.
pub trait ChatModel: Send + Sync {
    /// Writes one reply. Yields [`Delta::Begin`], any number of deltas, and one terminal [`Delta::Done`].
    fn reply(&self, request: ChatRequest) -> Flow<Delta>;

    /// Reads ahead, as far as idle time allows, what every request that begins with these messages begins with; the
    /// last message, if a user's, may still grow. A session calls it when it knows its system prompt. May do nothing.
    fn prepare(&self, _request: ChatRequest) {}

    /// Tokens that a prompt and its reply may take together; of a longer prompt the oldest messages are left out. None:
    /// unknown.
    fn window(&self) -> Option<usize> {
        None
    }

    /// Whether [`ChatRequest::model`] may be this, as far as that is known before it is asked.
    ///
    /// # Errors
    /// [`ProviderError::UnknownModel`], with the names there are.
    fn check_model(&self, _name: &str) -> Result<(), ProviderError> {
        Ok(())
    }
}

/// Speaks: text in, audio out.
pub trait SpeechSynthesizer: Send + Sync {
    /// Speaks one sentence or clause. The terminal item is the chunk with `last` set.
    fn speak(&self, request: SpeakRequest) -> Flow<SpeechChunk>;

    /// The voices that [`SpeakRequest::voice`] may name, beside those that people made.
    fn voices(&self) -> Vec<VoiceInfo>;

    /// Where it learns voices that people made. None: it speaks with its own only.
    fn studio(&self) -> Option<Arc<dyn VoiceStudio>> {
        None
    }

    /// Whether [`SpeakRequest::model`] may be this, as far as that is known before it is asked.
    ///
    /// # Errors
    /// [`ProviderError::UnknownModel`], with the names there are.
    fn check_model(&self, _name: &str) -> Result<(), ProviderError> {
        Ok(())
    }
}

/// Places texts in a vector space, so that what means the same is near.
pub trait TextEmbedder: Send + Sync {
    /// Embeds all texts of the request, or none. Dropping the future cancels the work.
    fn embed(&self, request: EmbedRequest) -> BoxFuture<'static, Result<Embeddings, ProviderError>>;
}

/// Notices speech: frames in, probabilities out.
pub trait VoiceActivity: Send + Sync {
    /// Opens an independent stream of frames.
    fn open(&self) -> Box<dyn VadStream>;
}

/// Samples in one frame of [`VadStream::score`]: 32 ms at 16 kHz.
pub const VAD_FRAME: usize = 512;

/// One microphone's frames, in order.
pub trait VadStream: Send {
    /// The probability that this frame holds speech. Takes well under a millisecond.
    fn score(&mut self, frame: &[f32; VAD_FRAME]) -> f32;
}
