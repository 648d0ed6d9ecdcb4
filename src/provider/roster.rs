//! Who could answer: for lists of models and for whoever looks after the server.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::account::Price;
use super::{Flow, ProviderError};

/// What a model or a provider is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    Transcription,
    Chat,
    Speech,
    Embedding,
}

impl Capability {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transcription => "transcription",
            Self::Chat => "chat",
            Self::Speech => "speech",
            Self::Embedding => "embedding",
        }
    }
}

/// A model that a request may name.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ModelCard {
    /// As a request names it: `whisper-base`, `openrouter/anthropic/claude-3.5-sonnet`.
    pub name: String,
    pub capability: Capability,
    /// `local`, or the remote service's name.
    pub provider: Arc<str>,
}

/// A link of a capability's chain, first choice first.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ProviderReport {
    pub capability: Capability,
    /// As `served_by` names it.
    pub name: String,
    /// Whether it runs elsewhere.
    pub remote: bool,
    #[serde(flatten)]
    pub state: ProviderState,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ProviderState {
    /// Loaded, or configured and not known to fail.
    Ready,
    /// `remedy` says how to get it.
    Missing { remedy: String },
    /// It failed too often lately and is left alone for a while.
    Open,
    /// It is being tried again.
    HalfOpen,
}

/// Tells who could answer now.
pub trait Roster: Send + Sync {
    fn models(&self) -> Vec<ModelCard>;
    fn providers(&self) -> Vec<ProviderReport>;
}

/// A model of this machine's, or one that it could have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalModel {
    pub name: String,
    /// `transcription`, `chat`, `speech`, `embedding`, `voice_activity`, or `speech_codec`: what another model needs.
    pub kind: &'static str,
    pub summary: String,
    pub licence: String,
    pub state: ModelState,
    /// None: it is not on the disk, or not whole.
    pub disk_bytes: Option<u64>,
    /// Weights, caches and activations together, roughly.
    pub memory_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelState {
    Unloaded,
    Loading,
    Ready,
    /// It is tried again by whoever asks for it.
    Failed {
        reason: String,
    },
}

/// A model of a service that is configured.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteModel {
    /// As a request names it.
    pub name: String,
    /// The service.
    pub provider: String,
    /// None: it counts as free.
    pub price: Option<Price>,
}

/// How far a model is on its way here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullProgress {
    pub model: String,
    /// As people read it: `fetching`.
    pub stage: String,
    /// Empty: the whole model is concerned.
    pub file: String,
    pub done_bytes: u64,
    /// None: unknown.
    pub total_bytes: Option<u64>,
}

/// The voices that requests mean which name none, or one of OpenAI's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VoiceNames {
    /// None: the engine's own default.
    pub default: Option<String>,
    /// An engine's voice by OpenAI's name. What is absent is the engine's own choice.
    pub openai: BTreeMap<String, String>,
}

/// Fetches models, loads them, puts them away, and says which are asked where a request names none.
pub trait ModelShelf: Send + Sync {
    /// Looks at the disk.
    fn local(&self) -> Vec<LocalModel>;

    fn remote(&self) -> Vec<RemoteModel>;

    /// Brings a model onto the disk. The latest progress is told; dropping the stream stops the work, and what came so
    /// far is kept for the next time.
    ///
    /// # Errors
    /// [`ProviderError::UnknownModel`].
    fn pull(&self, name: &str) -> Result<Flow<PullProgress>, ProviderError>;

    /// Loads a model, where it is not.
    fn load(&self, name: &str) -> BoxFuture<'static, Result<(), ProviderError>>;

    /// Gives a model's memory back as soon as nobody uses it. The next who asks loads it again.
    ///
    /// # Errors
    /// [`ProviderError::UnknownModel`]; [`ProviderError::InvalidRequest`], where it cannot be unloaded by itself.
    fn unload(&self, name: &str) -> Result<(), ProviderError>;

    /// The model that is asked first where a request names none.
    fn first(&self, capability: Capability) -> String;

    /// Puts a model before the server's own chain, from the next request on.
    ///
    /// # Errors
    /// [`ProviderError::UnknownModel`].
    fn prefer(&self, capability: Capability, name: &str) -> Result<(), ProviderError>;

    /// What these names mean, from the next request on.
    fn name_voices(&self, names: VoiceNames);
}
