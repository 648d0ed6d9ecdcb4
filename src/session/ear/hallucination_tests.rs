use std::time::Duration;

use super::*;

fn transcript(text: &str, no_speech: f32, log_probability: f32) -> FinalTranscript {
    FinalTranscript {
        text: text.to_owned(),
        language: "en".to_owned(),
        segments: vec![Segment {
            text: text.to_owned(),
            start: Duration::ZERO,
            end: Duration::from_secs(1),
            words: Vec::new(),
            log_probability,
            no_speech,
        }],
        audio: Duration::from_secs(1),
        latency: Duration::ZERO,
        ending: None,
        served_by: "whisper".into(),
    }
}

#[test]
fn subtitles_learned_by_heart_are_not_believed() {
    for (text, no_speech, log_probability, said) in [
        ("Thank you.", 0.05, -0.3, true),
        ("Thank you.", 0.5, -0.3, false),
        ("Thanks for watching!", 0.1, -1.2, false),
        ("Thank you for the pizza.", 0.5, -0.3, true),
        ("Mumble mumble.", 0.7, -1.4, false),
        ("Mumble mumble.", 0.7, -0.4, true),
        ("No.", 0.54, -0.4, false),
        ("Stop.", 0.46, -0.9, true),
        ("No, no.", 0.54, -0.4, true),
        ("!?", 0.0, -0.1, false),
        ("Да.", 0.1, -0.2, true),
        ("", 0.0, 0.0, false),
    ] {
        assert_eq!(was_said(&transcript(text, no_speech, log_probability)), said, "{text} {no_speech}");
    }
}
