//! Answers to requests that may be sent again, kept for a day.
//!
//! Whoever answers a request claims its key first and tells now and then that it is still at it; a claim that was left
//! alone, by a crash, is taken over by the next who asks.

use std::time::Duration;

use super::record::Fault;
use super::{Owned, Store, row};
use crate::session::record::RecordError;

const KEPT: Duration = Duration::from_hours(24);
/// A claim that nobody has renewed for so long is left alone.
const ABANDONED: Duration = Duration::from_mins(1);

/// An answer that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// As a JSON object.
    pub headers: String,
    pub body: String,
}

/// What became of the claim of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The request is this caller's to answer.
    Yours,
    /// The same request is being answered.
    UnderWay,
    /// The same request was answered.
    Answered(Answer),
    /// Another request had this key.
    Other,
}

impl Owned {
    /// Claims `key` for the request whose digest is `digest`.
    ///
    /// # Errors
    /// The database failed.
    pub async fn claim(&self, key: &str, digest: &str) -> Result<Claim, RecordError> {
        claim(self, key, digest).await.map_err(|error| Fault::from(error).report())
    }

    /// Tells that the request is still being answered.
    ///
    /// # Errors
    /// The database failed.
    pub async fn renew_claim(&self, key: &str) -> Result<(), RecordError> {
        let text = "UPDATE idempotent_requests SET created_at = $1 WHERE owner = $2 AND key = $3 AND status IS NULL";
        let query = sqlx::query(text).bind(row::now()).bind(self.owner.to_string()).bind(key.to_owned());
        query.execute(&self.store.writer).await.map(|_| ()).map_err(|error| Fault::from(error).report())
    }

    /// Keeps the answer to a request that was claimed.
    ///
    /// # Errors
    /// The database failed.
    pub async fn keep_answer(&self, key: &str, answer: Answer) -> Result<(), RecordError> {
        let query = sqlx::query(
            "UPDATE idempotent_requests SET status = $1, headers = $2, body = $3, created_at = $4
             WHERE owner = $5 AND key = $6",
        )
        .bind(i64::from(answer.status))
        .bind(answer.headers)
        .bind(answer.body)
        .bind(row::now())
        .bind(self.owner.to_string())
        .bind(key.to_owned());
        query.execute(&self.store.writer).await.map(|_| ()).map_err(|error| Fault::from(error).report())
    }

    /// Gives a key up: the request may be sent again.
    ///
    /// # Errors
    /// The database failed.
    pub async fn give_up_claim(&self, key: &str) -> Result<(), RecordError> {
        let text = "DELETE FROM idempotent_requests WHERE owner = $1 AND key = $2 AND status IS NULL";
        let query = sqlx::query(text).bind(self.owner.to_string()).bind(key.to_owned());
        query.execute(&self.store.writer).await.map(|_| ()).map_err(|error| Fault::from(error).report())
    }
}

impl Store {
    /// Forgets the answers of yesterday. Says how many.
    ///
    /// # Errors
    /// The database failed.
    pub async fn sweep_answers(&self) -> Result<u64, RecordError> {
        let query = sqlx::query("DELETE FROM idempotent_requests WHERE created_at < $1").bind(row::ago(KEPT));
        let swept = query.execute(&self.writer).await;
        swept.map(|swept| swept.rows_affected()).map_err(|error| Fault::from(error).report())
    }
}

async fn claim(owned: &Owned, key: &str, digest: &str) -> Result<Claim, sqlx::Error> {
    let mut lock = owned.store.write().await?;
    // A row that is new, too old, or left alone becomes the caller's; any other stays as it is.
    let taken = sqlx::query(
        "INSERT INTO idempotent_requests (owner, key, digest, created_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (owner, key) DO UPDATE SET digest = excluded.digest, status = NULL, headers = '{}', body = '',
             created_at = excluded.created_at
         WHERE idempotent_requests.created_at < $5
             OR (idempotent_requests.status IS NULL AND idempotent_requests.created_at < $6
                 AND idempotent_requests.digest = excluded.digest)",
    )
    .bind(owned.owner.to_string())
    .bind(key.to_owned())
    .bind(digest.to_owned())
    .bind(row::now())
    .bind(row::ago(KEPT))
    .bind(row::ago(ABANDONED))
    .execute(&mut *lock)
    .await?;
    if taken.rows_affected() > 0 {
        lock.commit().await?;
        return Ok(Claim::Yours);
    }
    let found: Option<(String, Option<i64>, String, String)> =
        sqlx::query_as("SELECT digest, status, headers, body FROM idempotent_requests WHERE owner = $1 AND key = $2")
            .bind(owned.owner.to_string())
            .bind(key.to_owned())
            .fetch_optional(&mut *lock)
            .await?;
    Ok(match found {
        Some((known, ..)) if known != digest => Claim::Other,
        Some((_, Some(status), headers, body)) => {
            Claim::Answered(Answer { status: u16::try_from(status).unwrap_or(500), headers, body })
        }
        // Given up in between: whoever asks again claims it.
        Some((_, None, ..)) | None => Claim::UnderWay,
    })
}

#[cfg(test)]
#[path = "idempotency_tests.rs"]
mod tests;
