//! What sessions told, in pages, so that a client can come back to one after a restart; and the replies that a crash has
//! cut off.
//!
//! What a page says is its writer's business. Pages of many sessions are written at once, since each commit waits for the
//! disk. A session's oldest pages go when it has too many, and a session that was left alone goes as a whole.

use std::time::Duration;

use serde_json::Value;
use sqlx::{AnyConnection, AssertSqlSafe, Row};

use super::conversation::BEING_GIVEN;
use super::record::Fault;
use super::{Owned, Store, row};
use crate::session::record::{Message, RecordError};

/// Numbers of a session that are kept: more than its server keeps in memory.
const KEPT: i64 = 4_096;
/// A session that nobody came back to for so long is over.
const OLDEST: Duration = Duration::from_hours(24 * 7);

/// Messages of one session, to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct JournalPage {
    pub session_id: String,
    pub owner: String,
    pub conversation_id: String,
    pub secret_digest: String,
    pub first_seq: u64,
    pub last_seq: u64,
    /// A JSON array. Empty: only the state is new.
    pub messages: Option<String>,
    /// A JSON object.
    pub state: Value,
}

/// A session as its journal has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Journalled {
    pub session_id: String,
    pub conversation_id: String,
    pub secret_digest: String,
    pub state: Value,
    /// In their order.
    pub messages: Vec<Value>,
}

/// A reply that was under way when its server ended.
#[derive(Clone, Debug, PartialEq)]
pub struct CutOff {
    pub owner: String,
    pub message: Message,
}

impl Store {
    /// Writes all of these pages, but those of conversations that are gone.
    ///
    /// # Errors
    /// The database failed, and nothing is written.
    pub async fn write_journal(&self, pages: &[JournalPage]) -> Result<(), RecordError> {
        write(self, pages).await.map_err(|error| Fault::from(error).report())
    }

    /// Forgets sessions that were left alone for too long. Says how many.
    ///
    /// # Errors
    /// The database failed.
    pub async fn sweep_journals(&self) -> Result<u64, RecordError> {
        let query = sqlx::query("DELETE FROM sessions WHERE updated_at < $1").bind(row::ago(OLDEST));
        let swept = query.execute(&self.writer).await;
        swept.map(|swept| swept.rows_affected()).map_err(|error| Fault::from(error).report())
    }

    /// The replies of sessions that are marked as under way and cannot be: those of a server that has just started, or
    /// of any.
    ///
    /// # Errors
    /// The database failed.
    pub async fn cut_off_replies(&self, has_just_started: bool) -> Result<Vec<CutOff>, RecordError> {
        cut_off(self, self.cut_off_before(has_just_started)).await.map_err(|error| Fault::from(error).report())
    }
}

impl Owned {
    /// A session. None: there is none of this id, or it is somebody else's.
    ///
    /// # Errors
    /// The database failed.
    pub async fn journal(&self, session_id: &str) -> Result<Option<Journalled>, RecordError> {
        let read = async {
            let mut moment = self.store.read().await?;
            let found = read(&mut moment, &self.owner, session_id).await?;
            moment.commit().await?;
            Ok(found)
        };
        read.await.map_err(|error: sqlx::Error| Fault::from(error).report())
    }

    /// The sessions of a conversation.
    ///
    /// # Errors
    /// The database failed.
    pub async fn journals_of(&self, conversation_id: &str) -> Result<Vec<Journalled>, RecordError> {
        let all = async {
            let mut moment = self.store.read().await?;
            let ids: Vec<String> = sqlx::query_scalar("SELECT id FROM sessions WHERE conversation_id = $1")
                .bind(conversation_id.to_owned())
                .fetch_all(&mut *moment)
                .await?;
            let mut found = Vec::with_capacity(ids.len());
            for id in ids {
                found.extend(read(&mut moment, &self.owner, &id).await?);
            }
            moment.commit().await?;
            Ok(found)
        };
        all.await.map_err(|error: sqlx::Error| Fault::from(error).report())
    }
}

async fn write(store: &Store, pages: &[JournalPage]) -> Result<(), sqlx::Error> {
    let mut lock = store.write().await?;
    let now = row::now();
    for page in pages {
        let known = sqlx::query(
            "INSERT INTO sessions (id, owner, conversation_id, secret_digest, state, updated_at)
             SELECT $1, $2, $3, $4, $5, $6 WHERE EXISTS (SELECT 1 FROM conversations WHERE id = $3)
             ON CONFLICT (id) DO UPDATE SET state = excluded.state, updated_at = excluded.updated_at",
        )
        .bind(page.session_id.clone())
        .bind(page.owner.clone())
        .bind(page.conversation_id.clone())
        .bind(page.secret_digest.clone())
        .bind(page.state.to_string())
        .bind(now.clone())
        .execute(&mut *lock)
        .await?;
        // The conversation is gone, and its sessions with it.
        let Some(messages) = page.messages.clone().filter(|_| known.rows_affected() > 0) else { continue };
        // Where the word that a page is written was lost, it comes again, with what was told since.
        sqlx::query(
            "INSERT INTO session_pages (session_id, first_seq, last_seq, messages) VALUES ($1, $2, $3, $4)
             ON CONFLICT (session_id, first_seq) DO UPDATE
                 SET last_seq = excluded.last_seq, messages = excluded.messages
                 WHERE excluded.last_seq > session_pages.last_seq",
        )
        .bind(page.session_id.clone())
        .bind(number(page.first_seq))
        .bind(number(page.last_seq))
        .bind(messages)
        .execute(&mut *lock)
        .await?;
        if number(page.last_seq) > KEPT {
            sqlx::query("DELETE FROM session_pages WHERE session_id = $1 AND first_seq <= $2 AND last_seq <= $2")
                .bind(page.session_id.clone())
                .bind(number(page.last_seq) - KEPT)
                .execute(&mut *lock)
                .await?;
        }
    }
    lock.commit().await
}

async fn read(
    connection: &mut AnyConnection,
    owner: &str,
    session_id: &str,
) -> Result<Option<Journalled>, sqlx::Error> {
    let found = sqlx::query("SELECT conversation_id, secret_digest, state FROM sessions WHERE id = $1 AND owner = $2")
        .bind(session_id.to_owned())
        .bind(owner.to_owned())
        .fetch_optional(&mut *connection)
        .await?;
    let Some(found) = found else { return Ok(None) };
    let pages = sqlx::query("SELECT messages FROM session_pages WHERE session_id = $1 ORDER BY first_seq")
        .bind(session_id.to_owned())
        .fetch_all(connection)
        .await?;
    let mut messages = Vec::new();
    for page in &pages {
        messages.extend(row::json::<Vec<Value>>(page, "messages")?);
    }
    Ok(Some(Journalled {
        session_id: session_id.to_owned(),
        conversation_id: found.try_get("conversation_id")?,
        secret_digest: found.try_get("secret_digest")?,
        state: row::json(&found, "state")?,
        messages,
    }))
}

async fn cut_off(store: &Store, before: String) -> Result<Vec<CutOff>, sqlx::Error> {
    let text = format!(
        "SELECT owner, id, conversation_id, role, character_id, character_name, content, status, heard_chars, metadata,
                client_message_id
         FROM messages WHERE {BEING_GIVEN} AND updated_at <= $1"
    );
    let rows = sqlx::query(AssertSqlSafe(text)).bind(before).fetch_all(&store.readers).await?;
    rows.iter().map(|found| Ok(CutOff { owner: found.try_get("owner")?, message: row::message(found)? })).collect()
}

fn number(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
