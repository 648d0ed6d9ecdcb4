mod company;
mod stored;

use std::time::Duration;

use super::*;
use crate::audio::{Mic, Samples, Speech};
use crate::provider::fake::marks;
use crate::provider::{ProviderError, Usage};
use crate::session::event::{Input, Request, Terms};
use crate::session::mouth::SentPiece;
use crate::session::record::{Conversation, OpenConversation};
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
    let players =
        players.iter().map(|character| Player { character: character.clone(), settings: Settings::default() });
    let base = Base { settings: Settings::default(), languages: vec!["en".to_owned()] };
    Machine::new(scene, players.collect(), base, history, Box::new(new_id))
}

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn text(text: &str) -> Event {
    Event::Heard(Heard::Asked(
        Input::Text {
            text: text.to_owned(),
            client_message_id: None,
            terms: Terms::default(),
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
        // It has played on since it said so, but not for so long.
        (Input::Interrupt { item_id: None, played_ms: None }, "interrupted 1 m2 \"One two\" 700"),
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
        let late = vec![ack("m2", 480), ack("m2", 100), ack("other", 800), ack("m2", 5000)];
        run(&mut machine, now + ms(480), late);
        let effects = run(&mut machine, now + ms(700), vec![asked(input)]);
        assert!(effects.contains(&heard.to_owned()), "{effects:?}");
    }
    // Its playback stands still: it says so, or says no more.
    for (acks, heard) in
        [(vec![100, 600], "interrupted 1 m2 \"One\" 210"), (vec![100], "interrupted 1 m2 \"One two\" 600")]
    {
        let mut machine = machine();
        let now = Instant::now();
        let sentence = "One two three four five.";
        run(&mut machine, now, vec![text("Tell me"), wrote(1, 0, sentence), sent(1, 1, ms(0), sentence, now)]);
        for at in acks {
            let ack = Input::PlaybackAck { item_id: "m2".to_owned(), played_ms: 100 };
            run(&mut machine, now + ms(at), vec![asked(ack)]);
        }
        let at = if heard.ends_with("210") { 710 } else { 1300 };
        let effects = run(&mut machine, now + ms(at), vec![asked(Input::Interrupt { item_id: None, played_ms: None })]);
        assert!(effects.contains(&heard.to_owned()), "{effects:?}");
    }
    let mut machine = machine();
    run(&mut machine, Instant::now(), vec![text("Tell me")]);
    let other = asked(Input::Interrupt { item_id: Some("other".to_owned()), played_ms: None });
    assert_eq!(run(&mut machine, Instant::now(), vec![other]), [""; 0]);
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
        [&effects[0], &effects[3]],
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
    let to_max =
        Input::Text { text: "Hi.".to_owned(), client_message_id: None, terms: Terms::default(), character_ids: ids() };
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
    assert_eq!(effects[3], "think 4 aloud [\"Max and Olivia, hello.\", \"I am\", \"Go on, Max.\"]");
    assert_eq!(effects[4], "text_chunk 4 m5 2 \"So\"");
}

#[test]
fn a_message_sent_twice_is_stored_and_answered_once() {
    let mut machine = machine();
    let now = Instant::now();
    let again = || {
        let input = Input::Text {
            text: "Hello".to_owned(),
            client_message_id: Some("mine".to_owned()),
            terms: SettingsPatch { output: Some(OutputKind::Text), ..SettingsPatch::default() }.into(),
            character_ids: Vec::new(),
        };
        Event::Heard(Heard::Asked(Request { input, reference: Some("r".to_owned()) }))
    };
    let effects = machine.step(now, again());
    assert_eq!(told(&effects)[0], "save m1 \"Hello\" Completed None");
    assert_eq!(told(&effects)[3], "think 1 silently [\"Hello\"]");
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
    let again =
        |item_id: &str| asked(Input::Regenerate { item_id: item_id.to_owned(), terms: silently.clone().into() });
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
    assert_eq!(told(&effects), ["error storage_full Some(\"m5\")"]);
    assert_eq!(run(&mut machine, now, vec![text("  ")]), ["error bad_field None"]);
}
