use super::*;

fn floor(talkativeness: &[f32]) -> Floor {
    let names = ["Olivia", "Max", "Zoë"];
    let seat = |(name, talkativeness): (&str, &f32)| Seat { name: name.to_owned(), talkativeness: *talkativeness };
    Floor::new(names.into_iter().zip(talkativeness).map(seat).collect())
}

#[test]
fn whoever_is_named_answers_under_every_policy() {
    for policy in [TurnTaking::Mention, TurnTaking::Natural, TurnTaking::Manual] {
        let mut floor = floor(&[0.5, 0.5, 0.5]);
        assert_eq!(floor.answer(policy, "Zoe and Max, hello!"), [2, 1], "{policy:?}");
    }
    assert_eq!(floor(&[0.5; 3]).answer(TurnTaking::All, "Max, hello!"), [1, 0, 2]);
}

#[test]
fn without_a_name_the_policy_decides() {
    let mut floor = floor(&[0.5, 0.5, 0.5]);
    assert_eq!(floor.answer(TurnTaking::Mention, "hello"), [0]);
    floor.takes(1);
    assert_eq!(floor.answer(TurnTaking::Mention, "go on"), [1]);
    assert_eq!(floor.answer(TurnTaking::Manual, "go on"), Vec::<usize>::new());
    assert_eq!(floor.answer(TurnTaking::All, "go on"), [0, 1, 2]);
    assert_eq!(floor.answer(TurnTaking::Natural, "go on"), [0], "the first of those who spoke least");
}

#[test]
fn the_talkative_speak_more_and_the_quiet_are_not_forgotten() {
    let mut floor = floor(&[0.9, 0.5, 0.3]);
    let mut replies = [0; 3];
    for _ in 0..100 {
        let speaker = floor.answer(TurnTaking::Natural, "and?")[0];
        floor.takes(speaker);
        replies[speaker] += 1;
    }
    assert!(replies[0] > replies[1] && replies[1] > replies[2] && replies[2] > 0, "{replies:?}");
}

#[test]
fn a_reply_calls_on_others_but_not_for_ever() {
    let mut floor = floor(&[0.5, 0.5, 0.5]);
    floor.answer(TurnTaking::Natural, "Olivia, ask Max.");
    let mut speaker = 0;
    let mut said = 0;
    loop {
        floor.takes(speaker);
        said += 1;
        let other = if speaker == 0 { "Max, what do you say?" } else { "Olivia, what do you say?" };
        match floor.follow(TurnTaking::Natural, speaker, other) {
            Some(next) => speaker = next,
            None => break,
        }
    }
    assert_eq!(said, ROUNDS);
    floor.answer(TurnTaking::Natural, "hm");
    assert_eq!(floor.follow(TurnTaking::Natural, 0, "I, Olivia, am here. Max, and you?"), Some(1));
    assert_eq!(floor.follow(TurnTaking::Natural, 1, "Well, Max?"), None, "nobody calls on themselves");
    assert_eq!(floor.follow(TurnTaking::All, 0, "Max, and you?"), None, "all have answered the user");
}
