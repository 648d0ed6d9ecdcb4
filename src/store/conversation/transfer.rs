//! Whole conversations, out and in.
//!
//! What comes in keeps its ids where they are free, so that what goes out afterwards is the same; where somebody has
//! them, it gets new ones. A character of the owner's that is there already stays as it is.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row};
use uuid::Uuid;

use super::message::{self, StoredMessage};
use super::{StoredConversation, read};
use crate::session::record::RecordError;
use crate::store::record::Fault;
use crate::store::{Owned, row};

/// A conversation with all that belongs to it but recordings and pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct Archive {
    pub conversation: StoredConversation,
    /// Who takes part, in order.
    pub characters: Vec<ArchivedCharacter>,
    /// In order.
    pub messages: Vec<StoredMessage>,
}

/// A character without its picture.
#[derive(Clone, Debug, PartialEq)]
pub struct ArchivedCharacter {
    /// A slug, a minus and a number.
    pub id: String,
    pub name: String,
    pub description: String,
    pub system_prompt: String,
    pub personality: String,
    pub voice: Option<String>,
    pub model: Option<String>,
    /// A JSON object.
    pub parameters: Value,
    pub talkativeness: f64,
    pub languages: Vec<String>,
    pub is_active: bool,
    pub created_at: String,
    pub updated_at: String,
}

/// Ids of one question: SQLite takes 32,766 values.
const IDS: usize = 1000;

impl Owned {
    /// All of a conversation, as it is at one moment.
    ///
    /// # Errors
    /// The conversation is not the owner's.
    pub async fn export_conversation(&self, id: &str) -> Result<Archive, RecordError> {
        export(self, id).await.map_err(Fault::report)
    }

    /// Takes in all of a conversation, or nothing. Times are RFC 3339; positions, counts and versions are made anew.
    ///
    /// # Errors
    /// The database failed.
    pub async fn import_conversation(&self, archive: Archive) -> Result<StoredConversation, RecordError> {
        import(self, archive).await.map_err(Fault::report)
    }
}

/// A time as the database has it.
///
/// None: it is not RFC 3339.
pub fn stored_time(text: &str) -> Option<String> {
    row::time(text)
}

async fn export(owned: &Owned, id: &str) -> Result<Archive, Fault> {
    let mut moment = owned.store.read().await?;
    let conversation = read(&mut moment, &owned.owner, id).await?;
    let characters = sqlx::query(
        "SELECT c.* FROM conversation_characters AS m JOIN characters AS c ON c.id = m.character_id
         WHERE m.conversation_id = $1 ORDER BY m.position",
    )
    .bind(id.to_owned())
    .fetch_all(&mut *moment)
    .await?;
    let messages = sqlx::query("SELECT * FROM messages WHERE conversation_id = $1 ORDER BY position")
        .bind(id.to_owned())
        .fetch_all(&mut *moment)
        .await?;
    moment.commit().await?;
    Ok(Archive {
        conversation,
        characters: characters.iter().map(character).collect::<Result<_, _>>()?,
        messages: messages.iter().map(message::message).collect::<Result<_, _>>()?,
    })
}

fn character(found: &AnyRow) -> Result<ArchivedCharacter, sqlx::Error> {
    Ok(ArchivedCharacter {
        id: found.try_get("id")?,
        name: found.try_get("name")?,
        description: found.try_get("description")?,
        system_prompt: found.try_get("system_prompt")?,
        personality: found.try_get("personality")?,
        voice: found.try_get("voice")?,
        model: found.try_get("model")?,
        parameters: row::json(found, "parameters")?,
        talkativeness: found.try_get("talkativeness")?,
        languages: row::json(found, "languages")?,
        is_active: found.try_get::<i64, _>("is_active")? == 1,
        created_at: found.try_get("created_at")?,
        updated_at: found.try_get("updated_at")?,
    })
}

async fn import(owned: &Owned, archive: Archive) -> Result<StoredConversation, Fault> {
    let Archive { mut conversation, characters, mut messages } = archive;
    let mut lock = owned.store.write().await?;
    let mut renamed = HashMap::new();
    conversation.character_ids = Vec::with_capacity(characters.len());
    for character in characters {
        let old = character.id.clone();
        let id = take_in(&mut lock, &owned.owner, character).await?;
        conversation.character_ids.push(id.clone());
        renamed.insert(old, id);
    }
    let ids = std::slice::from_ref(&conversation.id);
    if !taken(&mut lock, Table::Conversations, ids).await?.is_empty() {
        conversation.id = Uuid::now_v7().to_string();
    }
    let ids: Vec<String> = messages.iter().map(|message| message.id.clone()).collect();
    let taken = taken(&mut lock, Table::Messages, &ids).await?;
    for (position, message) in (1_i64..).zip(&mut messages) {
        message.conversation_id.clone_from(&conversation.id);
        message.position = position;
        if taken.contains(&message.id) {
            message.id = Uuid::now_v7().to_string();
        }
        if let Some(id) = message.character_id.as_ref().and_then(|id| renamed.get(id)) {
            message.character_id = Some(id.clone());
        }
    }
    conversation.message_count = row::number(messages.len());
    conversation.last_message_at = messages.last().map(|message| message.created_at.clone());
    super::insert(&mut lock, &owned.owner, &conversation).await?;
    message::insert(&mut lock, &owned.owner, &messages.iter().collect::<Vec<_>>()).await?;
    let stored = read(&mut lock, &owned.owner, &conversation.id).await?;
    lock.commit().await?;
    Ok(stored)
}

#[derive(Clone, Copy)]
enum Table {
    Conversations,
    Messages,
}

/// Which of these ids somebody has.
async fn taken(connection: &mut AnyConnection, table: Table, ids: &[String]) -> Result<HashSet<String>, Fault> {
    let table = match table {
        Table::Conversations => "conversations",
        Table::Messages => "messages",
    };
    let mut taken = HashSet::new();
    for part in ids.chunks(IDS) {
        let places: Vec<String> = (1..=part.len()).map(|number| format!("${number}")).collect();
        let text = format!("SELECT id FROM {table} WHERE id IN ({})", places.join(", "));
        let mut query = sqlx::query_scalar(AssertSqlSafe(text)).persistent(false);
        for id in part {
            query = query.bind(id.clone());
        }
        let found: Vec<String> = query.fetch_all(&mut *connection).await?;
        taken.extend(found);
    }
    Ok(taken)
}

/// Answers under which id the owner has the character.
async fn take_in(
    connection: &mut AnyConnection,
    owner: &str,
    mut character: ArchivedCharacter,
) -> Result<String, Fault> {
    let holder: Option<String> = sqlx::query_scalar("SELECT owner FROM characters WHERE id = $1")
        .bind(character.id.clone())
        .fetch_optional(&mut *connection)
        .await?;
    if holder.as_deref() == Some(owner) {
        return Ok(character.id);
    }
    let (slug, number) = character.id.rsplit_once('-').unwrap_or((&character.id, ""));
    let slug = slug.to_owned();
    // What is given out later is above both what was given out and what came in.
    let least: i64 = if holder.is_some() { 0 } else { number.parse().unwrap_or(0) };
    let text = if holder.is_some() {
        "INSERT INTO character_numbers (slug, last) VALUES ($1, $2 + 1)
         ON CONFLICT (slug) DO UPDATE SET last = character_numbers.last + 1 RETURNING last"
    } else {
        "INSERT INTO character_numbers (slug, last) VALUES ($1, $2) ON CONFLICT (slug) DO UPDATE SET last =
             CASE WHEN character_numbers.last < excluded.last THEN excluded.last ELSE character_numbers.last END
         RETURNING last"
    };
    let last: i64 = sqlx::query_scalar(text).bind(slug.clone()).bind(least).fetch_one(&mut *connection).await?;
    if holder.is_some() {
        character.id = format!("{slug}-{last:03}");
    }
    sqlx::query(
        "INSERT INTO characters (id, owner, name, description, system_prompt, personality, voice, model, parameters,
                                 talkativeness, languages, is_active, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    )
    .bind(character.id.clone())
    .bind(owner.to_owned())
    .bind(character.name)
    .bind(character.description)
    .bind(character.system_prompt)
    .bind(character.personality)
    .bind(character.voice)
    .bind(character.model)
    .bind(character.parameters.to_string())
    .bind(character.talkativeness)
    .bind(serde_json::to_string(&character.languages).unwrap_or_else(|_| "[]".to_owned()))
    .bind(i64::from(character.is_active))
    .bind(character.created_at)
    .bind(character.updated_at)
    .execute(connection)
    .await?;
    Ok(character.id)
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;
