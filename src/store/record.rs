//! `session`'s records as tables.
//!
//! Whatever reads before it writes does so in one transaction that takes the write lock first (`BEGIN IMMEDIATE`): a
//! transaction that only asks for it later can fail where no waiting helps.

use futures::FutureExt;
use futures::future::BoxFuture;
use sqlx::{Any, AnyConnection, Row, Transaction};
use uuid::Uuid;

use super::{Store, open, row};
use crate::session::record::{Character, Conversation, Message, OpenConversation, RecordError, Records};

pub(super) const TAKE_WRITE_LOCK: &str = "BEGIN IMMEDIATE";

impl Records for Store {
    fn create_conversation(&self, character_ids: Vec<String>) -> BoxFuture<'static, Result<Conversation, RecordError>> {
        let store = self.clone();
        async move { create_conversation(&store, character_ids).await.map_err(Fault::report) }.boxed()
    }

    fn open_conversation(
        &self,
        id: String,
        history: usize,
    ) -> BoxFuture<'static, Result<OpenConversation, RecordError>> {
        let store = self.clone();
        async move { open_conversation(&store, id, history).await.map_err(Fault::report) }.boxed()
    }

    fn characters(&self, ids: Vec<String>) -> BoxFuture<'static, Result<Vec<Character>, RecordError>> {
        let store = self.clone();
        async move { characters(&store, ids).await.map_err(Fault::report) }.boxed()
    }

    fn set_characters(
        &self,
        conversation_id: String,
        ids: Vec<String>,
    ) -> BoxFuture<'static, Result<Vec<Character>, RecordError>> {
        let store = self.clone();
        async move { set_characters(&store, &conversation_id, ids).await.map_err(Fault::report) }.boxed()
    }

    fn save_message(&self, message: Message) -> BoxFuture<'static, Result<String, RecordError>> {
        let store = self.clone();
        async move { save_message(&store, message).await.map_err(Fault::report) }.boxed()
    }
}

async fn create_conversation(store: &Store, mut character_ids: Vec<String>) -> Result<Conversation, Fault> {
    let mut lock = store.writer.begin_with(TAKE_WRITE_LOCK).await?;
    if character_ids.is_empty() {
        character_ids.push(default_character(&mut lock).await?.id);
    }
    once_each(&mut character_ids);
    let now = row::now();
    let conversation = Conversation {
        id: Uuid::now_v7().to_string(),
        title: String::new(),
        character_ids,
        private: false,
        created_at: now.clone(),
        updated_at: now,
    };
    insert_conversation(&mut lock, &conversation).await?;
    lock.commit().await?;
    Ok(conversation)
}

async fn insert_conversation(lock: &mut Transaction<'_, Any>, new: &Conversation) -> Result<(), Fault> {
    sqlx::query("INSERT INTO conversations (id, title, created_at, updated_at) VALUES ($1, $2, $3, $4)")
        .bind(new.id.clone())
        .bind(new.title.clone())
        .bind(new.created_at.clone())
        .bind(new.updated_at.clone())
        .execute(&mut **lock)
        .await?;
    insert_members(lock, &new.id, &new.character_ids).await?;
    Ok(())
}

async fn insert_members(
    lock: &mut Transaction<'_, Any>,
    conversation_id: &str,
    ids: &[String],
) -> Result<Vec<Character>, Fault> {
    let mut members = Vec::with_capacity(ids.len());
    for (position, id) in (0_i64..).zip(ids) {
        members.push(character(lock, id).await?);
        sqlx::query(
            "INSERT INTO conversation_characters (conversation_id, character_id, position) VALUES ($1, $2, $3)",
        )
        .bind(conversation_id.to_owned())
        .bind(id.clone())
        .bind(position)
        .execute(&mut **lock)
        .await?;
    }
    Ok(members)
}

async fn set_characters(store: &Store, conversation_id: &str, mut ids: Vec<String>) -> Result<Vec<Character>, Fault> {
    let mut lock = store.writer.begin_with(TAKE_WRITE_LOCK).await?;
    once_each(&mut ids);
    let touched = sqlx::query("UPDATE conversations SET updated_at = $1 WHERE id = $2")
        .bind(row::now())
        .bind(conversation_id.to_owned())
        .execute(&mut *lock)
        .await?;
    if touched.rows_affected() == 0 {
        return Err(Fault::not_found("conversation", conversation_id));
    }
    sqlx::query("DELETE FROM conversation_characters WHERE conversation_id = $1")
        .bind(conversation_id.to_owned())
        .execute(&mut *lock)
        .await?;
    let members = insert_members(&mut lock, conversation_id, &ids).await?;
    lock.commit().await?;
    Ok(members)
}

fn once_each(ids: &mut Vec<String>) {
    let mut seen = std::collections::HashSet::new();
    ids.retain(|id| seen.insert(id.clone()));
}

/// Reads all of it in one transaction, so that it is one moment's state.
async fn open_conversation(store: &Store, id: String, history: usize) -> Result<OpenConversation, Fault> {
    let mut moment = store.readers.begin().await?;
    let found = sqlx::query(
        "SELECT id, title, private, created_at, updated_at FROM conversations WHERE id = $1 AND status <> 'deleted'",
    )
    .bind(id.clone())
    .fetch_optional(&mut *moment)
    .await?
    .ok_or_else(|| Fault::not_found("conversation", &id))?;
    let members = members(&mut moment, &id).await?;
    let conversation = Conversation {
        id: found.try_get("id")?,
        title: found.try_get("title")?,
        private: found.try_get::<i64, _>("private")? == 1,
        character_ids: members.iter().map(|member| member.id.clone()).collect(),
        created_at: found.try_get("created_at")?,
        updated_at: found.try_get("updated_at")?,
    };
    let mut characters: Vec<_> = members.into_iter().filter(|member| member.is_active).collect();
    if characters.is_empty() {
        characters.push(default_character(&mut moment).await?);
    }
    let messages = latest_messages(&mut moment, &id, history).await?;
    moment.commit().await?;
    Ok(OpenConversation { conversation, characters, messages })
}

async fn members(connection: &mut AnyConnection, conversation_id: &str) -> Result<Vec<Character>, Fault> {
    let rows = sqlx::query(
        "SELECT c.id, c.name, c.description, c.system_prompt, c.voice, c.languages, c.parameters, c.model,
                c.talkativeness, c.is_active
         FROM conversation_characters AS m JOIN characters AS c ON c.id = m.character_id
         WHERE m.conversation_id = $1 ORDER BY m.position",
    )
    .bind(conversation_id.to_owned())
    .fetch_all(connection)
    .await?;
    Ok(rows.iter().map(row::character).collect::<Result<_, _>>()?)
}

async fn latest_messages(
    connection: &mut AnyConnection,
    conversation_id: &str,
    history: usize,
) -> Result<Vec<Message>, Fault> {
    let rows = sqlx::query(
        "SELECT id, conversation_id, role, character_id, character_name, content, status, heard_chars, metadata,
                client_message_id
         FROM messages WHERE conversation_id = $1 ORDER BY position DESC LIMIT $2",
    )
    .bind(conversation_id.to_owned())
    .bind(i64::try_from(history).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await?;
    Ok(rows.iter().rev().map(row::message).collect::<Result<_, _>>()?)
}

async fn characters(store: &Store, ids: Vec<String>) -> Result<Vec<Character>, Fault> {
    let mut moment = store.readers.begin().await?;
    let mut found = Vec::with_capacity(ids.len());
    for id in &ids {
        found.push(character(&mut moment, id).await?);
    }
    moment.commit().await?;
    Ok(found)
}

async fn character(connection: &mut AnyConnection, id: &str) -> Result<Character, Fault> {
    let found = sqlx::query(
        "SELECT id, name, description, system_prompt, voice, languages, parameters, model, talkativeness, is_active
         FROM characters WHERE id = $1",
    )
    .bind(id.to_owned())
    .fetch_optional(connection)
    .await?
    .ok_or_else(|| Fault::not_found("character", id))?;
    Ok(row::character(&found)?)
}

/// The oldest active character: the one that came with the schema, until its owner turns it off.
async fn default_character(connection: &mut AnyConnection) -> Result<Character, Fault> {
    let found = sqlx::query(
        "SELECT id, name, description, system_prompt, voice, languages, parameters, model, talkativeness, is_active
         FROM characters WHERE is_active = 1 ORDER BY created_at, id LIMIT 1",
    )
    .fetch_optional(connection)
    .await?
    .ok_or_else(|| Fault::not_found("character", "(the default one)"))?;
    Ok(row::character(&found)?)
}

async fn save_message(store: &Store, message: Message) -> Result<String, Fault> {
    let mut lock = store.writer.begin_with(TAKE_WRITE_LOCK).await?;
    let now = row::now();
    // First, because this also locks the conversation's row in a database whose transactions run side by side.
    let touched = sqlx::query("UPDATE conversations SET updated_at = $1 WHERE id = $2")
        .bind(now.clone())
        .bind(message.conversation_id.clone())
        .execute(&mut *lock)
        .await?;
    if touched.rows_affected() == 0 {
        return Err(Fault::not_found("conversation", &message.conversation_id));
    }
    if let Some(first) = already_saved(&mut lock, &message).await? {
        return Ok(first);
    }
    upsert_message(&mut lock, &message, now).await?;
    lock.commit().await?;
    Ok(message.id)
}

/// The id under which the conversation already holds this client's message.
async fn already_saved(connection: &mut AnyConnection, message: &Message) -> Result<Option<String>, Fault> {
    let Some(client_message_id) = &message.client_message_id else { return Ok(None) };
    let first: Option<String> =
        sqlx::query_scalar("SELECT id FROM messages WHERE conversation_id = $1 AND client_message_id = $2")
            .bind(message.conversation_id.clone())
            .bind(client_message_id.clone())
            .fetch_optional(connection)
            .await?;
    Ok(first.filter(|id| *id != message.id))
}

async fn upsert_message(connection: &mut AnyConnection, message: &Message, now: String) -> Result<(), Fault> {
    let written = sqlx::query(
        "INSERT INTO messages (id, conversation_id, position, role, character_id, character_name, content, status,
                               heard_chars, metadata, client_message_id, created_at, updated_at)
         VALUES ($1, $2, (SELECT COALESCE(MAX(position), 0) + 1 FROM messages WHERE conversation_id = $2),
                 $3, $4, $5, $6, $7, $8, $9, $10, $11, $11)
         ON CONFLICT (id) DO UPDATE SET
             role = excluded.role, character_id = excluded.character_id, character_name = excluded.character_name,
             content = excluded.content, status = excluded.status, heard_chars = excluded.heard_chars,
             metadata = excluded.metadata, client_message_id = excluded.client_message_id,
             updated_at = excluded.updated_at
         WHERE messages.conversation_id = excluded.conversation_id",
    )
    .bind(message.id.clone())
    .bind(message.conversation_id.clone())
    .bind(row::role_name(message.role))
    .bind(message.character_id.clone())
    .bind(message.character_name.clone())
    .bind(message.content.clone())
    .bind(row::status_name(message.status))
    .bind(message.heard_chars.map(|count| i64::try_from(count).unwrap_or(i64::MAX)))
    .bind(message.metadata.to_string())
    .bind(message.client_message_id.clone())
    .bind(now)
    .execute(connection)
    .await?;
    // Nothing written: the id belongs to a message of another conversation.
    if written.rows_affected() == 0 { Err(Fault::not_found("message", &message.id)) } else { Ok(()) }
}

/// A failure on its way out: still with what the log needs.
#[derive(Debug)]
enum Fault {
    Record(RecordError),
    Database(sqlx::Error),
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl Fault {
    fn not_found(what: &'static str, id: &str) -> Self {
        Self::Record(RecordError::NotFound { what, id: id.to_owned() })
    }

    /// Logs what the caller is not told. SQLite's code 13 is a full disk.
    fn report(self) -> RecordError {
        let error = match self {
            Self::Record(known) => return known,
            Self::Database(error) => error,
        };
        tracing::error!(%error, "the database failed");
        match &error {
            sqlx::Error::Database(cause) if open::primary_code(cause.as_ref()) == Some(13) => RecordError::Full,
            _ => RecordError::Failed,
        }
    }
}
