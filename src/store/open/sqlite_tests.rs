//! SQLite's file: durability, damage, a full disk, addresses.

use std::path::Path;

use tempfile::TempDir;

use crate::session::record::{RecordError, Records};
use crate::store::fixture::message;
use crate::store::tests::contents;
use crate::store::{LOCAL_OWNER, Store, StoreError};

fn url(folder: &Path) -> String {
    format!("sqlite://{}/deep/er/aichat.db", folder.display())
}

async fn new_store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&url(folder.path())).await.unwrap();
    (folder, store)
}

#[tokio::test]
async fn what_was_answered_is_there_without_a_goodbye() {
    let (folder, store) = new_store().await;
    let conversation = store.of(LOCAL_OWNER).create_conversation(vec![]).await.unwrap().id;
    store.of(LOCAL_OWNER).save_message(message("m1", &conversation, "kept")).await.unwrap();
    // The copy is what a machine finds after `kill -9`: the file and its log, nobody having closed them.
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(folder.path().join("deep/er")).unwrap() {
        let file = file.unwrap();
        if !file.file_name().to_string_lossy().ends_with("-shm") {
            std::fs::create_dir_all(copy.path().join("deep/er")).unwrap();
            std::fs::copy(file.path(), copy.path().join("deep/er").join(file.file_name())).unwrap();
        }
    }
    let again = Store::open(&url(copy.path())).await.unwrap();
    assert_eq!(contents(&again, &conversation, 10).await, ["kept"]);
    drop(store);
    let reopened = Store::open(&url(folder.path())).await.unwrap();
    assert_eq!(contents(&reopened, &conversation, 10).await, ["kept"]);
}

#[tokio::test]
async fn a_checkpoint_empties_the_log_and_ends_the_store() {
    let (folder, store) = new_store().await;
    let conversation = store.of(LOCAL_OWNER).create_conversation(vec![]).await.unwrap().id;
    assert!(store.is_ready().await);
    store.checkpoint().await.unwrap();
    assert!(!store.is_ready().await);
    assert_eq!(store.of(LOCAL_OWNER).save_message(message("m", &conversation, "")).await, Err(RecordError::Failed));
    let log = folder.path().join("deep/er/aichat.db-wal");
    assert_eq!(std::fs::metadata(log).map_or(0, |found| found.len()), 0);
}

#[tokio::test]
async fn connections_have_the_settings_that_durability_needs() {
    let (_folder, store) = new_store().await;
    for pool in [&store.writer, &store.readers] {
        let setting = async |name: &'static str| -> String {
            let text = sqlx::query_scalar(name).fetch_one(pool).await;
            match text {
                Ok(text) => text,
                Err(_) => sqlx::query_scalar::<_, i64>(name).fetch_one(pool).await.unwrap().to_string(),
            }
        };
        assert_eq!(setting("PRAGMA journal_mode").await, "wal");
        assert_eq!(setting("PRAGMA synchronous").await, "2");
        assert_eq!(setting("PRAGMA foreign_keys").await, "1");
        assert_eq!(setting("PRAGMA busy_timeout").await, "5000");
    }
    assert!(sqlx::query("DELETE FROM characters").execute(&store.readers).await.is_err(), "readers only read");
}

#[tokio::test]
async fn a_full_disk_is_said_and_outlived() {
    let (_folder, store) = new_store().await;
    let conversation = store.of(LOCAL_OWNER).create_conversation(vec![]).await.unwrap().id;
    let limit = async |pages: &'static str| {
        sqlx::query(pages).fetch_one(&store.writer).await.unwrap();
    };
    limit("PRAGMA max_page_count = 1").await;
    let big = message("m1", &conversation, &"x".repeat(2_000_000));
    assert_eq!(store.of(LOCAL_OWNER).save_message(big.clone()).await, Err(RecordError::Full));
    assert!(contents(&store, &conversation, 10).await.is_empty());
    limit("PRAGMA max_page_count = 1000000").await;
    assert_eq!(store.of(LOCAL_OWNER).save_message(big).await.unwrap(), "m1");
}

#[tokio::test]
async fn a_damaged_file_is_named_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broken.db");
    let address = format!("sqlite://{}", file.display());
    std::fs::write(&file, b"This is a letter, not a database. ".repeat(200)).unwrap();
    let before = std::fs::read(&file).unwrap();
    let refusal = Store::open(&address).await.unwrap_err();
    assert!(matches!(refusal, StoreError::Corrupt { .. }), "{refusal}");
    assert!(refusal.to_string().contains("broken.db") && refusal.to_string().contains("backup"), "{refusal}");
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[tokio::test]
async fn damaged_pages_are_found_at_the_start() {
    let (folder, store) = new_store().await;
    let conversation = store.of(LOCAL_OWNER).create_conversation(vec![]).await.unwrap().id;
    for number in 0..50 {
        store
            .of(LOCAL_OWNER)
            .save_message(message(&number.to_string(), &conversation, &"text ".repeat(500)))
            .await
            .unwrap();
    }
    store.checkpoint().await.unwrap();
    let file = folder.path().join("deep/er/aichat.db");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[4096..middle].fill(0xA5);
    std::fs::write(&file, bytes).unwrap();
    let refusal = Store::open(&url(folder.path())).await.unwrap_err();
    assert!(matches!(refusal, StoreError::Corrupt { .. }), "{refusal}");
}

#[tokio::test]
async fn paths_may_hold_any_character() {
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join("Größe 50% #1 & more");
    let store = Store::open(&format!("sqlite://{}/a b.db", odd.display())).await.unwrap();
    assert!(odd.join("a b.db").is_file());
    assert!(store.is_ready().await);
}

#[tokio::test]
async fn bad_addresses_say_what_to_write() {
    let addresses = ["", "data/aichat.db", "sqlite:", "sqlite::memory:", "sqlite://a.db?mode=ro"];
    for address in addresses {
        let refusal = Store::open(address).await.unwrap_err();
        assert!(matches!(refusal, StoreError::BadUrl { .. }), "{address}: {refusal}");
        assert!(refusal.to_string().contains("sqlite://data/aichat.db"), "{refusal}");
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("deep"), "a file where a folder should be").unwrap();
    assert!(matches!(Store::open(&url(folder.path())).await, Err(StoreError::Folder { .. })));
}
