//! What is stored of replies: from their beginning, written again, as sound.

use super::*;

fn silently() -> SettingsPatch {
    SettingsPatch { output: Some(OutputKind::Text), ..SettingsPatch::default() }
}

fn failed() -> ProviderError {
    ProviderError::Failed { what: "it".to_owned() }
}

/// A written exchange: the user's message is m1, the reply m2.
fn exchange(machine: &mut Machine, reply: &str) {
    let question = Input::Text {
        text: "How do I bake bread?".to_owned(),
        client_message_id: None,
        terms: silently(),
        character_ids: Vec::new(),
    };
    run(machine, Instant::now(), vec![asked(question), wrote(1, 0, reply), done(1)]);
}

#[test]
fn a_reply_is_stored_from_its_beginning() {
    let mut machine = machine();
    let now = Instant::now();
    let effects = run(&mut machine, now, vec![text("Hello")]);
    assert_eq!(effects[2], "save m2 \"\" Pending None");
    // That it began is told to nobody: it may come to nothing.
    let pending = machine.step(now, began("u1"));
    assert!(told(&pending).contains(&"forget m2".to_owned()), "{:?}", told(&pending));
    assert!(!told(&pending).iter().any(|it| it.starts_with("save")), "{:?}", told(&pending));
    let effects = run(&mut machine, now, vec![nothing("u1")]);
    assert_eq!(effects[2..], ["save m3 \"\" Pending None", "think 3 aloud [\"Hello\"]"]);
    // One that fails at once is stored as failed.
    let effects = run(&mut machine, now, vec![thought(3, Thought::Failed(failed())), progress(3, Progress::Finished)]);
    assert!(effects.contains(&"save m3 \"\" Failed None".to_owned()), "{effects:?}");
}

#[test]
fn that_a_reply_is_pending_is_not_told() {
    let mut machine = machine();
    let now = Instant::now();
    for (status, lines) in [(MessageStatus::Pending, 0), (MessageStatus::Processing, 1), (MessageStatus::Failed, 1)] {
        let effects = machine.step(now, text("Hello"));
        let save = effects.into_iter().filter_map(|it| if let Effect::Save(save) = it { Some(save) } else { None });
        let mut save = save.last().unwrap();
        save.message.status = status;
        let stored = machine.step(now, Event::Stored { save, outcome: Ok("m2".to_owned()) });
        assert_eq!(told(&stored).len(), lines, "{status:?}");
    }
}

#[test]
fn what_is_written_again_stands_until_it_is_written() {
    let mut machine = machine();
    let now = Instant::now();
    exchange(&mut machine, "Knead it.");
    let again = |item_id: &str| asked(Input::Regenerate { item_id: item_id.to_owned(), terms: silently() });
    let saves = |effects: &[String]| effects.iter().filter(|it| it.starts_with("save")).cloned().collect::<Vec<_>>();
    // It fails, it is stopped, it says nothing.
    let effects = run(&mut machine, now, vec![again("m2"), wrote(2, 0, "Bake"), thought(2, Thought::Failed(failed()))]);
    assert_eq!(saves(&effects), [""; 0]);
    assert!(effects.contains(&"error provider_failed Some(\"m2\")".to_owned()), "{effects:?}");
    let stop = asked(Input::Interrupt { item_id: None, played_ms: None });
    let effects = run(&mut machine, now, vec![again("m2"), wrote(3, 0, "Bake"), stop]);
    assert_eq!(saves(&effects), [""; 0]);
    assert!(effects.contains(&"interrupted 3 m2 \"Knead it.\" 0".to_owned()), "{effects:?}");
    let effects = run(&mut machine, now, vec![again("m2"), done(5)]);
    assert_eq!(saves(&effects), [""; 0]);
    assert!(effects.contains(&"error provider_failed Some(\"m2\")".to_owned()), "{effects:?}");
    // The user's message means the reply to it.
    let effects = run(&mut machine, now, vec![again("m1"), wrote(6, 0, "Bake it."), done(6)]);
    assert_eq!(effects[1], "think 6 silently [\"How do I bake bread?\"]");
    assert_eq!(saves(&effects), ["save m2 \"Bake it.\" Completed None"]);
    let effects = run(&mut machine, now, vec![text("And?")]);
    assert!(effects.last().unwrap().contains("\"Bake it.\""), "{effects:?}");
    // Nobody has answered this one.
    let effects = run(&mut machine, now, vec![asked(Input::Interrupt { item_id: None, played_ms: None }), again("m3")]);
    assert_eq!(effects.last().unwrap(), "error item_not_found Some(\"m3\")");
}

#[test]
fn characters_speak_up_by_themselves_and_on_terms() {
    let mut machine = machine_of(&company(), None);
    let now = Instant::now();
    let speak_up = |ids: &[&str]| {
        let model = Some(Some("openai/gpt-4o".to_owned()));
        let character_ids = ids.iter().map(|id| (*id).to_owned()).collect();
        let settings = SettingsPatch { model, ..silently() };
        asked(Input::SpeakUp { character_ids, terms: settings })
    };
    let effects = machine.step(now, speak_up(&["max-001", "zoe-001"]));
    let request =
        effects.iter().find_map(|it| if let Effect::Think { request, .. } = it { Some(request) } else { None });
    assert_eq!(request.unwrap().model.as_deref(), Some("openai/gpt-4o"));
    assert_eq!(told(&effects)[0], "speaker_changed Some(\"max-001\")");
    let effects = run(&mut machine, now, vec![wrote(1, 0, "Well."), done(1)]);
    assert!(effects.contains(&"speaker_changed Some(\"zoe-001\")".to_owned()), "{effects:?}");
    run(&mut machine, now, vec![wrote(2, 0, "So."), done(2)]);
    assert_eq!(run(&mut machine, now, vec![speak_up(&["nobody"])]), ["error character_not_found None"]);
    // Olivia has said least.
    let effects = run(&mut machine, now, vec![speak_up(&[])]);
    assert_eq!(effects[0], "speaker_changed Some(\"olivia-001\")");
    let by_hand = SettingsPatch { turn_taking: Some(TurnTaking::Manual), ..SettingsPatch::default() };
    run(&mut machine, now, vec![wrote(3, 0, "Oh."), done(3), asked(Input::Settings(by_hand))]);
    assert_eq!(run(&mut machine, now, vec![speak_up(&[])]), ["error bad_field None"]);
}

#[test]
fn what_was_said_and_heard_is_kept_as_sound() {
    let mut machine = machine();
    machine.scene.keeps_recordings = true;
    let now = Instant::now();
    let Event::Heard(Heard::Final(mut utterance)) = said("u1", "Hello.", now) else { panic!() };
    utterance.audio = Some(Mic::silence(Samples::from_millis(700)));
    let effects = run(&mut machine, now, vec![began("u1"), Event::Heard(Heard::Final(utterance))]);
    assert_eq!(effects[1..3], ["save u1 \"Hello.\" Completed None", "record u1 said 700"]);
    let with_audio = |turn, number, pts, text: &str| {
        let Event::Progress { progress: Progress::Sent(mut piece), .. } = sent(turn, number, pts, text, now + pts)
        else {
            panic!()
        };
        piece.audio = Some(Speech::silence(Samples::from_millis(piece.length.as_millis() as u64)));
        progress(turn, Progress::Sent(piece))
    };
    let events = vec![wrote(1, 0, "One two three."), done(1), with_audio(1, 1, ms(0), "One two three.")];
    run(&mut machine, now, events);
    let stop = asked(Input::Interrupt { item_id: None, played_ms: Some(500) });
    let effects = run(&mut machine, now, vec![stop]);
    assert_eq!(effects[1..3], ["save m1 \"One two three.\" Completed Some(7)", "record m1 heard 500"]);
    run(&mut machine, now, vec![text("Again"), wrote(3, 0, "Yes."), done(3), with_audio(3, 2, ms(0), "Yes.")]);
    let effects = run(&mut machine, now, vec![progress(3, Progress::Finished)]);
    assert_eq!(effects[1], "record m3 heard 240");
}

#[test]
fn who_has_spoken_before_the_session_counts() {
    let line = |id: &str, name: &str| Message {
        id: name.to_owned(),
        conversation_id: "c1".to_owned(),
        role: Role::Assistant,
        character_id: Some(id.to_owned()),
        character_name: Some(name.to_owned()),
        content: "Hm.".to_owned(),
        status: MessageStatus::Completed,
        heard_chars: None,
        metadata: json!({}),
        client_message_id: None,
    };
    let mut machine =
        machine_with(&company(), None, "A talk", vec![line("olivia-001", "Olivia"), line("max-001", "Max")]);
    let effects = run(&mut machine, Instant::now(), vec![text("And now?")]);
    assert!(effects.contains(&"speaker_changed Some(\"zoe-001\")".to_owned()), "{effects:?}");
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

/// "Hello", under the client's own id, to be answered in writing.
fn hello(client_message_id: &str, reference: Option<&str>) -> Event {
    let input = Input::Text {
        text: "Hello".to_owned(),
        client_message_id: Some(client_message_id.to_owned()),
        terms: silently(),
        character_ids: Vec::new(),
    };
    Event::Heard(Heard::Asked(Request { input, reference: reference.map(str::to_owned) }))
}

/// Of what is told.
fn references(effects: &[Effect]) -> Vec<Option<&str>> {
    effects
        .iter()
        .map(|effect| if let Effect::Tell(told) = effect { told.reference.as_deref() } else { None })
        .collect()
}

#[test]
fn a_message_sent_twice_is_stored_and_answered_once() {
    let mut machine = machine();
    let now = Instant::now();
    let again = || hello("mine", Some("r"));
    let effects = machine.step(now, again());
    assert_eq!(told(&effects)[0], "save m1 \"Hello\" Completed None");
    assert_eq!(told(&effects)[3], "think 1 silently [\"Hello\"]");
    assert_eq!(told(&machine.step(now, again())), [""; 0]);
    let Effect::Save(save) = effects[0].clone() else { panic!() };
    let stored = machine.step(now, Event::Stored { save, outcome: Ok("m1".to_owned()) });
    assert_eq!(told(&stored), ["message_saved m1 Completed"; 2]);
    assert_eq!(references(&stored), [Some("r"), Some("r")]);
    assert_eq!(told(&machine.step(now, again())), ["message_saved m1 Completed"]);
}

#[test]
fn a_message_sent_again_before_it_is_stored_is_acknowledged_and_answered_too() {
    let mut machine = machine();
    let now = Instant::now();
    let again = |reference: Option<&str>| hello("mine", reference);
    let Effect::Save(save) = machine.step(now, again(Some("r1")))[0].clone() else { panic!() };
    let stop = || asked(Input::Interrupt { item_id: None, played_ms: None });
    let stopped = run(&mut machine, now, vec![stop()]);
    assert!(stopped.iter().any(|effect| effect.starts_with("interrupted ")), "{stopped:?}");
    let effects = run(&mut machine, now, vec![again(Some("r2")), again(None)]);
    assert_eq!(effects.iter().filter(|effect| effect.starts_with("think ")).count(), 1, "{effects:?}");
    let stored = machine.step(now, Event::Stored { save, outcome: Ok("m1".to_owned()) });
    assert_eq!(told(&stored), ["message_saved m1 Completed"; 2]);
    assert_eq!(references(&stored), [Some("r1"), Some("r2")]);
}

/// As after a crash, or where nothing came of the reply.
#[test]
fn a_message_that_nobody_answered_is_answered_when_it_is_sent_again() {
    let message = |id: &str, role: Role, content: &str, status: MessageStatus| Message {
        id: id.to_owned(),
        conversation_id: "c1".to_owned(),
        role,
        character_id: None,
        character_name: None,
        content: content.to_owned(),
        status,
        heard_chars: None,
        metadata: json!({}),
        client_message_id: Some(format!("client-{id}")),
    };
    let asks = |id: &str| message(id, Role::User, "Hello", MessageStatus::Completed);
    let cut_off = message("a1", Role::Assistant, "", MessageStatus::Pending);
    let again = |id: &str| hello(&format!("client-{id}"), None);
    let mut machine = machine_with(&[character()], None, "A talk", vec![asks("u1"), asks("u2"), cut_off]);
    let now = Instant::now();
    assert_eq!(
        run(&mut machine, now, vec![again("u1")]),
        ["message_saved u1 Completed"],
        "the talk went on without it"
    );
    let effects = run(&mut machine, now, vec![again("u2")]);
    assert_eq!(effects[0], "message_saved u2 Completed");
    assert!(effects.iter().any(|effect| effect.starts_with("think 1 ")), "{effects:?}");
    assert_eq!(run(&mut machine, now, vec![again("u2")]), ["message_saved u2 Completed"], "it is being answered");
    run(&mut machine, now, vec![thought(1, Thought::Failed(failed()))]);
    let effects = run(&mut machine, now, vec![again("u2")]);
    assert!(effects.iter().any(|effect| effect.starts_with("think 2 ")), "{effects:?}");
}

#[test]
fn a_message_that_could_not_be_stored_is_stored_when_it_is_sent_again() {
    let mut machine = machine();
    let now = Instant::now();
    let sent = |reference: &str| hello("mine", Some(reference));
    let Effect::Save(first) = machine.step(now, sent("r1"))[0].clone() else { panic!() };
    let failed = machine.step(now, Event::Stored { save: first.clone(), outcome: Err(RecordError::Failed) });
    assert_eq!(told(&failed), ["error internal Some(\"m1\")"]);
    let again = machine.step(now, sent("r2"));
    assert_eq!(told(&again), ["save m1 \"Hello\" Completed None"], "it is stored, and not answered twice");
    let Effect::Save(second) = again[0].clone() else { panic!() };
    assert_eq!((&second.message, second.reference.as_deref()), (&first.message, Some("r2")));
    assert_eq!(told(&machine.step(now, sent("r3"))), [""; 0], "it is on its way");
    let stored = machine.step(now, Event::Stored { save: second, outcome: Ok("m1".to_owned()) });
    assert_eq!(told(&stored), ["message_saved m1 Completed"; 2], "to both");
    assert_eq!(references(&stored), [Some("r2"), Some("r3")]);
    assert_eq!(told(&machine.step(now, sent("r4"))), ["message_saved m1 Completed"]);
}

#[test]
fn a_reply_can_be_written_again() {
    let mut machine = machine();
    let now = Instant::now();
    run(&mut machine, now, vec![asked(Input::Settings(silently())), text("Hello"), wrote(1, 0, "Hi."), done(1)]);
    run(&mut machine, now, vec![text("And?"), wrote(2, 0, "So."), done(2)]);
    let again = |item_id: &str| asked(Input::Regenerate { item_id: item_id.to_owned(), terms: silently() });
    assert_eq!(run(&mut machine, now, vec![again("m9")]), ["error item_not_found Some(\"m9\")"]);
    let effects = run(&mut machine, now, vec![again("m2"), wrote(3, 0, "Hey."), done(3)]);
    assert_eq!(effects[1], "think 3 silently [\"Hello\"]");
    assert!(effects.contains(&"turn_complete 3 m2".to_owned()));
    let effects = run(&mut machine, now, vec![text("Well?")]);
    assert_eq!(effects.last().unwrap(), "think 4 silently [\"Hello\", \"Hey.\", \"And?\", \"So.\", \"Well?\"]");
}
