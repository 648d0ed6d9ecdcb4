//! Fresh databases of either kind, for tests of everything that keeps something.
//!
//! A test that both databases must pass is a function of a [`TestStore`], and [`on_both_databases`] makes two tests of it:
//! `on_sqlite::NAME` and `on_postgres::NAME`. PostgreSQL's server is `TEST_DATABASE_URL`; without one its tests fail.

use std::ops::Deref;

use sqlx::{AnyConnection, AssertSqlSafe, Connection, Executor};
use tempfile::TempDir;
use uuid::Uuid;

use super::Store;
use crate::testing;

/// A store on a database of its own, which ends with it.
pub(crate) struct TestStore {
    store: Store,
    url: String,
    _folder: Option<TempDir>,
    /// The name of a database on PostgreSQL's server.
    named: Option<String>,
}

/// Makes a test on SQLite and one on PostgreSQL of each function that takes a [`TestStore`]. A function that is not
/// listed is unused, which the compiler tells.
macro_rules! on_both_databases {
    ($($name:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::store::fixture::sqlite().await).await;
            })+
        }

        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::store::fixture::postgres().await).await;
            })+
        }
    };
}

pub(crate) use on_both_databases;

/// A new SQLite file, in a folder two levels below a temporary one.
pub(crate) async fn sqlite() -> TestStore {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/deep/er/aichat.db", folder.path().display());
    TestStore { store: Store::open(&url).await.unwrap(), url, _folder: Some(folder), named: None }
}

/// A new database on PostgreSQL's server.
pub(crate) async fn postgres() -> TestStore {
    let (name, url) = postgres_database().await;
    TestStore { store: Store::open(&url).await.unwrap(), url, _folder: None, named: Some(name) }
}

/// The name and address of a new, empty database on PostgreSQL's server.
async fn postgres_database() -> (String, String) {
    let name = format!("test_{}", Uuid::now_v7().simple());
    on_server(format!("CREATE DATABASE {name}")).await;
    let server = testing::postgres_url();
    let (before, _) = server.rsplit_once('/').expect("TEST_DATABASE_URL ends with /DATABASE");
    let url = format!("{before}/{name}");
    (name, url)
}

async fn on_server(statement: String) {
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnection::connect(&testing::postgres_url())
        .await
        .expect("TEST_DATABASE_URL answers: scripts/postgres start starts a server");
    connection.execute(AssertSqlSafe(statement)).await.unwrap();
    connection.close().await.unwrap();
}

impl TestStore {
    /// The address under which it can be opened again.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

impl Deref for TestStore {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

impl Drop for TestStore {
    fn drop(&mut self) {
        let Some(name) = &self.named else { return };
        let statement = format!("DROP DATABASE {name} WITH (FORCE)");
        // This thread may already run a runtime, which cannot wait for another.
        let dropping = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(on_server(statement));
        });
        if dropping.join().is_err() {
            tracing::error!(name, "a test's database was not dropped");
        }
    }
}
