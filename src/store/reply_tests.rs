use serde_json::json;
use tempfile::TempDir;

use super::super::LOCAL_OWNER;
use super::*;
use crate::provider::Role;
use crate::session::record::{Conversation, Message, MessageStatus, Records};

async fn rows() -> (TempDir, Store, Owned, Conversation) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&format!("sqlite://{}/test.db", folder.path().display())).await.unwrap();
    let rows = store.of(LOCAL_OWNER);
    let conversation = rows.create_conversation(vec![]).await.unwrap();
    (folder, store, rows, conversation)
}

fn message(id: &str, conversation: &Conversation, role: Role) -> Message {
    let speaks = role == Role::Assistant;
    Message {
        id: id.to_owned(),
        conversation_id: conversation.id.clone(),
        role,
        character_id: speaks.then(|| "mira-001".to_owned()),
        character_name: speaks.then(|| "Mira".to_owned()),
        content: "Hm.".to_owned(),
        status: MessageStatus::Completed,
        heard_chars: None,
        metadata: json!({}),
        client_message_id: None,
    }
}

async fn count(store: &Store, conversation: &Conversation) -> i64 {
    sqlx::query_scalar("SELECT message_count FROM conversations WHERE id = $1")
        .bind(conversation.id.clone())
        .fetch_one(&store.readers)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_message_that_came_to_nothing_is_gone() {
    let (_folder, store, rows, conversation) = rows().await;
    let other = store.of("other");
    rows.save_message(message("m1", &conversation, Role::User)).await.unwrap();
    rows.save_message(message("m2", &conversation, Role::Assistant)).await.unwrap();
    assert_eq!(count(&store, &conversation).await, 2);
    assert!(other.forget_message(conversation.id.clone(), "m2".to_owned()).await.is_err());
    assert_eq!(count(&store, &conversation).await, 2);
    for _ in 0..2 {
        rows.forget_message(conversation.id.clone(), "m2".to_owned()).await.unwrap();
        assert_eq!(count(&store, &conversation).await, 1);
    }
    assert!(rows.message("m2").await.is_err());
    assert_eq!(rows.message("m1").await.unwrap().id, "m1");
    assert!(other.message("m1").await.is_err());
}

#[tokio::test]
async fn a_title_is_given_once() {
    let (_folder, store, rows, conversation) = rows().await;
    let give = async |rows: &Owned, title: &str, instead_of: &str| {
        rows.title_conversation(conversation.id.clone(), title.to_owned(), instead_of.to_owned()).await.unwrap()
    };
    assert!(!give(&store.of("other"), "Mine", "").await);
    assert!(give(&rows, "First", "").await);
    assert!(!give(&rows, "Second", "").await, "it has one");
    assert!(give(&rows, "Better", "First").await);
    assert!(!give(&rows, "Late", "First").await);
    let opened = rows.open_conversation(conversation.id.clone(), 0).await.unwrap();
    assert_eq!(opened.conversation.title, "Better");
}

#[tokio::test]
async fn a_reply_is_found_from_itself_and_from_what_it_answers() {
    let (_folder, store, rows, conversation) = rows().await;
    for (id, role) in [("u1", Role::User), ("a1", Role::Assistant), ("u2", Role::User)] {
        rows.save_message(message(id, &conversation, role)).await.unwrap();
    }
    let place = |character: Option<&str>| {
        let conversation_id = conversation.id.clone();
        Some(ReplyPlace { conversation_id, character_id: character.map(str::to_owned) })
    };
    assert_eq!(rows.reply_place("a1").await.unwrap(), place(Some("mira-001")));
    assert_eq!(rows.reply_place("u1").await.unwrap(), place(Some("mira-001")));
    assert_eq!(rows.reply_place("u2").await.unwrap(), place(None));
    assert_eq!(rows.reply_place("nothing").await.unwrap(), None);
    assert_eq!(store.of("other").reply_place("a1").await.unwrap(), None);
}

#[tokio::test]
async fn a_message_has_one_recording() {
    let (_folder, store, rows, conversation) = rows().await;
    rows.save_message(message("m1", &conversation, Role::User)).await.unwrap();
    assert_eq!(rows.recording("m1").await.unwrap(), None);
    assert_eq!(rows.set_recording("m1", "a.opus").await.unwrap(), None);
    assert_eq!(rows.set_recording("m1", "b.opus").await.unwrap().as_deref(), Some("a.opus"));
    assert_eq!(rows.recording("m1").await.unwrap().as_deref(), Some("b.opus"));
    let other = store.of("other");
    assert_eq!(other.recording("m1").await.unwrap(), None);
    let missing = RecordError::NotFound { what: "message", id: "m1".to_owned() };
    assert_eq!(other.set_recording("m1", "c.opus").await.unwrap_err(), missing);
    let files = ["a.opus", "b.opus"].map(str::to_owned);
    assert_eq!(store.recordings_among(&files).await.unwrap(), HashSet::from(["b.opus".to_owned()]));
    // A later state of the message keeps it.
    rows.save_message(message("m1", &conversation, Role::User)).await.unwrap();
    assert_eq!(rows.recording("m1").await.unwrap().as_deref(), Some("b.opus"));
}
