//! The clients' JSON and binary frames, and nothing else knows them: `inbound` reads what a client sends, `outbound`
//! writes what it gets, `journal` reads that again, `speech` packs the sound in it, and `binary` has the frames for clients that asked for them.
//!
//! The contract is docs/PROTOCOL.md. Reading never fails with a close: whatever is wrong becomes a [`Refusal`], which
//! goes back as an `error` message with the client's `ref`, where it could be read.

mod binary;
mod inbound;
mod journal;
mod notice;
mod outbound;
mod speech;

pub(super) use binary::read_frame;
pub(super) use inbound::{AudioChunk, ClientMessage, Inbound, Resume, TEXT, named, read};
pub(super) use journal::Recall;
pub(super) use notice::Notice;
pub(super) use outbound::{Encoder, text};
pub(super) use speech::{AudioBody, Chunk, Packer};

/// How sound travels on one socket. All else is JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// In JSON, too.
    Json,
    /// In binary frames, both ways. The client's PCM has this rate in hertz and so many channels.
    Binary { rate: u32, channels: u32 },
}

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
