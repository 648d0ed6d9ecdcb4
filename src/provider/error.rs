//! What can go wrong behind the seam, in the caller's terms.

use std::time::Duration;

/// One error for all doors. Its text is safe to show to a client.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProviderError {
    /// All slots and the waiting room are full.
    #[error("{what} is at capacity; try again in {} s", retry_after.as_secs().max(1))]
    Overloaded { what: String, retry_after: Duration },
    /// No such model here, or not now. `remedy` says what to do about it.
    #[error("{what} is not available: {remedy}")]
    Unavailable { what: String, remedy: String },
    /// A request names a model that nobody here serves.
    #[error("there is no model \"{model}\": {remedy}")]
    UnknownModel { model: String, remedy: String },
    #[error("the voice \"{voice}\" is not available; the nearest is \"{nearest}\"")]
    VoiceUnavailable { voice: String, nearest: String },
    #[error("the language \"{language}\" is not supported by {what}")]
    LanguageUnsupported { language: String, what: String },
    /// The request itself is wrong and would be wrong anywhere.
    #[error("{field}: {message}")]
    InvalidRequest { field: &'static str, message: String },
    #[error("{what} did not answer within {} s", after.as_secs())]
    TimedOut { what: String, after: Duration },
    #[error("{what} ran out of memory")]
    OutOfMemory { what: String },
    /// A remote service refuses what another would not refuse on the same ground: our key, our quota, its policy.
    #[error("{what} refused the request: {reason}")]
    Refused { what: String, reason: String },
    /// A limit on cost is reached. Nothing was asked of anybody.
    #[error("the {budget} budget of {limit_usd} US dollars is used up")]
    OverBudget { budget: &'static str, limit_usd: String },
    /// The content filter stopped the request or its answer.
    #[error("the content filter stopped this: {reason}")]
    Filtered { reason: String },
    /// A fault of ours or of a remote service; details are in the log.
    #[error("{what} failed")]
    Failed { what: String },
}

impl ProviderError {
    /// Whether the fault is whoever's was asked: another may answer the same request.
    pub fn is_fault(&self) -> bool {
        match self {
            Self::Overloaded { .. }
            | Self::Unavailable { .. }
            | Self::TimedOut { .. }
            | Self::OutOfMemory { .. }
            | Self::Refused { .. }
            | Self::Failed { .. } => true,
            Self::UnknownModel { .. }
            | Self::VoiceUnavailable { .. }
            | Self::LanguageUnsupported { .. }
            | Self::InvalidRequest { .. }
            | Self::OverBudget { .. }
            | Self::Filtered { .. } => false,
        }
    }
}
