use std::time::Duration;

use proptest::prelude::*;

use super::*;

const SHORTEST: Position = Samples::from_millis(200);
const LONGEST: Position = Samples::from_millis(1200);
const STOP: Ending = Ending { stop: 0.9, question: 0.03, comma: 0.003, break_off: 0.005, nothing: 0.05 };
const DOTS: Ending = Ending { stop: 0.1, question: 0.01, comma: 0.01, break_off: 0.5, nothing: 0.3 };

fn transcript(text: &str, ending: Option<Ending>) -> FinalTranscript {
    FinalTranscript {
        text: text.to_owned(),
        language: "en".to_owned(),
        segments: Vec::new(),
        audio: Duration::from_secs(1),
        latency: Duration::ZERO,
        ending,
        served_by: "whisper".into(),
    }
}

fn wait(text: &str, ending: Option<Ending>) -> u64 {
    doubt(&transcript(text, ending)).between(SHORTEST, LONGEST).millis()
}

#[test]
fn a_sure_end_is_waited_for_shortly_and_what_breaks_off_long() {
    let whole = "Yesterday we went to the cinema by the river.";
    assert_eq!(wait(whole, Some(STOP)), SHORTEST.millis());
    assert_eq!(wait(whole, Some(DOTS)), LONGEST.millis(), "it sounded as if more would come");
    assert_eq!(
        wait("Yesterday we all went to the cinema by the.", Some(STOP)),
        LONGEST.millis(),
        "no sentence ends so"
    );
    assert_eq!(wait("Yesterday we went", Some(STOP)), LONGEST.millis(), "so little has only begun");
}

#[test]
fn an_answer_needs_no_more_words() {
    assert_eq!(wait("Yes.", Some(STOP)), SHORTEST.millis());
    assert_eq!(wait("Stop!", Some(DOTS)), SHORTEST.millis());
    assert_eq!(wait("Actually.", Some(STOP)), LONGEST.millis());
}

#[test]
fn a_short_question_needs_no_more_words_if_it_sounds_like_all() {
    let asked = Ending { stop: 0.05, question: 0.92, comma: 0.003, break_off: 0.005, nothing: 0.02 };
    assert_eq!(wait("What time is it?", Some(asked)), SHORTEST.millis());
    assert_eq!(wait("What time is it?", Some(Ending { break_off: 0.05, ..asked })), LONGEST.millis());
    assert_eq!(wait("What time is it?", Some(Ending { question: 0.5, ..asked })), LONGEST.millis());
    assert_eq!(wait("How far is it?", Some(asked)), LONGEST.millis(), "from where to where may follow");
    assert_eq!(wait("What is the difference between?", Some(asked)), LONGEST.millis());
}

#[test]
fn a_short_statement_that_sounds_like_all_is_waited_for_half_as_long() {
    let closed = Ending { stop: 0.95, break_off: 0.004, ..STOP };
    assert_eq!(wait("Go forward ten meters.", Some(closed)), 533);
    assert_eq!(wait("Go forward ten meters.", Some(Ending { break_off: 0.02, ..closed })), LONGEST.millis());
    assert_eq!(wait("Go forward ten meters.", Some(Ending { stop: 0.8, ..closed })), LONGEST.millis());
    assert_eq!(wait("Go forward to the.", Some(closed)), LONGEST.millis());
}

#[test]
fn the_words_alone_count_where_the_recogniser_tells_no_more() {
    let longest = LONGEST.millis();
    for (text, expected) in [("It was leisure.", 300), ("It was the.", longest), ("...", longest)] {
        assert_eq!(wait(text, None), expected, "{text}");
    }
}

proptest! {
    #[test]
    fn no_wait_is_shorter_or_longer_than_allowed(
        [stop, question, comma, break_off, nothing] in prop::array::uniform5(prop::num::f32::ANY),
        text in prop::sample::select(vec!["Yes.", "Yes, the", "Who?", "", "日本。"]),
    ) {
        let ending = Ending { stop, question, comma, break_off, nothing };
        let waited = wait(text, Some(ending));
        prop_assert!((SHORTEST.millis()..=LONGEST.millis()).contains(&waited), "{waited} ms");
    }
}
