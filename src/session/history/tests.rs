use serde_json::Value;

use super::*;
use crate::session::record::{Conversation, MessageStatus};

fn entry(id: &str, role: Role, text: &str) -> Entry {
    Entry { id: id.to_owned(), role, speaker: None, text: text.to_owned(), client_message_id: None, is_stored: false }
}

fn told(history: &History, until: Option<&str>) -> Vec<(Role, String)> {
    history.messages("Be kind.".to_owned(), until, false, None).into_iter().map(|it| (it.role, it.content)).collect()
}

fn pair(role: Role, text: &str) -> (Role, String) {
    (role, text.to_owned())
}

#[test]
fn a_reply_is_told_as_far_as_it_was_heard() {
    let message = |id: &str, role, content: &str, heard_chars| Message {
        id: id.to_owned(),
        conversation_id: "c".to_owned(),
        role,
        character_id: None,
        character_name: None,
        content: content.to_owned(),
        status: MessageStatus::Completed,
        heard_chars,
        metadata: Value::Null,
        client_message_id: Some(format!("client-{id}")),
    };
    let history = History::of(
        &OpenConversation {
            conversation: Conversation {
                id: "c".to_owned(),
                title: String::new(),
                character_ids: Vec::new(),
                private: false,
                settings: serde_json::json!({}),
                created_at: String::new(),
                updated_at: String::new(),
            },
            characters: Vec::new(),
            messages: vec![
                message("1", Role::User, "Hello", None),
                message("2", Role::Assistant, "Grüß dich, mein Freund", Some(9)),
                message("3", Role::System, "not said by anybody", None),
                message("4", Role::User, "Go on", None),
            ],
        },
        None,
    );
    let expected = [
        pair(Role::System, "Be kind."),
        pair(Role::User, "Hello"),
        pair(Role::Assistant, "Grüß dich"),
        pair(Role::User, "Go on"),
    ];
    assert_eq!(told(&history, None), expected);
    assert_eq!(told(&history, Some("2")), expected[..2]);
    let known = history.by_client_message("client-4").unwrap();
    assert_eq!((known.id.as_str(), known.is_stored), ("4", true));
    assert!(history.reply("2").is_some() && history.reply("1").is_none());
}

#[test]
fn roles_alternate_and_the_user_begins() {
    let mut history = History::default();
    history.put(entry("0", Role::Assistant, "left over"));
    history.put(entry("1", Role::User, "I want"));
    history.put(entry("2", Role::Assistant, ""));
    history.put(entry("3", Role::User, "a pizza."));
    let expected = [pair(Role::System, "Be kind."), pair(Role::User, "I want a pizza.")];
    assert_eq!(told(&history, None), expected);
}

#[test]
fn an_entry_is_replaced_where_it_stands() {
    let mut history = History::default();
    for (id, role) in [("1", Role::User), ("2", Role::Assistant), ("3", Role::User)] {
        history.put(entry(id, role, id));
    }
    history.put(entry("2", Role::Assistant, "better"));
    assert_eq!(
        told(&history, None)[1..],
        [pair(Role::User, "1"), pair(Role::Assistant, "better"), pair(Role::User, "3")]
    );
}

#[test]
fn it_is_bounded_and_keeps_the_newest() {
    let mut history = History::default();
    for number in 0..3 * MESSAGES {
        let role = if number % 2 == 0 { Role::User } else { Role::Assistant };
        history.put(entry(&number.to_string(), role, &format!("message {number}")));
        assert!(history.entries.len() <= MESSAGES);
    }
    assert_eq!(told(&history, None).last().unwrap().1, format!("message {}", 3 * MESSAGES - 1));

    history.put(entry("long", Role::User, &"long ".repeat(MAX_BYTES)));
    let messages = told(&history, None);
    assert_eq!(messages.len(), 2, "a message beyond the bound is put alone");
    history.put(entry("after", Role::Assistant, "That was long."));
    history.put(entry("next", Role::User, "Sorry."));
    assert_eq!(told(&history, None)[1..], [pair(Role::User, "Sorry.")]);
}

#[test]
fn what_is_too_much_goes_in_steps() {
    for (text, bound) in [("short".to_owned(), MESSAGES), ("x".repeat(500), MAX_BYTES / 500)] {
        let mut history = History::default();
        let mut first = Vec::new();
        for number in 0..2000 {
            let role = if number % 2 == 0 { Role::User } else { Role::Assistant };
            history.put(entry(&number.to_string(), role, &text));
            if number > bound {
                first.push(history.entries[0].id.clone());
                assert!(history.entries.len() * 2 > bound, "{} of {bound} are left", history.entries.len());
            }
        }
        let requests = first.len();
        first.dedup();
        assert!(first.len() * 16 < requests, "{} different beginnings of {requests} requests", first.len());
    }
}
