//! SQLite: the file, the connections' settings, the checks.
//!
//! Everything that can be wrong with a file is found out on one plain connection first: a pool retries whatever fails
//! while it connects until its time is up, and then reports only that.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyConnection, Connection, Executor, Row};
use tokio::sync::{broadcast, watch};

use super::{Migrations, OLDEST_SQLITE, migrate};
use crate::store::{CHANGES, Kind, Store, StoreError};

pub(super) const MIGRATIONS: &Migrations = &[
    (1, "conversations", include_str!("../../../migrations/sqlite/0001_conversations.sql")),
    (2, "usage", include_str!("../../../migrations/sqlite/0002_usage.sql")),
    (3, "data", include_str!("../../../migrations/sqlite/0003_data.sql")),
    (4, "journal", include_str!("../../../migrations/sqlite/0004_journal.sql")),
];

/// Reads are short and SQLite's readers do not block each other; more connections than cores gain nothing.
const READERS: u32 = 4;
/// How long a query waits for its connection before it fails: longer than the largest import, shorter than patience.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);
/// Files up to this size are checked at every start: that takes well under a second.
const CHECKED_AT_START_BYTES: u64 = 64 * 1024 * 1024;

/// `busy_timeout` is for other processes; our own writers queue at their pool.
const WRITER_SETTINGS: &str = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                               PRAGMA foreign_keys = ON;";
const READER_SETTINGS: &str = "PRAGMA busy_timeout = 5000; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; \
                               PRAGMA query_only = ON;";

pub(super) async fn open(url: &str) -> Result<Store, StoreError> {
    let path = file_of(url)?;
    if let Some(folder) = path.parent() {
        tokio::fs::create_dir_all(folder)
            .await
            .map_err(|cause| StoreError::Folder { path: folder.to_owned(), cause })?;
    }
    let options = options_for(&path)?;
    let alone = lock(&path).await?;
    prepare(&options, &path).await?;
    drop(alone);
    let failed = |source| describe(source, &path);
    let writer = pool(1, WRITER_SETTINGS).connect_with(options.clone()).await.map_err(failed)?;
    let readers = pool(READERS, READER_SETTINGS).connect_with(options).await.map_err(failed)?;
    let place = path.display().to_string().into();
    let (warnings, changes) = (watch::Sender::new(Vec::new()), broadcast::Sender::new(CHANGES));
    Ok(Store { writer, readers, kind: Kind::Sqlite, place, warnings, changes })
}

/// The file that a URL names, made absolute, so that a later change of directory does not matter.
pub(super) fn file_of(url: &str) -> Result<PathBuf, StoreError> {
    let bad = |reason: &str| StoreError::BadUrl { reason: reason.to_owned() };
    let file = url.strip_prefix("sqlite:").ok_or_else(|| bad("it begins with neither sqlite: nor postgres:"))?;
    let file = file.strip_prefix("//").unwrap_or(file);
    if file.is_empty() || file == "/" {
        return Err(bad("it names no file"));
    }
    if file.contains(":memory:") {
        return Err(bad("a database in memory would lose what it acknowledged"));
    }
    if file.contains('?') {
        return Err(bad("it takes no parameters"));
    }
    std::path::absolute(file).map_err(|error| bad(&error.to_string()))
}

/// The path as sqlx's SQLite driver reads it back: it decodes percent signs and splits at a question mark.
fn options_for(path: &Path) -> Result<AnyConnectOptions, StoreError> {
    let path = path.to_str().ok_or_else(|| StoreError::BadUrl { reason: "its path is not Unicode".to_owned() })?;
    let encoded: String = path
        .chars()
        .map(|c| match c {
            '%' | '?' | '#' | ' ' | '\t' | '\n' | '\r' => format!("%{:02X}", c as u32),
            other => other.to_string(),
        })
        .collect();
    AnyConnectOptions::from_str(&format!("sqlite:{encoded}?mode=rwc"))
        .map_err(|error| StoreError::BadUrl { reason: error.to_string() })
}

fn pool(size: u32, settings: &'static str) -> sqlx::pool::PoolOptions<sqlx::Any> {
    AnyPoolOptions::new()
        .min_connections(1)
        .max_connections(size)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            Box::pin(async move { connection.execute(sqlx::raw_sql(settings)).await.map(|_| ()) })
        })
        // SQLite itself rolls back a transaction that met a full disk or an I/O error. sqlx then still counts it as
        // open, and no transaction could ever begin on that connection again.
        .after_release(|connection, _| {
            Box::pin(async move {
                connection.ping().await?;
                Ok(!connection.is_in_transaction())
            })
        })
}

/// Holds other processes off while the schema is made. Dropping the file lets them in.
async fn lock(path: &Path) -> Result<std::fs::File, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let failed = |cause| StoreError::Folder { path: path.to_owned(), cause };
    let locking = tokio::task::spawn_blocking(move || {
        let file = std::fs::File::create(PathBuf::from(name))?;
        file.lock()?;
        Ok(file)
    });
    locking.await.map_err(|error| failed(std::io::Error::other(error)))?.map_err(failed)
}

/// Checks the file and brings its schema up to date, on a connection of its own.
async fn prepare(options: &AnyConnectOptions, path: &Path) -> Result<(), StoreError> {
    let failed = |source| describe(source, path);
    let size = tokio::fs::metadata(path).await.map_or(0, |found| found.len());
    let mut connection = AnyConnection::connect_with(options).await.map_err(failed)?;
    connection.execute(sqlx::raw_sql(WRITER_SETTINGS)).await.map_err(failed)?;
    check_version(&mut connection).await.map_err(failed)??;
    if size <= CHECKED_AT_START_BYTES {
        check_pages(&mut connection, path).await?;
    }
    migrate(&mut connection, MIGRATIONS, &path.display().to_string(), failed).await?;
    connection.close().await.map_err(failed)
}

async fn check_version(connection: &mut AnyConnection) -> Result<Result<(), StoreError>, sqlx::Error> {
    let found: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(connection).await?;
    let parts = |version: &str| -> Vec<u32> { version.split('.').map(|part| part.parse().unwrap_or(0)).collect() };
    Ok(if parts(&found) >= parts(OLDEST_SQLITE) { Ok(()) } else { Err(StoreError::OldSqlite { found }) })
}

async fn check_pages(connection: &mut AnyConnection, path: &Path) -> Result<(), StoreError> {
    let row = sqlx::query("PRAGMA quick_check(1)").fetch_one(connection).await.map_err(|e| describe(e, path))?;
    let verdict: String = row.try_get(0).map_err(|e| describe(e, path))?;
    if verdict == "ok" { Ok(()) } else { Err(corrupt(path, verdict)) }
}

/// SQLite's codes 11 (corrupt) and 26 (not a database) get advice; the low byte is the code, the rest its detail.
fn describe(source: sqlx::Error, path: &Path) -> StoreError {
    match &source {
        sqlx::Error::Database(error) if matches!(primary_code(error.as_ref()), Some(11 | 26)) => {
            corrupt(path, error.message().to_owned())
        }
        _ => StoreError::Database { place: path.display().to_string(), cause: source },
    }
}

fn corrupt(path: &Path, reason: String) -> StoreError {
    StoreError::Corrupt { place: path.display().to_string(), reason }
}

/// SQLite's primary result code.
fn primary_code(error: &dyn sqlx::error::DatabaseError) -> Option<u32> {
    error.code()?.parse::<u32>().ok().map(|code| code & 0xFF)
}

/// Whether a full disk made a query fail: the file or its log cannot grow, or the log's index, which lies beside them.
pub(super) fn is_full(error: &dyn sqlx::error::DatabaseError) -> bool {
    primary_code(error) == Some(13) || error.code().as_deref() == Some("4874")
}

#[cfg(test)]
#[path = "sqlite_tests.rs"]
mod tests;
