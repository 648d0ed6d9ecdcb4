use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::FutureExt;
use proptest::prelude::*;
use tokio::sync::mpsc;

use super::*;
use crate::audio::{Samples, Speech};
use crate::provider::fake::marks;
use crate::provider::{ProviderError, Usage};
use crate::session::event::{AudioPiece, Input, Request};
use crate::session::mouth::SentPiece;
use crate::session::outbox::{AUDIO_LANE, Outbox};
use crate::session::record::{Conversation, OpenConversation};
use crate::session::settings::{AudioFormat, OutputKind, SettingsPatch, TurnTaking};

fn character() -> Character {
    Character {
        id: "olivia-001".to_owned(),
        name: "Olivia".to_owned(),
        description: String::new(),
        system_prompt: "You are Olivia.".to_owned(),
        personality: String::new(),
        voice: Some("af_heart".to_owned()),
        languages: Vec::new(),
        parameters: Value::Null,
        model: None,
        talkativeness: 0.5,
        is_active: true,
    }
}

fn company() -> [Character; 3] {
    let named = |id: &str, name: &str| Character {
        id: id.to_owned(),
        name: name.to_owned(),
        system_prompt: format!("You are {name}."),
        ..character()
    };
    [character(), named("max-001", "Max"), named("zoe-001", "Zoe")]
}

fn machine() -> Machine {
    machine_for(None)
}

/// With a language model of this window.
pub(super) fn machine_for(window: Option<usize>) -> Machine {
    machine_of(&[character()], window)
}

pub(super) fn machine_of(players: &[Character], window: Option<usize>) -> Machine {
    let mut count = 0;
    let new_id = move || {
        count += 1;
        format!("m{count}")
    };
    let conversation = Conversation {
        id: "c1".to_owned(),
        title: String::new(),
        character_ids: Vec::new(),
        private: false,
        created_at: String::new(),
        updated_at: String::new(),
    };
    let history = History::of(&OpenConversation { conversation, characters: Vec::new(), messages: Vec::new() }, window);
    let players =
        players.iter().map(|character| Player { character: character.clone(), settings: Settings::default() });
    let base = Base { settings: Settings::default(), languages: vec!["en".to_owned()] };
    Machine::new("c1".to_owned(), Caller::default(), players.collect(), base, true, history, Box::new(new_id))
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn text(text: &str) -> Event {
    Event::Heard(Heard::Asked(
        Input::Text { text: text.to_owned(), client_message_id: None, output: None, character_ids: Vec::new() }.into(),
    ))
}

fn asked(input: Input) -> Event {
    Event::Heard(Heard::Asked(input.into()))
}

pub(super) fn began(item_id: &str) -> Event {
    Event::Heard(Heard::Began { item_id: item_id.to_owned(), at: Samples(0) })
}

fn said(item_id: &str, text: &str, ended: Instant) -> Event {
    Event::Heard(Heard::Final(Box::new(Utterance {
        transcription: Transcription {
            item_id: item_id.to_owned(),
            is_final: true,
            text: text.to_owned(),
            stable_chars: text.len(),
            at: Samples(16_000),
            language: Some("en".to_owned()),
            words: Vec::new(),
        },
        ended,
        endpoint: ms(320),
        stt: ms(50),
        served_by: "ear".into(),
    })))
}

fn partial(item_id: &str, text: &str) -> Event {
    Event::Heard(Heard::Partial(Transcription {
        item_id: item_id.to_owned(),
        is_final: false,
        text: text.to_owned(),
        stable_chars: 0,
        at: Samples(8000),
        language: None,
        words: Vec::new(),
    }))
}

pub(super) fn nothing(item_id: &str) -> Event {
    Event::Heard(Heard::Nothing { item_id: item_id.to_owned(), at: Samples(0) })
}

fn thought(turn: u64, thought: Thought) -> Event {
    Event::Thought { turn: Turn(turn), thought }
}

pub(super) fn wrote(turn: u64, sentence: u64, text: &str) -> Event {
    thought(turn, Thought::Text { sentence, text: text.to_owned() })
}

fn whole(turn: u64, sentence: u64, text: &str) -> Event {
    thought(turn, Thought::Sentence { sentence, speakable: text.to_owned() })
}

pub(super) fn done(turn: u64) -> Event {
    thought(turn, Thought::Done { usage: Usage::default() })
}

fn progress(turn: u64, progress: Progress) -> Event {
    Event::Progress { turn: Turn(turn), progress }
}

/// A whole sentence in one piece, played from `plays_at`.
fn sent(turn: u64, sequence_number: u64, pts: Duration, text: &str, plays_at: Instant) -> Event {
    let words = marks(text).into_iter().map(|mut word| {
        word.start += pts;
        word.end += pts;
        word
    });
    progress(
        turn,
        Progress::Sent(SentPiece {
            sequence_number,
            pts,
            length: ms(60 * text.len() as u64),
            plays_at,
            words: words.collect(),
            last: true,
            served_by: "voice".into(),
            first_audio: ms(90),
        }),
    )
}

/// A line for each effect.
pub(super) fn told(effects: &[Effect]) -> Vec<String> {
    effects.iter().filter(|effect| !matches!(effect, Effect::Prepare(_))).map(line).collect()
}

pub(super) fn line(effect: &Effect) -> String {
    match effect {
        Effect::Tell(told) => match &told.output {
            Output::Transcription(it) => format!("transcription {} {:?}", it.item_id, it.text),
            Output::SpeechStarted { .. } => "speech_started".to_owned(),
            Output::SpeechStopped { .. } => "speech_stopped".to_owned(),
            Output::MessageSaved { message_id, status, .. } => format!("message_saved {message_id} {status:?}"),
            Output::TextChunk { turn, item_id, sequence_number, text, .. } => {
                format!("text_chunk {} {item_id} {sequence_number} {text:?}", turn.0)
            }
            Output::TextDone { turn, text, .. } => format!("text_done {} {text:?}", turn.0),
            Output::SpeakerChanged { character_id } => format!("speaker_changed {character_id:?}"),
            Output::Interrupted { turn, item_id, heard_text, heard } => {
                format!("interrupted {} {item_id} {heard_text:?} {}", turn.0, heard.as_millis())
            }
            Output::TurnComplete(report) => format!("turn_complete {} {}", report.turn.0, report.item_id),
            Output::SettingsApplied(_) => "settings_applied".to_owned(),
            Output::Duck { item_id } => format!("duck {item_id}"),
            Output::Unduck { item_id } => format!("unduck {item_id}"),
            Output::Error(complaint) => format!("error {} {:?}", complaint.code, complaint.item_id),
            output => format!("{output:?}"),
        },
        Effect::Think { turn, request, voicing, waits, .. } => {
            let asked: Vec<_> = request.messages[1..].iter().map(|it| it.content.as_str()).collect();
            let how = match (voicing.is_some(), waits) {
                (true, false) => "aloud",
                (true, true) => "ahead",
                (false, _) => "silently",
            };
            format!("think {} {how} {asked:?}", turn.0)
        }
        Effect::Speak { sentence, .. } => {
            format!("speak {} {:?} {:?}", sentence.sequence_number, sentence.text, sentence.urgency)
        }
        Effect::Spoken { .. } => "spoken".to_owned(),
        Effect::End => "end".to_owned(),
        Effect::GiveFloor { turn } => format!("give_floor {}", turn.0),
        Effect::Stop => "stop".to_owned(),
        Effect::WakeAt(_) => "wake_at".to_owned(),
        Effect::Cast { character_ids, .. } => format!("cast {character_ids:?}"),
        Effect::Prepare(_) => "prepare".to_owned(),
        Effect::Summarize { number, .. } => format!("summarize {number}"),
        Effect::StopSummary => "stop_summary".to_owned(),
        Effect::Save(save) => {
            let Message { id, content, status, heard_chars, .. } = &save.message;
            format!("save {id} {content:?} {status:?} {heard_chars:?}")
        }
    }
}

pub(super) fn run(machine: &mut Machine, now: Instant, events: Vec<Event>) -> Vec<String> {
    events.into_iter().flat_map(|event| told(&machine.step(now, event))).collect()
}

#[test]
fn a_spoken_turn_from_onset_to_its_end() {
    let mut machine = machine();
    let now = Instant::now();
    let events = vec![
        began("u1"),
        Event::Heard(Heard::Stopped { at: Samples(16_000) }),
        said("u1", "Hello there.", now),
        thought(1, Thought::Began { served_by: "mind".into() }),
        wrote(1, 0, "Hi. "),
        whole(1, 0, "Hi."),
        wrote(1, 1, "How are you?"),
        whole(1, 1, "How are you?"),
        done(1),
        sent(1, 1, ms(0), "Hi.", now),
        sent(1, 2, ms(180), "How are you?", now + ms(180)),
        progress(1, Progress::Finished),
    ];
    let expected = [
        "speech_started",
        "speech_stopped",
        "save u1 \"Hello there.\" Completed None",
        "transcription u1 \"Hello there.\"",
        "speaker_changed Some(\"olivia-001\")",
        "think 1 aloud [\"Hello there.\"]",
        "text_chunk 1 m1 1 \"Hi. \"",
        "save m1 \"Hi. \" Processing None",
        "speak 1 \"Hi.\" First",
        "text_chunk 1 m1 2 \"How are you?\"",
        "speak 2 \"How are you?\" Later",
        "text_done 1 \"Hi. How are you?\"",
        "spoken",
        "save m1 \"Hi. How are you?\" Completed None",
        "end",
        "turn_complete 1 m1",
        "speaker_changed None",
    ];
    assert_eq!(run(&mut machine, now, events), expected);
}

#[test]
fn the_report_has_every_stage() {
    let mut machine = machine();
    let start = Instant::now();
    let at = |millis| start + ms(millis);
    machine.step(at(0), began("u1"));
    machine.step(at(1050), said("u1", "Hello.", at(1000)));
    machine.step(at(1250), thought(1, Thought::Began { served_by: "mind".into() }));
    machine.step(at(1251), wrote(1, 0, "Hi."));
    machine.step(at(1251), done(1));
    machine.step(at(1400), sent(1, 1, ms(0), "Hi.", at(1400)));
    let effects = machine.step(at(1600), progress(1, Progress::Finished));
    let report = effects.iter().find_map(|effect| match effect {
        Effect::Tell(Told { output: Output::TurnComplete(report), .. }) => Some(report),
        _ => None,
    });
    let report = report.unwrap();
    assert_eq!(report.timings.endpoint_ms, Some(320));
    assert_eq!(report.timings.stt_ms, Some(50));
    assert_eq!(report.timings.llm_first_token_ms, Some(201));
    assert_eq!(report.timings.tts_first_audio_ms, Some(90));
    assert_eq!(report.timings.total_ms, Some(320 + 400));
    let served_by = &report.served_by;
    assert_eq!(
        [&served_by.stt, &served_by.llm, &served_by.tts].map(|it| it.as_deref()),
        [Some("ear"), Some("mind"), Some("voice")]
    );
}

#[test]
fn barge_in_keeps_what_was_heard_and_nothing_else() {
    let mut machine = machine();
    let now = Instant::now();
    run(&mut machine, now, vec![text("Tell me"), wrote(1, 0, "One two three. "), wrote(1, 1, "Four five."), done(1)]);
    run(&mut machine, now, vec![sent(1, 1, ms(0), "One two three.", now)]);
    assert_eq!(run(&mut machine, now + ms(100), vec![began("u1")]), ["speech_started", "duck m2", "wake_at"]);
    let effects = run(&mut machine, now + ms(500), vec![partial("u1", "Sto")]);
    let expected = [
        "stop",
        "save m2 \"One two three. Four five.\" Completed Some(7)",
        "interrupted 1 m2 \"One two\" 500",
        "speaker_changed None",
        "transcription u1 \"Sto\"",
    ];
    assert_eq!(effects, expected);
    // The old turn has nothing more to say, and the new reply knows what was heard.
    let late =
        vec![wrote(1, 2, "Late."), sent(1, 2, ms(840), "Four five.", now), progress(1, Progress::Finished), done(1)];
    assert_eq!(run(&mut machine, now, late), [""; 0]);
    let effects = run(&mut machine, now, vec![said("u1", "Stop.", now)]);
    assert_eq!(effects.last().unwrap(), "think 3 aloud [\"Tell me\", \"One two\", \"Stop.\"]");
}

#[test]
fn the_clients_word_on_its_playback_counts_as_far_as_it_can() {
    for (input, heard) in [
        (Input::Interrupt { item_id: None, played_ms: Some(200) }, "interrupted 1 m2 \"One\" 200"),
        (Input::Interrupt { item_id: None, played_ms: None }, "interrupted 1 m2 \"One two\" 480"),
        (Input::Interrupt { item_id: None, played_ms: Some(99_999) }, "interrupted 1 m2 \"One two three.\" 840"),
    ] {
        let mut machine = machine();
        let now = Instant::now();
        let ack = |item: &str, played_ms| asked(Input::PlaybackAck { item_id: item.to_owned(), played_ms });
        run(
            &mut machine,
            now,
            vec![text("Tell me"), wrote(1, 0, "One two three."), sent(1, 1, ms(0), "One two three.", now)],
        );
        run(&mut machine, now, vec![ack("m2", 480), ack("m2", 100), ack("other", 800)]);
        let effects = run(&mut machine, now + ms(700), vec![asked(input)]);
        assert!(effects.contains(&heard.to_owned()), "{effects:?}");
    }
    let mut machine = machine();
    run(&mut machine, Instant::now(), vec![text("Tell me")]);
    let other = asked(Input::Interrupt { item_id: Some("other".to_owned()), played_ms: None });
    assert_eq!(run(&mut machine, Instant::now(), vec![other]), [""; 0]);
}

#[test]
fn who_speaks_on_is_answered_once_for_all() {
    let mut machine = machine();
    let now = Instant::now();
    run(&mut machine, now, vec![began("u1"), began("u2")]);
    let effects = run(&mut machine, now, vec![said("u1", "I want", now)]);
    assert!(!effects.iter().any(|it| it.starts_with("think")), "{effects:?}");
    let effects = run(&mut machine, now, vec![said("u2", "a pizza.", now)]);
    assert_eq!(effects.last().unwrap(), "think 1 aloud [\"I want a pizza.\"]");
}

#[test]
fn a_cough_before_the_first_sound_does_not_cost_the_reply() {
    let mut machine = machine();
    let now = Instant::now();
    run(&mut machine, now, vec![began("u1"), said("u1", "Hello.", now)]);
    let effects = run(&mut machine, now, vec![began("u2"), nothing("u2")]);
    assert_eq!(effects.last().unwrap(), "think 3 aloud [\"Hello.\"]");
    assert!(effects.contains(&"interrupted 1 m1 \"\" 0".to_owned()));
}

#[test]
fn a_reply_goes_on_where_nobody_meant_to_interrupt_it() {
    let mut machine = machine();
    let now = Instant::now();
    let reply = "The weather in Paris is mild today, with a little rain. ";
    run(&mut machine, now, vec![text("Weather?"), wrote(1, 0, reply), sent(1, 1, ms(0), reply, now)]);
    let at = now + ms(1500);
    // A cough, an agreement, the reply's own voice.
    let unducked = |id: &str| vec!["unduck m2".to_owned(), format!("transcription {id} \"\"")];
    for (id, last) in
        [("u1", nothing("u1")), ("u2", said("u2", "Mhm.", at)), ("u3", said("u3", "weather in Paris", at))]
    {
        assert_eq!(run(&mut machine, at, vec![began(id)]), ["speech_started", "duck m2", "wake_at"]);
        assert_eq!(run(&mut machine, at, vec![last]), unducked(id));
    }
    // Who says nothing for long is not waited for, but still listened to.
    run(&mut machine, at, vec![began("u4")]);
    assert!(run(&mut machine, at + ms(1999), vec![Event::Woken]).is_empty());
    assert_eq!(run(&mut machine, at + ms(2000), vec![Event::Woken]), ["unduck m2"]);
    let effects = run(&mut machine, at + ms(2100), vec![partial("u4", "Well, and London?")]);
    assert_eq!(effects[0], "stop");
    let effects = run(&mut machine, at + ms(2200), vec![said("u4", "Well, and London?", at)]);
    assert!(effects.last().unwrap().starts_with("think 3 aloud"), "{effects:?}");
}

#[test]
fn who_pushes_to_talk_interrupts_at_once() {
    let mut machine = machine();
    let now = Instant::now();
    let push = SettingsPatch { vad: Some(None), ..SettingsPatch::default() };
    run(&mut machine, now, vec![asked(Input::Settings(push)), text("Tell me"), wrote(1, 0, "One two.")]);
    run(&mut machine, now, vec![sent(1, 1, ms(0), "One two.", now)]);
    let effects = run(&mut machine, now + ms(300), vec![Event::Heard(Heard::Committed)]);
    assert_eq!(effects[0], "stop");
}

#[test]
fn nothing_said_is_nothing_stored() {
    let mut machine = machine();
    assert_eq!(
        run(&mut machine, Instant::now(), vec![began("u1"), nothing("u1")]),
        ["speech_started", "transcription u1 \"\""]
    );
}

#[test]
fn while_one_character_speaks_the_next_one_is_made_ready() {
    let mut machine = machine_of(&company()[..2], None);
    let now = Instant::now();
    let effects = run(&mut machine, now, vec![text("Max and Olivia, hello.")]);
    assert_eq!(effects[1], "speaker_changed Some(\"max-001\")");
    assert_eq!(
        [&effects[0], &effects[2]],
        ["save m1 \"Max and Olivia, hello.\" Completed None", "think 1 aloud [\"Max and Olivia, hello.\"]"]
    );
    let events = vec![wrote(1, 0, "I am Max."), whole(1, 0, "I am Max."), done(1)];
    assert_eq!(
        run(&mut machine, now, events)[3..],
        ["text_done 1 \"I am Max.\"", "spoken", "think 2 ahead [\"Max and Olivia, hello.\\nMax: I am Max.\"]"]
    );
    // Written and made ready, but not told.
    let events = vec![wrote(2, 0, "I am Olivia."), whole(2, 0, "I am Olivia."), done(2)];
    assert_eq!(run(&mut machine, now, events), ["speak 2 \"I am Olivia.\" First", "spoken"]);
    let events = vec![sent(1, 1, ms(0), "I am Max.", now), progress(1, Progress::Finished)];
    assert_eq!(
        run(&mut machine, now + ms(600), events),
        [
            "save m2 \"I am Max.\" Completed None",
            "end",
            "turn_complete 1 m2",
            "speaker_changed Some(\"olivia-001\")",
            "text_chunk 2 m3 2 \"I am Olivia.\"",
            "text_done 2 \"I am Olivia.\"",
            "save m3 \"I am Olivia.\" Processing None",
            "give_floor 2"
        ]
    );
    let events = vec![sent(2, 2, ms(0), "I am Olivia.", now + ms(600)), progress(2, Progress::Finished)];
    let effects = run(&mut machine, now + ms(2000), events);
    assert_eq!(effects[2..], ["turn_complete 2 m3", "speaker_changed None"]);
}

#[test]
fn who_leaves_says_no_more_and_who_joins_is_heard() {
    let mut machine = machine_of(&company()[..2], None);
    let now = Instant::now();
    let effects = run(&mut machine, now, vec![asked(Input::Characters { character_ids: vec!["x".to_owned()] })]);
    assert_eq!(effects, ["cast [\"x\"]"]);
    let unknown = Err(RecordError::NotFound { what: "character", id: "x".to_owned() });
    let effects = run(&mut machine, now, vec![Event::Cast { reference: None, outcome: unknown }]);
    assert_eq!(effects, ["error character_not_found None"]);
    run(&mut machine, now, vec![text("Max and Olivia, hello."), wrote(1, 0, "I am Max.")]);
    let [olivia, _, zoe] = company();
    let effects = run(&mut machine, now, vec![Event::Cast { reference: None, outcome: Ok(vec![zoe, olivia]) }]);
    assert_eq!(effects[0], "stop");
    // Olivia was called after Max, who has left.
    assert!(effects.contains(&"speaker_changed Some(\"olivia-001\")".to_owned()), "{effects:?}");
    let effects = run(&mut machine, now, vec![text("Max and Zoe, are you there?")]);
    assert!(effects.contains(&"speaker_changed Some(\"zoe-001\")".to_owned()), "{effects:?}");
}

#[test]
fn what_is_asked_while_characters_are_looked_up_comes_after_them() {
    let mut machine = machine_of(&company()[..1], None);
    let now = Instant::now();
    let ids = || vec!["max-001".to_owned()];
    let to_max = Input::Text { text: "Hi.".to_owned(), client_message_id: None, output: None, character_ids: ids() };
    let effects = run(&mut machine, now, vec![asked(Input::Characters { character_ids: ids() }), asked(to_max)]);
    assert_eq!(effects, ["cast [\"max-001\"]"]);
    let [olivia, max, _] = company();
    let effects = run(&mut machine, now, vec![Event::Cast { reference: None, outcome: Ok(vec![olivia, max]) }]);
    assert!(effects.contains(&"speaker_changed Some(\"max-001\")".to_owned()), "{effects:?}");
}

#[test]
fn an_interruption_takes_back_the_one_who_waits_without_a_trace() {
    let mut machine = machine_of(&company()[..2], None);
    let now = Instant::now();
    let events = vec![text("Max and Olivia, hello."), wrote(1, 0, "I am Max."), whole(1, 0, "I am Max."), done(1)];
    run(&mut machine, now, events);
    run(&mut machine, now, vec![sent(1, 1, ms(0), "I am Max.", now), wrote(2, 0, "I am Olivia.")]);
    let effects = run(&mut machine, now + ms(250), vec![asked(Input::Interrupt { item_id: None, played_ms: None })]);
    assert_eq!(
        effects,
        ["stop", "save m2 \"I am Max.\" Completed Some(4)", "interrupted 1 m2 \"I am\" 250", "speaker_changed None"]
    );
    assert!(run(&mut machine, now, vec![wrote(2, 0, " And more."), done(2)]).is_empty());
    let effects = run(&mut machine, now, vec![text("Go on, Max."), wrote(4, 0, "So")]);
    assert_eq!(effects[2], "think 4 aloud [\"Max and Olivia, hello.\", \"I am\", \"Go on, Max.\"]");
    assert_eq!(effects[3], "text_chunk 4 m5 2 \"So\"");
}

#[test]
fn a_message_sent_twice_is_stored_and_answered_once() {
    let mut machine = machine();
    let now = Instant::now();
    let again = || {
        let input = Input::Text {
            text: "Hello".to_owned(),
            client_message_id: Some("mine".to_owned()),
            output: Some(OutputKind::Text),
            character_ids: Vec::new(),
        };
        Event::Heard(Heard::Asked(Request { input, reference: Some("r".to_owned()) }))
    };
    let effects = machine.step(now, again());
    assert_eq!(told(&effects)[0], "save m1 \"Hello\" Completed None");
    assert_eq!(told(&effects)[2], "think 1 silently [\"Hello\"]");
    assert_eq!(told(&machine.step(now, again())), [""; 0]);
    let Effect::Save(save) = effects[0].clone() else { panic!() };
    let stored = machine.step(now, Event::Stored { save, outcome: Ok("m1".to_owned()) });
    assert_eq!(told(&stored), ["message_saved m1 Completed"]);
    let Effect::Tell(Told { reference, .. }) = &stored[0] else { panic!() };
    assert_eq!(reference.as_deref(), Some("r"));
    assert_eq!(told(&machine.step(now, again())), ["message_saved m1 Completed"]);
}

#[test]
fn a_reply_can_be_written_again() {
    let mut machine = machine();
    let now = Instant::now();
    let silently = SettingsPatch { output: Some(OutputKind::Text), ..SettingsPatch::default() };
    run(&mut machine, now, vec![asked(Input::Settings(silently.clone())), text("Hello"), wrote(1, 0, "Hi."), done(1)]);
    run(&mut machine, now, vec![text("And?"), wrote(2, 0, "So."), done(2)]);
    let again = |item_id: &str| asked(Input::Regenerate { item_id: item_id.to_owned(), settings: silently.clone() });
    assert_eq!(run(&mut machine, now, vec![again("m9")]), ["error item_not_found Some(\"m9\")"]);
    let effects = run(&mut machine, now, vec![again("m2"), wrote(3, 0, "Hey."), done(3)]);
    assert_eq!(effects[1], "think 3 silently [\"Hello\"]");
    assert!(effects.contains(&"turn_complete 3 m2".to_owned()));
    let effects = run(&mut machine, now, vec![text("Well?")]);
    assert_eq!(effects.last().unwrap(), "think 4 silently [\"Hello\", \"Hey.\", \"And?\", \"So.\", \"Well?\"]");
}

#[test]
fn failures_are_told_once_and_the_session_goes_on() {
    let mut machine = machine();
    let now = Instant::now();
    let failed = || ProviderError::Failed { what: "it".to_owned() };
    // The language model fails after a sentence: that one is still spoken.
    let events = vec![text("Hello"), wrote(1, 0, "Hi. "), whole(1, 0, "Hi."), thought(1, Thought::Failed(failed()))];
    let effects = run(&mut machine, now, events);
    assert_eq!(effects[effects.len() - 2..], ["error provider_failed Some(\"m2\")", "spoken"]);
    let effects = run(&mut machine, now, vec![sent(1, 1, ms(0), "Hi.", now), progress(1, Progress::Finished)]);
    assert_eq!(effects[0], "save m2 \"Hi. \" Failed None");
    assert_eq!(effects[2], "turn_complete 1 m2");
    // The voice fails twice.
    run(&mut machine, now, vec![text("Again"), wrote(2, 0, "Yes. "), wrote(2, 1, "No."), done(2)]);
    let broken = || progress(2, Progress::Failed(failed()));
    let effects = run(&mut machine, now, vec![broken(), broken(), progress(2, Progress::Finished)]);
    assert_eq!(effects.iter().filter(|it| it.starts_with("error")).count(), 1);
    assert_eq!(effects[1], "save m4 \"Yes. No.\" Completed None");
    // The recogniser fails.
    let failed = Heard::Failed { item_id: "u1".to_owned(), error: failed() };
    let effects = run(&mut machine, now, vec![began("u1"), Event::Heard(failed)]);
    assert_eq!(effects, ["speech_started", "error provider_failed Some(\"u1\")"]);
    // The disk is full.
    let Effect::Save(save) = machine.step(now, text("Keep this"))[0].clone() else { panic!() };
    let effects = machine.step(now, Event::Stored { save, outcome: Err(RecordError::Full) });
    assert_eq!(told(&effects), ["error internal Some(\"m5\")"]);
    assert_eq!(run(&mut machine, now, vec![text("  ")]), ["error bad_field None"]);
}

/// One of the things that can happen, as numbers.
#[derive(Clone, Copy, Debug)]
struct Happening {
    kind: u8,
    /// Which turn, utterance or item, from the newest.
    which: usize,
    number: u64,
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = (0_u8..26, prop_oneof![4 => Just(0_usize), 1 => 1_usize..4], 0_u64..1500);
    prop::collection::vec(one.prop_map(|(kind, which, number)| Happening { kind, which, number }), 1..80)
}

/// A reply, as its mind and mouth see it.
struct Played {
    turn: u64,
    /// The number of its first sentence.
    first: u64,
    /// So many of its sentences have text.
    sentences: u64,
    sent: Duration,
    /// It has, or had, the floor.
    is_begun: bool,
}

/// A session played with the machine and a real outbox, and what must hold.
struct World {
    machine: Machine,
    outbox: Outbox,
    control: mpsc::Sender<Told>,
    audio: mpsc::Sender<AudioPiece>,
    now: Instant,
    utterances: Vec<String>,
    replies: Vec<Played>,
    items: Vec<String>,
    #[expect(clippy::vec_box, reason = "they go back as they came")]
    saves: Vec<Box<Save>>,
    running: Option<Turn>,
    waiting: Option<Turn>,
    summary: Option<u64>,
    speaker: Option<String>,
    last_turn: Turn,
    sequence_number: u64,
    ends: BTreeMap<Turn, usize>,
    gone: BTreeSet<Turn>,
    /// What was last stored as heard of a reply that was cut short.
    heard: BTreeMap<String, Option<String>>,
}

impl World {
    fn new(cast: usize, turn_taking: TurnTaking) -> Self {
        let mut machine = machine_of(&company()[..cast], Some(64));
        machine.settings.turn_taking = turn_taking;
        machine.settings.summarize_history = true;
        let (control, control_lane) = mpsc::channel(512);
        let (audio, audio_lane) = mpsc::channel(AUDIO_LANE);
        Self {
            machine,
            outbox: Outbox::new(control_lane, audio_lane),
            control,
            audio,
            now: Instant::now(),
            utterances: Vec::new(),
            replies: Vec::new(),
            items: Vec::new(),
            saves: Vec::new(),
            running: None,
            waiting: None,
            summary: None,
            speaker: None,
            last_turn: Turn(0),
            sequence_number: 0,
            ends: BTreeMap::new(),
            gone: BTreeSet::new(),
            heard: BTreeMap::new(),
        }
    }

    fn event(&mut self, it: Happening) -> Option<Event> {
        let reply =
            self.replies.iter().rev().nth(it.which).map(|reply| (reply.turn, reply.sentences.saturating_sub(1)));
        let item = self.items.iter().rev().nth(it.which).cloned().unwrap_or_else(|| "unknown".to_owned());
        let utterance = (!self.utterances.is_empty()).then(|| it.number as usize % self.utterances.len());
        Some(match it.kind {
            0 | 1 => {
                let id = format!("u{}-{}", it.number, self.now.elapsed().as_nanos());
                self.utterances.push(id.clone());
                began(&id)
            }
            2 | 3 => {
                let text = ["Hello.", "Max and Zoe, hello.", "Mhm.", "one two"][it.which % 4];
                said(&self.utterances.remove(utterance?), text, self.now)
            }
            4 => nothing(&self.utterances.remove(utterance?)),
            5 => {
                let error = ProviderError::Failed { what: "ear".to_owned() };
                Event::Heard(Heard::Failed { item_id: self.utterances.remove(utterance?), error })
            }
            6 => Event::Heard(Heard::Committed),
            7 | 8 => {
                let client_message_id = (it.number.is_multiple_of(3)).then(|| format!("client-{}", it.number % 5));
                let output = (it.number.is_multiple_of(4)).then_some(OutputKind::Text);
                asked(Input::Text { text: "Hello".to_owned(), client_message_id, output, character_ids: Vec::new() })
            }
            9 => asked(Input::Interrupt { item_id: (it.which > 0).then_some(item), played_ms: Some(it.number) }),
            10 => asked(Input::PlaybackAck { item_id: item, played_ms: it.number }),
            11 => asked(Input::Regenerate { item_id: item, settings: SettingsPatch::default() }),
            12 if it.which == 2 => Event::Woken,
            12 if it.which == 3 => {
                let all = company().into_iter().cycle().skip(it.number as usize % 3);
                let outcome = Ok(all.take(1 + it.number as usize % 2).collect());
                Event::Cast { reference: None, outcome }
            }
            12 if it.which == 1 => asked(Input::NextSpeaker {
                character_id: ["olivia-001", "max-001", "nobody"][it.number as usize % 3].to_owned(),
            }),
            12 => asked(Input::Settings(SettingsPatch { lead_ms: Some(it.number), ..SettingsPatch::default() })),
            13..=15 => {
                let reply = self.replies.iter_mut().rev().nth(it.which)?;
                reply.sentences += u64::from(reply.sentences == 0 || it.number.is_multiple_of(3));
                let text = if it.number.is_multiple_of(5) { "Zoe, two " } else { "one two " };
                wrote(reply.turn, reply.sentences - 1, text)
            }
            16 => whole(reply?.0, reply?.1, "one two"),
            17 => done(reply?.0),
            18 => thought(reply?.0, Thought::Failed(ProviderError::Failed { what: "mind".to_owned() })),
            19..=21 => {
                let reply = self.replies.iter_mut().rev().nth(it.which).filter(|reply| reply.is_begun)?;
                let (turn, pts) = (reply.turn, reply.sent);
                let number = reply.first + reply.sentences.saturating_sub(1);
                reply.sent += ms(60 * 7);
                self.push_audio(Turn(turn));
                sent(turn, number, pts, "one two", self.now)
            }
            22 => progress(reply?.0, Progress::Finished),
            23 | 24 => {
                let number = self.summary?.saturating_sub(it.which as u64);
                self.summary = self.summary.filter(|summary| *summary != number);
                let failed = ProviderError::Failed { what: "mind".to_owned() };
                let outcome = if it.number.is_multiple_of(3) { Err(failed) } else { Ok("They talked.".to_owned()) };
                Event::Summarized { number, outcome }
            }
            _ => {
                if self.saves.is_empty() {
                    return None;
                }
                let save = self.saves.remove(0);
                let id = save.message.id.clone();
                let outcome = if it.number.is_multiple_of(7) { Err(RecordError::Failed) } else { Ok(id) };
                Event::Stored { save, outcome }
            }
        })
    }

    /// A mouth that does not know yet that its reply has ended still sends; one that has finished does not.
    fn push_audio(&mut self, turn: Turn) {
        let completed = self.ends.contains_key(&turn) && !self.gone.contains(&turn);
        if !completed {
            let _ = self.audio.try_send(AudioPiece {
                turn,
                character_id: "c".to_owned(),
                item_id: "i".to_owned(),
                sequence_number: 1,
                pts: Duration::ZERO,
                audio: Speech::silence(Samples::from_millis(20)),
                words: Vec::new(),
                format: AudioFormat::Pcm,
            });
        }
    }

    fn perform(&mut self, effects: Effects) {
        for effect in effects {
            match effect {
                Effect::Think { turn, request, waits, .. } => {
                    assert_eq!(self.running.is_some(), waits, "a reply began while another went on");
                    assert_eq!(self.waiting, None, "two replies wait");
                    assert_eq!(self.summary, None, "a reply began while a summary was written");
                    assert!(turn > self.last_turn, "a turn that does not grow");
                    self.last_turn = turn;
                    *(if waits { &mut self.waiting } else { &mut self.running }) = Some(turn);
                    let first = self.sequence_number + 1;
                    let is_begun = !waits;
                    self.replies.push(Played { turn: turn.0, first, sentences: 0, sent: Duration::ZERO, is_begun });
                    let roles: Vec<_> = request.messages.iter().map(|message| message.role).collect();
                    assert_eq!(roles[0], Role::System);
                    let expected = [Role::User, Role::Assistant].into_iter().cycle().take(roles.len() - 1);
                    assert_eq!(roles[1..], expected.collect::<Vec<_>>());
                }
                Effect::Stop => (self.running, self.waiting) = (None, None),
                Effect::End => assert!(self.running.take().is_some()),
                Effect::GiveFloor { turn } => {
                    assert_eq!((self.running, self.waiting.take()), (None, Some(turn)));
                    self.running = Some(turn);
                    self.replies.iter_mut().rfind(|reply| reply.turn == turn.0).unwrap().is_begun = true;
                }
                Effect::Summarize { number, request } => {
                    assert_eq!((self.running, self.summary), (None, None), "the model is not idle");
                    assert_eq!(request.messages.len(), 2);
                    self.summary = Some(number);
                }
                Effect::StopSummary => self.summary = None,
                Effect::WakeAt(_) | Effect::Cast { .. } => {}
                Effect::Prepare(request) => assert_eq!(request.messages[0].role, Role::System),
                Effect::Speak { turn, .. } | Effect::Spoken { turn } => {
                    assert!([self.running, self.waiting].contains(&Some(turn)));
                }
                Effect::Save(save) => {
                    if save.message.role == Role::Assistant && !self.items.contains(&save.message.id) {
                        self.items.push(save.message.id.clone());
                    }
                    if save.message.status != MessageStatus::Processing {
                        let heard =
                            save.message.heard_chars.map(|chars| save.message.content.chars().take(chars).collect());
                        self.heard.insert(save.message.id.clone(), heard);
                    }
                    self.saves.push(save);
                }
                Effect::Tell(told) => self.control.try_send(told).unwrap(),
            }
        }
        self.listen();
    }

    /// What the client sees of it.
    fn listen(&mut self) {
        while let Some(Some(told)) = self.outbox.recv().now_or_never() {
            if let Some(turn) = told.output.turn() {
                assert!(!self.ends.contains_key(&turn), "{:?} came after its end", told.output);
                assert!(self.ends.last_key_value().is_none_or(|(ended, _)| turn > *ended), "an old turn spoke");
            }
            match told.output {
                Output::TextChunk { sequence_number, .. } => {
                    let next = self.sequence_number..=self.sequence_number + 1;
                    assert!(next.contains(&sequence_number), "sentence numbers grow by one");
                    self.sequence_number = sequence_number;
                }
                Output::Interrupted { turn, item_id, heard_text, .. } => {
                    *self.ends.entry(turn).or_default() += 1;
                    self.gone.insert(turn);
                    if let Some(Some(heard)) = self.heard.get(&item_id).filter(|_| !heard_text.is_empty()) {
                        assert_eq!(*heard, heard_text, "what is told and what is stored as heard");
                    }
                }
                Output::TurnComplete(report) => *self.ends.entry(report.turn).or_default() += 1,
                Output::SpeakerChanged { character_id } => {
                    assert_ne!(character_id, self.speaker, "the floor went to who had it");
                    self.speaker = character_id;
                }
                _ => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: never two audible turns, every reply ends exactly once, nothing of a turn
    /// after its end, the floor is taken and given alternately, and nobody has it in the end.
    #[test]
    fn every_reply_ends_once_and_is_then_silent(
        happenings in happenings(),
        cast in 1_usize..4,
        turn_taking in prop_oneof![
            Just(TurnTaking::All), Just(TurnTaking::Natural), Just(TurnTaking::Mention), Just(TurnTaking::Manual)
        ],
    ) {
        let mut world = World::new(cast, turn_taking);
        for it in happenings {
            world.now += ms(it.number % 97);
            if let Some(event) = world.event(it) {
                let effects = world.machine.step(world.now, event);
                world.perform(effects);
            }
        }
        let effects = world.machine.leave(world.now);
        world.perform(effects);
        prop_assert_eq!(world.running, None);
        prop_assert_eq!(world.speaker, None);
        let begun = world.replies.iter().filter(|reply| reply.is_begun).map(|reply| (Turn(reply.turn), 1));
        let begun: Vec<_> = begun.collect();
        prop_assert_eq!(world.ends.into_iter().collect::<Vec<_>>(), begun);
    }
}

#[test]
fn a_personality_follows_the_characters_own_prompt() {
    let told = |character: &Character, settings: &Settings| system_prompt(character, settings, &[]);
    let text = Settings { output: OutputKind::Text, ..Settings::default() };
    let dry = Character { personality: " Dry, and kind.\n".to_owned(), ..character() };
    assert_eq!(told(&dry, &text), "You are Olivia.\n\nYour personality: Dry, and kind.");
    assert!(told(&dry, &Settings::default()).starts_with("You are Olivia.\n\nYour personality: Dry, and kind.\n\n"));
    let bare = Character { system_prompt: String::new(), ..dry.clone() };
    assert_eq!(told(&bare, &text), "Your personality: Dry, and kind.");
    // A prompt that a client set stands for all that the character is.
    let other = Settings { system_prompt: Some("You are a clerk.".to_owned()), ..text };
    assert_eq!(told(&dry, &other), "You are a clerk.");
}
