use tokio::time::Instant;

use super::super::tests::{
    asked, began, character, done, line, machine_for, machine_of, machine_with, nothing, run, text, told, wrote,
};
use super::super::{Effects, Event, Machine};
use super::*;
use crate::provider::ChatRequest;
use crate::session::event::Input;
use crate::session::machine::Heard;
use crate::session::settings::{OutputKind, SettingsPatch};

/// A session that writes its replies, with a model of a small window.
fn session(summarize_history: Option<bool>) -> Machine {
    let mut machine = machine_for(Some(256));
    let patch = SettingsPatch { summarize_history, output: Some(OutputKind::Text), ..SettingsPatch::default() };
    machine.step(Instant::now(), Event::Heard(Heard::Asked(Input::Settings(patch).into())));
    machine
}

/// One turn, the session's `turn`th.
fn talk(machine: &mut Machine, turn: u64) -> Effects {
    let said = format!("This is what I say in turn {turn}. What do you think of it?");
    let events = [text(&said), wrote(turn, 0, "I think that it is good, and well said."), done(turn)];
    events.into_iter().flat_map(|event| machine.step(Instant::now(), event)).collect()
}

/// Talks until a summary is asked for. Answers the number of turns, and the request.
fn talk_until_asked(machine: &mut Machine, from: u64) -> (u64, ChatRequest) {
    for turn in from..from + 50 {
        for effect in talk(machine, turn) {
            if let Effect::Note { request, .. } = effect {
                return (turn, *request);
            }
        }
    }
    panic!("no summary was asked for in 50 turns");
}

fn answer(machine: &mut Machine, number: u64, outcome: Result<&str, ProviderError>) -> Effects {
    let outcome = outcome.map(str::to_owned);
    machine.step(Instant::now(), Event::Noted { number, outcome })
}

fn failed() -> ProviderError {
    ProviderError::Failed { what: "the language model".to_owned() }
}

#[test]
fn no_summary_is_asked_for_by_default() {
    let mut machine = session(None);
    for turn in 1..100 {
        let effects = talk(&mut machine, turn);
        assert!(!effects.iter().any(|it| matches!(it, Effect::Note { .. } | Effect::StopNote)), "{effects:?}");
    }
}

#[test]
fn the_next_reply_knows_the_summary() {
    let mut machine = session(Some(true));
    let (turn, request) = talk_until_asked(&mut machine, 1);
    assert!(turn > 2 && request.messages[1].content.contains("in turn 1."));
    let effects = answer(&mut machine, 1, Ok("They talked about turns."));
    let [Effect::Prepare(prepared)] = &effects[..] else { panic!("{effects:?}") };
    let system = &prepared.messages[0].content;
    assert_eq!(system, "You are Olivia.\n\nEarlier in this conversation: They talked about turns.");
    let effects = talk(&mut machine, turn + 1);
    let asked = effects.iter().find_map(|it| if let Effect::Think { request, .. } = it { Some(request) } else { None });
    let messages = &asked.unwrap().messages;
    assert_eq!(messages[0].content, *system);
    assert!(!messages[1..].iter().any(|message| message.content.contains("in turn 1.")), "{messages:?}");
    assert!(messages.last().unwrap().content.contains(&format!("in turn {}.", turn + 1)));
    assert_eq!(messages[..prepared.messages.len()], prepared.messages[..], "what was prepared is asked");
    // The next one does not come with the next turn, and is told of this one.
    let (next, request) = talk_until_asked(&mut machine, turn + 2);
    assert!(next > turn + 1, "{next} follows {turn}");
    assert!(request.messages[1].content.contains("They talked about turns."));
}

#[test]
fn whatever_begins_stops_it() {
    let mut machine = session(Some(true));
    let (turn, _) = talk_until_asked(&mut machine, 1);
    let effects = run(&mut machine, Instant::now(), vec![text("Wait.")]);
    assert_eq!(effects[0], "stop_note");
    assert!(effects.iter().any(|it| it.starts_with("think")));
    // One that was on its way changes nothing.
    assert_eq!(told(&answer(&mut machine, 1, Ok("Too late."))), [""; 0]);
    let effects = run(&mut machine, Instant::now(), vec![wrote(turn + 1, 0, "Yes?"), done(turn + 1)]);
    assert_eq!(effects.last().unwrap(), "note 2");
    // Nor while somebody speaks.
    let effects = run(&mut machine, Instant::now(), vec![began("u1")]);
    assert_eq!(effects, ["stop_note", "speech_started"]);
    let effects = run(&mut machine, Instant::now(), vec![nothing("u1")]);
    assert_eq!(effects.last().unwrap(), "note 3");
    let off = SettingsPatch { summarize_history: Some(false), ..SettingsPatch::default() };
    let off = Event::Heard(Heard::Asked(Input::Settings(off).into()));
    assert_eq!(run(&mut machine, Instant::now(), vec![off]), ["stop_note", "settings_applied"]);
}

#[test]
fn a_failure_changes_nothing_and_is_not_repeated_at_once() {
    let mut machine = session(Some(true));
    let (turn, first) = talk_until_asked(&mut machine, 1);
    assert_eq!(told(&answer(&mut machine, 1, Err(failed()))), [""; 0]);
    // A cough is no turn.
    let effects = run(&mut machine, Instant::now(), vec![began("u1"), nothing("u1")]);
    assert_eq!(effects, ["speech_started", "transcription u1 \"\""]);
    let effects = talk(&mut machine, turn + 1);
    let Some(Effect::Note { number: 2, request }) = effects.last() else {
        panic!("{:?}", effects.iter().map(line).collect::<Vec<_>>())
    };
    assert!(request.messages[1].content.contains("in turn 1."));
    assert!(request.messages[1].content.len() <= first.messages[1].content.len());
}

/// A session in a conversation without a title.
fn untitled() -> Machine {
    let mut machine = machine_with(&[character()], None, "", Vec::new());
    let patch = SettingsPatch { output: Some(OutputKind::Text), ..SettingsPatch::default() };
    machine.step(Instant::now(), Event::Heard(Heard::Asked(Input::Settings(patch).into())));
    machine
}

fn titled(machine: &mut Machine, title: &str, instead_of: &str, outcome: Result<bool, RecordError>) -> Vec<String> {
    let event = Event::Titled { title: title.to_owned(), instead_of: instead_of.to_owned(), outcome };
    told(&machine.step(Instant::now(), event))
}

const FIRST: &str = "This is what I say in turn 1.";
const FIRST_TITLE: &str = "This is what I say in turn 1";

#[test]
fn a_conversation_is_called_by_what_was_said_first_and_then_by_the_model() {
    let mut machine = untitled();
    let effects = told(&talk(&mut machine, 1));
    assert!(FIRST.starts_with(FIRST_TITLE));
    assert!(effects.contains(&format!("title {FIRST_TITLE:?} \"\"")), "{effects:?}");
    assert!(!effects.iter().any(|it| it.starts_with("note")), "it is not stored yet: {effects:?}");
    let effects = titled(&mut machine, FIRST_TITLE, "", Ok(true));
    assert_eq!(effects, [format!("titled {FIRST_TITLE:?} false"), "note 1".to_owned()]);
    // Whatever begins stops it.
    let effects = run(&mut machine, Instant::now(), vec![text("Wait.")]);
    assert_eq!(effects[0], "stop_note");
    let effects = run(&mut machine, Instant::now(), vec![wrote(2, 0, "Yes?"), done(2)]);
    assert_eq!(effects.last().unwrap(), "note 2");
    let effects = told(&answer(&mut machine, 2, Ok("\"Talking in Turns.\"")));
    assert_eq!(effects, [format!("title \"Talking in Turns\" {FIRST_TITLE:?}")]);
    let effects = titled(&mut machine, "Talking in Turns", FIRST_TITLE, Ok(true));
    assert_eq!(effects, ["titled \"Talking in Turns\" true"]);
    let effects = told(&talk(&mut machine, 3));
    assert!(!effects.iter().any(|it| it.starts_with("note") || it.starts_with("title")), "once: {effects:?}");
}

#[test]
fn a_session_that_is_about_to_end_asks_for_no_more() {
    let now = Instant::now();
    let stopped_by = |input: Input| {
        let mut machine = untitled();
        talk(&mut machine, 1);
        titled(&mut machine, FIRST_TITLE, "", Ok(true));
        run(&mut machine, now, vec![text("Wait."), wrote(2, 0, "Yes?")]);
        (run(&mut machine, now, vec![asked(input)]), machine)
    };
    let (mut interrupted, _) = stopped_by(Input::Interrupt { item_id: None, played_ms: None });
    assert_eq!(interrupted.pop().unwrap(), "note 2", "nobody speaks");
    let (closed, mut machine) = stopped_by(Input::Close);
    assert_eq!(closed, interrupted, "the reply ends in the same way");
    let cough = run(&mut machine, now, vec![began("u1"), nothing("u1")]);
    assert_eq!(cough, ["speech_started", "transcription u1 \"\""]);
    // One that is under way is not waited for either.
    let mut machine = untitled();
    talk(&mut machine, 1);
    titled(&mut machine, FIRST_TITLE, "", Ok(true));
    assert_eq!(run(&mut machine, now, vec![asked(Input::Close)]), ["stop_note"]);
}

#[test]
fn a_title_that_somebody_gave_stays() {
    // Before the first exchange has ended.
    let mut machine = untitled();
    talk(&mut machine, 1);
    assert_eq!(titled(&mut machine, FIRST_TITLE, "", Ok(false)), [""; 0]);
    assert!(!told(&talk(&mut machine, 2)).iter().any(|it| it.starts_with("note") || it.starts_with("title")));
    // While the model wrote.
    let mut machine = untitled();
    talk(&mut machine, 1);
    titled(&mut machine, FIRST_TITLE, "", Ok(true));
    answer(&mut machine, 1, Ok("Turns"));
    assert_eq!(titled(&mut machine, "Turns", FIRST_TITLE, Ok(false)), [""; 0]);
    // Before the session.
    let mut machine = machine_of(&[character()], None);
    assert!(!told(&talk(&mut machine, 1)).iter().any(|it| it.starts_with("title")));
}

#[test]
fn without_a_title_of_the_models_the_first_one_stays() {
    for outcome in [Err(failed()), Ok(""), Ok("?!"), Ok(FIRST)] {
        let mut machine = untitled();
        talk(&mut machine, 1);
        titled(&mut machine, FIRST_TITLE, "", Ok(true));
        assert_eq!(told(&answer(&mut machine, 1, outcome)), [""; 0]);
        assert!(!told(&talk(&mut machine, 2)).iter().any(|it| it.starts_with("note")));
    }
    // Records that failed are asked again after the next turn.
    let mut machine = untitled();
    talk(&mut machine, 1);
    titled(&mut machine, FIRST_TITLE, "", Err(RecordError::Failed));
    assert!(told(&talk(&mut machine, 2)).contains(&format!("title {FIRST_TITLE:?} \"\"")));
}
