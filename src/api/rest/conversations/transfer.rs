//! Whole conversations out and in: one JSON document with the conversation, its characters and its messages.
//!
//! What goes out can come in, here or elsewhere, and go out again the same: ids stay where they are free. Pictures and
//! recordings are files of their own and no part of it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{DefaultBodyLimit, Path as Segment, State as Extract};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::shape::{
    self, Attachment, ContentType, Conversation, ConversationSettings, Kind, Progress, Speaker, Status,
};
use super::{check_path, created};
use crate::api::House;
use crate::api::asker::Asker;
use crate::api::body::JsonBody;
use crate::api::problem::{Problem, ProblemBody};
use crate::api::rest::text;
use crate::session::record;
use crate::store::{self, StoredCharacter, StoredConversation, StoredMessage, stored_time};

/// An imported document.
pub(in crate::api) const IMPORT_BYTES: usize = 20 * 1024 * 1024;
const MESSAGES: usize = 50_000;
/// At once, since whoever else writes waits for each.
pub(in crate::api) const IMPORTS: usize = 1;
const COME_BACK: Duration = Duration::from_secs(5);
const CHARACTERS: usize = 32;
/// Of a character's texts.
const LONG_TEXT: usize = 100_000;
const NAME: usize = 200;
const VERSION: u32 = 1;

pub(super) fn routes() -> OpenApiRouter<Arc<House>> {
    let import = OpenApiRouter::new().routes(routes!(import)).layer(DefaultBodyLimit::max(IMPORT_BYTES));
    OpenApiRouter::new().routes(routes!(export)).merge(import)
}

/// A conversation with its characters and messages.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = ConversationArchive)]
struct Archive {
    format: Format,
    /// Of the format.
    #[schema(minimum = 1, maximum = 1)]
    version: u32,
    conversation: Talk,
    /// Who takes part, in order.
    #[schema(max_items = 32)]
    characters: Vec<Character>,
    /// The oldest first.
    #[schema(max_items = 50_000)]
    messages: Vec<Line>,
}

/// What says that a document is one of these.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = ConversationArchiveFormat)]
enum Format {
    #[serde(rename = "aichat-conversation")]
    Ours,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = ArchivedConversation)]
struct Talk {
    #[schema(min_length = 1, max_length = 200)]
    id: String,
    #[schema(max_length = 200)]
    title: String,
    #[serde(rename = "type")]
    kind: Kind,
    status: Status,
    private: bool,
    #[schema(value_type = ConversationSettings)]
    settings: Value,
    created_at: String,
    updated_at: String,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = ArchivedCharacter)]
struct Character {
    /// A slug, a minus and a number.
    #[schema(pattern = "^[a-z0-9]+(-[a-z0-9]+)*-[0-9]{3,9}$", max_length = 200)]
    id: String,
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    #[schema(max_length = 100_000)]
    description: String,
    #[schema(max_length = 100_000)]
    system_prompt: String,
    #[schema(max_length = 100_000)]
    personality: String,
    #[schema(max_length = 200, required)]
    voice: Option<String>,
    #[schema(max_length = 200, required)]
    model: Option<String>,
    #[schema(value_type = ConversationSettings)]
    parameters: Value,
    #[schema(minimum = 0.0, maximum = 1.0)]
    talkativeness: f32,
    languages: Vec<String>,
    is_active: bool,
    created_at: String,
    updated_at: String,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = ArchivedMessage)]
struct Line {
    #[schema(min_length = 1, max_length = 200)]
    id: String,
    role: Speaker,
    #[schema(max_length = 200, required)]
    character_id: Option<String>,
    #[schema(max_length = 200, required)]
    character_name: Option<String>,
    #[schema(max_length = 100_000)]
    content: String,
    content_type: ContentType,
    #[schema(max_items = 16)]
    attachments: Vec<Attachment>,
    status: Progress,
    #[schema(required)]
    heard_chars: Option<usize>,
    #[schema(value_type = Noted)]
    metadata: Value,
    #[schema(max_length = 200, required)]
    client_message_id: Option<String>,
    created_at: String,
    updated_at: String,
}

/// All that a session noted with a message. There may be more than these.
#[derive(Deserialize, ToSchema)]
#[schema(as = ArchivedMetadata)]
#[expect(dead_code, reason = "it is kept as it came; this is what it must be")]
struct Noted {
    model: Option<String>,
    provider: Option<String>,
    error: Option<String>,
    language: Option<String>,
    spoken: Option<bool>,
    usage: Option<NotedUsage>,
}

/// What a reply took.
#[derive(Deserialize, ToSchema)]
#[schema(as = ArchivedUsage)]
#[expect(dead_code, reason = "it is kept as it came; this is what it must be")]
struct NotedUsage {
    prompt_tokens: Option<u64>,
    cached_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    cost_usd: Option<f64>,
}

/// All of a conversation in one document
#[utoipa::path(
    get,
    path = "/conversations/{id}/export",
    tag = "Conversations",
    params(("id" = String, Path)),
    responses(
        (status = 200, body = Archive),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn export(asker: Asker, Segment(id): Segment<String>) -> Result<Json<Archive>, Problem> {
    check_path("conversation", &id)?;
    let store::Archive { conversation, characters, messages } = asker.rows.export_conversation(&id).await?;
    Ok(Json(Archive {
        format: Format::Ours,
        version: VERSION,
        conversation: conversation.into(),
        characters: characters.into_iter().map(Character::from).collect(),
        messages: messages.into_iter().map(Line::from).collect(),
    }))
}

/// Take in what was exported, all or nothing
///
/// Ids stay where they are free; what somebody has already gets a new one. Characters of yours that are there stay as
/// they are. At most 20 MB and 100,000 messages.
#[utoipa::path(
    post,
    path = "/conversations/import",
    tag = "Conversations",
    request_body = Archive,
    responses(
        (status = 201, body = Conversation, headers(("Location" = String))),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn import(Extract(house): Extract<Arc<House>>, asker: Asker, body: JsonBody) -> Result<Response, Problem> {
    let _alone = house.importing.try_acquire().map_err(|_| {
        let detail = "another conversation is being imported; try again in a moment";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail).later(COME_BACK)
    })?;
    let archive = body.read::<Archive>()?.checked()?;
    Ok(created(asker.rows.import_conversation(archive).await?))
}

impl From<StoredConversation> for Talk {
    fn from(stored: StoredConversation) -> Self {
        Self {
            id: stored.id,
            title: stored.title,
            kind: stored.kind.into(),
            status: stored.status.into(),
            private: stored.private,
            settings: stored.settings,
            created_at: stored.created_at,
            updated_at: stored.updated_at,
        }
    }
}

impl From<StoredCharacter> for Character {
    fn from(stored: StoredCharacter) -> Self {
        let StoredCharacter { character, created_at, updated_at, .. } = stored;
        Self {
            id: character.id,
            name: character.name,
            description: character.description,
            system_prompt: character.system_prompt,
            personality: character.personality,
            voice: character.voice,
            model: character.model,
            parameters: character.parameters,
            talkativeness: character.talkativeness,
            languages: character.languages,
            is_active: character.is_active,
            created_at,
            updated_at,
        }
    }
}

impl From<StoredMessage> for Line {
    fn from(stored: StoredMessage) -> Self {
        Self {
            id: stored.id,
            role: stored.role.into(),
            character_id: stored.character_id,
            character_name: stored.character_name,
            content: stored.content,
            content_type: stored.content_type.into(),
            attachments: stored.attachments.into_iter().map(Attachment::from).collect(),
            status: stored.status.into(),
            heard_chars: stored.heard_chars,
            metadata: stored.metadata,
            client_message_id: stored.client_message_id,
            created_at: stored.created_at,
            updated_at: stored.updated_at,
        }
    }
}

impl Archive {
    fn checked(self) -> Result<store::Archive, Problem> {
        if self.version != VERSION {
            return Err(Problem::bad_field("version", format!("must be {VERSION}; update aichat for a later one")));
        }
        if self.characters.len() > CHARACTERS {
            return Err(Problem::bad_field("characters", format!("must be at most {CHARACTERS}")));
        }
        if self.messages.len() > MESSAGES {
            return Err(Problem::bad_field("messages", format!("must be at most {MESSAGES}")));
        }
        once(&self.characters, "characters", "id", |character| Some(&character.id))?;
        once(&self.messages, "messages", "id", |line| Some(&line.id))?;
        once(&self.messages, "messages", "client_message_id", |line| line.client_message_id.as_ref())?;
        let place = |list: &str, index: usize| format!("{list}[{index}]");
        let characters = self.characters.into_iter().enumerate();
        let messages = self.messages.into_iter().enumerate();
        Ok(store::Archive {
            conversation: self.conversation.checked()?,
            characters: characters
                .map(|(index, character)| character.checked(&place("characters", index)))
                .collect::<Result<_, _>>()?,
            messages: messages
                .map(|(index, line)| line.checked(&place("messages", index)))
                .collect::<Result<_, _>>()?,
        })
    }
}

/// Checks that no two items have the same id of a kind.
fn once<T>(items: &[T], list: &str, field: &str, id: impl Fn(&T) -> Option<&String>) -> Result<(), Problem> {
    let mut seen = HashSet::new();
    let again = items.iter().position(|item| id(item).is_some_and(|id| !seen.insert(id)));
    again.map_or(Ok(()), |index| Err(Problem::bad_field(format!("{list}[{index}].{field}"), "is there twice")))
}

impl Talk {
    fn checked(self) -> Result<StoredConversation, Problem> {
        shape::check_id("conversation.id", &self.id)?;
        shape::check_title("conversation.title", &self.title)?;
        Ok(StoredConversation {
            id: kept_id(self.id),
            title: self.title,
            kind: self.kind.into(),
            status: self.status.into(),
            private: self.private,
            character_ids: Vec::new(),
            settings: shape::settings("conversation.settings", self.settings, None)?,
            message_count: 0,
            last_message_at: None,
            created_at: time("conversation.created_at", &self.created_at)?,
            updated_at: time("conversation.updated_at", &self.updated_at)?,
            version: 1,
        })
    }
}

impl Character {
    fn checked(self, place: &str) -> Result<StoredCharacter, Problem> {
        let field = |name: &str| format!("{place}.{name}");
        if !is_character_id(&self.id) {
            return Err(Problem::bad_field(field("id"), "must be a slug, a minus and a number, as mira-001"));
        }
        text::check(&field("name"), &self.name, 1..=NAME)?;
        text::check(&field("description"), &self.description, 0..=LONG_TEXT)?;
        text::check(&field("system_prompt"), &self.system_prompt, 0..=LONG_TEXT)?;
        text::check(&field("personality"), &self.personality, 0..=LONG_TEXT)?;
        text::check(&field("voice"), self.voice.as_deref().unwrap_or_default(), 0..=NAME)?;
        text::check(&field("model"), self.model.as_deref().unwrap_or_default(), 0..=NAME)?;
        if !(0.0..=1.0).contains(&self.talkativeness) {
            return Err(Problem::bad_field(field("talkativeness"), "must be 0 to 1"));
        }
        let (created_at, updated_at) =
            (time(&field("created_at"), &self.created_at)?, time(&field("updated_at"), &self.updated_at)?);
        let character = record::Character {
            parameters: shape::settings(&field("parameters"), self.parameters, None)?,
            id: self.id,
            name: self.name,
            description: self.description,
            system_prompt: self.system_prompt,
            personality: self.personality,
            voice: self.voice,
            model: self.model,
            talkativeness: self.talkativeness,
            languages: self.languages,
            is_active: self.is_active,
        };
        Ok(StoredCharacter { character, image_url: None, image_file: None, version: 1, created_at, updated_at })
    }
}

impl Line {
    fn checked(self, place: &str) -> Result<StoredMessage, Problem> {
        let field = |name: &str| format!("{place}.{name}");
        shape::check_id(&field("id"), &self.id)?;
        shape::check_message(field, &self.content, &self.attachments, self.client_message_id.as_deref())?;
        text::check(&field("character_id"), self.character_id.as_deref().unwrap_or_default(), 0..=NAME)?;
        text::check(&field("character_name"), self.character_name.as_deref().unwrap_or_default(), 0..=NAME)?;
        if self.heard_chars.is_some_and(|heard| heard > self.content.chars().count()) {
            return Err(Problem::bad_field(field("heard_chars"), "must not be more than the content has"));
        }
        check_metadata(&field("metadata"), &self.metadata)?;
        Ok(StoredMessage {
            created_at: time(&field("created_at"), &self.created_at)?,
            updated_at: time(&field("updated_at"), &self.updated_at)?,
            id: kept_id(self.id),
            conversation_id: String::new(),
            position: 0,
            role: self.role.into(),
            character_id: self.character_id,
            character_name: self.character_name,
            content: self.content,
            content_type: self.content_type.into(),
            attachments: self.attachments.into_iter().map(Attachment::into).collect(),
            status: self.status.into(),
            heard_chars: self.heard_chars,
            audio_file: None,
            metadata: self.metadata,
            client_message_id: self.client_message_id,
            version: 1,
        })
    }
}

/// Checks what a session noted: objects, for which a list would be read as well.
fn check_metadata(field: &str, metadata: &Value) -> Result<(), Problem> {
    if !metadata.is_object() {
        return Err(Problem::bad_field(field, "must be an object"));
    }
    if metadata["usage"].is_array() {
        return Err(Problem::bad_field(format!("{field}.usage"), "must be an object"));
    }
    Noted::deserialize(metadata).map(|_| ()).map_err(|error| Problem::bad_field(field, error))
}

/// An id that is one of ours stays; addresses are made of ids, so any other text becomes a new one.
fn kept_id(id: String) -> String {
    if Uuid::try_parse(&id).is_ok() { id } else { Uuid::now_v7().to_string() }
}

fn is_character_id(id: &str) -> bool {
    let slug = |slug: &str| slug.split('-').all(|part| !part.is_empty() && part.bytes().all(is_slug_byte));
    let number = |number: &str| (3..=9).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
    id.len() <= NAME && id.rsplit_once('-').is_some_and(|(name, last)| slug(name) && number(last))
}

fn is_slug_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn time(field: &str, text: &str) -> Result<String, Problem> {
    stored_time(text).ok_or_else(|| Problem::bad_field(field, "must be a time as 2026-11-21T18:30:00.000Z"))
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;
