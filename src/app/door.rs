//! What the four capabilities have in common when their chains are built.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::loader::Loader;
use super::name::ModelName;
use crate::catalog::Kind;
use crate::provider::account::Books;
use crate::provider::route::{Known, Lazy};
use crate::provider::{Capability, ChatModel, SpeechSynthesizer, SpeechToText, TextEmbedder};
use crate::remote::{RemoteChat, RemoteEmbedder, RemoteSpeech, RemoteTranscriber, Service};

/// A door that chains are made of.
pub(super) trait Door: Known + Send + Sync + 'static {
    const CAPABILITY: Capability;
    /// As errors name it.
    const WHAT: &'static str;
    /// The settings of the first choice and of those who stand in.
    const SETTINGS: [&'static str; 2];
    /// A remote model that would do, for remedies.
    const EXAMPLE: &'static str;
    /// The catalog's models that do it.
    const KIND: Kind;

    fn load(loader: Loader, name: ModelName) -> BoxFuture<'static, anyhow::Result<Arc<Self>>>;
    fn lazy(door: Lazy<Self>) -> Arc<Self>;
    fn remote(service: Service, model: &str) -> Arc<Self>;
    /// The same, in the books.
    fn counted(books: &Books, name: &str, remote: bool, door: Arc<Self>) -> Arc<Self>;
}

impl Door for dyn SpeechToText {
    const CAPABILITY: Capability = Capability::Transcription;
    const WHAT: &'static str = "speech recognition";
    const SETTINGS: [&'static str; 2] = ["STT_MODEL", "STT_FALLBACK"];
    const EXAMPLE: &'static str = "openai/whisper-1";
    const KIND: Kind = Kind::SpeechToText;

    fn load(loader: Loader, name: ModelName) -> BoxFuture<'static, anyhow::Result<Arc<Self>>> {
        async move { loader.hearing(&name).await }.boxed()
    }

    fn lazy(door: Lazy<Self>) -> Arc<Self> {
        Arc::new(door)
    }

    fn remote(service: Service, model: &str) -> Arc<Self> {
        Arc::new(RemoteTranscriber::new(service, model))
    }

    fn counted(books: &Books, name: &str, remote: bool, door: Arc<Self>) -> Arc<Self> {
        books.hearing(name, remote, door)
    }
}

impl Door for dyn ChatModel {
    const CAPABILITY: Capability = Capability::Chat;
    const WHAT: &'static str = "the language model";
    const SETTINGS: [&'static str; 2] = ["LLM_MODEL", "LLM_FALLBACK"];
    const EXAMPLE: &'static str = "openai/gpt-4o-mini";
    const KIND: Kind = Kind::Chat;

    fn load(loader: Loader, name: ModelName) -> BoxFuture<'static, anyhow::Result<Arc<Self>>> {
        async move { loader.thinking(&name).await }.boxed()
    }

    fn lazy(door: Lazy<Self>) -> Arc<Self> {
        Arc::new(door)
    }

    fn remote(service: Service, model: &str) -> Arc<Self> {
        Arc::new(RemoteChat::new(service, model))
    }

    fn counted(books: &Books, name: &str, remote: bool, door: Arc<Self>) -> Arc<Self> {
        books.chat(name, remote, door)
    }
}

impl Door for dyn SpeechSynthesizer {
    const CAPABILITY: Capability = Capability::Speech;
    const WHAT: &'static str = "speech synthesis";
    const SETTINGS: [&'static str; 2] = ["TTS_MODEL", "TTS_FALLBACK"];
    const EXAMPLE: &'static str = "openai/tts-1";
    const KIND: Kind = Kind::Speech;

    fn load(loader: Loader, name: ModelName) -> BoxFuture<'static, anyhow::Result<Arc<Self>>> {
        async move { loader.speech(&name).await }.boxed()
    }

    fn lazy(door: Lazy<Self>) -> Arc<Self> {
        Arc::new(door)
    }

    fn remote(service: Service, model: &str) -> Arc<Self> {
        Arc::new(RemoteSpeech::new(service, model))
    }

    fn counted(books: &Books, name: &str, remote: bool, door: Arc<Self>) -> Arc<Self> {
        books.speech(name, remote, door)
    }
}

impl Door for dyn TextEmbedder {
    const CAPABILITY: Capability = Capability::Embedding;
    const WHAT: &'static str = "an embedding model";
    const SETTINGS: [&'static str; 2] = ["EMBEDDING_MODEL", "EMBEDDING_FALLBACK"];
    const EXAMPLE: &'static str = "openai/text-embedding-3-small";
    const KIND: Kind = Kind::Embedding;

    fn load(loader: Loader, name: ModelName) -> BoxFuture<'static, anyhow::Result<Arc<Self>>> {
        async move { loader.embedding(&name).await }.boxed()
    }

    fn lazy(door: Lazy<Self>) -> Arc<Self> {
        Arc::new(door)
    }

    fn remote(service: Service, model: &str) -> Arc<Self> {
        Arc::new(RemoteEmbedder::new(service, model))
    }

    fn counted(books: &Books, name: &str, remote: bool, door: Arc<Self>) -> Arc<Self> {
        books.embedder(name, remote, door)
    }
}
