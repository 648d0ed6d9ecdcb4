//! `session`'s records as tables.

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Map, Value};
use sqlx::{Any, AnyConnection, Row, Transaction};
use uuid::Uuid;

use super::conversation::{Changed, stored_message};
use super::{Owned, open, reply, row};
use crate::session::record::{Character, Conversation, Message, OpenConversation, RecordError, Records};

impl Records for Owned {
    fn create_conversation(&self, character_ids: Vec<String>) -> BoxFuture<'static, Result<Conversation, RecordError>> {
        let owned = self.clone();
        async move { create_conversation(&owned, character_ids).await.map_err(Fault::report) }.boxed()
    }

    fn open_conversation(
        &self,
        id: String,
        history: usize,
    ) -> BoxFuture<'static, Result<OpenConversation, RecordError>> {
        let owned = self.clone();
        async move { open_conversation(&owned, id, history).await.map_err(Fault::report) }.boxed()
    }

    fn characters(&self, ids: Vec<String>) -> BoxFuture<'static, Result<Vec<Character>, RecordError>> {
        let owned = self.clone();
        async move { characters(&owned, ids).await.map_err(Fault::report) }.boxed()
    }

    fn set_characters(
        &self,
        conversation_id: String,
        ids: Vec<String>,
    ) -> BoxFuture<'static, Result<Vec<Character>, RecordError>> {
        let owned = self.clone();
        async move { set_characters(&owned, &conversation_id, ids).await.map_err(Fault::report) }.boxed()
    }

    fn save_message(&self, message: Message) -> BoxFuture<'static, Result<String, RecordError>> {
        let owned = self.clone();
        async move { save_message(&owned, message).await.map_err(Fault::report) }.boxed()
    }

    fn forget_message(&self, conversation_id: String, id: String) -> BoxFuture<'static, Result<(), RecordError>> {
        let owned = self.clone();
        async move { reply::forget_message(&owned, &conversation_id, &id).await.map_err(Fault::report) }.boxed()
    }

    fn title_conversation(
        &self,
        id: String,
        title: String,
        instead_of: String,
    ) -> BoxFuture<'static, Result<bool, RecordError>> {
        let owned = self.clone();
        async move { reply::title_conversation(&owned, id, title, instead_of).await.map_err(Fault::report) }.boxed()
    }
}

async fn create_conversation(owned: &Owned, mut character_ids: Vec<String>) -> Result<Conversation, Fault> {
    let mut lock = owned.store.write().await?;
    if character_ids.is_empty() {
        character_ids.push(default_character(&mut lock, &owned.owner).await?.id);
    }
    once_each(&mut character_ids);
    let now = row::now();
    let conversation = Conversation {
        id: Uuid::now_v7().to_string(),
        title: String::new(),
        character_ids,
        private: false,
        settings: Value::Object(Map::new()),
        created_at: now.clone(),
        updated_at: now,
    };
    insert_conversation(&mut lock, &owned.owner, &conversation).await?;
    lock.commit().await?;
    Ok(conversation)
}

async fn insert_conversation(lock: &mut Transaction<'_, Any>, owner: &str, new: &Conversation) -> Result<(), Fault> {
    sqlx::query("INSERT INTO conversations (id, owner, title, created_at, updated_at) VALUES ($1, $2, $3, $4, $5)")
        .bind(new.id.clone())
        .bind(owner.to_owned())
        .bind(new.title.clone())
        .bind(new.created_at.clone())
        .bind(new.updated_at.clone())
        .execute(&mut **lock)
        .await?;
    insert_members(lock, owner, &new.id, &new.character_ids).await?;
    Ok(())
}

pub(super) async fn insert_members(
    lock: &mut AnyConnection,
    owner: &str,
    conversation_id: &str,
    ids: &[String],
) -> Result<Vec<Character>, Fault> {
    let mut members = Vec::with_capacity(ids.len());
    for (position, id) in (0_i64..).zip(ids) {
        members.push(character(&mut *lock, owner, id).await?);
        sqlx::query(
            "INSERT INTO conversation_characters (conversation_id, character_id, position) VALUES ($1, $2, $3)",
        )
        .bind(conversation_id.to_owned())
        .bind(id.clone())
        .bind(position)
        .execute(&mut *lock)
        .await?;
    }
    Ok(members)
}

async fn set_characters(owned: &Owned, conversation_id: &str, mut ids: Vec<String>) -> Result<Vec<Character>, Fault> {
    let mut lock = owned.store.write().await?;
    once_each(&mut ids);
    touch(&mut lock, &owned.owner, conversation_id, &row::now()).await?;
    sqlx::query("DELETE FROM conversation_characters WHERE conversation_id = $1")
        .bind(conversation_id.to_owned())
        .execute(&mut *lock)
        .await?;
    let members = insert_members(&mut lock, &owned.owner, conversation_id, &ids).await?;
    lock.commit().await?;
    Ok(members)
}

/// Notes that a conversation changes. The first statement of a transaction that changes it, since it also locks the row
/// where transactions run side by side.
pub(super) async fn touch(
    connection: &mut AnyConnection,
    owner: &str,
    conversation_id: &str,
    now: &str,
) -> Result<(), Fault> {
    let touched =
        sqlx::query("UPDATE conversations SET updated_at = $1, version = version + 1 WHERE id = $2 AND owner = $3")
            .bind(now.to_owned())
            .bind(conversation_id.to_owned())
            .bind(owner.to_owned())
            .execute(connection)
            .await?;
    if touched.rows_affected() == 0 { Err(Fault::not_found("conversation", conversation_id)) } else { Ok(()) }
}

pub(super) fn once_each(ids: &mut Vec<String>) {
    let mut seen = std::collections::HashSet::new();
    ids.retain(|id| seen.insert(id.clone()));
}

/// Reads all of it in one transaction, so that it is one moment's state.
async fn open_conversation(owned: &Owned, id: String, history: usize) -> Result<OpenConversation, Fault> {
    let mut moment = owned.store.read().await?;
    let found = sqlx::query(
        "SELECT id, title, private, settings, created_at, updated_at FROM conversations
         WHERE id = $1 AND owner = $2 AND status <> 'deleted'",
    )
    .bind(id.clone())
    .bind(owned.owner.to_string())
    .fetch_optional(&mut *moment)
    .await?
    .ok_or_else(|| Fault::not_found("conversation", &id))?;
    let members = members(&mut moment, &id).await?;
    let conversation = Conversation {
        id: found.try_get("id")?,
        title: found.try_get("title")?,
        private: found.try_get::<i64, _>("private")? == 1,
        settings: row::json(&found, "settings")?,
        character_ids: members.iter().map(|member| member.id.clone()).collect(),
        created_at: found.try_get("created_at")?,
        updated_at: found.try_get("updated_at")?,
    };
    let mut characters: Vec<_> = members.into_iter().filter(|member| member.is_active).collect();
    if characters.is_empty() {
        characters.push(default_character(&mut moment, &owned.owner).await?);
    }
    let messages = latest_messages(&mut moment, &id, history).await?;
    moment.commit().await?;
    Ok(OpenConversation { conversation, characters, messages })
}

async fn members(connection: &mut AnyConnection, conversation_id: &str) -> Result<Vec<Character>, Fault> {
    let rows = sqlx::query(
        "SELECT c.id, c.name, c.description, c.system_prompt, c.personality, c.voice, c.languages, c.parameters,
                c.model, c.talkativeness, c.is_active
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

async fn characters(owned: &Owned, ids: Vec<String>) -> Result<Vec<Character>, Fault> {
    let mut moment = owned.store.read().await?;
    let mut found = Vec::with_capacity(ids.len());
    for id in &ids {
        found.push(character(&mut moment, &owned.owner, id).await?);
    }
    moment.commit().await?;
    Ok(found)
}

async fn character(connection: &mut AnyConnection, owner: &str, id: &str) -> Result<Character, Fault> {
    let found = sqlx::query(
        "SELECT id, name, description, system_prompt, personality, voice, languages, parameters, model, talkativeness,
                is_active
         FROM characters WHERE id = $1 AND owner = $2",
    )
    .bind(id.to_owned())
    .bind(owner.to_owned())
    .fetch_optional(connection)
    .await?
    .ok_or_else(|| Fault::not_found("character", id))?;
    Ok(row::character(&found)?)
}

/// The owner's oldest active character: the one that came with the schema, until it is turned off.
pub(super) async fn default_character(connection: &mut AnyConnection, owner: &str) -> Result<Character, Fault> {
    let found = sqlx::query(
        "SELECT id, name, description, system_prompt, personality, voice, languages, parameters, model, talkativeness,
                is_active
         FROM characters WHERE owner = $1 AND is_active = 1 ORDER BY created_at, id LIMIT 1",
    )
    .bind(owner.to_owned())
    .fetch_optional(connection)
    .await?
    .ok_or_else(|| Fault::not_found("character", "(the default one)"))?;
    Ok(row::character(&found)?)
}

async fn save_message(owned: &Owned, mut message: Message) -> Result<String, Fault> {
    without_null(&mut message);
    let mut lock = owned.store.write().await?;
    let now = row::now();
    touch(&mut lock, &owned.owner, &message.conversation_id, &now).await?;
    if let Some(first) = already_saved(&mut lock, &message).await? {
        return Ok(first);
    }
    let is_new = upsert_message(&mut lock, &owned.owner, &message, now).await?;
    // Quiet rows are those of a socket's session, which saves often.
    let told = if owned.is_quiet { None } else { Some(stored_message(&mut lock, &owned.owner, &message.id).await?) };
    lock.commit().await?;
    if let Some(stored) = told {
        owned.tell(&message.conversation_id, || {
            if is_new { Changed::MessagesCreated(vec![stored]) } else { Changed::MessageUpdated(Box::new(stored)) }
        });
    }
    Ok(message.id)
}

/// PostgreSQL's text holds no NUL. A model or a socket may say one, and what was said must not be lost over it.
fn without_null(message: &mut Message) {
    let texts = [&mut message.client_message_id, &mut message.character_name].into_iter().flatten();
    for text in texts.chain([&mut message.content]).filter(|text| text.contains('\0')) {
        *text = text.replace('\0', "\u{FFFD}");
    }
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

async fn upsert_message(
    connection: &mut AnyConnection,
    owner: &str,
    message: &Message,
    now: String,
) -> Result<bool, Fault> {
    let is_new = sqlx::query("SELECT 1 FROM messages WHERE id = $1")
        .bind(message.id.clone())
        .fetch_optional(&mut *connection)
        .await?
        .is_none();
    let written = sqlx::query(
        "INSERT INTO messages (id, conversation_id, position, role, character_id, character_name, content, status,
                               heard_chars, metadata, client_message_id, created_at, updated_at, owner)
         VALUES ($1, $2, (SELECT COALESCE(MAX(position), 0) + 1 FROM messages WHERE conversation_id = $2),
                 $3, $4, $5, $6, $7, $8, $9, $10, $11, $11, $12)
         ON CONFLICT (id) DO UPDATE SET
             role = excluded.role, character_id = excluded.character_id, character_name = excluded.character_name,
             content = excluded.content, status = excluded.status, heard_chars = excluded.heard_chars,
             metadata = excluded.metadata, client_message_id = excluded.client_message_id,
             updated_at = excluded.updated_at, version = messages.version + 1
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
    .bind(now.clone())
    .bind(owner.to_owned())
    .execute(&mut *connection)
    .await?;
    // Nothing written: the id belongs to a message of another conversation.
    if written.rows_affected() == 0 {
        return Err(Fault::not_found("message", &message.id));
    }
    if is_new {
        sqlx::query("UPDATE conversations SET message_count = message_count + 1, last_message_at = $1 WHERE id = $2")
            .bind(now)
            .bind(message.conversation_id.clone())
            .execute(connection)
            .await?;
    }
    Ok(is_new)
}

/// A failure on its way out: still with what the log needs.
#[derive(Debug)]
pub(super) enum Fault {
    Record(RecordError),
    Database(sqlx::Error),
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl Fault {
    pub(super) fn not_found(what: &'static str, id: &str) -> Self {
        Self::Record(RecordError::NotFound { what, id: id.to_owned() })
    }

    /// Logs what the caller is not told.
    pub(super) fn report(self) -> RecordError {
        let error = match self {
            Self::Record(known) => return known,
            Self::Database(error) => error,
        };
        tracing::error!(%error, "the database failed");
        match &error {
            sqlx::Error::Database(cause) if open::is_full(&**cause) => RecordError::Full,
            _ => RecordError::Failed,
        }
    }
}
