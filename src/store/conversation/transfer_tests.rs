use serde_json::json;

use super::super::message::tests::{first, said};
use super::super::tests::{character, rows, titled};
use super::super::{CastChange, ConversationChange};
use super::*;
use crate::store::LOCAL_OWNER;
use crate::store::fixture::{TestStore, on_both_databases, postgres, sqlite};

on_both_databases!(
    what_goes_out_comes_in_the_same_where_its_ids_are_free,
    what_is_there_already_gets_new_ids,
    a_deleted_conversation_comes_back,
    nobody_uses_up_the_numbers_of_a_name,
);

async fn filled(rows: &Owned) -> Archive {
    let talk = titled(rows, "A talk\n\u{301}é").await;
    let anna = character(rows, "Anna").await;
    let change = ConversationChange { cast: Some(CastChange::Add(anna)), ..ConversationChange::default() };
    rows.change_conversation(&talk.id, None, change).await.unwrap();
    said(rows, &talk.id, &["one", "two", "three 🏳️‍🌈"]).await;
    let mut archive = rows.export_conversation(&talk.id).await.unwrap();
    archive.messages[1].metadata = json!({"unknown": {"kept": [1, null]}, "usage": {"prompt_tokens": 3}});
    archive.messages[1].heard_chars = Some(1);
    archive.messages[1].character_id = Some("gone-004".into());
    archive.messages[1].character_name = Some("Gone".into());
    archive
}

/// Without what a database says about its own rows.
fn bare(mut archive: Archive) -> Archive {
    archive.conversation.version = 0;
    archive.characters.iter_mut().for_each(|character| character.version = 0);
    archive
}

async fn what_goes_out_comes_in_the_same_where_its_ids_are_free(store: TestStore) {
    let archive = filled(&rows(&store)).await;
    // Into databases of both kinds, where nothing is.
    for other in [sqlite().await, postgres().await] {
        let rows = other.of("somebody");
        let mut archive = archive.clone();
        // Mira came with the schema, and is somebody's.
        archive.characters.retain(|character| character.character.id != "mira-001");
        archive.conversation.character_ids.retain(|id| id != "mira-001");
        let stored = rows.import_conversation(archive.clone()).await.unwrap();
        assert_eq!((stored.id.as_str(), stored.message_count), (archive.conversation.id.as_str(), 3));
        let again = rows.export_conversation(&stored.id).await.unwrap();
        assert_eq!(bare(again), bare(archive));
        assert_eq!(character(&rows, "Anna").await, "anna-002", "a number that came in is not given again");
        assert_eq!(rows.search("three", &first(5)).await.unwrap().items.len(), 1, "it is found");
    }
}

async fn nobody_uses_up_the_numbers_of_a_name(store: TestStore) {
    let rows = rows(&store);
    let mut archive = filled(&rows).await;
    archive.characters[0].character.id = "zoe-999999999".into();
    let stored = store.of("somebody").import_conversation(archive).await.unwrap();
    assert!(stored.character_ids.contains(&"zoe-001".to_owned()), "{stored:?}");
    assert_eq!(character(&rows, "Zoe").await, "zoe-002");
}

async fn what_is_there_already_gets_new_ids(store: TestStore) {
    let archive = filled(&rows(&store)).await;
    for owner in [LOCAL_OWNER, "somebody"] {
        let rows = store.of(owner);
        let stored = rows.import_conversation(archive.clone()).await.unwrap();
        assert_ne!(stored.id, archive.conversation.id);
        let mut again = rows.export_conversation(&stored.id).await.unwrap();
        let ids: Vec<_> = again.characters.iter().map(|character| character.character.id.clone()).collect();
        let expected = if owner == LOCAL_OWNER { ["mira-001", "anna-001"] } else { ["mira-002", "anna-002"] };
        assert_eq!(ids, expected);
        assert!(again.messages.iter().zip(&archive.messages).all(|(new, old)| new.id != old.id));
        again.conversation.id.clone_from(&archive.conversation.id);
        again.conversation.character_ids.clone_from(&archive.conversation.character_ids);
        for (new, old) in again.messages.iter_mut().zip(&archive.messages) {
            new.id.clone_from(&old.id);
            new.conversation_id.clone_from(&old.conversation_id);
        }
        for (new, old) in again.characters.iter_mut().zip(&archive.characters) {
            new.character.id.clone_from(&old.character.id);
        }
        assert_eq!(bare(again), bare(archive.clone()), "only ids differ");
    }
}

async fn a_deleted_conversation_comes_back(store: TestStore) {
    let rows = rows(&store);
    let archive = filled(&rows).await;
    rows.delete_conversation(&archive.conversation.id, None).await.unwrap();
    rows.delete_character::<RecordError>("anna-001", |_| Ok(())).await.unwrap();
    let stored = rows.import_conversation(archive.clone()).await.unwrap();
    assert_eq!(bare(rows.export_conversation(&stored.id).await.unwrap()), bare(archive));
}
