//! What `session` keeps, on both databases.

use std::collections::HashSet;

use serde_json::json;

use super::fixture::{TestStore, message, on_both_databases};
use super::{LOCAL_OWNER, Store};
use crate::provider::Role;
use crate::session::record::{Message, MessageStatus, RecordError, Records};

on_both_databases!(
    a_message_comes_back_as_it_was_saved,
    the_default_character_is_there_and_speaks,
    characters_keep_their_order_and_the_inactive_are_silent,
    what_is_not_there_is_named,
    what_no_database_can_hold_is_replaced,
    a_client_message_is_stored_once,
    the_same_message_from_many_sides_is_stored_once,
    a_message_cannot_move_to_another_conversation,
    the_latest_of_a_thousand_messages_come_oldest_first,
    many_writers_lose_nothing_and_readers_go_on,
);

pub(super) async fn contents(store: &Store, conversation_id: &str, history: usize) -> Vec<String> {
    let opened = store.of(LOCAL_OWNER).open_conversation(conversation_id.to_owned(), history).await.unwrap();
    opened.messages.into_iter().map(|message| message.content).collect()
}

async fn a_message_comes_back_as_it_was_saved(store: TestStore) {
    let conversation = store.of(LOCAL_OWNER).create_conversation(vec![]).await.unwrap();
    let said = Message {
        role: Role::Assistant,
        character_id: Some("mira-001".into()),
        character_name: Some("Mira".into()),
        status: MessageStatus::Processing,
        heard_chars: Some(3),
        metadata: json!({"model": "smollm2", "timings": {"total_ms": 12.5}, "language": null}),
        client_message_id: Some("c-1".into()),
        ..message("m1", &conversation.id, "Grüße, 世界 👋🏽 \"quoted\"; DROP TABLE messages;--")
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

async fn the_default_character_is_there_and_speaks(store: TestStore) {
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

async fn characters_keep_their_order_and_the_inactive_are_silent(store: TestStore) {
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

async fn what_is_not_there_is_named(store: TestStore) {
    let missing = |what, id: &str| RecordError::NotFound { what, id: id.into() };
    let nobody = vec!["mira-001".into(), "nobody-001".into()];
    assert_eq!(store.of(LOCAL_OWNER).characters(nobody.clone()).await, Err(missing("character", "nobody-001")));
    assert_eq!(store.of(LOCAL_OWNER).create_conversation(nobody).await, Err(missing("character", "nobody-001")));
    assert_eq!(store.of(LOCAL_OWNER).open_conversation("x".into(), 1).await, Err(missing("conversation", "x")));
    assert_eq!(store.of(LOCAL_OWNER).save_message(message("m", "x", "")).await, Err(missing("conversation", "x")));
    let count: i64 = sqlx::query_scalar("SELECT COUNT(*) /* every row */ FROM conversations")
        .fetch_one(&store.readers)
        .await
        .unwrap();
    assert_eq!(count, 0, "a refused conversation leaves nothing behind");
}

async fn what_no_database_can_hold_is_replaced(store: TestStore) {
    let conversation = store.of(LOCAL_OWNER).create_conversation(vec![]).await.unwrap().id;
    let sent = |id| Message { client_message_id: Some("c\0".into()), ..message(id, &conversation, "a\0b") };
    store.of(LOCAL_OWNER).save_message(sent("m1")).await.unwrap();
    assert_eq!(store.of(LOCAL_OWNER).save_message(sent("m2")).await.unwrap(), "m1");
    assert_eq!(contents(&store, &conversation, 10).await, ["a\u{FFFD}b"]);
}

async fn a_client_message_is_stored_once(store: TestStore) {
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

async fn the_same_message_from_many_sides_is_stored_once(store: TestStore) {
    let conversation = store.of(LOCAL_OWNER).create_conversation(vec![]).await.unwrap().id;
    let sent = |number: usize| {
        let message =
            Message { client_message_id: Some("same".into()), ..message(&format!("m{number}"), &conversation, "once") };
        let owned = store.of(LOCAL_OWNER);
        tokio::spawn(async move { owned.save_message(message).await.unwrap() })
    };
    let sides: Vec<_> = (0..16).map(sent).collect();
    let mut answered = HashSet::new();
    for side in sides {
        answered.insert(side.await.unwrap());
    }
    assert_eq!(answered.len(), 1, "{answered:?}");
    assert_eq!(contents(&store, &conversation, 100).await, ["once"]);
}

async fn a_message_cannot_move_to_another_conversation(store: TestStore) {
    let one = store.of(LOCAL_OWNER).create_conversation(vec![]).await.unwrap().id;
    let two = store.of(LOCAL_OWNER).create_conversation(vec![]).await.unwrap().id;
    store.of(LOCAL_OWNER).save_message(message("m1", &one, "mine")).await.unwrap();
    let moved = store.of(LOCAL_OWNER).save_message(message("m1", &two, "stolen")).await;
    assert_eq!(moved, Err(RecordError::NotFound { what: "message", id: "m1".into() }));
    assert_eq!(contents(&store, &one, 10).await, ["mine"]);
}

async fn the_latest_of_a_thousand_messages_come_oldest_first(store: TestStore) {
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

async fn many_writers_lose_nothing_and_readers_go_on(store: TestStore) {
    let conversation = store.of(LOCAL_OWNER).create_conversation(vec![]).await.unwrap().id;
    let writers: Vec<_> = (0..16)
        .map(|writer| {
            let (store, conversation) = (store.clone(), conversation.clone());
            tokio::spawn(async move {
                for number in 0..25 {
                    let id = format!("w{writer}-{number}");
                    store.of(LOCAL_OWNER).save_message(message(&id, &conversation, &id)).await.unwrap();
                    assert!(contents(&store, &conversation, 400).await.contains(&id), "readers see what was saved");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let all = contents(&store, &conversation, 1_000).await;
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 400);
    for writer in 0..16 {
        let own: Vec<_> = all.iter().filter(|id| id.starts_with(&format!("w{writer}-"))).collect();
        assert_eq!(
            own,
            (0..25).map(|number| format!("w{writer}-{number}")).collect::<Vec<_>>().iter().collect::<Vec<_>>()
        );
    }
}
