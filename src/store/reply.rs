//! What replies need of the rows of messages beyond `session`'s records: where one belongs, and the file of one's sound.

use std::collections::HashSet;

use sqlx::Row;

use super::conversation::{Changed, stored_conversation, stored_message};
use super::record::{Fault, touch};
use super::{Owned, Store, row};
use crate::session::record::RecordError;

/// Where a message belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyPlace {
    pub conversation_id: String,
    /// Of a reply: who said it, where that character is still there.
    pub character_id: Option<String>,
}

impl Owned {
    /// Whose rows these are.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The conversation and the character of the reply `id`, or of the reply to the user's message `id`. None: there is
    /// no such message.
    ///
    /// # Errors
    /// The database failed.
    pub async fn reply_place(&self, id: &str) -> Result<Option<ReplyPlace>, RecordError> {
        reply_place(self, id).await.map_err(Fault::report)
    }

    /// The file of a message's sound. None: there is no such message, or it has none.
    ///
    /// # Errors
    /// The database failed.
    pub async fn recording(&self, message_id: &str) -> Result<Option<String>, RecordError> {
        // No text of the database holds it, and PostgreSQL refuses to look for it.
        if message_id.contains('\0') {
            return Ok(None);
        }
        let found: Result<Option<Option<String>>, _> =
            sqlx::query_scalar("SELECT audio_file FROM messages WHERE id = $1 AND owner = $2")
                .bind(message_id.to_owned())
                .bind(self.owner.to_string())
                .fetch_optional(&self.store.readers)
                .await;
        found.map(Option::flatten).map_err(|error| Fault::from(error).report())
    }

    /// Notes the file of a message's sound. Answers the one that it takes the place of.
    ///
    /// # Errors
    /// [`RecordError::NotFound`], or the database failed.
    pub async fn set_recording(&self, message_id: &str, file: &str) -> Result<Option<String>, RecordError> {
        set_recording(self, message_id, file).await.map_err(Fault::report)
    }
}

impl Store {
    /// Those of these files that are some message's sound.
    ///
    /// # Errors
    /// The database failed.
    pub async fn recordings_among(&self, files: &[String]) -> Result<HashSet<String>, RecordError> {
        let mut known = HashSet::new();
        for file in files {
            let found = sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM messages WHERE audio_file = $1")
                .bind(file.clone())
                .fetch_one(&self.readers)
                .await;
            if found.map_err(|error| Fault::from(error).report())? > 0 {
                known.insert(file.clone());
            }
        }
        Ok(known)
    }
}

async fn reply_place(owned: &Owned, id: &str) -> Result<Option<ReplyPlace>, Fault> {
    let mut moment = owned.store.read().await?;
    let found = sqlx::query("SELECT conversation_id, position FROM messages WHERE id = $1 AND owner = $2")
        .bind(id.to_owned())
        .bind(owned.owner.to_string())
        .fetch_optional(&mut *moment)
        .await?;
    let Some(found) = found else { return Ok(None) };
    let conversation_id: String = found.try_get("conversation_id")?;
    let position: i64 = found.try_get("position")?;
    let character_id = sqlx::query_scalar(
        "SELECT c.id FROM messages AS m JOIN characters AS c ON c.id = m.character_id AND c.owner = $1
         WHERE m.conversation_id = $2 AND m.position >= $3 AND m.role = 'assistant' ORDER BY m.position LIMIT 1",
    )
    .bind(owned.owner.to_string())
    .bind(conversation_id.clone())
    .bind(position)
    .fetch_optional(&mut *moment)
    .await?;
    moment.commit().await?;
    Ok(Some(ReplyPlace { conversation_id, character_id }))
}

async fn set_recording(owned: &Owned, message_id: &str, file: &str) -> Result<Option<String>, Fault> {
    let mut lock = owned.store.write().await?;
    // Locks the row where transactions run side by side.
    let touched =
        sqlx::query("UPDATE messages SET version = version + 1, updated_at = $1 WHERE id = $2 AND owner = $3")
            .bind(row::now())
            .bind(message_id.to_owned())
            .bind(owned.owner.to_string())
            .execute(&mut *lock)
            .await?;
    if touched.rows_affected() == 0 {
        return Err(Fault::not_found("message", message_id));
    }
    let earlier: Option<String> = sqlx::query_scalar("SELECT audio_file FROM messages WHERE id = $1")
        .bind(message_id.to_owned())
        .fetch_one(&mut *lock)
        .await?;
    sqlx::query("UPDATE messages SET audio_file = $1 WHERE id = $2")
        .bind(file.to_owned())
        .bind(message_id.to_owned())
        .execute(&mut *lock)
        .await?;
    lock.commit().await?;
    Ok(earlier)
}

pub(super) async fn forget_message(owned: &Owned, conversation_id: &str, id: &str) -> Result<(), Fault> {
    let mut lock = owned.store.write().await?;
    touch(&mut lock, &owned.owner, conversation_id, &row::now()).await?;
    let forgotten = if owned.is_quiet { None } else { stored_message(&mut lock, &owned.owner, id).await.ok() };
    let removed = sqlx::query("DELETE FROM messages WHERE id = $1 AND conversation_id = $2")
        .bind(id.to_owned())
        .bind(conversation_id.to_owned())
        .execute(&mut *lock)
        .await?;
    if removed.rows_affected() > 0 {
        sqlx::query("UPDATE conversations SET message_count = message_count - 1 WHERE id = $1")
            .bind(conversation_id.to_owned())
            .execute(&mut *lock)
            .await?;
    }
    lock.commit().await?;
    if let Some(forgotten) = forgotten {
        owned.tell(conversation_id, || Changed::MessageDeleted(Box::new(forgotten)));
    }
    Ok(())
}

/// One statement, so that a title that somebody gives meanwhile stays.
pub(super) async fn title_conversation(
    owned: &Owned,
    id: String,
    title: String,
    instead_of: String,
) -> Result<bool, Fault> {
    let mut lock = owned.store.write().await?;
    let named = sqlx::query(
        "UPDATE conversations SET title = $1, updated_at = $2, version = version + 1
         WHERE id = $3 AND owner = $4 AND title = $5",
    )
    .bind(title)
    .bind(row::now())
    .bind(id.clone())
    .bind(owned.owner.to_string())
    .bind(instead_of)
    .execute(&mut *lock)
    .await?;
    let is_named = named.rows_affected() > 0;
    let told =
        if is_named && !owned.is_quiet { Some(stored_conversation(&mut lock, &owned.owner, &id).await?) } else { None };
    lock.commit().await?;
    if let Some(stored) = told {
        owned.tell(&id, || Changed::Conversation { conversation: Box::new(stored), is_recast: false });
    }
    Ok(is_named)
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
