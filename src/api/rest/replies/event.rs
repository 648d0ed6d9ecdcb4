//! What a stream of replies tells, one server-sent event each: the event's name, and its data as JSON.

use axum::response::sse::Event;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::rest::conversations::Message;
use crate::api::wire::{AudioBody, Chunk};
use crate::session::event::{AudioPiece, Complaint};
use crate::store::StoredMessage;

/// The data of an event; the event's name says which.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = ReplyEvent)]
pub(super) enum Told<'a> {
    /// `message`: as it is stored. The user's comes first; a character's when it is completed or has failed.
    Message(Box<Message>),
    Delta(Delta<'a>),
    Audio(AudioBody<'a>),
    Error(Fault<'a>),
    Done(Done),
}

/// `delta`: more of a character's text.
#[derive(Serialize, ToSchema)]
#[schema(as = ReplyDelta)]
pub(super) struct Delta<'a> {
    pub(super) character_id: &'a str,
    /// The id that the message has.
    pub(super) item_id: &'a str,
    pub(super) text: &'a str,
}

/// `error`: something failed; the stream goes on to its end.
#[derive(Serialize, ToSchema)]
#[schema(as = ReplyError)]
pub(super) struct Fault<'a> {
    code: &'a str,
    message: &'a str,
    /// The same request may succeed later.
    retryable: bool,
    #[schema(required)]
    item_id: Option<&'a str>,
}

/// `done`: nothing follows, and all of it is stored.
#[derive(Serialize, ToSchema)]
#[schema(as = ReplyDone)]
pub(super) struct Done {
    pub(super) conversation_id: String,
}

impl<'a> Told<'a> {
    pub(super) fn message(stored: StoredMessage) -> Self {
        Self::Message(Box::new(stored.into()))
    }

    pub(super) fn audio(piece: &'a AudioPiece, chunk: &'a Chunk) -> Self {
        Self::Audio(AudioBody::of(piece, chunk))
    }

    pub(super) fn complaint(complaint: &'a Complaint) -> Self {
        Self::Error(Fault {
            code: complaint.code.as_str(),
            message: &complaint.message,
            retryable: complaint.retryable,
            item_id: complaint.item_id.as_deref(),
        })
    }

    pub(super) fn fault(code: &'a str, message: &'a str) -> Self {
        Self::Error(Fault { code, message, retryable: true, item_id: None })
    }

    /// None: it cannot be written as JSON, which none of our types has.
    pub(super) fn event(&self) -> Option<Event> {
        let name = match self {
            Self::Message(_) => "message",
            Self::Delta(_) => "delta",
            Self::Audio(_) => "audio",
            Self::Error(_) => "error",
            Self::Done(_) => "done",
        };
        let event = Event::default().event(name).json_data(self);
        event.inspect_err(|error| tracing::error!(%error, "an event could not be written as JSON")).ok()
    }
}
