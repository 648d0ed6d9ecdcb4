//! Who speaks while a reply is made or heard, and what of the reply is kept.

use super::*;

#[test]
fn barge_in_keeps_what_was_heard_and_nothing_else() {
    let mut machine = machine();
    let now = Instant::now();
    run(&mut machine, now, vec![text("Tell me"), wrote(1, 0, "One two three. "), wrote(1, 1, "Four five."), done(1)]);
    run(&mut machine, now, vec![sent(1, 1, ms(0), "One two three.", now)]);
    assert_eq!(run(&mut machine, now + ms(100), vec![began("u1")]), ["speech_started", "duck m2", "wake_at"]);
    assert_eq!(run(&mut machine, now + ms(300), vec![partial("u1", "No.")]), ["transcription u1 \"No.\""], "or a hum");
    let effects = run(&mut machine, now + ms(500), vec![partial("u1", "No, sto")]);
    let expected = [
        "stop",
        "save m2 \"One two three. Four five.\" Completed Some(7)",
        "interrupted 1 m2 \"One two\" 500",
        "speaker_changed None",
        "transcription u1 \"No, sto\"",
    ];
    assert_eq!(effects, expected);
    // The old turn has nothing more to say, and the new reply knows what was heard.
    let late =
        vec![wrote(1, 2, "Late."), sent(1, 2, ms(840), "Four five.", now), progress(1, Progress::Finished), done(1)];
    assert_eq!(run(&mut machine, now, late), [""; 0]);
    let effects = run(&mut machine, now, vec![said("u1", "Stop.", now)]);
    assert_eq!(effects.last().unwrap(), "think 3 aloud [\"Tell me\", \"One two\", \"Stop.\"]");
}

/// Nobody knows the sound of the echo of what was heard for so short a time.
#[test]
fn what_a_typed_text_cuts_off_may_echo_for_as_long_as_it_was_heard() {
    let spoke = |spoken: u64, now: Instant| {
        let Event::Heard(Heard::Final(utterance)) = said("u1", "the ohs are", now) else { unreachable!() };
        Event::Heard(Heard::Final(Box::new(Utterance { spoken: ms(spoken), ..*utterance })))
    };
    let stores = |effects: &[String]| effects.iter().any(|effect| effect.starts_with("save u1"));
    let long = "I am doing fine, thanks, and how are you today?";
    let answering = |now: Instant| {
        let mut machine = machine();
        run(&mut machine, now, vec![text("Hello"), wrote(1, 0, long), sent(1, 1, ms(0), long, now)]);
        machine
    };
    let cases = [(-100, 600, true), (-100, 800, false), (300, 600, true), (300, 800, false), (1100, 600, false)];
    for (after, spoken, is_echo) in cases {
        let now = Instant::now();
        let mut machine = answering(now);
        let typed = ms(400);
        let begins = ms((400 + after) as u64);
        let mut events = [(typed, text("And you?")), (begins, began("u1"))];
        events.sort_by_key(|(at, _)| *at);
        let mut effects = Vec::new();
        for (at, event) in events {
            effects.extend(run(&mut machine, now + at, vec![event]));
        }
        effects.extend(run(&mut machine, now + begins + ms(200), vec![partial("u1", "the ohs are")]));
        let stops = effects.iter().filter(|effect| effect.starts_with("interrupted ")).count();
        assert_eq!(stops, if after > 1000 { 2 } else { 1 }, "{after}: {effects:?}");
        let effects = run(&mut machine, now + begins + ms(900), vec![spoke(spoken, now)]);
        assert_eq!(stores(&effects), !is_echo, "after {after} ms {spoken} ms of speech: {effects:?}");
    }
    // Of what was heard for longer the ear knows the sound.
    let now = Instant::now();
    let mut machine = answering(now);
    run(&mut machine, now + ms(1600), vec![text("Well"), began("u1")]);
    assert!(stores(&run(&mut machine, now + ms(2500), vec![spoke(300, now)])));
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
fn a_single_word_interrupts_once_it_is_guessed_twice_or_the_speaker_pauses() {
    let guess = |text: &str, stable_chars| {
        let Event::Heard(Heard::Partial(guess)) = partial("u1", text) else { panic!() };
        Transcription { stable_chars, ..guess }
    };
    for (heard, interrupts) in [
        (Heard::Partial(guess("Stop", 0)), false),
        (Heard::Partial(guess("Stop", 4)), true),
        (Heard::Drafted(guess("Stop", 0)), false),
        (Heard::Drafted(guess("Stop it", 0)), true),
        (Heard::Paused(guess("Stop", 0)), true),
        (Heard::Partial(guess("Mhm", 3)), false),
    ] {
        let mut machine = machine();
        let now = Instant::now();
        run(
            &mut machine,
            now,
            vec![text("Tell me"), wrote(1, 0, "One two three."), sent(1, 1, ms(0), "One two three.", now)],
        );
        run(&mut machine, now + ms(100), vec![began("u1")]);
        let effects = run(&mut machine, now + ms(500), vec![Event::Heard(heard.clone())]);
        assert_eq!(effects.contains(&"stop".to_owned()), interrupts, "{heard:?}: {effects:?}");
    }
}

const STORY: &str = "The keeper climbed the tower each evening and lit the lamp for the ships. ";

/// A reply that is spoken to its end at the time in the answer, beside a voice that began a second before it.
fn overlapped(machine: &mut Machine) -> Instant {
    let now = Instant::now();
    run(machine, now, vec![text("A story?"), wrote(1, 0, STORY), done(1), sent(1, 1, ms(0), STORY, now)]);
    run(machine, now + ms(2000), vec![began("u1")]);
    let at = now + ms(3000);
    let effects = run(machine, at, vec![progress(1, Progress::Finished)]);
    assert!(effects.contains(&"turn_complete 1 m2".to_owned()), "{effects:?}");
    at
}

#[test]
fn the_echo_of_a_replys_end_is_no_turn_after_it() {
    for (heard, is_turn) in [
        ("lit the lamp for the ships", false),
        ("Mhm.", false),
        ("And what did he do then?", true),
        // An answer may take up a word.
        ("Ships.", true),
    ] {
        let mut machine = machine();
        let at = overlapped(&mut machine);
        let effects = run(&mut machine, at + ms(300), vec![said("u1", heard, at)]);
        assert_eq!(effects.iter().any(|it| it.starts_with("think 2")), is_turn, "{heard}: {effects:?}");
        // What begins after the end is a turn, whatever it says.
        let effects = run(&mut machine, at + ms(900), vec![began("u2"), said("u2", "for the ships", at)]);
        assert!(effects.last().unwrap().starts_with("think"), "{effects:?}");
    }
}

#[test]
fn the_echo_of_one_character_does_not_stop_the_next() {
    let mut machine = machine_of(&company()[..2], None);
    let now = Instant::now();
    run(
        &mut machine,
        now,
        vec![text("Olivia and Max, a story?"), wrote(1, 0, STORY), done(1), sent(1, 1, ms(0), STORY, now)],
    );
    run(&mut machine, now + ms(2000), vec![began("u1")]);
    let next = vec![
        wrote(2, 0, "I like it well."),
        progress(1, Progress::Finished),
        sent(2, 2, ms(0), "I like it well.", now + ms(3000)),
    ];
    run(&mut machine, now + ms(3000), next);
    let heard = vec![partial("u1", "the lamp for the"), said("u1", "the lamp for the ships", now)];
    let effects = run(&mut machine, now + ms(3300), heard);
    assert!(!effects.contains(&"stop".to_owned()), "{effects:?}");
}

#[test]
fn the_echo_of_a_reply_that_a_text_stopped_is_no_turn_and_words_beside_it_are() {
    for (heard, is_turn) in [("climbed the tower each evening", false), ("Okay.", true), ("What did he do then?", true)]
    {
        let mut machine = machine();
        let now = Instant::now();
        run(&mut machine, now, vec![text("A story?"), wrote(1, 0, STORY), sent(1, 1, ms(0), STORY, now)]);
        run(&mut machine, now + ms(1000), vec![began("u1")]);
        let effects = run(&mut machine, now + ms(1500), vec![text("Another one.")]);
        assert!(effects.last().unwrap().starts_with("think 3"), "{effects:?}");
        let effects = run(&mut machine, now + ms(1800), vec![said("u1", heard, now)]);
        assert_eq!(effects.contains(&"stop".to_owned()), is_turn, "{heard}: {effects:?}");
    }
}

#[test]
fn a_written_reply_goes_on_beside_a_cough_and_is_not_ducked() {
    let mut machine = machine();
    let now = Instant::now();
    let silently = SettingsPatch { output: Some(OutputKind::Text), ..SettingsPatch::default() };
    run(&mut machine, now, vec![asked(Input::Settings(silently)), text("A story?"), wrote(1, 0, STORY)]);
    let effects = run(&mut machine, now, vec![began("u1"), nothing("u1")]);
    assert_eq!(effects, ["speech_started", "transcription u1 \"\""]);
    let effects = run(&mut machine, now, vec![began("u2"), partial("u2", "No, another one")]);
    assert_eq!(effects[1], "stop", "{effects:?}");
}

#[test]
fn what_is_committed_is_a_turn_at_once() {
    let mut machine = machine();
    let now = Instant::now();
    run(&mut machine, now, vec![text("A story?"), wrote(1, 0, STORY), sent(1, 1, ms(0), STORY, now)]);
    run(&mut machine, now + ms(1000), vec![began("u1")]);
    let effects = run(&mut machine, now + ms(1200), vec![Event::Heard(Heard::Committed)]);
    assert_eq!(effects[0], "stop");
    let effects = run(&mut machine, now + ms(1300), vec![said("u1", "Okay.", now)]);
    assert!(effects.last().unwrap().ends_with("\"Okay.\"]"), "{effects:?}");
}

#[test]
fn an_echo_that_was_misheard_at_first_stops_the_reply_and_is_no_turn() {
    for (heard, is_turn) in [("climbed the tower each evening", false), ("Kindly tell me more.", true)] {
        let mut machine = machine();
        let now = Instant::now();
        run(&mut machine, now, vec![text("A story?"), wrote(1, 0, STORY), sent(1, 1, ms(0), STORY, now)]);
        run(&mut machine, now + ms(1000), vec![began("u1")]);
        let effects = run(&mut machine, now + ms(1500), vec![partial("u1", "Kindly tower eat")]);
        assert_eq!(effects[0], "stop");
        let effects = run(&mut machine, now + ms(2500), vec![said("u1", heard, now)]);
        assert_eq!(effects.iter().any(|it| it.starts_with("save m3")), is_turn, "{heard}: {effects:?}");
    }
}

#[test]
fn a_guess_that_begins_with_settled_words_of_an_echo_does_not_interrupt() {
    let mut machine = machine();
    let now = Instant::now();
    run(&mut machine, now, vec![text("A story?"), wrote(1, 0, STORY), sent(1, 1, ms(0), STORY, now)]);
    run(&mut machine, now + ms(1000), vec![began("u1")]);
    let guess = |text: &str, stable_chars| {
        let Event::Heard(Heard::Partial(guess)) = partial("u1", text) else { panic!() };
        Event::Heard(Heard::Partial(Transcription { stable_chars, ..guess }))
    };
    let looped = guess("climbed the tower ladder, ladder, ladder, ladder", 17);
    let effects = run(&mut machine, now + ms(1500), vec![looped]);
    assert!(!effects.contains(&"stop".to_owned()), "{effects:?}");
    let misheard = guess("eats cleaning and knit the lamb", 0);
    let effects = run(&mut machine, now + ms(1800), vec![misheard]);
    assert!(!effects.contains(&"stop".to_owned()), "{effects:?}");
    let meant = guess("climbed the tower, no, stop that now please", 43);
    let effects = run(&mut machine, now + ms(2000), vec![meant]);
    assert_eq!(effects[0], "stop");
}
