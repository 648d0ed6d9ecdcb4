use super::*;
use crate::session::history::Entry;

fn history(texts: &[(Role, &str)]) -> History {
    let mut history = History::default();
    for (number, (role, text)) in texts.iter().enumerate() {
        history.put(Entry {
            id: format!("m{number}"),
            role: *role,
            speaker: None,
            text: (*text).to_owned(),
            client_message_id: None,
            is_stored: true,
        });
    }
    history
}

#[test]
fn a_conversation_is_called_by_what_was_said_first() {
    let said = history(&[(Role::Assistant, "Hi."), (Role::User, "How do I bake bread?"), (Role::User, "And cake?")]);
    assert_eq!(said.first_title().as_deref(), Some("How do I bake bread?"));
    assert_eq!(history(&[(Role::Assistant, "Hi.")]).first_title(), None);
    assert_eq!(history(&[(Role::User, " \n ")]).first_title(), None);
}

#[test]
fn a_model_is_told_the_first_exchange() {
    assert!(history(&[(Role::User, "How do I bake bread?")]).title_request().is_none());
    let long = "Knead. ".repeat(200);
    let request = history(&[(Role::User, "How do I bake bread?"), (Role::Assistant, &long)]).title_request().unwrap();
    let told = &request.messages[1].content;
    assert!(
        told.starts_with("User: How do I bake bread?\nAnswer: Knead. Knead.") && told.ends_with(QUESTION),
        "{told}"
    );
    assert!(told.len() < 600, "{told}");
    assert!(request.sampling.max_tokens <= 32);
}

#[test]
fn a_title_is_taken_out_of_what_a_model_writes() {
    for (written, title) in [
        ("Baking Bread", "Baking Bread"),
        ("\n**\"Baking Bread.\"**\nI hope you like it!", "Baking Bread"),
        ("Title: Baking bread at home", "Baking bread at home"),
        ("„Brot backen“", "Brot backen"),
        ("面包的做法", "面包的做法"),
        ("...", ""),
        ("", ""),
    ] {
        assert_eq!(clean_title(written), title, "{written:?}");
    }
    assert!(clean_title(&"word ".repeat(50)).chars().count() <= LONGEST);
}
