use std::collections::HashSet;
use std::time::Duration;

use futures::StreamExt;
use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::api::fixture::{Server, server_with};
use crate::audio::{Limits, decode_bytes};
use crate::provider::fake::{FakeSpeech, MILLIS_PER_CHAR};
use crate::provider::{SpeakRequest, SpeechSynthesizer, VoiceEngine};

async fn server(speech: &Arc<FakeSpeech>) -> Server {
    let speech = Arc::clone(speech);
    server_with(|state| state.parts.speech = speech).await
}

async fn bytes(server: &Server, body: Value) -> Vec<u8> {
    let response = server.post("/v1/audio/speech", &body).await;
    assert_eq!(response.status(), 200, "{body}");
    response.bytes().await.unwrap().to_vec()
}

const TEXT: &str = "One two three four five. Then come six and seven. At last there are eight and nine!";

fn seconds(asked: &[SpeakRequest]) -> f64 {
    let characters: usize = asked.iter().map(|request| request.text.chars().count()).sum();
    (characters as u64 * MILLIS_PER_CHAR) as f64 / 1000.0
}

#[tokio::test]
async fn every_format_is_whole_and_named() {
    let speech = Arc::new(FakeSpeech::default());
    let server = server(&speech).await;
    for format in Format::ALL {
        speech.asked.lock().unwrap().clear();
        let body = json!({"model": "tts-1", "input": TEXT, "voice": "alloy", "response_format": format.name()});
        let response = server.post("/v1/audio/speech", &body).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], format.content_type());
        assert_eq!(response.headers()["x-served-by"], "fake-voice");
        let bytes = response.bytes().await.unwrap().to_vec();
        let audio = match format {
            Format::Pcm => Speech::from_s16le(&bytes),
            _ => decode_bytes(bytes, Limits::default()).unwrap(),
        };
        let asked = speech.asked.lock().unwrap();
        let expected = seconds(&asked);
        let heard = audio.len().seconds();
        assert!((expected - 0.01..expected + 0.2).contains(&heard), "{}: {heard} of {expected} s", format.name());
        assert_eq!(asked[0].voice.as_deref(), Some("alloy"));
        assert!(asked.iter().all(|request| request.model.is_none()), "an alias is the server's own model");
    }
}

#[tokio::test]
async fn it_is_mp3_at_natural_speed_unless_told() {
    let speech = Arc::new(FakeSpeech::default());
    let server = server(&speech).await;
    let body = json!({"model": "a-voice-model", "input": "Hello there.", "voice": {"id": "fake"}});
    let response = server.post("/v1/audio/speech", &body).await;
    assert_eq!(response.headers()["content-type"], "audio/mpeg");
    assert!(response.headers().contains_key("x-request-id"));
    let asked = speech.asked.lock().unwrap()[0].clone();
    assert_eq!((asked.voice.as_deref(), asked.speed), (Some("fake"), 1.0));
    assert_eq!(asked.model.as_deref(), Some("a-voice-model"));
    assert_eq!(asked.urgency, Urgency::First);
    assert!(asked.caller.request_id.is_some());
}

#[tokio::test]
async fn any_speed_is_made_of_what_the_engine_can() {
    let speech = Arc::new(FakeSpeech::default());
    let server = server(&speech).await;
    for (speed, of_engine) in [(0.25, 0.5), (0.5, 0.5), (1.5, 1.5), (2.0, 2.0), (3.0, 2.0), (4.0, 2.0)] {
        speech.asked.lock().unwrap().clear();
        let body = json!({"model": "tts-1", "input": TEXT, "response_format": "pcm", "speed": speed});
        let heard = Speech::from_s16le(&bytes(&server, body).await).len().seconds();
        let asked = speech.asked.lock().unwrap();
        assert!(asked.iter().all(|request| (request.speed - of_engine).abs() < 1e-6), "{speed}");
        // The engine here speaks at one speed.
        let expected = seconds(&asked) * f64::from(of_engine) / speed;
        assert!((heard - expected).abs() < 0.001, "{speed}: {heard} of {expected} s");
    }
}

#[tokio::test]
async fn audio_leaves_with_the_first_sentence() {
    let speech = Arc::new(FakeSpeech { chunk_delay: Duration::from_millis(150), ..FakeSpeech::default() });
    let server = server(&speech).await;
    let started = Instant::now();
    let body = json!({"model": "tts-1", "input": format!("{TEXT} {TEXT}"), "response_format": "pcm"});
    let response = server.post("/v1/audio/speech", &body).await;
    let mut parts = response.bytes_stream();
    parts.next().await.unwrap().unwrap();
    let first = started.elapsed();
    assert!(speech.asked.lock().unwrap().len() < 4, "no more than the next sentence is asked for ahead");
    while let Some(part) = parts.next().await {
        part.unwrap();
    }
    let whole = started.elapsed();
    assert!(first * 4 < whole, "{first:?} of {whole:?}");
    assert_eq!(speech.load.most(), 2, "the next sentence is generated while one is sent");
    let texts: Vec<_> = speech.asked.lock().unwrap().iter().map(|request| request.text.clone()).collect();
    assert_eq!(texts.join(" "), format!("{TEXT} {TEXT}"), "in order");
}

#[tokio::test]
async fn the_sentences_of_a_text_are_one_story() {
    let speech = Arc::new(FakeSpeech::default());
    let server = server(&speech).await;
    let mut told = HashSet::new();
    for _ in 0..2 {
        bytes(&server, json!({"model": "tts-1", "input": TEXT, "response_format": "pcm"})).await;
        let asked = std::mem::take(&mut *speech.asked.lock().unwrap());
        assert!(asked.len() > 1);
        let stories: HashSet<_> = asked.into_iter().map(|request| request.story.unwrap()).collect();
        assert_eq!(stories.len(), 1);
        told.extend(stories);
    }
    assert_eq!(told.len(), 2, "each text is one of its own");
}

#[tokio::test]
async fn voices_that_hear_themselves_are_asked_for_a_sentence_at_a_time() {
    let speech = Arc::new(FakeSpeech { engine: VoiceEngine::Higgs, ..FakeSpeech::default() });
    let server = server(&speech).await;
    bytes(&server, json!({"model": "tts-1", "input": TEXT, "response_format": "pcm"})).await;
    assert!(speech.asked.lock().unwrap().len() > 1);
    assert_eq!(speech.load.most(), 1);
}

#[tokio::test]
async fn whoever_leaves_stops_it() {
    let speech = Arc::new(FakeSpeech { chunk_delay: Duration::from_millis(50), ..FakeSpeech::default() });
    let server = server(&speech).await;
    let body = json!({"model": "tts-1", "input": TEXT.repeat(20), "response_format": "pcm"});
    let response = server.post("/v1/audio/speech", &body).await;
    assert!(speech.load.now() > 0);
    drop(response);
    let end = Instant::now() + Duration::from_secs(5);
    while speech.load.now() > 0 {
        assert!(Instant::now() < end, "still speaking");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn events_carry_the_same_bytes_and_what_they_cost() {
    let speech = Arc::new(FakeSpeech::default());
    let server = server(&speech).await;
    let ask = |kind: &str| json!({"model": "tts-1", "input": TEXT, "response_format": "wav", "stream_format": kind});
    let plain = bytes(&server, ask("audio")).await;
    let response = server.post("/v1/audio/speech", &ask("sse")).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["x-served-by"], "fake-voice");
    let text = response.text().await.unwrap();
    let events: Vec<Value> = text
        .split_terminator("\n\n")
        .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
        .collect();
    let (done, deltas) = events.split_last().unwrap();
    let sent: Vec<u8> = deltas
        .iter()
        .flat_map(|event| {
            assert_eq!(event["type"], "speech.audio.delta");
            STANDARD.decode(event["audio"].as_str().unwrap()).unwrap()
        })
        .collect();
    assert!(deltas.len() > 3 && sent == plain);
    assert_eq!(done["type"], "speech.audio.done");
    let usage = &done["usage"];
    assert_eq!(usage["input_tokens"], TEXT.len());
    let audio = Speech::from_s16le(&plain[44..]).len();
    assert_eq!(usage["output_tokens"], audio.millis().div_ceil(50));
    let sum = usage["input_tokens"].as_u64().unwrap() + usage["output_tokens"].as_u64().unwrap();
    assert_eq!(usage["total_tokens"], sum);
}

#[tokio::test]
async fn mistakes_are_named_before_anything_is_sent() {
    let refusal = ProviderError::VoiceUnavailable { voice: "x".to_owned(), nearest: "fake".to_owned() };
    let full = ProviderError::Overloaded { what: "fake".to_owned(), retry_after: Duration::from_secs(3) };
    let failures = vec![("elsewhere", refusal), ("crowded", full)];
    let speech = Arc::new(FakeSpeech { failures, ..FakeSpeech::default() });
    let server = server(&speech).await;
    let long = "a ".repeat(5_001);
    for (body, status, param) in [
        (json!({"model": "tts-1"}), 400, Some("input")),
        (json!({"model": "tts-1", "input": 3}), 400, Some("input")),
        (json!({"model": "tts-1", "input": ""}), 400, Some("input")),
        (json!({"model": "tts-1", "input": " \u{1F600} "}), 400, Some("input")),
        (json!({"model": "tts-1", "input": long}), 400, Some("input")),
        (json!({"model": "tts-1", "input": "a", "speed": 0.2}), 400, Some("speed")),
        (json!({"model": "tts-1", "input": "a", "speed": 4.1}), 400, Some("speed")),
        (json!({"model": "tts-1", "input": "a", "speed": "fast"}), 400, Some("speed")),
        (json!({"model": "tts-1", "input": "a", "response_format": "ogg"}), 400, Some("response_format")),
        (json!({"model": "tts-1", "input": "a", "response_format": 1}), 400, Some("response_format")),
        (json!({"model": "tts-1", "input": "a", "stream_format": "tape"}), 400, Some("stream_format")),
        (json!({"model": "tts-1", "input": "it is elsewhere"}), 400, Some("voice")),
        (json!({"model": "tts-1", "input": "it is crowded"}), 503, None),
    ] {
        let response = server.post("/v1/audio/speech", &body).await;
        assert_eq!(response.status(), status, "{body}");
        assert_eq!(response.headers().contains_key("retry-after"), status == 503);
        let error: Value = response.json().await.unwrap();
        assert_eq!(error["error"]["param"].as_str(), param, "{body}: {error}");
        let message = error["error"]["message"].as_str().unwrap();
        assert!(!message.is_empty(), "{error}");
    }
}

/// What was sent cannot be taken back: the connection breaks, so that nobody takes the file for whole.
#[tokio::test]
async fn a_failure_in_the_middle_breaks_the_file() {
    let failures = vec![("nine", ProviderError::Failed { what: "fake".to_owned() })];
    let speech = Arc::new(FakeSpeech { failures, ..FakeSpeech::default() });
    let server = server(&speech).await;
    let ask = |kind: &str| json!({"model": "tts-1", "input": TEXT, "response_format": "pcm", "stream_format": kind});
    let response = server.post("/v1/audio/speech", &ask("audio")).await;
    assert_eq!(response.status(), 200);
    assert!(response.bytes().await.is_err());
    let text = server.post("/v1/audio/speech", &ask("sse")).await.text().await.unwrap();
    let last = text.trim_end().rsplit("data: ").next().unwrap();
    assert!(last.contains("\"type\":\"error\"") && last.contains("fake failed"), "{last}");
    assert!(!text.contains("speech.audio.done"));
}

/// As [`FakeSpeech`], but full for the first two calls of a sentence.
struct Crowded(FakeSpeech);

impl SpeechSynthesizer for Crowded {
    fn speak(&self, request: SpeakRequest) -> crate::provider::Flow<crate::provider::SpeechChunk> {
        let before = self.0.asked.lock().unwrap().iter().filter(|asked| asked.text == request.text).count();
        if request.text.contains("nine") && before < 2 {
            self.0.asked.lock().unwrap().push(request);
            let error = ProviderError::Overloaded { what: "fake".to_owned(), retry_after: Duration::from_millis(10) };
            return stream::once(async { Err(error) }).boxed();
        }
        self.0.speak(request)
    }

    fn voices(&self) -> Vec<crate::provider::VoiceInfo> {
        self.0.voices()
    }
}

#[tokio::test]
async fn a_later_sentence_waits_for_its_turn() {
    let speech = Arc::new(Crowded(FakeSpeech::default()));
    let server = server_with(|state| state.parts.speech = Arc::clone(&speech) as _).await;
    let body = json!({"model": "tts-1", "input": TEXT, "response_format": "pcm"});
    let heard = Speech::from_s16le(&bytes(&server, body).await).len().seconds();
    let mut asked = speech.0.asked.lock().unwrap().clone();
    let last = asked.last().unwrap().text.clone();
    assert_eq!(asked.iter().filter(|request| request.text == last).count(), 3);
    asked.truncate(asked.len() - 2);
    assert!((heard - seconds(&asked)).abs() < 0.001, "{heard}");
}
