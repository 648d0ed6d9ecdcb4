//! Who answers whom under each policy, as scripts.

use super::*;

/// Plays written turns: for each of the user's, who answers, in order. `say` is what a character says.
fn answers(policy: TurnTaking, turns: &[&str], say: impl Fn(&str) -> &'static str) -> Vec<String> {
    let mut machine = machine_of(&company(), None);
    let silently =
        SettingsPatch { output: Some(OutputKind::Text), turn_taking: Some(policy), ..SettingsPatch::default() };
    run(&mut machine, Instant::now(), vec![asked(Input::Settings(silently))]);
    let mut lines = Vec::new();
    for turn in turns {
        let event = match turn.strip_prefix("next: ") {
            Some(character_id) => asked(Input::NextSpeaker { character_id: character_id.to_owned() }),
            None => text(turn),
        };
        let mut line = format!("{turn} →");
        let mut effects = run(&mut machine, Instant::now(), vec![event]);
        // At most so many, so that a script that does not end fails.
        for _ in 0..20 {
            let Some(reply) = machine.replies.front() else { break };
            let (turn, name) = (reply.turn.0, reply.speaker_name().name);
            line = format!("{line} {name}");
            effects = run(&mut machine, Instant::now(), vec![wrote(turn, 0, say(&name)), done(turn)]);
        }
        if effects.iter().any(|it| it.starts_with("error")) {
            line.push_str(" error");
        }
        assert!(machine.floor.is_none(), "somebody has the floor: {effects:?}");
        lines.push(line);
    }
    lines
}

fn fine(_name: &str) -> &'static str {
    "That is fine."
}

#[test]
fn by_mention_the_last_one_goes_on() {
    let turns = [
        "Hello.",
        "Max, and you?",
        "Go on.",
        "Bob, are you there?",
        "@zoe and @MAX: hi",
        "Thanks.",
        "I have met Olivia.",
        "What do you think, Olivia?",
        "Bob and Zoë, hello!",
    ];
    let expected = [
        "Hello. → Olivia",
        "Max, and you? → Max",
        "Go on. → Max",
        "Bob, are you there? → Max",
        "@zoe and @MAX: hi → Zoe Max",
        "Thanks. → Max",
        "I have met Olivia. → Max",
        "What do you think, Olivia? → Olivia",
        "Bob and Zoë, hello! → Zoe",
    ];
    assert_eq!(answers(TurnTaking::Mention, &turns, fine), expected);
}

#[test]
fn all_answer_those_who_are_named_first() {
    let turns = ["Hello.", "Zoe, you first.", "Max and Zoe, hello.", "Bob, hello."];
    let expected = [
        "Hello. → Olivia Max Zoe",
        "Zoe, you first. → Zoe Olivia Max",
        "Max and Zoe, hello. → Max Zoe Olivia",
        "Bob, hello. → Olivia Max Zoe",
    ];
    assert_eq!(answers(TurnTaking::All, &turns, fine), expected);
    // Nobody is called on who answers anyway.
    let calls = |_: &str| "Max, and you?";
    assert_eq!(answers(TurnTaking::All, &["Hello."], calls), ["Hello. → Olivia Max Zoe"]);
}

#[test]
fn naturally_who_spoke_least_answers() {
    let turns = ["Hello.", "And?", "And?", "And?", "Zoe, hi.", "Zoe, again.", "And?", "And?", "Olivia and Max, hi."];
    let expected = [
        "Hello. → Olivia",
        "And? → Max",
        "And? → Zoe",
        "And? → Olivia",
        "Zoe, hi. → Zoe",
        "Zoe, again. → Zoe",
        "And? → Max",
        "And? → Olivia",
        "Olivia and Max, hi. → Olivia Max",
    ];
    assert_eq!(answers(TurnTaking::Natural, &turns, fine), expected);
}

#[test]
fn by_hand_only_who_is_told_to_speaks() {
    let turns = ["Hello.", "next: zoe-001", "Max, and you?", "Go on.", "next: nobody", "next: zoe-001"];
    let expected = [
        "Hello. →",
        "next: zoe-001 → Zoe",
        "Max, and you? → Max",
        "Go on. →",
        "next: nobody → error",
        "next: zoe-001 → Zoe",
    ];
    assert_eq!(answers(TurnTaking::Manual, &turns, fine), expected);
    let calls = |_: &str| "Max, and you?";
    assert_eq!(answers(TurnTaking::Manual, &["next: zoe-001"], calls), ["next: zoe-001 → Zoe"]);
}

#[test]
fn characters_call_on_each_other_a_few_times() {
    let calls = |name: &str| match name {
        "Olivia" => "I do not know. Max, what do you say?",
        "Max" => "What do you think, Zoe?",
        _ => "Olivia, and you?",
    };
    for policy in [TurnTaking::Mention, TurnTaking::Natural] {
        let expected = ["Olivia, hello. → Olivia Max Zoe Olivia", "Max, hello. → Max Zoe Olivia Max"];
        assert_eq!(answers(policy, &["Olivia, hello.", "Max, hello."], calls), expected, "{policy:?}");
    }
    // Who is talked about is not called on, nor somebody who is not there, nor oneself.
    let talks = |name: &str| if name == "Olivia" { "I have met Max. Olivia, I said. Bob, hello." } else { "Yes." };
    assert_eq!(answers(TurnTaking::Mention, &["Hello."], talks), ["Hello. → Olivia"]);
    // Who was called by the user comes before who is called by a character.
    let expected = ["Olivia and Zoe, hello. → Olivia Zoe Max Zoe"];
    let calls = |name: &str| match name {
        "Olivia" | "Zoe" => "Max, and you?",
        _ => "Zoe, and you?",
    };
    assert_eq!(answers(TurnTaking::Mention, &["Olivia and Zoe, hello."], calls), expected);
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
    let to_max = Input::Text {
        text: "Hi.".to_owned(),
        client_message_id: None,
        terms: SettingsPatch::default(),
        character_ids: ids(),
    };
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
fn where_only_the_one_who_waits_leaves_the_other_speaks_on() {
    let mut machine = machine_of(&company(), None);
    let now = Instant::now();
    let events = vec![text("Max, Olivia and Zoe, hello."), wrote(1, 0, "I am Max."), whole(1, 0, "I am Max."), done(1)];
    run(&mut machine, now, events);
    run(&mut machine, now, vec![sent(1, 1, ms(0), "I am Max.", now), wrote(2, 0, "I am Olivia.")]);
    let [_, max, zoe] = company();
    let effects = run(&mut machine, now, vec![Event::Cast { reference: None, outcome: Ok(vec![max, zoe]) }]);
    let think = "think 3 ahead [\"Max, Olivia and Zoe, hello.\\nMax: I am Max.\"]";
    assert_eq!(effects[..2], ["take_back", think], "{effects:?}");
    assert!(!effects.contains(&"stop".to_owned()));
    run(&mut machine, now, vec![wrote(3, 0, "I am Zoe.")]);
    let effects = run(&mut machine, now + ms(600), vec![progress(1, Progress::Finished)]);
    assert!(effects.contains(&"text_chunk 3 m4 2 \"I am Zoe.\"".to_owned()), "{effects:?}");
}

#[test]
fn who_stays_alone_knows_what_others_have_said() {
    let mut machine = machine_of(&company()[..2], None);
    let now = Instant::now();
    run(
        &mut machine,
        now,
        vec![text("Max, hello."), wrote(1, 0, "I am Max."), done(1), progress(1, Progress::Finished)],
    );
    run(&mut machine, now, vec![Event::Cast { reference: None, outcome: Ok(vec![character()]) }]);
    let effects = run(&mut machine, now, vec![text("And you?")]);
    assert_eq!(effects.last().unwrap(), "think 2 aloud [\"Max, hello.\\nMax: I am Max.\\nAnd you?\"]");
}
