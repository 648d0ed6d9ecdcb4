//! Opening: which database an address means, and its schema.

use sqlx::AnyConnection;
use sqlx::SqlSafeStr;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};

use super::{Store, StoreError, postgres, sqlite};

/// The embedded migrations: number, name, SQL. `migrations/README.md` has the rules.
pub(super) type Migrations = [(i64, &'static str, &'static str); 3];

pub(super) async fn open(url: &str) -> Result<Store, StoreError> {
    sqlx::any::install_default_drivers();
    if url.starts_with("postgres:") || url.starts_with("postgresql:") {
        postgres::open(url).await
    } else {
        sqlite::open(url).await
    }
}

/// Brings a schema up to date. `describe` tells what the database itself answered.
pub(super) async fn migrate(
    connection: &mut AnyConnection,
    migrations: &Migrations,
    place: &str,
    describe: impl FnOnce(sqlx::Error) -> StoreError,
) -> Result<(), StoreError> {
    let known = migrations[migrations.len() - 1].0;
    let migrations = migrations.map(|(number, name, sql)| {
        Migration::new(number, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    let outcome = Migrator::with_migrations(migrations.into()).run_direct(None, connection, false).await;
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
