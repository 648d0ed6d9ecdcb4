use super::*;
use crate::session::history::History;

/// A conversation of `turns`, for a model that reads `window` tokens.
fn conversation(turns: usize, window: usize) -> History {
    let mut history = History { window: Some(window), ..History::default() };
    for turn in 0..turns {
        talk(&mut history, turn);
    }
    history
}

fn talk(history: &mut History, turn: usize) {
    put(history, &format!("u{turn}"), Role::User, &format!("This is what I say in turn {turn}. What do you think?"));
    put(history, &format!("a{turn}"), Role::Assistant, &format!("I think that turn {turn} is a good turn."));
}

fn put(history: &mut History, id: &str, role: Role, text: &str) {
    history.put(Entry {
        id: id.to_owned(),
        role,
        speaker: None,
        text: text.to_owned(),
        client_message_id: None,
        is_stored: true,
    });
}

fn told(history: &History, until: Option<&str>, is_summarized: bool) -> Vec<ChatMessage> {
    history.messages("Be kind.".to_owned(), until, is_summarized, None)
}

#[test]
fn a_short_conversation_is_told_word_by_word() {
    assert!(conversation(0, 2048).fold(100, "Olivia", 0).is_none());
    assert!(conversation(10, 2048).fold(100, "Olivia", 0).is_none());
}

#[test]
fn the_oldest_messages_become_a_summary() {
    let mut history = conversation(50, 2048);
    let fold = history.fold(100, "Olivia", 0).unwrap();
    assert_eq!(fold.request.messages[0], ChatMessage::new(Role::System, INSTRUCTION));
    let told_of = &fold.request.messages[1].content;
    assert!(
        told_of.starts_with("What was said then:\nUser: This is what I say in turn 0. What do you think?\nOlivia: ")
    );
    assert!(told_of.ends_with(QUESTION));
    assert_eq!((fold.request.messages.len(), fold.request.sampling.max_tokens), (2, SUMMARY_TOKENS));
    let turn: usize = fold.until.strip_prefix('u').expect("a user's message").parse().unwrap();
    assert!(told_of.contains(&format!("turn {}.", turn - 1)) && !told_of.contains(&format!("turn {turn}.")));

    history.take_summary(&fold.until, "They talked about turns.");
    let messages = told(&history, None, true);
    assert_eq!(messages[0].content, "Be kind.\n\nEarlier in this conversation: They talked about turns.");
    assert_eq!(messages[1].content, format!("This is what I say in turn {turn}. What do you think?"));
    assert_eq!(messages.len(), 1 + 2 * (50 - turn));
    // Whoever asks for no summary gets everything, and so does a reply that is written again.
    assert_eq!(told(&history, None, false).len(), 101);
    let again = told(&history, Some("a3"), true);
    assert_eq!((again.len(), again[0].content.as_str()), (8, "Be kind."));
    // Without a prompt the summary is it.
    let alone = history.messages(String::new(), None, true, None);
    assert_eq!(alone[0], ChatMessage::new(Role::System, "Earlier in this conversation: They talked about turns."));
    for turn in 50..80 {
        talk(&mut history, turn);
    }
    let next = history.fold(100, "Olivia", 0).unwrap();
    let told_of = &next.request.messages[1].content;
    assert!(
        told_of.starts_with("Summary so far:\nThey talked about turns.\n\nWhat was said then:\nUser: "),
        "{told_of}"
    );
}

#[test]
fn requests_begin_alike_between_folds_and_fit_the_window() {
    let mut history = conversation(0, 2048);
    let mut folds = 0;
    let mut beginnings = Vec::new();
    for turn in 0..400 {
        talk(&mut history, turn);
        while let Some(fold) = history.fold("Be kind.".len(), "Olivia", 0) {
            folds += 1;
            history.take_summary(&fold.until, &format!("Summary {folds}. {}", "It was said. ".repeat(30)));
        }
        let messages = told(&history, None, true);
        assert!(messages.len() > LAST_MESSAGES.min(2 * turn + 1), "turn {turn}");
        let bytes: usize = messages.iter().map(|message| message.content.len() + BYTES_PER_MESSAGE).sum();
        assert!(bytes <= 1536 * BYTES_PER_TOKEN + 100, "{bytes} bytes in turn {turn}");
        beginnings.push(messages[..2].to_vec());
    }
    beginnings.dedup();
    assert_eq!(beginnings.len(), folds + 1);
    assert!((10..50).contains(&folds), "{folds} folds in 400 turns");
}

#[test]
fn a_long_past_is_caught_up_with_in_requests_that_fit() {
    let mut history = conversation(MESSAGES / 2, 2048);
    let mut next = 0;
    while let Some(fold) = history.fold(100, "Olivia", 0) {
        let told_of = &fold.request.messages[1].content;
        assert!(told_of.len() <= 2048 * BYTES_PER_TOKEN, "{}", told_of.len());
        let until: usize = fold.until.strip_prefix('u').unwrap().parse().unwrap();
        for turn in next..until {
            assert!(told_of.contains(&format!("in turn {turn}.")), "turn {turn} was told to nobody");
        }
        assert!(until > next, "it goes on");
        next = until;
        history.take_summary(&fold.until, "They talked.");
    }
    assert!(next > MESSAGES / 4);
}

#[test]
fn after_a_failure_less_is_tried() {
    let history = conversation(100, 2048);
    let length = |failures| history.fold(100, "Olivia", failures).unwrap().request.messages[1].content.len();
    assert!(length(1) < length(0) * 2 / 3 && length(2) < length(1) * 2 / 3);
    assert_eq!(length(99), length(MOST_HALVINGS));
}

#[test]
fn the_last_turns_stay_however_long_they_are() {
    let mut history = conversation(3, 256);
    for turn in 0..2 {
        put(&mut history, &format!("long{turn}"), Role::User, &"Straße ".repeat(1000));
        put(&mut history, &format!("reply{turn}"), Role::Assistant, "I see.");
    }
    let fold = history.fold(100, "Olivia", 0).unwrap();
    assert!(fold.until.starts_with('u') || fold.until == "long0", "{}", fold.until);
    history.take_summary("long0", &"é".repeat(MAX_SUMMARY));
    assert_eq!(history.summary.len(), MAX_SUMMARY);
    assert!(history.fold(100, "Olivia", 0).is_none());
    // A turn that is longer than all the room is told as far as there is some.
    talk(&mut history, 9);
    let fold = history.fold(100, "Olivia", 0).unwrap();
    assert_eq!(fold.until, "long1");
    assert!(fold.request.messages[1].content.len() < MAX_SUMMARY + 2048);
}

#[test]
fn dropped_messages_stay_in_the_summary() {
    let mut history = conversation(MESSAGES / 2, 2048);
    history.take_summary("u200", "They talked.");
    for turn in MESSAGES / 2..MESSAGES / 2 + 20 {
        talk(&mut history, turn);
    }
    assert!(history.entries.len() <= MESSAGES);
    let messages = told(&history, None, true);
    assert!(messages[0].content.ends_with("They talked."));
    assert!(messages[1].content.contains("in turn 200."));
}
