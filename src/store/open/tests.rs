//! The schema, on both databases.

use std::path::Path;

use super::{Migrations, postgres, sqlite};
use crate::store::fixture::{TestStore, on_both_databases};
use crate::store::{Store, StoreError};

on_both_databases!(
    a_store_answers_until_it_is_closed,
    a_newer_schema_is_refused_and_left_alone,
    an_altered_schema_is_refused,
);

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

#[test]
fn both_databases_have_the_same_migrations_and_every_file_is_embedded() {
    let listed = |migrations: &Migrations| -> Vec<String> {
        migrations.iter().map(|(number, name, _)| format!("{number:04}_{name}.sql")).collect()
    };
    for (folder, migrations) in [("sqlite", sqlite::MIGRATIONS), ("postgres", postgres::MIGRATIONS)] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(folder);
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
