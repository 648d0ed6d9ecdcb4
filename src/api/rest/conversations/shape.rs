//! What a conversation and a message are over HTTP: their fields, their words, their limits.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::metadata::Metadata;
use crate::api::openapi;
use crate::api::problem::Problem;
use crate::api::rest::text;
use crate::api::wire;
use crate::provider::Role;
use crate::session::record::MessageStatus;
use crate::session::settings::SettingsPatch;
use crate::store::{self, ConversationKind, ConversationStatus, StoredConversation, StoredMessage};

pub(super) const TITLE: usize = 200;
pub(super) const CONTENT: usize = wire::TEXT;
const CLIENT_MESSAGE_ID: usize = 200;
const IMAGE_ID: usize = 200;
const ATTACHMENTS: usize = 16;
/// Who can follow more?
const CHARACTERS: usize = 32;
/// Longer ids are nobody's.
const ID: usize = 200;

/// A word of ours for a word of somebody else's, and back.
macro_rules! words {
    ($(#[$about:meta])* $ours:ident = $theirs:ident { $($word:ident),+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "lowercase")]
        pub(in crate::api::rest) enum $ours { $($word),+ }

        impl From<$theirs> for $ours {
            fn from(word: $theirs) -> Self {
                match word { $($theirs::$word => Self::$word),+ }
            }
        }

        impl From<$ours> for $theirs {
            fn from(word: $ours) -> Self {
                match word { $($ours::$word => Self::$word),+ }
            }
        }
    };
}

words!(
    /// What a conversation is made of.
    Kind = ConversationKind { Text, Image, Mixed }
);
words!(
    /// `deleted` is the bin: it can be taken out again.
    Status = ConversationStatus { Active, Archived, Deleted }
);
words!(
    /// Who says something.
    Speaker = Role { System, User, Assistant, Tool }
);
type StoredContentType = store::ContentType;
words!(
    /// What a message is made of.
    ContentType = StoredContentType { Text, Audio, Image, Mixed }
);
words!(
    /// How far a message is.
    Progress = MessageStatus { Pending, Processing, Completed, Failed }
);

/// A conversation.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api::rest) struct Conversation {
    id: String,
    /// Empty: it has none yet.
    title: String,
    #[serde(rename = "type")]
    kind: Kind,
    status: Status,
    /// What is said in it stays on this machine: no model elsewhere is asked.
    private: bool,
    /// Who takes part, in order.
    character_ids: Vec<String>,
    #[schema(value_type = ConversationSettings)]
    settings: Value,
    message_count: i64,
    #[schema(required)]
    last_message_at: Option<String>,
    created_at: String,
    updated_at: String,
}

impl From<StoredConversation> for Conversation {
    fn from(stored: StoredConversation) -> Self {
        Self {
            id: stored.id,
            title: stored.title,
            kind: stored.kind.into(),
            status: stored.status.into(),
            private: stored.private,
            character_ids: stored.character_ids,
            settings: stored.settings,
            message_count: stored.message_count,
            last_message_at: stored.last_message_at,
            created_at: stored.created_at,
            updated_at: stored.updated_at,
        }
    }
}

/// What sessions of a conversation begin with, on top of the server's settings and the characters' own. All of it may be
/// left out.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what session::settings reads")]
pub(in crate::api::rest) struct ConversationSettings {
    /// The language model. Null: each character's own, else the server's.
    #[schema(min_length = 1, max_length = 200, pattern = "^[!-~]+$")]
    model: Option<String>,
    #[schema(minimum = 0.0, maximum = 2.0, nullable = false)]
    temperature: Option<f32>,
    #[schema(minimum = 0.0, maximum = 1.0, nullable = false)]
    top_p: Option<f32>,
    /// 0 is off.
    #[schema(minimum = 0, maximum = 1_000_000, nullable = false)]
    top_k: Option<u32>,
    #[schema(minimum = 1, maximum = 8192, nullable = false)]
    max_tokens: Option<u32>,
    /// Null: a new one for each reply.
    #[schema(schema_with = openapi::seed)]
    seed: Option<u64>,
    #[schema(max_items = 4, nullable = false)]
    stop: Option<Vec<String>>,
    /// Null: each character's own.
    system_prompt: Option<String>,
    #[schema(nullable = false)]
    summarize_history: Option<bool>,
    /// The speech recogniser. Null: the server's own.
    #[schema(min_length = 1, max_length = 200, pattern = "^[!-~]+$")]
    stt_model: Option<String>,
    /// ISO 639-1 codes. Empty: all.
    #[schema(max_items = 128, nullable = false)]
    languages: Option<Vec<String>>,
    /// The speech synthesiser. Null: the server's own.
    #[schema(min_length = 1, max_length = 200, pattern = "^[!-~]+$")]
    tts_model: Option<String>,
    #[schema(minimum = 0.5, maximum = 2.0, nullable = false)]
    speed: Option<f32>,
    #[schema(nullable = false, pattern = "^(audio|text)$")]
    output: Option<String>,
    #[schema(nullable = false, pattern = "^(pcm|wav|mp3|opus)$")]
    audio_format: Option<String>,
    #[schema(minimum = 300, maximum = 2000, nullable = false)]
    lead_ms: Option<u32>,
    /// Null: push-to-talk.
    vad: Option<VadSettings>,
    #[schema(nullable = false, pattern = "^(mention|all|natural|manual)$")]
    turn_taking: Option<String>,
    /// By the ids of characters, at most 32: what holds for one of them, over what holds for all.
    #[schema(nullable = false)]
    characters: Option<BTreeMap<String, CharacterSettings>>,
}

/// How one character's replies are written and spoken. All of it may be left out.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what session::settings reads")]
pub(in crate::api::rest) struct CharacterSettings {
    /// The language model. Null: its own, else the server's.
    #[schema(min_length = 1, max_length = 200, pattern = "^[!-~]+$")]
    model: Option<String>,
    #[schema(minimum = 0.0, maximum = 2.0, nullable = false)]
    temperature: Option<f32>,
    #[schema(minimum = 0.0, maximum = 1.0, nullable = false)]
    top_p: Option<f32>,
    /// 0 is off.
    #[schema(minimum = 0, maximum = 1_000_000, nullable = false)]
    top_k: Option<u32>,
    #[schema(minimum = 1, maximum = 8192, nullable = false)]
    max_tokens: Option<u32>,
    /// Null: a new one for each reply.
    #[schema(schema_with = openapi::seed)]
    seed: Option<u64>,
    #[schema(max_items = 4, nullable = false)]
    stop: Option<Vec<String>>,
    /// Null: its own.
    system_prompt: Option<String>,
    /// The speech synthesiser. Null: the server's own.
    #[schema(min_length = 1, max_length = 200, pattern = "^[!-~]+$")]
    tts_model: Option<String>,
    #[schema(minimum = 0.5, maximum = 2.0, nullable = false)]
    speed: Option<f32>,
}

/// How the end of an utterance is found.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what session::settings reads")]
pub(in crate::api::rest) struct VadSettings {
    #[schema(minimum = 0.05, maximum = 0.95, nullable = false)]
    threshold: Option<f32>,
    #[schema(minimum = 100, maximum = 5000, nullable = false)]
    silence_ms: Option<u32>,
    #[schema(minimum = 0, maximum = 2000, nullable = false)]
    prefix_ms: Option<u32>,
    #[schema(nullable = false, pattern = "^(server|semantic)$")]
    mode: Option<String>,
}

/// A message.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api::rest) struct Message {
    id: String,
    conversation_id: String,
    role: Speaker,
    #[schema(required)]
    character_id: Option<String>,
    /// Outlives the character.
    #[schema(required)]
    character_name: Option<String>,
    content: String,
    content_type: ContentType,
    attachments: Vec<Attachment>,
    status: Progress,
    /// Characters of `content` that the user heard; null: all.
    #[schema(required)]
    heard_chars: Option<usize>,
    /// Where what was spoken can be heard; null: it was not recorded.
    #[schema(required)]
    audio_url: Option<String>,
    metadata: Metadata,
    #[schema(required)]
    client_message_id: Option<String>,
    created_at: String,
    updated_at: String,
}

impl From<StoredMessage> for Message {
    fn from(stored: StoredMessage) -> Self {
        Self {
            audio_url: stored.audio_file.map(|_| format!("/api/messages/{}/audio", stored.id)),
            id: stored.id,
            conversation_id: stored.conversation_id,
            role: stored.role.into(),
            character_id: stored.character_id,
            character_name: stored.character_name,
            content: stored.content,
            content_type: stored.content_type.into(),
            attachments: stored.attachments.into_iter().map(Attachment::from).collect(),
            status: stored.status.into(),
            heard_chars: stored.heard_chars,
            metadata: Metadata::of(&stored.metadata),
            client_message_id: stored.client_message_id,
            created_at: stored.created_at,
            updated_at: stored.updated_at,
        }
    }
}

/// What belongs to a message beside its text.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(in crate::api::rest) struct Attachment {
    #[schema(min_length = 1, max_length = 200)]
    pub(super) image_id: String,
}

impl From<store::Attachment> for Attachment {
    fn from(stored: store::Attachment) -> Self {
        Self { image_id: stored.image_id }
    }
}

impl From<Attachment> for store::Attachment {
    fn from(sent: Attachment) -> Self {
        Self { image_id: sent.image_id }
    }
}

/// A conversation as REST shows it.
pub(in crate::api) fn shown_conversation(stored: StoredConversation) -> Value {
    json!(Conversation::from(stored))
}

/// A message as REST shows it.
pub(in crate::api) fn shown_message(stored: StoredMessage) -> Value {
    json!(Message::from(stored))
}

/// Checks a title.
pub(super) fn check_title(field: &str, title: &str) -> Result<(), Problem> {
    text::check(field, title, 0..=TITLE)
}

/// Checks settings, and gives them as they are kept. `languages`: those that the speech recogniser knows; None where they
/// were chosen beside another one.
pub(super) fn settings(field: &str, settings: Value, languages: Option<&[String]>) -> Result<Value, Problem> {
    let is_known = |patch: SettingsPatch| languages.map_or(Ok(()), |known| patch.check_languages(known));
    match SettingsPatch::read(&settings).and_then(is_known) {
        Ok(()) => Ok(settings),
        Err(error) if !settings.is_object() => Err(Problem::bad_field(field, error.message)),
        Err(error) => Err(Problem::bad_field(format!("{field}.{}", error.field), error.message)),
    }
}

/// Checks how many characters take part, and their ids.
pub(super) fn check_characters(field: &str, ids: &[String]) -> Result<(), Problem> {
    if ids.len() > CHARACTERS {
        return Err(Problem::bad_field(field, format!("must be at most {CHARACTERS}")));
    }
    (0..).zip(ids).try_for_each(|(index, id): (usize, _)| text::check(&format!("{field}[{index}]"), id, 1..=ID))
}

/// Checks an id of a query or a path: what cannot be one is nobody's.
pub(super) fn check_id(field: &str, id: &str) -> Result<(), Problem> {
    text::check(field, id, 1..=ID)
}

/// Checks what a message says and what belongs to it. `place` names a field of it.
pub(super) fn check_message(
    place: impl Fn(&str) -> String,
    content: &str,
    attachments: &[Attachment],
    client_message_id: Option<&str>,
) -> Result<(), Problem> {
    text::check(&place("content"), content, 0..=CONTENT)?;
    if let Some(id) = client_message_id {
        text::check(&place("client_message_id"), id, 1..=CLIENT_MESSAGE_ID)?;
    }
    if attachments.len() > ATTACHMENTS {
        return Err(Problem::bad_field(place("attachments"), format!("must be at most {ATTACHMENTS}")));
    }
    (0..).zip(attachments).try_for_each(|(index, attachment): (usize, _)| {
        text::check(&place(&format!("attachments[{index}].image_id")), &attachment.image_id, 1..=IMAGE_ID)
    })
}
