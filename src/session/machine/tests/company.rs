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
