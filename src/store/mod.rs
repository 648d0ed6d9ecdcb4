//! The database: `session`'s records through sqlx.
//!
//! One SQL text serves SQLite now and PostgreSQL later: it goes through sqlx's `Any` driver with `$1` placeholders,
//! booleans as 0 and 1, and ids, times and JSON as text. SQLite runs in WAL mode with one writer, several readers and
//! `synchronous = FULL`, so that a save that was answered survives `kill -9` and a power cut. Nothing here knows what a
//! conversation is for.

mod open;
mod record;
mod row;
mod usage;

use std::path::{Path, PathBuf};

use sqlx::AnyPool;
use tokio::sync::watch;

pub use usage::{BudgetReport, Budgets, GroupBy, StoredLedger, UsageSum};

/// The database of one server. A clone is another handle to the same pools.
#[derive(Clone, Debug)]
pub struct Store {
    /// One connection: SQLite has one writer, and a queue here is fairer than its busy loop.
    writer: AnyPool,
    readers: AnyPool,
    path: PathBuf,
    /// The budgets that are nearly used up, as they become so.
    warnings: watch::Sender<Vec<BudgetReport>>,
}

/// Why a database cannot be opened. Each message names its cause itself, so none has a `source`.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("DATABASE_URL is not understood: {reason}; write it as sqlite://data/aichat.db")]
    BadUrl { reason: String },
    #[error("the database's folder {} cannot be made: {cause}", path.display())]
    Folder { path: PathBuf, cause: std::io::Error },
    #[error("{} is not a sound database ({reason}); restore it from a backup, or move it away to begin a new one", path.display())]
    Corrupt { path: PathBuf, reason: String },
    #[error(
        "the database {} was written by a newer aichat (its schema is number {found}, this program knows {known}); \
         update aichat, or set DATABASE_URL to another file",
        path.display()
    )]
    NewerSchema { path: PathBuf, found: i64, known: i64 },
    #[error("the schema of {} is not this program's: migration {version} differs; set DATABASE_URL to another file", path.display())]
    AlteredSchema { path: PathBuf, version: i64 },
    #[error("this program is linked with SQLite {found}, which can corrupt its log; {needed} or newer is needed", needed = open::OLDEST_SQLITE)]
    OldSqlite { found: String },
    #[error("the database {} failed: {cause}", path.display())]
    Database { path: PathBuf, cause: sqlx::Error },
}

impl Store {
    /// Opens the database at `url` (`sqlite://data/aichat.db`, relative to the working directory;
    /// `sqlite:///srv/aichat.db` from the root), makes the file and its folder where they are missing, and brings its
    /// schema up to date.
    ///
    /// # Errors
    /// [`StoreError`]; a file that is damaged or was written by a newer program is left as it is.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        open::open(url).await
    }

    /// Whether the database answers a query.
    pub async fn is_ready(&self) -> bool {
        let answer = sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM characters WHERE is_active = 1");
        match answer.fetch_one(&self.readers).await {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(%error, "the database does not answer");
                false
            }
        }
    }

    /// Writes the log back into the database file and closes all connections. The last call before the process ends;
    /// whoever still holds a handle gets errors.
    ///
    /// # Errors
    /// [`StoreError::Database`], where the log could not be written back. It is then replayed at the next start.
    pub async fn checkpoint(&self) -> Result<(), StoreError> {
        self.readers.close().await;
        let outcome = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&self.writer).await;
        self.writer.close().await;
        outcome.map(|_| ()).map_err(|cause| StoreError::Database { path: self.path.clone(), cause })
    }

    /// The budgets that are nearly used up; it changes when one becomes so.
    pub fn warnings(&self) -> watch::Receiver<Vec<BudgetReport>> {
        self.warnings.subscribe()
    }

    /// The database's file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests;
