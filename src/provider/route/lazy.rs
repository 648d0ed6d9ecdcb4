//! A door that is built when it is first asked.
//!
//! Building goes on when whoever asked has left, is done once, and after a failure is tried again by the next who asks.

use std::sync::Arc;

use futures::future::{self, BoxFuture};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use tokio::sync::OnceCell;

use super::refuse;
use crate::audio::Mic;
use crate::provider::{
    ChatModel, ChatRequest, Delta, EmbedRequest, Embeddings, Flow, ProviderError, SpeakRequest, SpeechChunk,
    SpeechSynthesizer, SpeechToText, SttOptions, TextEmbedder, Transcript, VoiceInfo, VoiceStudio,
};

type Build<D> = dyn Fn() -> BoxFuture<'static, Result<Arc<D>, ProviderError>> + Send + Sync;

/// In the place of a door that is not needed yet.
pub struct Lazy<D: ?Sized> {
    name: Arc<str>,
    built: Arc<OnceCell<Arc<D>>>,
    build: Arc<Build<D>>,
}

impl<D: Send + Sync + ?Sized + 'static> Lazy<D> {
    /// `name` is for errors.
    pub fn new(
        name: impl Into<Arc<str>>,
        build: impl Fn() -> BoxFuture<'static, Result<Arc<D>, ProviderError>> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), built: Arc::default(), build: Arc::new(build) }
    }

    /// The door. It is being built from the call on.
    fn door(&self) -> BoxFuture<'static, Result<Arc<D>, ProviderError>> {
        if let Some(door) = self.built.get() {
            return future::ready(Ok(Arc::clone(door))).boxed();
        }
        let (built, build) = (Arc::clone(&self.built), Arc::clone(&self.build));
        let building = tokio::spawn(async move { built.get_or_try_init(|| build()).await.cloned() });
        let what = self.name.to_string();
        async move { building.await.unwrap_or(Err(ProviderError::Failed { what })) }.boxed()
    }

    fn flow<T: Send + 'static>(&self, ask: impl FnOnce(&D) -> Flow<T> + Send + 'static) -> Flow<T> {
        if let Some(door) = self.built.get() {
            return ask(door);
        }
        let door = self.door();
        stream::once(async move { door.await.map_or_else(refuse, |door| ask(&door)) }).flatten().boxed()
    }
}

impl ChatModel for Lazy<dyn ChatModel> {
    fn reply(&self, request: ChatRequest) -> Flow<Delta> {
        self.flow(move |door| door.reply(request))
    }

    fn prepare(&self, request: ChatRequest) {
        let door = self.door();
        tokio::spawn(async move {
            if let Ok(door) = door.await {
                door.prepare(request);
            }
        });
    }

    fn window(&self) -> Option<usize> {
        self.built.get().and_then(|door| door.window())
    }
}

impl SpeechToText for Lazy<dyn SpeechToText> {
    fn transcribe(&self, audio: BoxStream<'static, Mic>, options: SttOptions) -> Flow<Transcript> {
        self.flow(move |door| door.transcribe(audio, options))
    }

    fn languages(&self) -> Vec<String> {
        self.built.get().map(|door| door.languages()).unwrap_or_default()
    }
}

impl SpeechSynthesizer for Lazy<dyn SpeechSynthesizer> {
    fn speak(&self, request: SpeakRequest) -> Flow<SpeechChunk> {
        self.flow(move |door| door.speak(request))
    }

    fn voices(&self) -> Vec<VoiceInfo> {
        self.built.get().map(|door| door.voices()).unwrap_or_default()
    }

    fn studio(&self) -> Option<Arc<dyn VoiceStudio>> {
        self.built.get().and_then(|door| door.studio())
    }
}

impl TextEmbedder for Lazy<dyn TextEmbedder> {
    fn embed(&self, request: EmbedRequest) -> BoxFuture<'static, Result<Embeddings, ProviderError>> {
        let door = self.door();
        async move { door.await?.embed(request).await }.boxed()
    }
}
