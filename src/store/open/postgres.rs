//! PostgreSQL: the connections, and what its errors mean.
//!
//! Several servers may share one database; sqlx holds an advisory lock while the schema is made.

use std::str::FromStr;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyConnection, Connection, Executor};
use tokio::sync::{broadcast, watch};

use super::{Migrations, migrate};
use crate::store::{CHANGES, Kind, Store, StoreError};

pub(super) const MIGRATIONS: &Migrations = &[
    (1, "conversations", include_str!("../../../migrations/postgres/0001_conversations.sql")),
    (2, "usage", include_str!("../../../migrations/postgres/0002_usage.sql")),
    (3, "data", include_str!("../../../migrations/postgres/0003_data.sql")),
    (4, "journal", include_str!("../../../migrations/postgres/0004_journal.sql")),
];

/// A tenth of what PostgreSQL takes by default, so that several servers can share it.
const CONNECTIONS: u32 = 10;
/// How long a query waits for its connection before it fails, as long as SQLite's.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// A statement that waits longer than this for a lock, or works longer, fails: nothing here takes a second.
const SETTINGS: &str = "SET lock_timeout = '10s'; SET statement_timeout = '60s'; SET TIME ZONE 'UTC';";

pub(super) async fn open(url: &str) -> Result<Store, StoreError> {
    let place = without_password(url);
    let options = AnyConnectOptions::from_str(url).map_err(|error| StoreError::BadUrl { reason: error.to_string() })?;
    let failed = |cause| StoreError::Database { place: place.clone(), cause };
    let connecting = tokio::time::timeout(ACQUIRE_TIMEOUT, AnyConnection::connect_with(&options));
    let silent = std::io::Error::new(std::io::ErrorKind::TimedOut, "nobody answers at this address");
    let mut connection = connecting.await.unwrap_or(Err(silent.into())).map_err(failed)?;
    migrate(&mut connection, MIGRATIONS, &place, failed).await?;
    connection.close().await.map_err(failed)?;
    let pool = AnyPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // A server that was restarted has cut them all: what does not answer is made again.
        .test_before_acquire(true)
        .after_connect(|connection, _| {
            Box::pin(async move { connection.execute(sqlx::raw_sql(SETTINGS)).await.map(|_| ()) })
        })
        .connect_with(options)
        .await
        .map_err(failed)?;
    let warnings = watch::Sender::new(Vec::new());
    let (place, changes) = (place.as_str().into(), broadcast::Sender::new(CHANGES));
    Ok(Store { writer: pool.clone(), readers: pool, kind: Kind::Postgres, place, warnings, changes })
}

/// The address as logs and messages may have it.
fn without_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
    let (address, parameters) = rest.split_once('?').map_or((rest, ""), |(address, parameters)| (address, parameters));
    let host = address.rsplit_once('@').map_or(address, |(_, host)| host);
    let user = address.rsplit_once('@').and_then(|(user, _)| user.split(':').next()).unwrap_or_default();
    let at = if user.is_empty() { "" } else { "@" };
    let more = if parameters.is_empty() { "" } else { "?…" };
    format!("{scheme}://{user}{at}{host}{more}")
}

/// Whether a full disk made a query fail (`disk_full`); where its log cannot grow, PostgreSQL itself ends.
pub(super) fn is_full(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.code().as_deref() == Some("53100")
}

#[cfg(test)]
#[path = "postgres_tests.rs"]
mod tests;
