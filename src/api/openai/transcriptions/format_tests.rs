use axum::body::to_bytes;
use serde_json::{Value, json};

use super::*;

fn transcript() -> FinalTranscript {
    let at = Duration::from_millis;
    let word = |text: &str, start, end| Word { text: text.to_owned(), start: at(start), end: at(end) };
    FinalTranscript {
        text: "Hello there. Bye.".to_owned(),
        language: "de".to_owned(),
        segments: vec![
            Segment {
                text: "Hello there.".to_owned(),
                start: at(0),
                end: at(1_234),
                words: vec![word("Hello", 100, 400), word("there.", 450, 1_200)],
                log_probability: -0.25,
                no_speech: 0.5,
            },
            Segment {
                text: "Bye.".to_owned(),
                start: at(2_000),
                end: at(2_500),
                words: vec![word("Bye.", 2_000, 2_400)],
                log_probability: -0.5,
                no_speech: 0.0,
            },
        ],
        audio: at(2_750),
        latency: at(9),
        ending: None,
        served_by: "fake-ear".into(),
    }
}

fn wanted(format: Format) -> Wanted {
    Wanted { task: SttTask::Transcribe, format, words: true, segments: true, temperature: 0.5 }
}

async fn answer(wanted: &Wanted) -> (String, String) {
    let response = wanted.response(&transcript());
    let kind = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (kind, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn plain_formats_are_plain_text() {
    let cases = [
        (Format::Text, "Hello there. Bye.\n"),
        (Format::Srt, "1\n00:00:00,000 --> 00:00:01,234\nHello there.\n\n2\n00:00:02,000 --> 00:00:02,500\nBye.\n\n"),
        (
            Format::Vtt,
            "WEBVTT\n\n1\n00:00:00.000 --> 00:00:01.234\nHello there.\n\n\
             2\n00:00:02.000 --> 00:00:02.500\nBye.\n\n",
        ),
    ];
    for (format, expected) in cases {
        let (kind, body) = answer(&wanted(format)).await;
        assert_eq!((kind.as_str(), body.as_str()), ("text/plain; charset=utf-8", expected));
    }
}

#[tokio::test]
async fn verbose_json_has_what_openai_gives() {
    let verbose: Value = serde_json::from_str(&answer(&wanted(Format::VerboseJson)).await.1).unwrap();
    assert_eq!(verbose["task"], "transcribe");
    assert_eq!((&verbose["language"], &verbose["duration"]), (&json!("german"), &json!(2.75)));
    assert_eq!(verbose["usage"], json!({"type": "duration", "seconds": 3.0}));
    let second = &verbose["segments"][1];
    let ratio = second["compression_ratio"].as_f64().unwrap();
    assert!((0.2..1.0).contains(&ratio), "four letters do not compress: {ratio}");
    assert_eq!(
        second,
        &json!({
            "id": 1, "seek": 200, "start": 2.0, "end": 2.5, "text": " Bye.", "tokens": [], "temperature": 0.5,
            "avg_logprob": -0.5, "compression_ratio": ratio, "no_speech_prob": 0.0,
        })
    );
    assert_eq!(verbose["words"].as_array().unwrap().len(), 3);
    assert_eq!(verbose["words"][1], json!({"word": "there.", "start": 0.45, "end": 1.2}));
    let translated = Wanted { task: SttTask::Translate, words: false, ..wanted(Format::VerboseJson) };
    let verbose: Value = serde_json::from_str(&answer(&translated).await.1).unwrap();
    assert_eq!((&verbose["task"], &verbose["language"]), (&json!("translate"), &json!("english")));
    assert!(verbose.get("words").is_none() && verbose["segments"].is_array());
}

#[test]
fn without_times_all_is_one_cue() {
    let whole = FinalTranscript { segments: Vec::new(), ..transcript() };
    assert_eq!(cues(&whole), [Cue { start: Duration::ZERO, end: whole.audio, text: "Hello there. Bye." }]);
}

#[test]
fn languages_have_english_names() {
    assert_eq!(
        ["en", "pl", "he", "jv", "yue", "xx"].map(language::name),
        ["english", "polish", "hebrew", "javanese", "cantonese", "xx"]
    );
}
