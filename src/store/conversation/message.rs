//! Messages as their owner reads, writes and changes them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row};
use uuid::Uuid;

use super::{Changed, advance, check};
use crate::provider::Role;
use crate::session::record::{MessageStatus, RecordError};
use crate::store::record::Fault;
use crate::store::{Owned, Page, PageAsk, Place, row};

/// A message with all that is kept of it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredMessage {
    pub id: String,
    pub conversation_id: String,
    /// Grows by one within a conversation.
    pub position: i64,
    pub role: Role,
    pub character_id: Option<String>,
    /// Outlives the character.
    pub character_name: Option<String>,
    pub content: String,
    pub content_type: ContentType,
    pub attachments: Vec<Attachment>,
    pub status: MessageStatus,
    /// Characters of `content` that the user heard. None: all.
    pub heard_chars: Option<usize>,
    /// The recording of what was spoken.
    pub audio_file: Option<String>,
    /// Whatever its session noted: a JSON object.
    pub metadata: Value,
    pub client_message_id: Option<String>,
    pub created_at: String,
    pub updated_at: String,
    pub version: i64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContentType {
    #[default]
    Text,
    Audio,
    Image,
    Mixed,
}

impl ContentType {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Audio => "audio",
            Self::Image => "image",
            Self::Mixed => "mixed",
        }
    }
}

/// What belongs to a message beside its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    pub image_id: String,
}

/// A message that somebody writes into a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct NewMessage {
    pub conversation_id: String,
    pub role: Role,
    pub character_id: Option<String>,
    pub content: String,
    pub content_type: ContentType,
    pub attachments: Vec<Attachment>,
    pub status: MessageStatus,
    pub client_message_id: Option<String>,
}

/// A message that was written, now or with an earlier request.
#[derive(Clone, Debug, PartialEq)]
pub struct Saved {
    pub message: StoredMessage,
    /// False: the conversation already held this client's message, which is this one.
    pub is_new: bool,
}

/// Which rows of `messages` are replies that a session is giving: it writes their end, or whoever mends what a crash cut
/// off. A session notes something with a reply from its beginning; what a client has written itself has no metadata, and
/// its state is the client's business.
pub(in crate::store) const BEING_GIVEN: &str =
    "status IN ('pending', 'processing') AND role = 'assistant' AND metadata <> '{}'";

/// The values of a row that [`insert`] writes.
const VALUES: usize = 17;
/// Rows of one statement: SQLite takes 32,766 values, and longer statements gain nothing.
const ROWS: usize = 200;

impl Owned {
    /// A page of a conversation's messages, always the oldest first. Descending: the first page has the latest messages
    /// and leads to older ones.
    ///
    /// # Errors
    /// The conversation is not the owner's.
    pub async fn messages(&self, conversation_id: &str, ask: &PageAsk<()>) -> Result<Page<StoredMessage>, RecordError> {
        page(self, conversation_id, ask).await.map_err(Fault::report)
    }

    /// # Errors
    /// There is none of this id that is the owner's.
    pub async fn message(&self, id: &str) -> Result<StoredMessage, RecordError> {
        let found = async {
            let mut connection = self.store.readers.acquire().await?;
            read(&mut connection, &self.owner, id).await
        };
        found.await.map_err(Fault::report)
    }

    /// Writes all of these messages, or none.
    ///
    /// # Errors
    /// A conversation or a character is not the owner's.
    pub async fn save_messages(&self, new: Vec<NewMessage>) -> Result<Vec<Saved>, RecordError> {
        let all = save(self, new).await.map_err(Fault::report)?;
        self.tell_all(|| {
            let mut created: BTreeMap<String, Vec<StoredMessage>> = BTreeMap::new();
            for Saved { message, .. } in all.iter().filter(|saved| saved.is_new) {
                created.entry(message.conversation_id.clone()).or_default().push(message.clone());
            }
            created.into_iter().map(|(id, messages)| (id, Changed::MessagesCreated(messages))).collect()
        });
        Ok(all)
    }

    /// Gives a message another text. What of it was heard is cut again.
    ///
    /// # Errors
    /// The message is not the owner's; [`RecordError::Changed`] where its version is none of `expected`.
    pub async fn edit_message(
        &self,
        id: &str,
        expected: Option<&[i64]>,
        content: String,
    ) -> Result<StoredMessage, RecordError> {
        let changed = edit(self, id, expected, content).await.map_err(Fault::report)?;
        self.tell(&changed.conversation_id, || Changed::MessageUpdated(Box::new(changed.clone())));
        Ok(changed)
    }

    /// Deletes a message for good. Answers the name of its recording.
    ///
    /// # Errors
    /// The message is not the owner's; [`RecordError::Changed`] where its version is none of `expected`;
    /// [`RecordError::UnderWay`].
    pub async fn delete_message(&self, id: &str, expected: Option<&[i64]>) -> Result<Option<String>, RecordError> {
        let deleted = delete(self, id, expected).await.map_err(Fault::report)?;
        let (conversation_id, file) = (deleted.conversation_id.clone(), deleted.audio_file.clone());
        self.tell(&conversation_id, || Changed::MessageDeleted(Box::new(deleted)));
        Ok(file)
    }
}

async fn page(owned: &Owned, conversation_id: &str, ask: &PageAsk<()>) -> Result<Page<StoredMessage>, Fault> {
    let total: Option<i64> = sqlx::query_scalar("SELECT message_count FROM conversations WHERE id = $1 AND owner = $2")
        .bind(conversation_id.to_owned())
        .bind(owned.owner.to_string())
        .fetch_optional(&owned.store.readers)
        .await?;
    let total = total.ok_or_else(|| Fault::not_found("conversation", conversation_id))?;
    let text = if ask.descending {
        "SELECT * FROM messages WHERE conversation_id = $1 AND position < $2 ORDER BY position DESC LIMIT $3"
    } else {
        "SELECT * FROM messages WHERE conversation_id = $1 AND position > $2 ORDER BY position LIMIT $3"
    };
    let from_the_start = if ask.descending { i64::MAX } else { 0 };
    let after = ask.after.as_ref().and_then(|place| place.key.parse().ok()).unwrap_or(from_the_start);
    let rows = sqlx::query(text)
        .bind(conversation_id.to_owned())
        .bind(after)
        .bind(row::number(ask.limit + 1))
        .fetch_all(&owned.store.readers)
        .await?;
    let items = rows.iter().map(message).collect::<Result<Vec<_>, _>>()?;
    let place = |item: &StoredMessage| Place { key: item.position.to_string(), id: item.id.clone() };
    let mut page = Page::cut(items, ask.limit, total, place);
    if ask.descending {
        page.items.reverse();
    }
    Ok(page)
}

pub(in crate::store) async fn read(
    connection: &mut AnyConnection,
    owner: &str,
    id: &str,
) -> Result<StoredMessage, Fault> {
    let found = sqlx::query("SELECT * FROM messages WHERE id = $1 AND owner = $2")
        .bind(id.to_owned())
        .bind(owner.to_owned())
        .fetch_optional(connection)
        .await?
        .ok_or_else(|| Fault::not_found("message", id))?;
    Ok(message(&found)?)
}

pub(super) fn message(found: &AnyRow) -> Result<StoredMessage, sqlx::Error> {
    let heard: Option<i64> = found.try_get("heard_chars")?;
    Ok(StoredMessage {
        id: found.try_get("id")?,
        conversation_id: found.try_get("conversation_id")?,
        position: found.try_get("position")?,
        role: row::json_word(found, "role")?,
        character_id: found.try_get("character_id")?,
        character_name: found.try_get("character_name")?,
        content: found.try_get("content")?,
        content_type: row::json_word(found, "content_type")?,
        attachments: row::json(found, "attachments")?,
        status: row::json_word(found, "status")?,
        heard_chars: heard.and_then(|count| usize::try_from(count).ok()),
        audio_file: found.try_get("audio_file")?,
        metadata: row::json(found, "metadata")?,
        client_message_id: found.try_get("client_message_id")?,
        created_at: found.try_get("created_at")?,
        updated_at: found.try_get("updated_at")?,
        version: found.try_get("version")?,
    })
}

async fn save(owned: &Owned, new: Vec<NewMessage>) -> Result<Vec<Saved>, Fault> {
    let mut lock = owned.store.write().await?;
    // In one order, so that two batches never wait for each other.
    let ids: BTreeSet<String> = new.iter().map(|message| message.conversation_id.clone()).collect();
    let mut ends = HashMap::new();
    for id in ids {
        advance(&mut lock, &owned.owner, &id, None).await?;
        let last: Option<i64> = sqlx::query_scalar("SELECT MAX(position) FROM messages WHERE conversation_id = $1")
            .bind(id.clone())
            .fetch_one(&mut *lock)
            .await?;
        ends.insert(id, last.unwrap_or(0));
    }
    let names = names(&mut lock, &owned.owner, &new).await?;
    let mut known = already_saved(&mut lock, &new).await?;
    let mut saved: Vec<Saved> = Vec::with_capacity(new.len());
    for new in new {
        let key = new.client_message_id.clone().map(|id| (new.conversation_id.clone(), id));
        if let Some(message) = key.as_ref().and_then(|key| known.get(key)) {
            saved.push(Saved { message: message.clone(), is_new: false });
            continue;
        }
        let character_name = match &new.character_id {
            Some(id) => Some(names.get(id).cloned().ok_or_else(|| Fault::not_found("character", id))?),
            None => None,
        };
        let end = ends.entry(new.conversation_id.clone()).or_default();
        *end += 1;
        let message = written(new, *end, character_name);
        known.extend(key.map(|key| (key, message.clone())));
        saved.push(Saved { message, is_new: true });
    }
    let fresh: Vec<&StoredMessage> = saved.iter().filter(|saved| saved.is_new).map(|saved| &saved.message).collect();
    if fresh.is_empty() {
        // Nothing has changed: the transaction is dropped.
        return Ok(saved);
    }
    insert(&mut lock, &owned.owner, &fresh).await?;
    for id in ends.keys() {
        count(&mut lock, id, fresh.iter().filter(|message| message.conversation_id == *id).count()).await?;
    }
    lock.commit().await?;
    Ok(saved)
}

fn written(new: NewMessage, position: i64, character_name: Option<String>) -> StoredMessage {
    let now = row::now();
    StoredMessage {
        id: Uuid::now_v7().to_string(),
        conversation_id: new.conversation_id,
        position,
        role: new.role,
        character_id: new.character_id,
        character_name,
        content: new.content,
        content_type: new.content_type,
        attachments: new.attachments,
        status: new.status,
        heard_chars: None,
        audio_file: None,
        metadata: Value::Object(serde_json::Map::new()),
        client_message_id: new.client_message_id,
        created_at: now.clone(),
        updated_at: now,
        version: 1,
    }
}

/// Notes with a conversation that so many messages came.
async fn count(connection: &mut AnyConnection, conversation_id: &str, more: usize) -> Result<(), Fault> {
    sqlx::query(
        "UPDATE conversations SET message_count = message_count + $1, last_message_at =
             (SELECT created_at FROM messages WHERE conversation_id = $2 ORDER BY position DESC LIMIT 1)
         WHERE id = $2",
    )
    .bind(row::number(more))
    .bind(conversation_id.to_owned())
    .execute(connection)
    .await?;
    Ok(())
}

/// The names of the characters that these messages are of.
async fn names(
    connection: &mut AnyConnection,
    owner: &str,
    new: &[NewMessage],
) -> Result<HashMap<String, String>, Fault> {
    let ids: BTreeSet<&String> = new.iter().filter_map(|message| message.character_id.as_ref()).collect();
    let mut names = HashMap::new();
    for id in ids {
        let name: Option<String> = sqlx::query_scalar("SELECT name FROM characters WHERE id = $1 AND owner = $2")
            .bind(id.clone())
            .bind(owner.to_owned())
            .fetch_optional(&mut *connection)
            .await?;
        names.insert(id.clone(), name.ok_or_else(|| Fault::not_found("character", id))?);
    }
    Ok(names)
}

/// The messages that the conversations already hold, by conversation and client's id.
async fn already_saved(
    connection: &mut AnyConnection,
    new: &[NewMessage],
) -> Result<HashMap<(String, String), StoredMessage>, Fault> {
    let mut known = HashMap::new();
    for new in new {
        let Some(client_id) = &new.client_message_id else { continue };
        let found = sqlx::query("SELECT * FROM messages WHERE conversation_id = $1 AND client_message_id = $2")
            .bind(new.conversation_id.clone())
            .bind(client_id.clone())
            .fetch_optional(&mut *connection)
            .await?;
        if let Some(found) = found {
            known.insert((new.conversation_id.clone(), client_id.clone()), message(&found)?);
        }
    }
    Ok(known)
}

/// Inserts whole rows, in order.
pub(super) async fn insert(
    connection: &mut AnyConnection,
    owner: &str,
    messages: &[&StoredMessage],
) -> Result<(), Fault> {
    for part in messages.chunks(ROWS) {
        let row = |index: usize| {
            let values: Vec<String> = (1..=VALUES).map(|value| format!("${}", index * VALUES + value)).collect();
            format!("({})", values.join(", "))
        };
        let rows: Vec<String> = (0..part.len()).map(row).collect();
        let text = format!(
            "INSERT INTO messages (id, conversation_id, position, role, character_id, character_name, content,
                                   content_type, attachments, status, heard_chars, audio_file, metadata,
                                   client_message_id, created_at, updated_at, owner)
             VALUES {}",
            rows.join(", ")
        );
        let mut query = sqlx::query(AssertSqlSafe(text)).persistent(false);
        for message in part {
            query = query
                .bind(message.id.clone())
                .bind(message.conversation_id.clone())
                .bind(message.position)
                .bind(row::role_name(message.role))
                .bind(message.character_id.clone())
                .bind(message.character_name.clone())
                .bind(message.content.clone())
                .bind(message.content_type.as_str())
                .bind(serde_json::to_string(&message.attachments).unwrap_or_else(|_| "[]".to_owned()))
                .bind(row::status_name(message.status))
                .bind(message.heard_chars.map(row::number))
                .bind(message.audio_file.clone())
                .bind(message.metadata.to_string())
                .bind(message.client_message_id.clone())
                .bind(message.created_at.clone())
                .bind(message.updated_at.clone())
                .bind(owner.to_owned());
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// The conversation first, as whoever saves a message locks it first.
async fn lock_message(
    connection: &mut AnyConnection,
    owner: &str,
    id: &str,
    expected: Option<&[i64]>,
) -> Result<StoredMessage, Fault> {
    let found = read(&mut *connection, owner, id).await?;
    advance(&mut *connection, owner, &found.conversation_id, None).await?;
    // Again, now that nobody else changes it.
    let found = read(&mut *connection, owner, id).await?;
    check(expected, found.version)?;
    Ok(found)
}

async fn edit(owned: &Owned, id: &str, expected: Option<&[i64]>, content: String) -> Result<StoredMessage, Fault> {
    let mut lock = owned.store.write().await?;
    let before = lock_message(&mut lock, &owned.owner, id, expected).await?;
    let heard = before.heard_chars.and_then(|heard| heard_of(&before.content, &content, heard));
    sqlx::query(
        "UPDATE messages SET content = $1, heard_chars = $2, updated_at = $3, version = version + 1 WHERE id = $4",
    )
    .bind(content)
    .bind(heard.map(row::number))
    .bind(row::now())
    .bind(id.to_owned())
    .execute(&mut *lock)
    .await?;
    let changed = read(&mut lock, &owned.owner, id).await?;
    lock.commit().await?;
    Ok(changed)
}

/// Where the end of what was heard is after an edit: what stands before it and was not changed was heard, what was put in
/// place of something that reached over it counts as heard. None: all.
fn heard_of(before: &str, after: &str, heard: usize) -> Option<usize> {
    let (old, new): (Vec<char>, Vec<char>) = (before.chars().collect(), after.chars().collect());
    let start = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let ends = old[start..].iter().rev().zip(new[start..].iter().rev());
    let end = ends.take_while(|(a, b)| a == b).count();
    let unheard = if heard <= start { new.len() - heard } else { end.min(old.len().saturating_sub(heard)) };
    (unheard > 0).then(|| new.len() - unheard)
}

async fn delete(owned: &Owned, id: &str, expected: Option<&[i64]>) -> Result<StoredMessage, Fault> {
    let mut lock = owned.store.write().await?;
    let found = lock_message(&mut lock, &owned.owner, id, expected).await?;
    let text = format!("DELETE FROM messages WHERE id = $1 AND NOT ({BEING_GIVEN})");
    let deleted = sqlx::query(AssertSqlSafe(text)).bind(id.to_owned()).execute(&mut *lock).await?;
    if deleted.rows_affected() == 0 {
        // Its end would store it again.
        return Err(Fault::Record(RecordError::UnderWay));
    }
    sqlx::query(
        "UPDATE conversations SET message_count = message_count - 1, last_message_at =
             (SELECT created_at FROM messages WHERE conversation_id = $1 ORDER BY position DESC LIMIT 1)
         WHERE id = $1",
    )
    .bind(found.conversation_id.clone())
    .execute(&mut *lock)
    .await?;
    lock.commit().await?;
    Ok(found)
}

#[cfg(test)]
#[path = "message_tests.rs"]
pub(super) mod tests;
