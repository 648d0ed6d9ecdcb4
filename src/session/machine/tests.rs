mod barge_in;
mod company;
mod property;
mod settings;
mod stored;

use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::audio::{Mic, Samples, Speech};
use crate::provider::fake::marks;
use crate::provider::{ProviderError, Usage};
use crate::session::event::{Input, Request};
use crate::session::mouth::SentPiece;
use crate::session::record::{Conversation, MessageStatus, OpenConversation};
use crate::session::settings::{OutputKind, SettingsPatch, TurnTaking};

pub(super) fn character() -> Character {
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

pub(super) fn company() -> [Character; 3] {
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
    machine_with(players, window, "A talk", Vec::new())
}

/// In a conversation of this title that holds these messages.
pub(super) fn machine_with(
    players: &[Character],
    window: Option<usize>,
    title: &str,
    messages: Vec<Message>,
) -> Machine {
    let mut count = 0;
    let new_id = move || {
        count += 1;
        format!("m{count}")
    };
    let conversation = Conversation {
        id: "c1".to_owned(),
        title: title.to_owned(),
        character_ids: Vec::new(),
        private: false,
        settings: serde_json::json!({}),
        created_at: String::new(),
        updated_at: String::new(),
    };
    let scene =
        Scene { conversation_id: "c1".to_owned(), title: conversation.title.clone(), paced: true, ..Scene::default() };
    let history = History::of(&OpenConversation { conversation, characters: Vec::new(), messages }, window);
    let base = Base { languages: vec!["en".to_owned()], ..Base::default() };
    let players = players.iter().map(|character| base.player(character.clone())).collect();
    Machine::new(scene, players, base, history, Box::new(new_id))
}

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn text(text: &str) -> Event {
    Event::Heard(Heard::Asked(
        Input::Text {
            text: text.to_owned(),
            client_message_id: None,
            terms: SettingsPatch::default(),
            character_ids: Vec::new(),
        }
        .into(),
    ))
}

pub(super) fn asked(input: Input) -> Event {
    Event::Heard(Heard::Asked(input.into()))
}

pub(super) fn began(item_id: &str) -> Event {
    Event::Heard(Heard::Began { item_id: item_id.to_owned(), at: Samples(0) })
}

pub(super) fn said(item_id: &str, text: &str, ended: Instant) -> Event {
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
        spoken: ms(800),
        stt: ms(50),
        served_by: "ear".into(),
        audio: None,
    })))
}

pub(super) fn partial(item_id: &str, text: &str) -> Event {
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

pub(super) fn thought(turn: u64, thought: Thought) -> Event {
    Event::Thought { turn: Turn(turn), thought }
}

pub(super) fn wrote(turn: u64, sentence: u64, text: &str) -> Event {
    thought(turn, Thought::Text { sentence, text: text.to_owned() })
}

pub(super) fn whole(turn: u64, sentence: u64, text: &str) -> Event {
    thought(turn, Thought::Sentence { sentence, speakable: text.to_owned() })
}

pub(super) fn done(turn: u64) -> Event {
    thought(turn, Thought::Done { usage: Usage::default() })
}

pub(super) fn progress(turn: u64, progress: Progress) -> Event {
    Event::Progress { turn: Turn(turn), progress }
}

/// A whole sentence in one piece, played from `plays_at`.
pub(super) fn sent(turn: u64, sequence_number: u64, pts: Duration, text: &str, plays_at: Instant) -> Event {
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
            audio: None,
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
            Output::Titled { title, is_final } => format!("titled {title:?} {is_final}"),
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
        Effect::Recite { turn, voicing, sentences } => {
            let numbers: Vec<u64> = sentences.iter().map(|sentence| sentence.sequence_number).collect();
            format!("recite {} {numbers:?} from {}", turn.0, voicing.begins.as_millis())
        }
        Effect::Spoken { .. } => "spoken".to_owned(),
        Effect::End => "end".to_owned(),
        Effect::GiveFloor { turn } => format!("give_floor {}", turn.0),
        Effect::Stop => "stop".to_owned(),
        Effect::TakeBack => "take_back".to_owned(),
        Effect::WakeAt(_) => "wake_at".to_owned(),
        Effect::Cast { character_ids, .. } => format!("cast {character_ids:?}"),
        Effect::Prepare(_) => "prepare".to_owned(),
        Effect::Note { number, .. } => format!("note {number}"),
        Effect::StopNote => "stop_note".to_owned(),
        Effect::Forget { message_id } => format!("forget {message_id}"),
        Effect::Title { title, instead_of } => format!("title {title:?} {instead_of:?}"),
        Effect::Record { message_id, sound } => match &**sound {
            Recording::Said(audio) => format!("record {message_id} said {}", audio.duration().as_millis()),
            Recording::Heard(audio) => format!("record {message_id} heard {}", audio.duration().as_millis()),
        },
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
        "save m1 \"\" Pending None",
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
fn what_may_have_been_all_is_read_ahead_and_not_stored() {
    let mut machine = machine();
    let now = Instant::now();
    let paused = |item_id: &str, text: &str| {
        let Event::Heard(Heard::Partial(transcription)) = partial(item_id, text) else { panic!() };
        Event::Heard(Heard::Paused(transcription))
    };
    let prepared = |effects: Vec<Effect>| {
        let prepared = effects.into_iter().find_map(|effect| match effect {
            Effect::Prepare(request) => request.messages.last().cloned(),
            Effect::Save(_) | Effect::Think { .. } => panic!("{effect:?}"),
            _ => None,
        });
        prepared.map(|message| message.content)
    };
    machine.step(now, began("u1"));
    assert_eq!(prepared(machine.step(now, paused("u1", "I want"))).as_deref(), Some("I want"));
    machine.step(now, said("u1", "I want", now));
    // It was not all, which the next one says.
    machine.step(now, began("u2"));
    assert_eq!(prepared(machine.step(now, paused("u2", "a pizza."))).as_deref(), Some("I want a pizza."));
}

#[test]
fn what_is_read_ahead_in_company_is_what_is_asked_then() {
    let mut machine = machine_of(&company()[..2], None);
    let silently = SettingsPatch { output: Some(OutputKind::Text), ..SettingsPatch::default() };
    let now = Instant::now();
    run(&mut machine, now, vec![asked(Input::Settings(silently)), text("Olivia and Max, hello.")]);
    run(&mut machine, now, vec![wrote(1, 0, "Hi."), done(1), wrote(2, 0, "Hello."), done(2)]);
    let Event::Heard(Heard::Partial(pause)) = partial("u1", "Max, how are you?") else { panic!() };
    machine.step(now, began("u1"));
    let prepared = machine.step(now, Event::Heard(Heard::Paused(pause)));
    let prepared =
        prepared.into_iter().find_map(|it| if let Effect::Prepare(it) = it { Some(it.messages) } else { None });
    let begun = machine.step(now, said("u1", "Max, how are you?", now));
    let begun = begun
        .into_iter()
        .find_map(|it| if let Effect::Think { request, .. } = it { Some(request.messages) } else { None });
    assert_eq!(prepared.unwrap(), begun.unwrap());
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
    assert_eq!(told(&effects), ["error storage_full Some(\"m5\")"]);
    assert_eq!(run(&mut machine, now, vec![text("  ")]), ["error bad_field None"]);
}
