//! Replies that were cut off.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::super::tests::{asked, character, machine_with, ms, progress, run, sent, told};
use super::super::*;
use crate::session::event::Input;
use crate::session::record::MessageStatus;
use crate::session::resumption::Unfinished;

const FIRST: &str = "One two three. ";
const SECOND: &str = "Four five six.";

fn unfinished(heard: Option<(u64, Duration)>, is_written: bool) -> Unfinished {
    Unfinished {
        item_id: "cut".to_owned(),
        character_id: "olivia-001".to_owned(),
        sentences: vec![(4, FIRST.to_owned()), (5, SECOND.to_owned())],
        is_written,
        heard,
    }
}

fn message(id: &str, content: &str, heard_chars: Option<usize>) -> Message {
    Message {
        id: id.to_owned(),
        conversation_id: "c1".to_owned(),
        role: Role::Assistant,
        character_id: Some("olivia-001".to_owned()),
        character_name: Some("Olivia".to_owned()),
        content: content.to_owned(),
        status: MessageStatus::Completed,
        heard_chars,
        metadata: Value::Null,
        client_message_id: None,
    }
}

/// A session that goes on after turn 7 and sentence 5.
fn machine(after: &[&str]) -> Machine {
    let mut messages = vec![message("cut", "One two three. Four five six.", Some(14))];
    messages.extend(after.iter().map(|id| message(id, "Later.", None)));
    let mut machine = machine_with(&[character()], None, "A talk", messages);
    machine.count_on(Turn(7), 5);
    machine
}

#[test]
fn what_was_not_heard_is_spoken_and_the_reply_ends_as_every_other() {
    let (mut machine, now) = (machine(&[]), Instant::now());
    let effects = machine.recite(now, unfinished(Some((4, ms(840))), true));
    assert_eq!(told(&effects), ["recite 7 [5] from 840"]);
    let plays_at = now + ms(100);
    let rest =
        run(&mut machine, plays_at, vec![sent(7, 5, ms(840), SECOND, plays_at), progress(7, Progress::Finished)]);
    let whole = "save cut \"One two three. Four five six.\" Completed None";
    assert_eq!(rest[..3], [whole, "end", "turn_complete 7 cut"], "{rest:?}");
    let next = run(&mut machine, plays_at, vec![super::super::tests::text("And now?")]);
    assert!(next.iter().any(|line| line.starts_with("think 8 aloud")), "{next:?}");
}

#[test]
fn an_interruption_keeps_what_was_heard_before_and_after() {
    let (mut machine, now) = (machine(&[]), Instant::now());
    machine.recite(now, unfinished(Some((4, ms(840))), true));
    let stop = |played_ms| asked(Input::Interrupt { item_id: None, played_ms });
    let lines = run(&mut machine, now, vec![sent(7, 5, ms(840), SECOND, now), stop(Some(840 + 240))]);
    assert!(lines.contains(&"interrupted 7 cut \"One two three. Four\" 1080".to_owned()), "{lines:?}");
    let mut machine = self::machine(&[]);
    machine.recite(now, unfinished(Some((4, ms(840))), true));
    let lines = run(&mut machine, now, vec![stop(None)]);
    assert!(lines.contains(&"interrupted 7 cut \"One two three.\" 840".to_owned()), "{lines:?}");
}

#[test]
fn what_was_heard_to_its_end_only_ends() {
    let (mut machine, now) = (machine(&[]), Instant::now());
    let lines = told(&machine.recite(now, unfinished(Some((5, ms(1_680))), false)));
    assert_eq!(lines[0], "text_done 7 \"One two three. Four five six.\"");
    assert!(lines.contains(&"turn_complete 7 cut".to_owned()), "{lines:?}");
}

#[test]
fn what_was_answered_meanwhile_stays_as_it_is() {
    let (mut machine, now) = (machine(&["later"]), Instant::now());
    let lines = told(&machine.recite(now, unfinished(Some((4, ms(840))), true)));
    assert_eq!(lines, ["interrupted 7 cut \"One two three.\" 840", "speaker_changed None"]);
    let mut machine = self::machine(&[]);
    let left = Unfinished { character_id: "gone-001".to_owned(), ..unfinished(None, true) };
    assert_eq!(told(&machine.recite(now, left))[0], "interrupted 7 cut \"One two three.\" 0");
}

#[test]
fn what_was_being_written_again_stands_as_it_was_unless_all_of_it_was_written() {
    let again = || Unfinished {
        sentences: vec![(4, "Seven eight. ".to_owned()), (5, "Nine.".to_owned())],
        ..unfinished(None, false)
    };
    let (mut machine, now) = (machine(&[]), Instant::now());
    let lines = told(&machine.recite(now, again()));
    assert_eq!(lines, ["interrupted 7 cut \"One two three.\" 0", "speaker_changed None"]);
    let mut machine = self::machine(&[]);
    let lines = told(&machine.recite(now, Unfinished { is_written: true, ..again() }));
    assert_eq!(lines, ["recite 7 [4, 5] from 0"]);
    // Nothing of it was heard: what was before stands.
    let lines = run(&mut machine, now, vec![asked(Input::Interrupt { item_id: None, played_ms: None })]);
    assert!(lines.contains(&"interrupted 7 cut \"One two three.\" 0".to_owned()), "{lines:?}");
    assert!(!lines.iter().any(|line| line.starts_with("save")), "{lines:?}");
}
