//! The schema, on both databases.

use sqlx::{AnyConnection, Connection};

use super::{Migrations, migrate, postgres, sqlite};
use crate::session::record::Records;
use crate::store::fixture::{TestStore, message, on_both_databases};
use crate::store::tests::contents;
use crate::store::{LOCAL_OWNER, Store, StoreError};

on_both_databases!(
    a_store_answers_until_it_is_closed,
    a_newer_schema_is_refused_and_left_alone,
    an_altered_schema_is_refused,
    every_earlier_schema_is_brought_up_to_date_and_loses_nothing,
);

/// What an old database may hold, in columns that its schema already had: the schema's number, and the rows.
const OLD_ROWS: [(i64, &str); 5] = [
    (
        1,
        "INSERT INTO characters (id, name, voice, created_at, updated_at) VALUES ('old-001', 'Old', 'af', '2026', '2026')",
    ),
    (
        1,
        "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 20)
         INSERT INTO conversations (id, title, created_at, updated_at)
         SELECT 'c' || n, 'Título ' || n, '2026', '2026' FROM numbers",
    ),
    (
        1,
        "INSERT INTO conversation_characters (conversation_id, character_id, position)
         SELECT id, 'old-001', 0 FROM conversations /* every row */",
    ),
    (
        1,
        "WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1999)
         INSERT INTO messages (id, conversation_id, position, role, content, status, client_message_id, created_at, updated_at)
         SELECT 'm' || n, 'c' || (n % 20 + 1), n / 20 + 1, 'user', 'said' || n || ' – ''tis äöü', 'completed', 'x' || n,
                '2026-' || (10000 + n), '2026' FROM numbers",
    ),
    (
        2,
        "INSERT INTO usage (id, state, day, created_at, capability, model, provider, cost_nanousd)
         VALUES ('u', 'settled', '2026-01-01', '2026', 'chat', 'x', 'local', 7)",
    ),
];

async fn a_store_answers_until_it_is_closed(store: TestStore) {
    assert!(store.is_ready().await);
    store.checkpoint().await.unwrap();
    assert!(!store.is_ready().await);
    assert!(Store::open(store.url()).await.unwrap().is_ready().await);
}

async fn a_newer_schema_is_refused_and_left_alone(store: TestStore) {
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         SELECT 9000, 'from the future', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1",
    )
    .execute(&store.writer)
    .await
    .unwrap();
    let refusal = Store::open(store.url()).await.unwrap_err();
    assert!(matches!(refusal, StoreError::NewerSchema { found: 9000, .. }), "{refusal}");
    assert!(refusal.to_string().contains("update aichat"), "{refusal}");
}

async fn an_altered_schema_is_refused(store: TestStore) {
    sqlx::query(
        "UPDATE _sqlx_migrations SET checksum = (SELECT checksum FROM _sqlx_migrations WHERE version = 2) \
         WHERE version = 1",
    )
    .execute(&store.writer)
    .await
    .unwrap();
    let refusal = Store::open(store.url()).await.unwrap_err();
    assert!(matches!(refusal, StoreError::AlteredSchema { version: 1, .. }), "{refusal}");
}

async fn every_earlier_schema_is_brought_up_to_date_and_loses_nothing(store: TestStore) {
    let migrations = if store.kind() == "sqlite" { sqlite::MIGRATIONS } else { postgres::MIGRATIONS };
    for known in 1..migrations.len() {
        let url = emptied(&store, known).await;
        let made = if store.kind() == "sqlite" { format!("{url}?mode=rwc") } else { url.clone() };
        let mut connection = AnyConnection::connect(&made).await.unwrap();
        let failed = |cause| StoreError::Database { place: String::new(), cause };
        // Each row is as old as the schema that it was written for.
        for step in 1..=known {
            migrate(&mut connection, &migrations[..step], "", failed).await.unwrap();
            for (_, rows) in OLD_ROWS.iter().filter(|(schema, _)| usize::try_from(*schema) == Ok(step)) {
                sqlx::query(*rows).execute(&mut connection).await.unwrap();
            }
        }
        connection.close().await.unwrap();

        let opened = Store::open(&url).await.unwrap();
        for conversation in 1..=20 {
            let expected: Vec<_> =
                (0..100).map(|at| format!("said{} – 'tis äöü", at * 20 + conversation - 1)).collect();
            assert_eq!(contents(&opened, &format!("c{conversation}"), 5_000).await, expected);
        }
        let count =
            async |query: &'static str| sqlx::query_scalar::<_, i64>(query).fetch_one(&opened.readers).await.unwrap();
        let counted = "SELECT COUNT(*) /* every row */ FROM conversations WHERE message_count = 100 AND owner = 'local' \
                       AND last_message_at = (SELECT MAX(created_at) FROM messages WHERE conversation_id = conversations.id)";
        assert_eq!(count(counted).await, 20);
        assert_eq!(
            count("SELECT COUNT(*) /* every row */ FROM messages WHERE client_message_id = 'x' || SUBSTR(id, 2)").await,
            2_000
        );
        assert_eq!(
            count("SELECT COUNT(*) /* every row */ FROM characters WHERE id IN ('old-001', 'mira-001')").await,
            2
        );
        assert_eq!(count("SELECT COUNT(*) /* every row */ FROM usage").await, i64::from(known >= 2));
        let (words, titles) = if store.kind() == "sqlite" {
            (
                "SELECT COUNT(*) FROM message_texts WHERE message_texts MATCH 'said1999'",
                "SELECT COUNT(*) FROM title_texts WHERE title_texts MATCH 'titulo'",
            )
        } else {
            (
                "SELECT COUNT(*) /* every row */ FROM messages WHERE to_tsvector('simple', content) @@ to_tsquery('said1999')",
                "SELECT COUNT(*) /* every row */ FROM conversations WHERE to_tsvector('simple', title) @@ to_tsquery('título')",
            )
        };
        assert_eq!((count(words).await, count(titles).await), (1, 20));
        let new = opened.of(LOCAL_OWNER).save_message(message("new", "c1", "new")).await.unwrap();
        assert_eq!((new.as_str(), contents(&opened, "c1", 1).await), ("new", vec!["new".to_owned()]));
    }
}

/// The address of a database without a schema.
async fn emptied(store: &TestStore, number: usize) -> String {
    if store.kind() == "sqlite" {
        return store.url().replace("aichat.db", &format!("{number}.db"));
    }
    sqlx::raw_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public").execute(&store.writer).await.unwrap();
    store.url().to_owned()
}

#[test]
fn both_databases_have_the_same_migrations_and_every_file_is_embedded() {
    let listed = |migrations: &Migrations| -> Vec<String> {
        migrations.iter().map(|(number, name, _)| format!("{number:04}_{name}.sql")).collect()
    };
    for (folder, migrations) in [("sqlite", sqlite::MIGRATIONS), ("postgres", postgres::MIGRATIONS)] {
        let folder = crate::testing::source("migrations").join(folder);
        let mut files: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        assert_eq!(files, listed(migrations));
        for (expected, (number, ..)) in (1_i64..).zip(migrations) {
            assert_eq!(*number, expected);
        }
    }
    assert_eq!(listed(sqlite::MIGRATIONS), listed(postgres::MIGRATIONS));
}
