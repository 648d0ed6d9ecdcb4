//! Fresh databases of either kind, for tests of everything that keeps something.
//!
//! A test that both databases must pass is a function of a [`TestStore`], and [`on_both_databases`] makes two tests of it:
//! `on_sqlite::NAME` and `on_postgres::NAME`. PostgreSQL's server is `TEST_DATABASE_URL`; without one its tests fail. When
//! the database ends, every query that ran is planned again, and one that reads a whole table fails the test.

use std::ops::Deref;

use serde_json::json;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Executor};
use tempfile::TempDir;
use uuid::Uuid;

use super::{Store, planner_tests};
use crate::provider::Role;
use crate::session::record::{Message, MessageStatus};
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
    planner_tests::listen();
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/deep/er/aichat.db", folder.path().display());
    TestStore { store: Store::open(&url).await.unwrap(), url, _folder: Some(folder), named: None }
}

/// A new database on PostgreSQL's server.
pub(crate) async fn postgres() -> TestStore {
    planner_tests::listen();
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

/// A message that somebody said.
pub(crate) fn message(id: &str, conversation_id: &str, content: &str) -> Message {
    Message {
        id: id.to_owned(),
        conversation_id: conversation_id.to_owned(),
        role: Role::User,
        character_id: None,
        character_name: None,
        content: content.to_owned(),
        status: MessageStatus::Completed,
        heard_chars: None,
        metadata: json!({}),
        client_message_id: None,
    }
}

async fn on_server(statement: String) {
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnection::connect(&testing::postgres_url())
        .await
        .expect("TEST_DATABASE_URL answers: scripts/postgres start starts a server");
    connection.execute(AssertSqlSafe(statement)).await.unwrap();
    connection.close().await.unwrap();
}

impl Store {
    /// Runs a statement of a test's own.
    pub(crate) async fn execute(&self, statement: &'static str) {
        sqlx::query(statement).execute(&self.writer).await.unwrap_or_else(|error| panic!("{error}: {statement}"));
    }
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
        let (url, named, passed) = (self.url.clone(), self.named.clone(), !std::thread::panicking());
        // This thread may already run a runtime, which cannot wait for another.
        let ending = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let planned = passed.then(|| {
                std::panic::catch_unwind(|| {
                    runtime.block_on(async {
                        if url.starts_with("sqlite:") {
                            planner_tests::check_sqlite(&url).await;
                        } else {
                            planner_tests::check_postgres(&url).await;
                        }
                    });
                })
            });
            if let Some(name) = named {
                runtime.block_on(on_server(format!("DROP DATABASE {name} WITH (FORCE)")));
            }
            if let Some(Err(fault)) = planned {
                std::panic::resume_unwind(fault);
            }
        });
        if let Err(fault) = ending.join()
            && passed
        {
            std::panic::resume_unwind(fault);
        }
    }
}
