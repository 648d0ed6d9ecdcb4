use std::collections::HashSet;

use serde_json::json;

use super::*;
use crate::session::record::Records;
use crate::store::LOCAL_OWNER;
use crate::store::fixture::{TestStore, on_both_databases};

on_both_databases!(
    a_character_comes_back_as_it_was_made_and_changed,
    ids_are_never_used_again,
    many_who_make_one_name_get_different_ids,
    a_change_of_another_version_is_refused,
    pages_hold_each_character_once_in_every_order,
    searches_see_through_case_and_marks,
    nobody_sees_or_changes_what_is_anothers,
    who_is_deleted_leaves_conversations_and_stays_in_messages,
    a_conversation_is_told_who_has_left_it,
);

fn named(name: &str) -> CharacterChange {
    CharacterChange { name: Some(name.to_owned()), ..CharacterChange::default() }
}

#[expect(clippy::unnecessary_wraps, reason = "a check that is always passed")]
fn any(_: i64) -> Result<(), RecordError> {
    Ok(())
}

fn ask(sort: CharacterSort, limit: usize) -> PageAsk<CharacterSort> {
    PageAsk { limit, sort, descending: false, after: None }
}

async fn ids(owned: &Owned) -> Vec<String> {
    let page = owned.list_characters(&ask(CharacterSort::Name, 200), None).await.unwrap();
    page.items.into_iter().map(|item| item.character.id).collect()
}

async fn a_character_comes_back_as_it_was_made_and_changed(store: TestStore) {
    let owned = store.of("anna");
    let wanted = CharacterChange {
        name: Some("Zoë 世界".into()),
        description: Some("Quick; DROP TABLE characters;--".into()),
        system_prompt: Some("You are Zoë.".into()),
        personality: Some("wry".into()),
        voice: Some(Some("bf_emma".into())),
        image_url: Some(Some("https://example.org/z.png".into())),
        image_file: None,
        model: Some(Some("openai/gpt-4o".into())),
        parameters: Some(json!({"temperature": 0.25, "stop": ["\n"]})),
        talkativeness: Some(0.75),
        languages: Some(vec!["en".into(), "nl".into()]),
        is_active: Some(false),
    };
    let made = owned.create_character(wanted).await.unwrap();
    assert_eq!((made.character.id.as_str(), made.version), ("zoe-001", 1));
    assert_eq!(owned.character("zoe-001").await.unwrap(), made);
    assert_eq!(made.character.parameters["temperature"], 0.25);
    assert_eq!((made.character.talkativeness, made.character.is_active), (0.75, false));

    // What is not sent stays; what is null is cleared.
    let change = CharacterChange { voice: Some(None), name: Some("Other".into()), ..CharacterChange::default() };
    let (before, after) = owned.change_character("zoe-001", any, change).await.unwrap();
    assert_eq!(before, made);
    assert_eq!((after.version, after.character.voice.as_deref()), (2, None));
    let mut expected = made.clone();
    (expected.character.voice, expected.character.name) = (None, "Other".into());
    (expected.version, expected.updated_at) = (2, after.updated_at.clone());
    assert_eq!(after, expected);
    assert_eq!(owned.character("zoe-001").await.unwrap(), expected);
    let picture = CharacterChange { image_file: Some("a.jpg".into()), ..CharacterChange::default() };
    let (_, after) = owned.change_character("zoe-001", any, picture).await.unwrap();
    assert_eq!((after.image_url, after.image_file.as_deref()), (None, Some("a.jpg")));
    let address = CharacterChange { image_url: Some(None), ..CharacterChange::default() };
    let (_, after) = owned.change_character("zoe-001", any, address).await.unwrap();
    assert_eq!((after.image_url, after.image_file), (None, None));
}

async fn ids_are_never_used_again(store: TestStore) {
    let owned = store.of(LOCAL_OWNER);
    let first = owned.create_character(named("Mira")).await.unwrap();
    assert_eq!(first.character.id, "mira-002", "the first one came with the schema");
    owned.delete_character("mira-002", any).await.unwrap();
    assert_eq!(owned.create_character(named("MÍRA!")).await.unwrap().character.id, "mira-003");
    assert_eq!(store.of("anna").create_character(named("mira")).await.unwrap().character.id, "mira-004");
    let (_, renamed) = owned.change_character("mira-003", any, named("Olivia")).await.unwrap();
    assert_eq!(renamed.character.id, "mira-003");
    assert_eq!(owned.create_character(named("Olivia")).await.unwrap().character.id, "olivia-001");
}

async fn many_who_make_one_name_get_different_ids(store: TestStore) {
    let make = |number: usize| {
        let owned = store.of(if number.is_multiple_of(2) { "anna" } else { "ben" });
        tokio::spawn(async move { owned.create_character(named("Twin")).await.unwrap().character.id })
    };
    let made = futures::future::join_all((0..24).map(make)).await;
    let ids: HashSet<String> = made.into_iter().map(Result::unwrap).collect();
    assert_eq!(ids.len(), 24);
    assert!(ids.contains("twin-024"));
}

async fn a_change_of_another_version_is_refused(store: TestStore) {
    let owned = store.of("anna");
    let made = owned.create_character(named("Zoe")).await.unwrap();
    let only = |wanted: i64| move |version: i64| if version == wanted { Ok(()) } else { Err(RecordError::Full) };
    owned.change_character("zoe-001", only(1), named("Zoe B")).await.unwrap();
    let refused = owned.change_character("zoe-001", only(1), named("Zoe C")).await;
    assert_eq!(refused.unwrap_err(), RecordError::Full);
    assert_eq!(owned.delete_character("zoe-001", only(1)).await.unwrap_err(), RecordError::Full);
    let now = owned.character("zoe-001").await.unwrap();
    assert_eq!((now.character.name.as_str(), now.version, now.created_at), ("Zoe B", 2, made.created_at));
    // Of many who saw one version, one changes it.
    let change = |number: usize| {
        let owned = owned.clone();
        tokio::spawn(
            async move { owned.change_character("zoe-001", only(2), named(&number.to_string())).await.is_ok() },
        )
    };
    let changed = futures::future::join_all((0..8).map(change)).await;
    assert_eq!(changed.into_iter().filter(|changed| *changed.as_ref().unwrap()).count(), 1);
}

async fn pages_hold_each_character_once_in_every_order(store: TestStore) {
    let owned = store.of("anna");
    for number in 0..7 {
        // Two of each name, so that the id decides.
        let change = CharacterChange { is_active: Some(number % 3 > 0), ..named(&format!("Name {}", number / 2)) };
        owned.create_character(change).await.unwrap();
    }
    store.of("ben").create_character(named("Not hers")).await.unwrap();
    for sort in [CharacterSort::CreatedAt, CharacterSort::UpdatedAt, CharacterSort::Name] {
        for descending in [false, true] {
            let mut asked = PageAsk { descending, ..ask(sort, 3) };
            let mut seen = Vec::new();
            loop {
                let page = owned.list_characters(&asked, None).await.unwrap();
                assert_eq!(page.total, 7);
                seen.extend(page.items.iter().map(|item| (sort.key(item).to_owned(), item.character.id.clone())));
                let Some(next) = page.next else { break };
                asked.after = Some(next);
            }
            let mut sorted = seen.clone();
            sorted.sort();
            if descending {
                sorted.reverse();
            }
            assert_eq!((seen.len(), &seen), (7, &sorted), "{sort:?} {descending}");
        }
    }
    let active = owned.list_characters(&ask(CharacterSort::Name, 3), Some(true)).await.unwrap();
    assert_eq!((active.total, active.items.len()), (4, 3));
    assert!(active.items.iter().all(|item| item.character.is_active));
    let idle = owned.list_characters(&ask(CharacterSort::Name, 50), Some(false)).await.unwrap();
    assert_eq!((idle.total, idle.next), (3, None));
}

async fn searches_see_through_case_and_marks(store: TestStore) {
    let owned = store.of(LOCAL_OWNER);
    for (name, description) in
        [("Élodie Groß", "Enseigne à l'école"), ("Ёлка", "зелёная"), ("100% Bob_", "a!b"), ("Elsa", "cold")]
    {
        let change = CharacterChange { description: Some(description.into()), ..named(name) };
        owned.create_character(change).await.unwrap();
    }
    let found = async |query: &str| {
        let page = owned.search_characters(&ask(CharacterSort::Name, 50), query).await.unwrap();
        let mut names: Vec<String> = page.items.into_iter().map(|item| item.character.name).collect();
        names.sort();
        names.join(", ")
    };
    for (query, wanted) in [
        ("elodie", "Élodie Groß"),
        ("GROSS ECOLE", "Élodie Groß"),
        ("el", "Elsa, Élodie Groß"),
        ("елка ЗЕЛЕНАЯ", "Ёлка"),
        ("%", "100% Bob_"),
        ("b_", "100% Bob_"),
        ("a!b", "100% Bob_"),
        ("mira WARM", "Mira"),
        ("' OR 1=1 --", ""),
        ("elodie cold", ""),
    ] {
        assert_eq!(found(query).await, wanted, "{query}");
    }
    // A new name is found, the old one no longer.
    owned.change_character("elsa-001", any, named("Anna")).await.unwrap();
    assert_eq!((found("elsa").await, found("anna").await), (String::new(), "Anna".into()));
}

async fn nobody_sees_or_changes_what_is_anothers(store: TestStore) {
    let (anna, ben) = (store.of("anna"), store.of("ben"));
    let made = anna.create_character(named("Zoe")).await.unwrap();
    let gone = RecordError::NotFound { what: "character", id: "zoe-001".into() };
    assert_eq!(ben.character("zoe-001").await.unwrap_err(), gone);
    assert_eq!(ben.change_character("zoe-001", any, named("Mine")).await.unwrap_err(), gone);
    assert_eq!(ben.delete_character("zoe-001", any).await.unwrap_err(), gone);
    assert!(ids(&ben).await.is_empty());
    assert_eq!(ben.search_characters(&ask(CharacterSort::Name, 9), "zoe").await.unwrap().total, 0);
    assert_eq!(anna.character("zoe-001").await.unwrap(), made);
}

async fn a_conversation_is_told_who_has_left_it(store: TestStore) {
    let owned = store.of(LOCAL_OWNER);
    owned.create_character(named("Zoe")).await.unwrap();
    let with = async |ids: &[&str]| {
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        owned.create_conversation(ids).await.unwrap().id
    };
    let (both, alone) = (with(&["mira-001", "zoe-001"]).await, with(&["zoe-001"]).await);
    with(&["mira-001"]).await;
    let mut changes = store.changes();
    owned.delete_character("zoe-001", |_| Err(RecordError::Changed)).await.unwrap_err();
    assert!(changes.try_recv().is_err(), "nothing was changed");
    owned.delete_character("zoe-001", any).await.unwrap();
    let change = changes.try_recv().unwrap();
    assert_eq!((change.owner.as_str(), change.done.len()), (LOCAL_OWNER, 2));
    for (id, left) in [(both, vec!["mira-001".to_owned()]), (alone, vec![])] {
        let (_, what) = change.done.iter().find(|(known, _)| *known == id).unwrap();
        let conversation = owned.conversation(&id).await.unwrap();
        assert_eq!(conversation.character_ids, left);
        assert_eq!(*what, Changed::Conversation { conversation: Box::new(conversation), is_recast: true });
    }
    assert!(changes.try_recv().is_err(), "that is all");
}

async fn who_is_deleted_leaves_conversations_and_stays_in_messages(store: TestStore) {
    let owned = store.of(LOCAL_OWNER);
    owned.create_character(named("Zoe")).await.unwrap();
    let conversation = owned.create_conversation(vec!["zoe-001".into()]).await.unwrap();
    let message = crate::session::record::Message {
        id: "m1".into(),
        conversation_id: conversation.id.clone(),
        role: crate::provider::Role::Assistant,
        character_id: Some("zoe-001".into()),
        character_name: Some("Zoe".into()),
        content: "Hello.".into(),
        status: crate::session::record::MessageStatus::Completed,
        heard_chars: None,
        metadata: json!({}),
        client_message_id: None,
    };
    owned.save_message(message.clone()).await.unwrap();
    owned.delete_character("zoe-001", any).await.unwrap();
    let opened = owned.open_conversation(conversation.id, 10).await.unwrap();
    assert!(opened.conversation.character_ids.is_empty());
    assert_eq!(opened.characters[0].id, "mira-001", "the default one stands in");
    assert_eq!(opened.messages, [message]);
}
