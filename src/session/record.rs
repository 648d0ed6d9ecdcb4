//! What a conversation keeps, and the door to whoever keeps it.
//!
//! These are the session's own records; `store` implements [`Records`] on a database. A save that has answered `Ok`
//! survives `kill -9`.

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::audio::{Mic, Speech};
use crate::provider::Role;

/// Where conversations live.
pub trait Records: Send + Sync {
    /// Creates a conversation with the given characters, or with the default one where none are named.
    fn create_conversation(&self, character_ids: Vec<String>) -> BoxFuture<'static, Result<Conversation, RecordError>>;
    /// Reads a conversation and its latest `history` messages, oldest first.
    fn open_conversation(
        &self,
        id: String,
        history: usize,
    ) -> BoxFuture<'static, Result<OpenConversation, RecordError>>;
    /// The characters with these ids, in this order; an unknown id is [`RecordError::NotFound`].
    fn characters(&self, ids: Vec<String>) -> BoxFuture<'static, Result<Vec<Character>, RecordError>>;
    /// Makes these the characters of a conversation, in this order, and reads them.
    fn set_characters(
        &self,
        conversation_id: String,
        ids: Vec<String>,
    ) -> BoxFuture<'static, Result<Vec<Character>, RecordError>>;
    /// Inserts the message, or replaces the one with its id. A message whose `client_message_id` the conversation
    /// already holds under another id is not stored again: the answer is the first one's id.
    fn save_message(&self, message: Message) -> BoxFuture<'static, Result<String, RecordError>>;
    /// Removes a message that was begun and came to nothing. One that is not there is as good as removed.
    fn forget_message(&self, conversation_id: String, id: String) -> BoxFuture<'static, Result<(), RecordError>>;
    /// Gives a conversation a title, where it still has the title `instead_of`. Answers whether it did.
    fn title_conversation(
        &self,
        id: String,
        title: String,
        instead_of: String,
    ) -> BoxFuture<'static, Result<bool, RecordError>>;

    /// Whether [`Self::save_recording`] keeps anything.
    fn keeps_recordings(&self) -> bool {
        false
    }

    /// Keeps the sound of a message that is saved, in the place of an earlier one.
    fn save_recording(&self, _message_id: String, _sound: Recording) -> BoxFuture<'static, Result<(), RecordError>> {
        async { Ok(()) }.boxed()
    }
}

/// What a message sounded like.
#[derive(Clone, Debug, PartialEq)]
pub enum Recording {
    /// What the user said.
    Said(Mic),
    /// What was heard of a character.
    Heard(Speech),
}

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum RecordError {
    #[error("{what} {id} was not found")]
    NotFound { what: &'static str, id: String },
    /// Its version is none of those that whoever changes it has seen.
    #[error("it was changed in the meantime")]
    Changed,
    /// It is a reply that is not at its end.
    #[error("the reply is still being given; interrupt it, or wait for its end")]
    UnderWay,
    /// The disk is full.
    #[error("the database has no space left")]
    Full,
    /// Details are in the log.
    #[error("the database failed")]
    Failed,
}

#[derive(Clone, Debug, PartialEq)]
pub struct OpenConversation {
    pub conversation: Conversation,
    pub characters: Vec<Character>,
    /// Oldest first.
    pub messages: Vec<Message>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    pub id: String,
    pub title: String,
    pub character_ids: Vec<String>,
    /// What is said in it stays on this machine.
    pub private: bool,
    /// What its sessions begin with on top of the server's settings, as `SettingsPatch` reads it.
    pub settings: Value,
    /// RFC 3339, UTC.
    pub created_at: String,
    pub updated_at: String,
}

/// Somebody to talk to: a prompt with a voice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Character {
    /// Slug of the name and a running number, as `olivia-barns-001`.
    pub id: String,
    pub name: String,
    pub description: String,
    pub system_prompt: String,
    /// How it is, in words: part of what the language model is told.
    pub personality: String,
    /// None: the speech engine's default voice.
    pub voice: Option<String>,
    /// ISO 639-1; empty: the voice's own.
    pub languages: Vec<String>,
    /// Sampling settings that differ from the defaults, by their wire names.
    pub parameters: Value,
    /// The language model, as a request names it. None: the server's own.
    pub model: Option<String>,
    /// How readily it speaks up among several, 0 to 1.
    pub talkativeness: f32,
    pub is_active: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Made by the session, a UUID of version 7.
    pub id: String,
    pub conversation_id: String,
    pub role: Role,
    pub character_id: Option<String>,
    pub character_name: Option<String>,
    /// The whole text.
    pub content: String,
    pub status: MessageStatus,
    /// How many characters of `content` the user heard, where that is not all of it.
    pub heard_chars: Option<usize>,
    /// Model, timings, usage, language, error.
    pub metadata: Value,
    pub client_message_id: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageStatus {
    Pending,
    Processing,
    Completed,
    Failed,
}
