use serde_json::json;

use super::*;
use crate::session::record::Records;
use crate::store::fixture::{TestStore, on_both_databases};
use crate::store::{CharacterChange, LOCAL_OWNER, Store};

on_both_databases!(
    a_conversation_comes_back_as_it_was_made,
    a_change_leaves_what_it_does_not_name,
    a_list_has_a_stable_order,
    lists_have_what_is_asked_for,
    nobody_reaches_the_conversations_of_others,
    what_is_deleted_is_gone_for_good,
    what_nobody_hears_is_not_put_together,
);

pub(super) fn rows(store: &Store) -> Owned {
    store.of(LOCAL_OWNER)
}

pub(super) async fn titled(rows: &Owned, title: &str) -> StoredConversation {
    rows.new_conversation(NewConversation { title: title.into(), settings: json!({}), ..NewConversation::default() })
        .await
        .unwrap()
}

pub(super) async fn character(rows: &Owned, name: &str) -> String {
    let change = CharacterChange { name: Some(name.into()), ..CharacterChange::default() };
    rows.create_character(change).await.unwrap().character.id
}

fn ask(sort: ConversationSort, descending: bool, limit: usize, after: Option<Place>) -> PageAsk<ConversationSort> {
    PageAsk { limit, sort, descending, after }
}

async fn titles(rows: &Owned, filter: &ConversationFilter) -> Vec<String> {
    let page = rows.conversations(filter, &ask(ConversationSort::Title, false, 200, None)).await.unwrap();
    assert_eq!(page.total, page.items.len());
    page.items.into_iter().map(|item| item.title).collect()
}

async fn a_conversation_comes_back_as_it_was_made(store: TestStore) {
    let rows = rows(&store);
    let anna = character(&rows, "Anna").await;
    let made = rows
        .new_conversation(NewConversation {
            title: "Grüße, 世界".into(),
            kind: ConversationKind::Mixed,
            private: true,
            character_ids: Some(vec![anna.clone(), "mira-001".into(), anna.clone()]),
            settings: json!({"temperature": 0.5, "vad": null}),
        })
        .await
        .unwrap();
    assert_eq!(made.character_ids, [anna, "mira-001".into()]);
    assert_eq!((made.message_count, &made.last_message_at, made.version), (0, &None, 1));
    assert_eq!(rows.conversation(&made.id).await.unwrap(), made);
    let opened = rows.open_conversation(made.id.clone(), 10).await.unwrap();
    assert!(opened.conversation.private);
    assert_eq!(opened.conversation.settings, made.settings, "a session begins with them");
    assert_eq!(titled(&rows, "x").await.character_ids, ["mira-001"], "the default one takes part");
    let missing = NewConversation { character_ids: Some(vec!["nobody-001".into()]), ..NewConversation::default() };
    let refused = rows.new_conversation(missing).await.unwrap_err();
    assert_eq!(refused, RecordError::NotFound { what: "character", id: "nobody-001".into() });
    assert_eq!(titles(&rows, &ConversationFilter::default()).await.len(), 2, "nothing was made");
}

async fn a_change_leaves_what_it_does_not_name(store: TestStore) {
    let rows = rows(&store);
    let (anna, ben) = (character(&rows, "Anna").await, character(&rows, "Ben").await);
    let made = titled(&rows, "first").await;
    let change = async |expected: Option<&[i64]>, change| rows.change_conversation(&made.id, expected, change).await;
    let title = ConversationChange { title: Some("second".into()), ..ConversationChange::default() };
    let changed = change(Some(&[1]), title.clone()).await.unwrap();
    assert_eq!((changed.title.as_str(), changed.version), ("second", 2));
    assert!(changed.updated_at >= made.updated_at);
    assert_eq!(changed.character_ids, made.character_ids);
    assert_eq!(change(Some(&[1, 3]), title.clone()).await, Err(RecordError::Changed));
    assert_eq!(rows.conversation(&made.id).await.unwrap(), changed, "nothing was changed");
    let changed = change(
        None,
        ConversationChange {
            status: Some(ConversationStatus::Archived),
            private: Some(true),
            settings: Some(json!({"top_k": 3})),
            cast: Some(CastChange::Set(vec![ben.clone(), anna.clone()])),
            ..ConversationChange::default()
        },
    )
    .await
    .unwrap();
    assert_eq!(
        (changed.title.as_str(), changed.status, changed.private),
        ("second", ConversationStatus::Archived, true)
    );
    assert_eq!((changed.settings, changed.character_ids), (json!({"top_k": 3}), vec![ben.clone(), anna.clone()]));
    let recast = |cast| ConversationChange { cast: Some(cast), ..ConversationChange::default() };
    for (cast, members) in [
        (CastChange::Add("mira-001".into()), vec![ben.clone(), anna.clone(), "mira-001".into()]),
        (CastChange::Add(ben.clone()), vec![ben.clone(), anna.clone(), "mira-001".into()]),
        (CastChange::Remove(anna.clone()), vec![ben.clone(), "mira-001".into()]),
    ] {
        assert_eq!(change(None, recast(cast)).await.unwrap().character_ids, members);
    }
    for cast in [CastChange::Remove(anna), CastChange::Add("nobody-001".into())] {
        assert!(matches!(change(None, recast(cast)).await, Err(RecordError::NotFound { what: "character", .. })));
    }
}

async fn a_list_has_a_stable_order(store: TestStore) {
    let rows = rows(&store);
    // Titles that many share, and signs that a database's own order would pass over.
    for title in ["b", "a", "", "B", "a", "-a", "é", "a", "z"] {
        titled(&rows, title).await;
    }
    for sort in [ConversationSort::Title, ConversationSort::CreatedAt, ConversationSort::UpdatedAt] {
        for descending in [false, true] {
            let all =
                rows.conversations(&ConversationFilter::default(), &ask(sort, descending, 200, None)).await.unwrap();
            assert_eq!((all.items.len(), all.total, &all.next), (9, 9, &None));
            let keys: Vec<_> = all.items.iter().map(|item| (sort.key(item).to_owned(), item.id.clone())).collect();
            let mut sorted = keys.clone();
            sorted.sort();
            if descending {
                sorted.reverse();
            }
            assert_eq!(keys, sorted, "{sort:?} {descending}");
            let (mut paged, mut after) = (vec![], None);
            loop {
                let filter = ConversationFilter::default();
                let page = rows.conversations(&filter, &ask(sort, descending, 2, after)).await.unwrap();
                assert_eq!(page.total, 9);
                paged.extend(page.items);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(paged, all.items, "{sort:?} {descending}");
        }
    }
}

async fn lists_have_what_is_asked_for(store: TestStore) {
    let rows = rows(&store);
    let anna = character(&rows, "Anna").await;
    for (title, status) in [
        ("one", ConversationStatus::Active),
        ("two", ConversationStatus::Archived),
        ("three", ConversationStatus::Deleted),
    ] {
        let made = titled(&rows, title).await;
        let cast = (title != "one").then(|| CastChange::Add(anna.clone()));
        let change = ConversationChange { status: Some(status), cast, ..ConversationChange::default() };
        rows.change_conversation(&made.id, None, change).await.unwrap();
    }
    let of = |status, character_id: Option<&String>| ConversationFilter { status, character_id: character_id.cloned() };
    assert_eq!(titles(&rows, &of(None, None)).await, ["one", "two"]);
    assert_eq!(titles(&rows, &of(Some(ConversationStatus::Deleted), None)).await, ["three"]);
    assert_eq!(titles(&rows, &of(None, Some(&anna))).await, ["two"]);
    assert_eq!(titles(&rows, &of(Some(ConversationStatus::Deleted), Some(&anna))).await, ["three"]);
    assert!(titles(&rows, &of(Some(ConversationStatus::Active), Some(&anna))).await.is_empty());
}

async fn nobody_reaches_the_conversations_of_others(store: TestStore) {
    let (rows, other) = (rows(&store), store.of("somebody"));
    let made = titled(&rows, "mine").await;
    let gone = || RecordError::NotFound { what: "conversation", id: made.id.clone() };
    assert_eq!(other.conversation(&made.id).await, Err(gone()));
    assert_eq!(other.change_conversation(&made.id, None, ConversationChange::default()).await, Err(gone()));
    assert_eq!(other.delete_conversation(&made.id, None).await, Err(gone()));
    assert_eq!(other.export_conversation(&made.id).await, Err(gone()));
    assert!(titles(&other, &ConversationFilter::default()).await.is_empty());
    let theirs = NewConversation { character_ids: Some(vec!["mira-001".into()]), ..NewConversation::default() };
    assert!(other.new_conversation(theirs).await.is_err(), "a character is somebody's too");
    assert!(titled(&other, "").await.character_ids.is_empty(), "they have no character yet");
    assert_eq!(rows.conversation(&made.id).await.unwrap(), made);
}

async fn what_is_deleted_is_gone_for_good(store: TestStore) {
    let rows = rows(&store);
    let made = titled(&rows, "short lived").await;
    super::message::tests::said(&rows, &made.id, &["one", "two"]).await;
    let message = rows.messages(&made.id, &super::message::tests::first(1)).await.unwrap().items.remove(0);
    let recorded = sqlx::query("UPDATE messages SET audio_file = 'a.opus' WHERE id = $1").bind(message.id.clone());
    recorded.execute(&store.writer).await.unwrap();
    assert_eq!(rows.delete_conversation(&made.id, Some(&[1])).await, Err(RecordError::Changed));
    assert_eq!(rows.delete_conversation(&made.id, None).await.unwrap(), ["a.opus"]);
    assert!(rows.conversation(&made.id).await.is_err());
    assert!(rows.message(&message.id).await.is_err());
    let everything = PageAsk { limit: 10, sort: (), descending: true, after: None };
    assert!(rows.search("short", &everything).await.unwrap().items.is_empty());
    assert!(rows.search("two", &everything).await.unwrap().items.is_empty());
}

async fn what_nobody_hears_is_not_put_together(store: TestStore) {
    let rows = rows(&store);
    rows.tell("c", || panic!("nobody listens"));
    let mut changes = store.changes();
    rows.clone().quiet().tell("c", || panic!("whoever does it tells it"));
    rows.tell("c", || Changed::ConversationDeleted);
    assert_eq!(changes.try_recv().unwrap().done, [("c".to_owned(), Changed::ConversationDeleted)]);
    rows.tell_all(Vec::new);
    assert!(changes.try_recv().is_err(), "there is nothing to tell");
}
