//! The list of tables; what is done with it is tested where files are made of it.

use std::collections::BTreeSet;

use super::*;
use crate::store::fixture::{TestStore, on_both_databases};

on_both_databases!(every_table_is_listed_after_those_it_refers_to);

async fn every_table_is_listed_after_those_it_refers_to(store: TestStore) {
    // Full-text search keeps tables of its own, which follow from the others.
    let (names, references) = match store.kind {
        Kind::Sqlite => (
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' \
             AND name NOT LIKE '%_texts%' AND name <> '_sqlx_migrations'",
            "SELECT m.name, f.\"table\" FROM sqlite_master AS m, pragma_foreign_key_list(m.name) AS f",
        ),
        Kind::Postgres => (
            "SELECT CAST(relname AS TEXT) FROM pg_class WHERE relkind = 'r' \
             AND relnamespace = CAST('public' AS regnamespace) AND relname <> '_sqlx_migrations'",
            "SELECT CAST(CAST(conrelid AS regclass) AS TEXT), CAST(CAST(confrelid AS regclass) AS TEXT) \
             FROM pg_constraint WHERE contype = 'f'",
        ),
    };
    let names: Vec<String> = sqlx::query_scalar(names).fetch_all(&store.readers).await.unwrap();
    assert_eq!(names.iter().map(String::as_str).collect::<BTreeSet<_>>(), tables().collect());
    let references: Vec<(String, String)> = sqlx::query_as(references).fetch_all(&store.readers).await.unwrap();
    let place = |name: &str| tables().position(|table| table == name).unwrap();
    assert!(references.len() >= 3);
    for (from, to) in references {
        assert!(place(&to) < place(&from), "{from} refers to {to}");
    }
}
