use futures::{StreamExt, stream};
use serde_json::json;

use super::*;
use crate::remote::fake::{FakeProvider, Play};

fn seconds(seconds: u64) -> BoxStream<'static, Mic> {
    let second = Mic::new(vec![0.25; 16_000]);
    stream::iter((0..seconds).map(move |_| second.clone())).boxed()
}

async fn hear(play: Play, model: &str, options: SttOptions) -> (FinalTranscript, String) {
    let fake = FakeProvider::start([play]).await;
    let mut items: Vec<_> =
        RemoteTranscriber::new(fake.service(), model).transcribe(seconds(2), options).collect().await;
    assert_eq!(items.len(), 1);
    let Transcript::Final(transcript) = items.remove(0).unwrap() else { panic!("it is not final") };
    let received = &fake.received()[0];
    (transcript, format!("{}\r\n\r\n{}", received.head, String::from_utf8_lossy(&received.body)))
}

/// Whether a form has this field with this value.
fn has(request: &str, name: &str, value: &str) -> bool {
    request.contains(&format!("name=\"{name}\"\r\n\r\n{value}\r\n"))
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::test]
async fn whisper_tells_segments_and_words() {
    let answer = json!({
        "task": "transcribe", "language": "english", "duration": 2.0, "text": " Hello there. Bye.",
        "segments": [
            { "id": 0, "start": 0.0, "end": 1.0, "text": " Hello there.", "avg_logprob": -0.25, "no_speech_prob": 0.125 },
            { "id": 1, "start": 1.25, "end": 99.0, "text": " Bye.", "avg_logprob": -0.5, "no_speech_prob": 0.0 },
        ],
        "words": [
            { "word": "Hello", "start": 0.0, "end": 0.5 }, { "word": "there", "start": 0.5, "end": 1.0 },
            { "word": "Bye", "start": 1.25, "end": -7.0 },
        ],
    });
    let languages = vec!["en".to_owned()];
    let prompt = Some("Names: Ada".to_owned());
    let options = SttOptions { languages, prompt, word_times: true, temperature: 0.5, ..SttOptions::default() };
    let (heard, request) = hear(Play::json(200, &answer), "whisper-1", options).await;
    assert_eq!((heard.text.as_str(), heard.language.as_str()), ("Hello there. Bye.", "en"));
    assert_eq!((heard.audio, &*heard.served_by), (ms(2000), "fake/whisper-1"));
    let word = |text: &str, start, end| Word { text: text.to_owned(), start: ms(start), end: ms(end) };
    let words = vec![word("Hello", 0, 500), word("there", 500, 1000)];
    let text = "Hello there.".to_owned();
    let first = Segment { text, start: ms(0), end: ms(1000), words, log_probability: -0.25, no_speech: 0.125 };
    assert_eq!(heard.segments[0], first);
    let second = &heard.segments[1];
    assert_eq!((second.start, second.end), (ms(1250), ms(2000)), "nothing lasts longer than what was heard");
    assert_eq!(second.words, [word("Bye", 1250, 1250)]);
    assert!(request.starts_with("POST /v1/audio/transcriptions HTTP/1.1"));
    for (name, value) in [
        ("model", "whisper-1"),
        ("response_format", "verbose_json"),
        ("language", "en"),
        ("prompt", "Names: Ada"),
        ("temperature", "0.5"),
        ("timestamp_granularities[]", "word"),
        ("timestamp_granularities[]", "segment"),
    ] {
        assert!(has(&request, name, value), "{name}");
    }
    assert!(request.contains("filename=\"utterance.wav\"") && request.contains("RIFF"));
}

#[tokio::test]
async fn later_models_tell_only_the_text() {
    let play = Play::json(200, &json!({ "text": "Guten Tag." }));
    let languages = vec!["de".to_owned()];
    let options = SttOptions { word_times: true, languages, ..SttOptions::default() };
    let (heard, request) = hear(play, "gpt-4o-transcribe", options).await;
    assert_eq!((heard.text.as_str(), heard.language.as_str()), ("Guten Tag.", "de"));
    assert_eq!((heard.segments.len(), heard.segments[0].end), (1, ms(2000)));
    assert!(has(&request, "response_format", "json") && !request.contains("timestamp_granularities"));
}

#[tokio::test]
async fn a_translation_has_a_path_of_its_own() {
    let play = Play::json(200, &json!({ "text": "Good day.", "language": "German" }));
    let options = SttOptions { task: SttTask::Translate, languages: vec!["de".to_owned()], ..SttOptions::default() };
    let (heard, request) = hear(play, "whisper-1", options).await;
    assert_eq!((heard.text.as_str(), heard.language.as_str()), ("Good day.", "de"));
    assert!(request.starts_with("POST /v1/audio/translations HTTP/1.1") && !request.contains("name=\"language\""));
}

#[tokio::test]
async fn silence_is_not_sent() {
    let fake = FakeProvider::start([Play::silence()]).await;
    let transcriber = RemoteTranscriber::new(fake.service(), "whisper-1");
    let items: Vec<_> = transcriber.transcribe(stream::empty().boxed(), SttOptions::default()).collect().await;
    let [Ok(Transcript::Final(heard))] = items.as_slice() else { panic!("{items:?}") };
    assert!(heard.text.is_empty() && heard.segments.is_empty() && heard.language == "und");
    assert_eq!(fake.connections(), 0);
}

#[tokio::test]
async fn what_is_too_long_or_in_no_known_language_is_not_sent() {
    let fake = FakeProvider::start([Play::silence()]).await;
    let transcriber = RemoteTranscriber::new(fake.service(), "whisper-1");
    let items: Vec<_> = transcriber.transcribe(seconds(800), SttOptions::default()).collect().await;
    assert!(matches!(items.as_slice(), [Err(ProviderError::InvalidRequest { field: "file", .. })]));
    let options = SttOptions { languages: vec!["tlh".to_owned()], ..SttOptions::default() };
    let items: Vec<_> = transcriber.transcribe(seconds(1), options).collect().await;
    assert!(matches!(items.as_slice(), [Err(ProviderError::LanguageUnsupported { .. })]));
    assert_eq!(fake.connections(), 0);
    assert!(transcriber.languages().len() == 100 && transcriber.languages().contains(&"yue".to_owned()));
}
