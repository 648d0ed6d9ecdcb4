//! Sessions' pages, and replies that were cut off.

use serde_json::{Value, json};

use super::{JournalPage, KEPT};
use crate::provider::Role;
use crate::session::record::{Message, MessageStatus, Records};
use crate::store::fixture::{TestStore, message, on_both_databases};
use crate::store::{LOCAL_OWNER, Store};

on_both_databases!(
    pages_are_read_in_their_order_by_their_owner,
    a_page_that_comes_again_brings_what_was_told_since,
    a_session_goes_with_its_conversation_and_its_oldest_pages_before,
    replies_of_sessions_that_are_under_way_are_found,
);

async fn conversation(store: &Store) -> String {
    store.of(LOCAL_OWNER).create_conversation(vec![]).await.unwrap().id
}

fn page(conversation_id: &str, first_seq: u64, last_seq: u64) -> JournalPage {
    let messages = (first_seq..=last_seq).map(|seq| json!({"seq": seq, "text": "a\u{0}ä"})).collect::<Vec<Value>>();
    JournalPage {
        session_id: "s".into(),
        owner: LOCAL_OWNER.into(),
        conversation_id: conversation_id.into(),
        secret_digest: "d".into(),
        first_seq,
        last_seq,
        messages: Some(json!(messages).to_string()),
        state: json!({"last": last_seq}),
    }
}

async fn pages_are_read_in_their_order_by_their_owner(store: TestStore) {
    let id = conversation(&store).await;
    let gone = JournalPage { session_id: "other".into(), ..page("gone", 1, 1) };
    store.write_journal(&[page(&id, 1, 2), gone, page(&id, 3, 3)]).await.unwrap();
    // Once more, as after an answer that was lost; and the state alone.
    let state = JournalPage { messages: None, state: json!({"last": "new"}), ..page(&id, 3, 3) };
    store.write_journal(&[page(&id, 3, 3), state]).await.unwrap();
    let owned = store.of(LOCAL_OWNER);
    let found = owned.journal("s").await.unwrap().unwrap();
    assert_eq!((found.conversation_id.as_str(), found.secret_digest.as_str()), (id.as_str(), "d"));
    assert_eq!(found.state, json!({"last": "new"}));
    let numbers: Vec<_> = found.messages.iter().map(|message| message["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(found.messages[0]["text"], "a\u{0}ä");
    assert_eq!(owned.journals_of(&id).await.unwrap(), [found]);
    assert_eq!(store.of("other").journal("s").await.unwrap(), None);
    assert_eq!(owned.journal("other").await.unwrap(), None, "its conversation is gone");
    assert_eq!(store.sweep_journals().await.unwrap(), 0, "none is too old");
}

async fn a_page_that_comes_again_brings_what_was_told_since(store: TestStore) {
    let id = conversation(&store).await;
    let numbers = async || {
        let found = store.of(LOCAL_OWNER).journal("s").await.unwrap().unwrap();
        found.messages.iter().map(|message| message["seq"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    for (first, last, known) in [(1, 2, 2), (1, 4, 4), (1, 3, 4), (5, 5, 5)] {
        store.write_journal(&[page(&id, first, last)]).await.unwrap();
        assert_eq!(numbers().await, (1..=known).collect::<Vec<_>>(), "after {first} to {last}");
    }
}

async fn a_session_goes_with_its_conversation_and_its_oldest_pages_before(store: TestStore) {
    let id = conversation(&store).await;
    let kept = u64::try_from(KEPT).unwrap();
    for (first, last) in [(1, 1), (2, 2), (3, kept + 1)] {
        store.write_journal(&[page(&id, first, last)]).await.unwrap();
    }
    let owned = store.of(LOCAL_OWNER);
    assert_eq!(owned.journal("s").await.unwrap().unwrap().messages[0]["seq"], 2);
    owned.delete_conversation(&id, None).await.unwrap();
    assert_eq!(owned.journal("s").await.unwrap(), None);
    store.write_journal(&[page(&id, kept + 2, kept + 2)]).await.unwrap();
    assert_eq!(owned.journal("s").await.unwrap(), None, "it does not come back");
}

async fn replies_of_sessions_that_are_under_way_are_found(store: TestStore) {
    let id = conversation(&store).await;
    let owned = store.of(LOCAL_OWNER);
    let reply =
        |name: &str, status, metadata| Message { role: Role::Assistant, status, metadata, ..message(name, &id, "One") };
    owned.save_message(reply("cut", MessageStatus::Processing, json!({"timings": {}}))).await.unwrap();
    owned.save_message(reply("whole", MessageStatus::Completed, json!({"timings": {}}))).await.unwrap();
    owned.save_message(reply("clients", MessageStatus::Pending, json!({}))).await.unwrap();
    assert!(store.cut_off_replies(false).await.unwrap().is_empty(), "this server may be writing it");
    if store.kind() == "postgres" {
        assert!(store.cut_off_replies(true).await.unwrap().is_empty(), "another server may be writing it");
        store.execute("UPDATE messages SET updated_at = '2020-01-01T00:00:00.000Z' WHERE id = 'cut'").await;
    }
    let found = store.cut_off_replies(true).await.unwrap();
    let found: Vec<_> = found.iter().map(|found| (found.owner.as_str(), found.message.id.as_str())).collect();
    assert_eq!(found, [(LOCAL_OWNER, "cut")]);
}
