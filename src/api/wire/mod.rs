//! The clients' JSON, and nothing else knows it: `inbound` reads what a client sends, `outbound` writes what it gets.
//!
//! The contract is docs/PROTOCOL.md. Reading never fails with a close: whatever is wrong becomes a [`Refusal`], which
//! goes back as an `error` message with the client's `ref`, where it could be read.

mod inbound;
mod outbound;

pub(super) use inbound::{AudioChunk, ClientMessage, Inbound, read};
pub(super) use outbound::{AudioBody, Encoder, Notice};

/// Why a message was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub code: &'static str,
    pub message: String,
    /// The same message may be taken later.
    pub retryable: bool,
    pub reference: Option<String>,
}

impl Refusal {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retryable: false, reference: None }
    }

    #[must_use]
    pub(super) fn retryable(self) -> Self {
        Self { retryable: true, ..self }
    }

    #[must_use]
    pub(super) fn to(self, reference: Option<String>) -> Self {
        Self { reference, ..self }
    }
}

#[cfg(test)]
mod tests;
