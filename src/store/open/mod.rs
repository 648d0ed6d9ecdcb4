//! Opening: which database an address means, and its schema.

mod postgres;
mod sqlite;

use sqlx::AnyConnection;
use sqlx::SqlSafeStr;
use sqlx::error::DatabaseError;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};

use super::{Store, StoreError};

/// The first SQLite whose write-ahead log cannot be corrupted by a checkpoint that meets a reset.
pub(super) const OLDEST_SQLITE: &str = "3.51.3";

/// The embedded migrations: number, name, SQL. `migrations/README.md` has the rules.
type Migrations = [(i64, &'static str, &'static str)];

/// The number of this program's schema.
pub(super) const NEWEST: i64 = sqlite::MIGRATIONS[sqlite::MIGRATIONS.len() - 1].0;

pub(super) async fn open(url: &str) -> Result<Store, StoreError> {
    sqlx::any::install_default_drivers();
    if is_postgres(url) { postgres::open(url).await } else { sqlite::open(url).await }
}

/// PostgreSQL says itself that it does not know a database; SQLite would make one.
pub(super) fn must_exist(url: &str) -> Result<(), StoreError> {
    if is_postgres(url) {
        return Ok(());
    }
    let path = sqlite::file_of(url)?;
    if path.is_file() { Ok(()) } else { Err(StoreError::Missing { path }) }
}

fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres:") || url.starts_with("postgresql:")
}

/// Brings a schema up to date. `describe` tells what the database itself answered.
async fn migrate(
    connection: &mut AnyConnection,
    migrations: &Migrations,
    place: &str,
    describe: impl FnOnce(sqlx::Error) -> StoreError,
) -> Result<(), StoreError> {
    let known = NEWEST;
    let migrations: Vec<Migration> = migrations
        .iter()
        .map(|&(number, name, sql)| {
            Migration::new(number, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
        })
        .collect();
    let outcome = Migrator::with_migrations(migrations).run_direct(None, connection, false).await;
    let place = place.to_owned();
    outcome.map_err(|error| match error {
        MigrateError::VersionMissing(found) if found > known => StoreError::NewerSchema { place, found, known },
        MigrateError::VersionMissing(version) | MigrateError::VersionMismatch(version) => {
            StoreError::AlteredSchema { place, version }
        }
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => describe(source),
        other => StoreError::Database { place, cause: sqlx::Error::Migrate(Box::new(other)) },
    })
}

/// Whether a full disk made a query fail.
pub(super) fn is_full(error: &dyn DatabaseError) -> bool {
    sqlite::is_full(error) || postgres::is_full(error)
}

#[cfg(test)]
mod tests;
