use std::time::Duration;

use super::Work;
use crate::audio::Samples;
use crate::provider::Role;
use crate::session::event::{Output, Transcription, Turn};
use crate::session::record::MessageStatus;

const STARTED: Output = Output::SpeechStarted { at: Samples(0) };
const STOPPED: Output = Output::SpeechStopped { at: Samples(0) };

fn heard(text: &str) -> Output {
    Output::Transcription(Transcription {
        item_id: "u".into(),
        is_final: true,
        text: text.into(),
        stable_chars: text.len(),
        at: Samples(0),
        language: None,
        words: Vec::new(),
    })
}

fn saved() -> Output {
    let (role, status) = (Role::User, MessageStatus::Completed);
    Output::MessageSaved { message_id: "u".into(), client_message_id: None, role, status }
}

fn floor(character_id: Option<&str>) -> Output {
    Output::SpeakerChanged { character_id: character_id.map(str::to_owned) }
}

fn written() -> Output {
    let (turn, character_id, item_id) = (Turn(1), "c".to_owned(), "i".to_owned());
    Output::TextChunk { turn, character_id, item_id, sequence_number: 1, text: "Yes.".into() }
}

fn ended() -> Output {
    Output::Interrupted { turn: Turn(1), item_id: "i".into(), heard_text: "Yes.".into(), heard: Duration::ZERO }
}

/// Whether it is under way after each of these.
fn after(outputs: &[Output]) -> Vec<bool> {
    let mut work = Work::default();
    let under_way = |output| {
        work.note(output);
        work.is_under_way()
    };
    outputs.iter().map(under_way).collect()
}

#[test]
fn what_nobody_answers_is_not_waited_for() {
    assert_eq!(after(&[saved()]), [false], "a text message, or the answer to one that came twice");
    assert_eq!(after(&[STARTED, STOPPED, heard("Hello."), saved()]), [false, true, true, false]);
    assert_eq!(after(&[STARTED, STOPPED, heard("")]), [false, true, false]);
}

#[test]
fn a_reply_is_waited_for_from_its_beginning_to_its_end() {
    let text = [floor(Some("c")), saved(), written(), ended(), floor(None)];
    assert_eq!(after(&text), [true, true, true, false, false]);
    let spoken = [STARTED, STOPPED, heard("Hello."), floor(Some("c")), saved(), written(), ended(), saved()];
    assert_eq!(after(&spoken), [false, true, true, true, true, true, false, false]);
}

#[test]
fn what_is_answered_when_the_user_has_finished_is_waited_for() {
    let both = [STARTED, STOPPED, STARTED, heard("I want"), saved(), STOPPED, heard(""), floor(Some("c"))];
    assert_eq!(after(&both), [false, true, true, true, true, true, true, true]);
}
