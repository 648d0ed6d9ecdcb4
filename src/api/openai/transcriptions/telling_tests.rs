use std::time::Duration;

use super::*;

fn last(text: &str) -> FinalTranscript {
    FinalTranscript {
        text: text.to_owned(),
        language: "en".to_owned(),
        segments: Vec::new(),
        audio: Duration::ZERO,
        latency: Duration::ZERO,
        ending: None,
        served_by: "fake-ear".into(),
    }
}

/// The deltas together, and the text of the last event.
fn joined(events: &[Value]) -> (String, String) {
    let (done, deltas) = events.split_last().unwrap();
    assert_eq!(done["type"], "transcript.text.done");
    assert!(deltas.iter().all(|delta| delta["type"] == "transcript.text.delta"), "{deltas:?}");
    let deltas = deltas.iter().map(|delta| delta["delta"].as_str().unwrap()).collect();
    (deltas, done["text"].as_str().unwrap().to_owned())
}

#[test]
fn only_what_stays_is_told_and_the_deltas_are_the_whole() {
    let mut telling = Telling::default();
    assert!(telling.partial("Zażółć gę", 0).is_empty());
    let mut events = telling.partial("Zażółć gęślą", 7);
    assert_eq!(events, [json!({"type": "transcript.text.delta", "delta": "Zażółć"})]);
    assert!(telling.partial("Zażółć gęślą", 6).is_empty());
    events.extend(telling.partial("Zażółć gęślą jaźń", 12));
    events.extend(telling.last(&last("Zażółć gęślą jaźń.")));
    assert_eq!(events.len(), 4);
    assert_eq!(joined(&events), ("Zażółć gęślą jaźń.".to_owned(), "Zażółć gęślą jaźń.".to_owned()));
}

#[test]
fn what_was_told_stays_though_the_text_becomes_another() {
    let mut telling = Telling::default();
    let mut events = telling.partial("Go forward ten", 14);
    assert!(telling.partial("God for word", 12).is_empty());
    events.extend(telling.last(&last("God for word then meters")));
    assert_eq!(joined(&events), ("Go forward ten then meters".to_owned(), "Go forward ten then meters".to_owned()));
}

#[test]
fn silence_is_one_event() {
    assert_eq!(joined(&Telling::default().last(&last(""))), (String::new(), String::new()));
}
