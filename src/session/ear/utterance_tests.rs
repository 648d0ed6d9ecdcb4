use super::*;
use crate::provider::Segment;

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
        served_by: "whisper".into(),
    }
}

#[test]
fn a_guess_and_half_a_sentence_are_not_taken_for_the_end() {
    for (text, log_probability, outlook) in [
        ("It was leisure.", -0.3, Outlook::Finished),
        ("It was leeched.", -0.5, Outlook::Unfinished),
        ("It was the.", -0.1, Outlook::Unfinished),
        ("...", -0.9, Outlook::Finished),
    ] {
        assert_eq!(expected(&transcript(text, 0.1, log_probability)), outlook, "{text}");
    }
    let remote = FinalTranscript { segments: Vec::new(), ..transcript("It was leisure.", 0.0, 0.0) };
    assert_eq!(expected(&remote), Outlook::Finished, "who tells no probability is believed");
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
        ("!?", 0.0, -0.1, false),
        ("Да.", 0.1, -0.2, true),
        ("", 0.0, 0.0, false),
    ] {
        assert_eq!(was_said(&transcript(text, no_speech, log_probability)), said, "{text} {no_speech}");
    }
}
