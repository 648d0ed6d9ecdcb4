//! Who could answer: for lists of models and for whoever looks after the server.

use std::sync::Arc;

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
