//! What a stream of replies tells, one server-sent event each: the event's name, and its data as JSON.

use axum::response::sse::Event;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::api::wire::AudioBody;
use crate::provider::Role;
use crate::session::event::{AudioPiece, Complaint};
use crate::session::record::MessageStatus;
use crate::store::SavedMessage;

/// The data of an event; the event's name says which.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = ReplyEvent)]
pub(super) enum Told<'a> {
    Message(Box<MessageBody>),
    Delta(Delta<'a>),
    Audio(AudioBody<'a>),
    Error(Fault<'a>),
    Done(Done),
}

/// `message`: as it is stored. The user's comes first; a character's when it is completed or has failed.
#[derive(Serialize, ToSchema)]
#[schema(as = ReplyMessage)]
pub(super) struct MessageBody {
    id: String,
    conversation_id: String,
    #[schema(value_type = String, pattern = "^(user|assistant)$")]
    role: Role,
    #[schema(required)]
    character_id: Option<String>,
    #[schema(required)]
    character_name: Option<String>,
    content: String,
    content_type: String,
    #[schema(value_type = Vec<Object>)]
    attachments: Value,
    #[schema(value_type = String, pattern = "^(completed|failed)$")]
    status: MessageStatus,
    /// Characters of the content that were heard; null: all.
    #[schema(required)]
    heard_chars: Option<usize>,
    #[schema(required)]
    audio_url: Option<String>,
    /// `timings`, `served_by`, `usage` and, where it failed, `error`.
    #[schema(value_type = Object)]
    metadata: Value,
    #[schema(required)]
    client_message_id: Option<String>,
    created_at: String,
    updated_at: String,
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
    pub(super) fn message(saved: SavedMessage) -> Self {
        Self::Message(Box::new(body(saved)))
    }

    pub(super) fn audio(piece: &'a AudioPiece) -> Self {
        Self::Audio(AudioBody::of(piece))
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

fn body(saved: SavedMessage) -> MessageBody {
    let SavedMessage { message, content_type, attachments, audio_file, created_at, updated_at } = saved;
    MessageBody {
        audio_url: audio_file.map(|_| format!("/api/messages/{}/audio", message.id)),
        id: message.id,
        conversation_id: message.conversation_id,
        role: message.role,
        character_id: message.character_id,
        character_name: message.character_name,
        content: message.content,
        content_type,
        attachments,
        status: message.status,
        heard_chars: message.heard_chars,
        metadata: message.metadata,
        client_message_id: message.client_message_id,
        created_at,
        updated_at,
    }
}
