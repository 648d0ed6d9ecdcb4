//! A door that nobody stands behind: every request is told what is missing and how to get it.

use futures::future::{self, BoxFuture, FutureExt};
use futures::stream::{self, BoxStream, StreamExt};

use super::{
    ChatModel, ChatRequest, Delta, EmbedRequest, Embeddings, Flow, ProviderError, SpeakRequest, SpeechChunk,
    SpeechSynthesizer, SpeechToText, SttOptions, TextEmbedder, Transcript, VoiceInfo,
};
use crate::audio::Mic;

/// In a missing model's place.
pub struct Missing {
    error: ProviderError,
}

impl Missing {
    /// `what` is missing; `remedy` says how to get it.
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { error: ProviderError::Unavailable { what: what.into(), remedy: remedy.into() } }
    }

    fn refuse<T: Send + 'static>(&self) -> Flow<T> {
        let error = self.error.clone();
        stream::once(async { Err(error) }).boxed()
    }
}

impl SpeechToText for Missing {
    fn transcribe(&self, _audio: BoxStream<'static, Mic>, _options: SttOptions) -> Flow<Transcript> {
        self.refuse()
    }

    fn languages(&self) -> Vec<String> {
        Vec::new()
    }
}

impl ChatModel for Missing {
    fn reply(&self, _request: ChatRequest) -> Flow<Delta> {
        self.refuse()
    }
}

impl SpeechSynthesizer for Missing {
    fn speak(&self, _request: SpeakRequest) -> Flow<SpeechChunk> {
        self.refuse()
    }

    fn voices(&self) -> Vec<VoiceInfo> {
        Vec::new()
    }
}

impl TextEmbedder for Missing {
    fn embed(&self, _request: EmbedRequest) -> BoxFuture<'static, Result<Embeddings, ProviderError>> {
        future::ready(Err(self.error.clone())).boxed()
    }
}
