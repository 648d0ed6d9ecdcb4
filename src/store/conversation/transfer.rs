//! Whole conversations, out and in.
//!
//! What comes in keeps its ids where they are free, so that what goes out afterwards is the same; where somebody has
//! them, it gets new ones. A character of the owner's that is there already stays as it is.

use std::collections::{HashMap, HashSet};

use sqlx::{AnyConnection, AssertSqlSafe};
use uuid::Uuid;

use super::message::{self, StoredMessage};
use super::{StoredConversation, read};
use crate::session::record::RecordError;
use crate::store::character::{self, StoredCharacter};
use crate::store::record::Fault;
use crate::store::{Owned, row};

/// A conversation with all that belongs to it but recordings and pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct Archive {
    pub conversation: StoredConversation,
    /// Who takes part, in order.
    pub characters: Vec<StoredCharacter>,
    /// In order.
    pub messages: Vec<StoredMessage>,
}

/// Ids of one question: SQLite takes 32,766 values.
const IDS: usize = 1000;
/// An id that is brought along may leave out this many numbers of its slug, for everybody.
const LARGEST_NUMBER: i64 = 99_999;

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
        characters: characters.iter().map(character::stored).collect::<Result<_, _>>()?,
        messages: messages.iter().map(message::message).collect::<Result<_, _>>()?,
    })
}

async fn import(owned: &Owned, archive: Archive) -> Result<StoredConversation, Fault> {
    let Archive { mut conversation, characters, mut messages } = archive;
    let mut lock = owned.store.write().await?;
    let mut renamed = HashMap::new();
    conversation.character_ids = Vec::with_capacity(characters.len());
    for character in characters {
        let old = character.character.id.clone();
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
async fn take_in(connection: &mut AnyConnection, owner: &str, mut new: StoredCharacter) -> Result<String, Fault> {
    let id = new.character.id.clone();
    let holder: Option<String> = sqlx::query_scalar("SELECT owner FROM characters WHERE id = $1")
        .bind(id.clone())
        .fetch_optional(&mut *connection)
        .await?;
    let (slug, number) = id.rsplit_once('-').unwrap_or((&id, ""));
    match holder.as_deref() {
        Some(holder) if holder == owner => return Ok(id),
        Some(_) => new.character.id = character::next_id(&mut *connection, slug).await?,
        None if !pass(&mut *connection, slug, number.parse().unwrap_or(0)).await? => {
            new.character.id = character::next_id(&mut *connection, slug).await?;
        }
        None => {}
    }
    character::insert(connection, owner, &new).await?;
    Ok(new.character.id)
}

/// Sees to it that a slug's next number is above this one. False: that would use up too many, and nothing was done.
async fn pass(connection: &mut AnyConnection, slug: &str, number: i64) -> Result<bool, Fault> {
    if number > LARGEST_NUMBER {
        return Ok(false);
    }
    sqlx::query(
        "INSERT INTO character_numbers (slug, last) VALUES ($1, $2) ON CONFLICT (slug) DO UPDATE SET last =
             CASE WHEN character_numbers.last < excluded.last THEN excluded.last ELSE character_numbers.last END",
    )
    .bind(slug.to_owned())
    .bind(number)
    .execute(connection)
    .await?;
    Ok(true)
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;
