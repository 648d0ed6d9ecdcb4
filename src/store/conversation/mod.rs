//! Conversations as their owner lists, changes and deletes them, with their messages, search, export and import.
//!
//! A session's own view of the same rows is `record`. How many messages there are and when the last came is kept with
//! the conversation by whoever inserts or deletes one.

mod change;
mod message;
mod search;
mod transfer;
mod words;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row};
use uuid::Uuid;

pub(super) use self::read as stored_conversation;
use super::record::{Fault, default_character, insert_members, once_each};
use super::{Owned, Page, PageAsk, Place, row};
use crate::session::record::RecordError;
pub(super) use change::WAITING as CHANGES;
pub use change::{Change, Changed};
pub use message::{Attachment, ContentType, NewMessage, Saved, StoredMessage};
pub(super) use message::{BEING_GIVEN, read as stored_message};
pub use search::{Hit, HitMessage};
pub use transfer::{Archive, stored_time};
pub use words::Snippet;

/// A conversation with what a list shows of it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredConversation {
    pub id: String,
    pub title: String,
    pub kind: ConversationKind,
    pub status: ConversationStatus,
    /// What is said in it stays on this machine.
    pub private: bool,
    /// Who takes part, in order.
    pub character_ids: Vec<String>,
    /// What its sessions begin with, as `SettingsPatch` reads it.
    pub settings: Value,
    pub message_count: i64,
    pub last_message_at: Option<String>,
    pub created_at: String,
    pub updated_at: String,
    pub version: i64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConversationKind {
    #[default]
    Text,
    Image,
    Mixed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConversationStatus {
    #[default]
    Active,
    Archived,
    /// In the bin.
    Deleted,
}

impl ConversationKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Image => "image",
            Self::Mixed => "mixed",
        }
    }
}

impl ConversationStatus {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Archived => "archived",
            Self::Deleted => "deleted",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewConversation {
    pub title: String,
    pub kind: ConversationKind,
    pub private: bool,
    /// None: the owner's default character, where there is one.
    pub character_ids: Option<Vec<String>>,
    /// A JSON object.
    pub settings: Value,
}

/// What of a conversation changes. None: it stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConversationChange {
    pub title: Option<String>,
    pub status: Option<ConversationStatus>,
    pub private: Option<bool>,
    pub settings: Option<Value>,
    pub cast: Option<CastChange>,
}

/// Who takes part from now on.
#[derive(Clone, Debug, PartialEq)]
pub enum CastChange {
    Set(Vec<String>),
    /// After the others, unless already among them.
    Add(String),
    /// [`RecordError::NotFound`] where it is not among them.
    Remove(String),
}

/// Which conversations a list has. Without a status: all that are not in the bin.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConversationFilter {
    pub status: Option<ConversationStatus>,
    pub character_id: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConversationSort {
    UpdatedAt,
    CreatedAt,
    Title,
}

impl ConversationSort {
    const fn column(self) -> &'static str {
        match self {
            Self::UpdatedAt => "updated_at",
            Self::CreatedAt => "created_at",
            Self::Title => "title",
        }
    }

    fn key(self, of: &StoredConversation) -> &str {
        match self {
            Self::UpdatedAt => &of.updated_at,
            Self::CreatedAt => &of.created_at,
            Self::Title => &of.title,
        }
    }
}

/// The columns that [`conversation`] reads, of `conversations AS c`.
const COLUMNS: &str = "c.id, c.title, c.type, c.status, c.private, c.settings, c.message_count, c.last_message_at, \
     c.created_at, c.updated_at, c.version, \
     (SELECT string_agg(m.character_id, ',' ORDER BY m.position) FROM conversation_characters AS m \
      WHERE m.conversation_id = c.id) AS character_ids";

/// Which rows a [`ConversationFilter`] lets through.
const FILTER: &str = "c.owner = $1 AND (c.status = $2 OR ($2 = '' AND c.status <> 'deleted')) \
     AND ($3 = '' OR EXISTS (SELECT 1 FROM conversation_characters AS m \
                             WHERE m.conversation_id = c.id AND m.character_id = $3))";

impl Owned {
    /// A page of the owner's conversations.
    ///
    /// # Errors
    /// The database failed.
    pub async fn conversations(
        &self,
        filter: &ConversationFilter,
        ask: &PageAsk<ConversationSort>,
    ) -> Result<Page<StoredConversation>, RecordError> {
        list(self, filter, ask).await.map_err(|error| Fault::from(error).report())
    }

    /// A conversation, in the bin or not.
    ///
    /// # Errors
    /// There is none of this id that is the owner's.
    pub async fn conversation(&self, id: &str) -> Result<StoredConversation, RecordError> {
        let found = async {
            let mut connection = self.store.readers.acquire().await?;
            read(&mut connection, &self.owner, id).await
        };
        found.await.map_err(Fault::report)
    }

    /// # Errors
    /// A character is not the owner's.
    pub async fn new_conversation(&self, new: NewConversation) -> Result<StoredConversation, RecordError> {
        create(self, new).await.map_err(Fault::report)
    }

    /// Changes a conversation whose version is one of `expected`; None: any.
    ///
    /// # Errors
    /// The conversation or a character is not the owner's; [`RecordError::Changed`].
    pub async fn change_conversation(
        &self,
        id: &str,
        expected: Option<&[i64]>,
        change: ConversationChange,
    ) -> Result<StoredConversation, RecordError> {
        let is_recast = change.cast.is_some();
        let changed = update(self, id, expected, change).await.map_err(Fault::report)?;
        self.tell(id, || Changed::Conversation { conversation: Box::new(changed.clone()), is_recast });
        Ok(changed)
    }

    /// Deletes a conversation and its messages for good. Answers the names of the recordings that belonged to it.
    ///
    /// # Errors
    /// The conversation is not the owner's; [`RecordError::Changed`].
    pub async fn delete_conversation(&self, id: &str, expected: Option<&[i64]>) -> Result<Vec<String>, RecordError> {
        let files = delete(self, id, expected).await.map_err(Fault::report)?;
        self.tell(id, || Changed::ConversationDeleted);
        Ok(files)
    }
}

async fn list(
    owned: &Owned,
    filter: &ConversationFilter,
    ask: &PageAsk<ConversationSort>,
) -> Result<Page<StoredConversation>, sqlx::Error> {
    let (column, direction) = (ask.sort.column(), if ask.descending { "DESC" } else { "ASC" });
    let after = match (&ask.after, ask.descending) {
        (None, _) => String::new(),
        (Some(_), true) => format!("AND (c.{column}, c.id) < ($5, $6)"),
        (Some(_), false) => format!("AND (c.{column}, c.id) > ($5, $6)"),
    };
    let text = format!(
        "SELECT {COLUMNS} FROM conversations AS c WHERE {FILTER} {after} \
         ORDER BY c.{column} {direction}, c.id {direction} LIMIT $4"
    );
    let status = filter.status.map_or("", ConversationStatus::as_str);
    let character = filter.character_id.clone().unwrap_or_default();
    let mut query = sqlx::query(AssertSqlSafe(text))
        .bind(owned.owner.to_string())
        .bind(status)
        .bind(character.clone())
        .bind(row::number(ask.limit + 1));
    if let Some(place) = &ask.after {
        query = query.bind(place.key.clone()).bind(place.id.clone());
    }
    let rows = query.fetch_all(&owned.store.readers).await?;
    let total = sqlx::query_scalar(AssertSqlSafe(format!("SELECT COUNT(*) FROM conversations AS c WHERE {FILTER}")))
        .bind(owned.owner.to_string())
        .bind(status)
        .bind(character)
        .fetch_one(&owned.store.readers)
        .await?;
    let items = rows.iter().map(conversation).collect::<Result<Vec<_>, _>>()?;
    let place = |item: &StoredConversation| Place { key: ask.sort.key(item).to_owned(), id: item.id.clone() };
    Ok(Page::cut(items, ask.limit, total, place))
}

pub(super) async fn read(connection: &mut AnyConnection, owner: &str, id: &str) -> Result<StoredConversation, Fault> {
    let text = format!("SELECT {COLUMNS} FROM conversations AS c WHERE c.id = $1 AND c.owner = $2");
    let found = sqlx::query(AssertSqlSafe(text))
        .bind(id.to_owned())
        .bind(owner.to_owned())
        .fetch_optional(connection)
        .await?
        .ok_or_else(|| Fault::not_found("conversation", id))?;
    Ok(conversation(&found)?)
}

fn conversation(found: &AnyRow) -> Result<StoredConversation, sqlx::Error> {
    let members: Option<String> = found.try_get("character_ids")?;
    let members = members.as_deref().unwrap_or_default().split(',').filter(|id| !id.is_empty());
    Ok(StoredConversation {
        id: found.try_get("id")?,
        title: found.try_get("title")?,
        kind: row::json_word(found, "type")?,
        status: row::json_word(found, "status")?,
        private: found.try_get::<i64, _>("private")? == 1,
        character_ids: members.map(str::to_owned).collect(),
        settings: row::json(found, "settings")?,
        message_count: found.try_get("message_count")?,
        last_message_at: found.try_get("last_message_at")?,
        created_at: found.try_get("created_at")?,
        updated_at: found.try_get("updated_at")?,
        version: found.try_get("version")?,
    })
}

async fn create(owned: &Owned, new: NewConversation) -> Result<StoredConversation, Fault> {
    let mut lock = owned.store.write().await?;
    let now = row::now();
    let mut character_ids = match new.character_ids {
        Some(ids) => ids,
        None => match default_character(&mut lock, &owned.owner).await {
            Ok(character) => vec![character.id],
            Err(Fault::Record(RecordError::NotFound { .. })) => Vec::new(),
            Err(fault) => return Err(fault),
        },
    };
    once_each(&mut character_ids);
    let conversation = StoredConversation {
        id: Uuid::now_v7().to_string(),
        title: new.title,
        kind: new.kind,
        status: ConversationStatus::Active,
        private: new.private,
        character_ids,
        settings: new.settings,
        message_count: 0,
        last_message_at: None,
        created_at: now.clone(),
        updated_at: now,
        version: 1,
    };
    insert(&mut lock, &owned.owner, &conversation).await?;
    lock.commit().await?;
    Ok(conversation)
}

async fn insert(connection: &mut AnyConnection, owner: &str, new: &StoredConversation) -> Result<(), Fault> {
    sqlx::query(
        "INSERT INTO conversations (id, owner, title, type, status, private, settings, message_count, last_message_at,
                                    created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(new.id.clone())
    .bind(owner.to_owned())
    .bind(new.title.clone())
    .bind(new.kind.as_str())
    .bind(new.status.as_str())
    .bind(i64::from(new.private))
    .bind(new.settings.to_string())
    .bind(new.message_count)
    .bind(new.last_message_at.clone())
    .bind(new.created_at.clone())
    .bind(new.updated_at.clone())
    .execute(&mut *connection)
    .await?;
    insert_members(connection, owner, &new.id, &new.character_ids).await?;
    Ok(())
}

async fn update(
    owned: &Owned,
    id: &str,
    expected: Option<&[i64]>,
    change: ConversationChange,
) -> Result<StoredConversation, Fault> {
    let mut lock = owned.store.write().await?;
    advance(&mut lock, &owned.owner, id, expected).await?;
    let ConversationChange { title, status, private, settings, cast } = change;
    if title.is_some() || status.is_some() || private.is_some() || settings.is_some() {
        sqlx::query(
            "UPDATE conversations SET title = COALESCE($1, title), status = COALESCE($2, status),
                 private = COALESCE($3, private), settings = COALESCE($4, settings)
             WHERE id = $5",
        )
        .bind(title)
        .bind(status.map(ConversationStatus::as_str))
        .bind(private.map(i64::from))
        .bind(settings.map(|settings| settings.to_string()))
        .bind(id.to_owned())
        .execute(&mut *lock)
        .await?;
    }
    if let Some(cast) = cast {
        let before = read(&mut lock, &owned.owner, id).await?.character_ids;
        let ids = recast(before, cast)?;
        sqlx::query("DELETE FROM conversation_characters WHERE conversation_id = $1")
            .bind(id.to_owned())
            .execute(&mut *lock)
            .await?;
        insert_members(&mut lock, &owned.owner, id, &ids).await?;
    }
    let changed = read(&mut lock, &owned.owner, id).await?;
    lock.commit().await?;
    Ok(changed)
}

fn recast(mut ids: Vec<String>, change: CastChange) -> Result<Vec<String>, Fault> {
    match change {
        CastChange::Set(wanted) => ids = wanted,
        CastChange::Add(id) => ids.push(id),
        CastChange::Remove(id) => {
            let before = ids.len();
            ids.retain(|known| *known != id);
            if ids.len() == before {
                return Err(Fault::not_found("character", &id));
            }
        }
    }
    once_each(&mut ids);
    Ok(ids)
}

async fn delete(owned: &Owned, id: &str, expected: Option<&[i64]>) -> Result<Vec<String>, Fault> {
    let mut lock = owned.store.write().await?;
    advance(&mut lock, &owned.owner, id, expected).await?;
    let recordings =
        sqlx::query_scalar("SELECT audio_file FROM messages WHERE conversation_id = $1 AND audio_file IS NOT NULL")
            .bind(id.to_owned())
            .fetch_all(&mut *lock)
            .await?;
    sqlx::query("DELETE FROM conversations WHERE id = $1").bind(id.to_owned()).execute(&mut *lock).await?;
    lock.commit().await?;
    Ok(recordings)
}

/// Notes that a conversation changes whose version is one of `expected`. The first statement of a transaction that
/// changes it, since it also locks the row where transactions run side by side.
async fn advance(connection: &mut AnyConnection, owner: &str, id: &str, expected: Option<&[i64]>) -> Result<(), Fault> {
    let version: Option<i64> = sqlx::query_scalar(
        "UPDATE conversations SET updated_at = $1, version = version + 1 WHERE id = $2 AND owner = $3
         RETURNING version",
    )
    .bind(row::now())
    .bind(id.to_owned())
    .bind(owner.to_owned())
    .fetch_optional(connection)
    .await?;
    let version = version.ok_or_else(|| Fault::not_found("conversation", id))?;
    check(expected, version - 1)
}

fn check(expected: Option<&[i64]>, version: i64) -> Result<(), Fault> {
    match expected {
        Some(versions) if !versions.contains(&version) => Err(Fault::Record(RecordError::Changed)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
