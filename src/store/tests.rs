use std::collections::HashSet;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use super::LOCAL_OWNER;
use super::{Store, StoreError, sqlite};
use crate::provider::Role;
use crate::session::record::{Message, MessageStatus, RecordError, Records};

fn url(folder: &Path) -> String {
    format!("sqlite://{}/deep/er/aichat.db", folder.display())
}

async fn new_store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&url(folder.path())).await.unwrap();
    (folder, store)
}

fn message(id: &str, conversation_id: &str, content: &str) -> Message {
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

async fn contents(store: &Store, conversation_id: &str, history: usize) -> Vec<String> {
    let opened = store.of(LOCAL_OWNER).open_conversation(conversation_id.to_owned(), history).await.unwrap();
    opened.messages.into_iter().map(|message| message.content).collect()
}

#[tokio::test]
async fn a_message_comes_back_as_it_was_saved() {
    let (_folder, store) = new_store().await;
    let conversation = store.of(LOCAL_OWNER).create_conversation(vec![]).await.unwrap();
    let said = Message {
        role: Role::Assistant,
        character_id: Some("mira-001".into()),
        character_name: Some("Mira".into()),
        status: MessageStatus::Processing,
        heard_chars: Some(3),
        metadata: json!({"model": "smollm2", "timings": {"total_ms": 12.5}, "language": null}),
        client_message_id: Some("c-1".into()),
        ..message("m1", &conversation.id, "Grüße, 世界 👋🏽 \"quoted\"; DROP TABLE messages;--\0end")
    };
    assert_eq!(store.of(LOCAL_OWNER).save_message(said.clone()).await.unwrap(), "m1");
    let opened = store.of(LOCAL_OWNER).open_conversation(conversation.id.clone(), 10).await.unwrap();
    assert_eq!(opened.messages, std::slice::from_ref(&said));
    assert_eq!(opened.conversation.character_ids, conversation.character_ids);
    assert!(opened.conversation.updated_at >= conversation.updated_at);

    let finished = Message { status: MessageStatus::Completed, heard_chars: None, content: "Grüße".into(), ..said };
    store.of(LOCAL_OWNER).save_message(finished.clone()).await.unwrap();
    assert_eq!(store.of(LOCAL_OWNER).open_conversation(conversation.id, 10).await.unwrap().messages, [finished]);
}

#[tokio::test]
async fn the_default_character_is_there_and_speaks() {
    let (_folder, store) = new_store().await;
    let conversation = store.of(LOCAL_OWNER).create_conversation(vec![]).await.unwrap();
    let opened = store.of(LOCAL_OWNER).open_conversation(conversation.id, 0).await.unwrap();
    let [mira] = &opened.characters[..] else { panic!("{:?}", opened.characters) };
    assert_eq!((mira.id.as_str(), mira.name.as_str(), &mira.voice), ("mira-001", "Mira", &None));
    assert!(
        mira.system_prompt.contains("Mira") && mira.system_prompt.contains("short sentences"),
        "{}",
        mira.system_prompt
    );
    assert_eq!(store.of(LOCAL_OWNER).characters(vec!["mira-001".into()]).await.unwrap(), std::slice::from_ref(mira));
}

#[tokio::test]
async fn characters_keep_their_order_and_the_inactive_are_silent() {
    let (_folder, store) = new_store().await;
    for (id, active) in [("zoe-001", 1), ("abe-001", 1), ("kim-001", 0)] {
        sqlx::query(
            "INSERT INTO characters (id, name, voice, languages, parameters, is_active, created_at, updated_at)
                     VALUES ($1, $1, 'af_heart', '[\"en\",\"fr\"]', '{\"temperature\":0.5}', $2, '2026', '2026')",
        )
        .bind(id)
        .bind(active)
        .execute(&store.writer)
        .await
        .unwrap();
    }
    let ids = ["zoe-001", "kim-001", "abe-001", "zoe-001"].map(String::from).to_vec();
    let conversation = store.of(LOCAL_OWNER).create_conversation(ids).await.unwrap();
    assert_eq!(conversation.character_ids, ["zoe-001", "kim-001", "abe-001"]);
    let opened = store.of(LOCAL_OWNER).open_conversation(conversation.id, 0).await.unwrap();
    assert_eq!(opened.conversation.character_ids, ["zoe-001", "kim-001", "abe-001"]);
    let names: Vec<_> = opened.characters.iter().map(|character| character.name.as_str()).collect();
    assert_eq!(names, ["zoe-001", "abe-001"]);
    assert_eq!(opened.characters[0].languages, ["en", "fr"]);
    assert_eq!(opened.characters[0].parameters, json!({"temperature": 0.5}));

    let alone = store.of(LOCAL_OWNER).create_conversation(vec!["kim-001".into()]).await.unwrap();
    let opened = store.of(LOCAL_OWNER).open_conversation(alone.id, 0).await.unwrap();
    assert_eq!(opened.characters[0].name, "abe-001", "the oldest active one stands in");
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let (_folder, store) = new_store().await;
    let missing = |what, id: &str| RecordError::NotFound { what, id: id.into() };
    let nobody = vec!["mira-001".into(), "nobody-001".into()];
    assert_eq!(store.of(LOCAL_OWNER).characters(nobody.clone()).await, Err(missing("character", "nobody-001")));
    assert_eq!(store.of(LOCAL_OWNER).create_conversation(nobody).await, Err(missing("character", "nobody-001")));
    assert_eq!(store.of(LOCAL_OWNER).open_conversation("x".into(), 1).await, Err(missing("conversation", "x")));
    assert_eq!(store.of(LOCAL_OWNER).save_message(message("m", "x", "")).await, Err(missing("conversation", "x")));
    let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM conversations").fetch_one(&store.readers).await.unwrap();
    assert_eq!(count, 0, "a refused conversation leaves nothing behind");
}

#[tokio::test]
async fn a_client_message_is_stored_once() {
    let (_folder, store) = new_store().await;
    let one = store.of(LOCAL_OWNER).create_conversation(vec![]).await.unwrap().id;
    let two = store.of(LOCAL_OWNER).create_conversation(vec![]).await.unwrap().id;
    let sent = |id: &str, to: &str| Message { client_message_id: Some("same".into()), ..message(id, to, id) };
    assert_eq!(store.of(LOCAL_OWNER).save_message(sent("m1", &one)).await.unwrap(), "m1");
    assert_eq!(store.of(LOCAL_OWNER).save_message(sent("m2", &one)).await.unwrap(), "m1");
    assert_eq!(store.of(LOCAL_OWNER).save_message(sent("m1", &one)).await.unwrap(), "m1");
    assert_eq!(
        store.of(LOCAL_OWNER).save_message(sent("m3", &two)).await.unwrap(),
        "m3",
        "another conversation, another message"
    );
    assert_eq!(contents(&store, &one, 10).await, ["m1"]);
}

#[tokio::test]
async fn a_message_cannot_move_to_another_conversation() {
    let (_folder, store) = new_store().await;
    let one = store.of(LOCAL_OWNER).create_conversation(vec![]).await.unwrap().id;
    let two = store.of(LOCAL_OWNER).create_conversation(vec![]).await.unwrap().id;
    store.of(LOCAL_OWNER).save_message(message("m1", &one, "mine")).await.unwrap();
    let moved = store.of(LOCAL_OWNER).save_message(message("m1", &two, "stolen")).await;
    assert_eq!(moved, Err(RecordError::NotFound { what: "message", id: "m1".into() }));
    assert_eq!(contents(&store, &one, 10).await, ["mine"]);
}

#[tokio::test]
async fn the_latest_of_a_thousand_messages_come_oldest_first() {
    let (_folder, store) = new_store().await;
    let conversation = store.of(LOCAL_OWNER).create_conversation(vec![]).await.unwrap().id;
    for number in 0..1_000 {
        // Ids that sort against the order of saving.
        let id = format!("{:04}", 1_000 - number);
        store.of(LOCAL_OWNER).save_message(message(&id, &conversation, &number.to_string())).await.unwrap();
    }
    let expected: Vec<_> = (980..1_000).map(|number: i32| number.to_string()).collect();
    assert_eq!(contents(&store, &conversation, 20).await, expected);
    assert_eq!(contents(&store, &conversation, 5_000).await.len(), 1_000);
    assert!(contents(&store, &conversation, 0).await.is_empty());
    store.of(LOCAL_OWNER).save_message(message("1000", &conversation, "again")).await.unwrap();
    assert_eq!(contents(&store, &conversation, 1).await, ["999"], "a replaced message keeps its place");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_lose_nothing_and_readers_go_on() {
    let (_folder, store) = new_store().await;
    let conversation = store.of(LOCAL_OWNER).create_conversation(vec![]).await.unwrap().id;
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (store, conversation) = (store.clone(), conversation.clone());
            tokio::spawn(async move {
                for number in 0..25 {
                    let id = format!("w{writer}-{number}");
                    store.of(LOCAL_OWNER).save_message(message(&id, &conversation, &id)).await.unwrap();
                    assert!(contents(&store, &conversation, 200).await.contains(&id), "readers see what was saved");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let all = contents(&store, &conversation, 1_000).await;
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 200);
    for writer in 0..8 {
        let own: Vec<_> = all.iter().filter(|id| id.starts_with(&format!("w{writer}-"))).collect();
        assert_eq!(
            own,
            (0..25).map(|number| format!("w{writer}-{number}")).collect::<Vec<_>>().iter().collect::<Vec<_>>()
        );
    }
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
async fn a_newer_schema_is_refused_and_left_alone() {
    let (folder, store) = new_store().await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (9000, 'from the future', 1, X'00', 0)",
    )
    .execute(&store.writer)
    .await
    .unwrap();
    drop(store);
    let refusal = Store::open(&url(folder.path())).await.unwrap_err();
    assert!(matches!(refusal, StoreError::NewerSchema { found: 9000, .. }), "{refusal}");
    assert!(refusal.to_string().contains("update aichat"), "{refusal}");
}

#[tokio::test]
async fn an_altered_schema_is_refused() {
    let (folder, store) = new_store().await;
    sqlx::query("UPDATE _sqlx_migrations SET checksum = X'00'").execute(&store.writer).await.unwrap();
    drop(store);
    let refusal = Store::open(&url(folder.path())).await.unwrap_err();
    assert!(matches!(refusal, StoreError::AlteredSchema { version: 1, .. }), "{refusal}");
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
    let addresses =
        ["", "data/aichat.db", "sqlite:", "sqlite::memory:", "sqlite://a.db?mode=ro", "postgres://u:secret@h/d"];
    for address in addresses {
        let refusal = Store::open(address).await.unwrap_err();
        assert!(matches!(refusal, StoreError::BadUrl { .. }), "{address}: {refusal}");
        assert!(refusal.to_string().contains("sqlite://data/aichat.db"), "{refusal}");
        assert!(!refusal.to_string().contains("secret"), "{refusal}");
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("deep"), "a file where a folder should be").unwrap();
    assert!(matches!(Store::open(&url(folder.path())).await, Err(StoreError::Folder { .. })));
}

#[test]
fn every_migration_file_is_embedded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/sqlite");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    let listed: Vec<_> = sqlite::MIGRATIONS.iter().map(|(number, name, _)| format!("{number:04}_{name}.sql")).collect();
    assert_eq!(files, listed);
    for (expected, (number, ..)) in (1_i64..).zip(&sqlite::MIGRATIONS) {
        assert_eq!(*number, expected);
    }
}

#[tokio::test]
async fn history_is_read_through_its_index() {
    let (_folder, store) = new_store().await;
    let plan = sqlx::query(
        "EXPLAIN QUERY PLAN SELECT id FROM messages WHERE conversation_id = 'c' ORDER BY position DESC LIMIT 20",
    )
    .fetch_all(&store.readers)
    .await
    .unwrap();
    let steps: Vec<String> = plan.iter().map(|row| sqlx::Row::get(row, "detail")).collect();
    assert!(steps.iter().any(|step| step.contains("messages_in_order")), "{steps:?}");
    assert!(!steps.iter().any(|step| step.contains("TEMP B-TREE")), "{steps:?}");
}
