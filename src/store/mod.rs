//! The database: `session`'s records through sqlx.
//!
//! One SQL text serves SQLite and PostgreSQL: it goes through sqlx's `Any` driver with `$1` placeholders, booleans as 0
//! and 1, and ids, times and JSON as text; only migrations and full-text search differ. SQLite runs in WAL mode with one
//! writer, several readers and `synchronous = FULL`, so that a save that was answered survives `kill -9` and a power
//! cut. Every row has an owner, and whoever reads or writes rows does it through an [`Owned`] handle. Nothing here knows
//! what a conversation is for.

pub mod backup;
mod character;
#[cfg(test)]
pub(crate) mod fixture;
mod key;
mod conversation;
mod idempotency;
mod journal;
mod open;
mod page;
mod record;
mod reply;
mod row;
mod scope;
mod settings;
mod usage;
mod voice;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{Any, AnyPool, Transaction};
use tokio::sync::{broadcast, watch};

pub use character::{CharacterChange, CharacterSort, StoredCharacter};
use conversation::CHANGES;
pub use conversation::{
    Archive, Attachment, CastChange, Change, Changed, ContentType, ConversationChange, ConversationFilter,
    ConversationKind, ConversationSort, ConversationStatus, Hit, HitMessage, NewConversation, NewMessage, Saved,
    Snippet, StoredConversation, StoredMessage, stored_time,
};
pub use idempotency::{Answer, Claim};
pub use journal::{CutOff, JournalPage, Journalled};
pub use key::{Key, KeyError, NewKey, digest, is_well_formed, random_secret};
pub use page::{Page, PageAsk, Place};
pub use reply::ReplyPlace;
pub use scope::Scope;
pub use usage::{BudgetReport, Budgets, GroupBy, StoredLedger, UsageSum};
pub use voice::{
    Kept, NewVoice, Recordings, StoredRecording, StoredVoice, Upload, VoiceLibrary, VoiceMethod, VoiceSort, VoiceStatus,
};

/// The owner of whatever is made without a key, with `AICHAT_API_KEY`, or with the first admin key.
pub const LOCAL_OWNER: &str = "local";

/// Other servers of a shared database may have replies and requests under way; none of them takes so long.
const LONGEST_WORK: Duration = Duration::from_hours(1);

/// The database of one server. A clone is another handle to the same pools.
#[derive(Clone, Debug)]
pub struct Store {
    /// SQLite: one connection, since it has one writer, and a queue here is fairer than its busy loop.
    writer: AnyPool,
    /// PostgreSQL: the same pool.
    readers: AnyPool,
    kind: Kind,
    /// What messages call it: the file, or the address without its password.
    place: Arc<str>,
    /// The budgets that are nearly used up, as they become so.
    warnings: watch::Sender<Vec<BudgetReport>>,
    changes: broadcast::Sender<Arc<Change>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Sqlite,
    Postgres,
}

/// The rows of one owner: nothing else can be read or changed through it.
#[derive(Clone, Debug)]
pub struct Owned {
    store: Store,
    owner: Arc<str>,
    /// What is done through it is told by whoever does it.
    is_quiet: bool,
}

/// Why a database cannot be opened. Each message names its cause itself, so none has a `source`.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "DATABASE_URL is not understood: {reason}; write it as sqlite://data/aichat.db or postgres://USER@HOST/NAME"
    )]
    BadUrl { reason: String },
    #[error("there is no database at {}; DATABASE_URL and DATA_DIR say where it is", path.display())]
    Missing { path: PathBuf },
    #[error("the database's folder {} cannot be made: {cause}", path.display())]
    Folder { path: PathBuf, cause: std::io::Error },
    #[error("{place} is not a sound database ({reason}); restore it from a backup, or move it away to begin a new one")]
    Corrupt { place: String, reason: String },
    #[error(
        "the database {place} was written by a newer aichat (its schema is number {found}, this program knows {known}); \
         update aichat, or set DATABASE_URL to another database"
    )]
    NewerSchema { place: String, found: i64, known: i64 },
    #[error(
        "the schema of {place} is not this program's: migration {version} differs; set DATABASE_URL to another database"
    )]
    AlteredSchema { place: String, version: i64 },
    #[error("this program is linked with SQLite {found}, which can corrupt its log; {needed} or newer is needed", needed = open::OLDEST_SQLITE)]
    OldSqlite { found: String },
    #[error("the database {place} failed: {cause}")]
    Database { place: String, cause: sqlx::Error },
}

impl Store {
    /// Opens the database at `url` (`sqlite://data/aichat.db`, relative to the working directory;
    /// `sqlite:///srv/aichat.db` from the root; `postgres://USER:PASSWORD@HOST/NAME`), makes a file and its folder where
    /// they are missing, and brings the schema up to date.
    ///
    /// # Errors
    /// [`StoreError`]; a file that is damaged or was written by a newer program is left as it is.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        open::open(url).await
    }

    /// The same, of a database that must be there already.
    ///
    /// # Errors
    /// [`StoreError::Missing`] too.
    pub async fn open_existing(url: &str) -> Result<Self, StoreError> {
        open::must_exist(url)?;
        open::open(url).await
    }

    /// The rows of an owner.
    pub fn of(&self, owner: &str) -> Owned {
        Owned { store: self.clone(), owner: owner.into(), is_quiet: false }
    }

    /// `sqlite` or `postgres`.
    pub fn kind(&self) -> &'static str {
        match self.kind {
            Kind::Sqlite => "sqlite",
            Kind::Postgres => "postgres",
        }
    }

    /// Begins a transaction that writes. Whatever reads before it writes does both in one of these. On SQLite it takes
    /// the write lock first: a transaction that only asks for it later can fail where no waiting helps. PostgreSQL's run
    /// side by side, so a row that is read to be changed is locked by an `UPDATE` of it first.
    async fn write(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        self.writer
            .begin_with(match self.kind {
                Kind::Sqlite => "BEGIN IMMEDIATE",
                Kind::Postgres => "BEGIN",
            })
            .await
    }

    /// Begins a transaction that only reads, and sees one moment's state.
    async fn read(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        self.readers
            .begin_with(match self.kind {
                Kind::Sqlite => "BEGIN",
                Kind::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            })
            .await
    }

    /// Whether the database answers a query.
    pub async fn is_ready(&self) -> bool {
        match sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM spending").fetch_one(&self.readers).await {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(%error, "the database does not answer");
                false
            }
        }
    }

    /// Closes all connections; SQLite's log is written back into its file first. The last call before the process ends;
    /// whoever still holds a handle gets errors.
    ///
    /// # Errors
    /// [`StoreError::Database`], where the log could not be written back. It is then replayed at the next start.
    pub async fn checkpoint(&self) -> Result<(), StoreError> {
        self.readers.close().await;
        if self.kind == Kind::Postgres {
            return Ok(());
        }
        let outcome = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&self.writer).await;
        self.writer.close().await;
        outcome.map(|_| ()).map_err(|cause| StoreError::Database { place: self.place.to_string(), cause })
    }

    /// What is under way since this moment or longer cannot be: its server has ended. A SQLite file is one server's, so
    /// where that `has_just_started` it is all there is.
    fn cut_off_before(&self, has_just_started: bool) -> String {
        let is_all = has_just_started && self.kind == Kind::Sqlite;
        row::ago(if is_all { Duration::ZERO } else { LONGEST_WORK })
    }

    /// The budgets that are nearly used up; it changes when one becomes so.
    pub fn warnings(&self) -> watch::Receiver<Vec<BudgetReport>> {
        self.warnings.subscribe()
    }

    /// What messages call it: the file, or the address without its password.
    pub fn place(&self) -> &str {
        &self.place
    }
}

#[cfg(test)]
mod planner_tests;
#[cfg(test)]
mod tests;
