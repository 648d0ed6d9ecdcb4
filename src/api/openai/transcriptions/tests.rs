use reqwest::multipart::{Form as Sent, Part};

use super::*;
use crate::api::fixture::{PATIENCE, Server, server_with};
use crate::audio::{Samples, wav};
use crate::provider::ProviderError;
use crate::provider::fake::FakeHearing;
use serde_json::{Value, json};
use std::collections::VecDeque;
use tokio::time::{Instant, sleep, timeout};

fn clip(millis: u64) -> Vec<u8> {
    wav::encode(&Mic::new(vec![0.5; Samples::<MIC_HZ>::from_millis(millis).as_usize()]))
}

async fn hearing(texts: &[&str]) -> (Server, Arc<FakeHearing>) {
    let ear = Arc::new(FakeHearing::new(texts));
    let heard = Arc::clone(&ear);
    (server_with(move |state| state.parts.stt = heard).await, ear)
}

fn form(file: Vec<u8>, fields: &[(&'static str, &str)]) -> Sent {
    let form = Sent::new().part("file", Part::bytes(file).file_name("clip.wav"));
    fields.iter().fold(form, |form, (name, value)| form.text(*name, (*value).to_owned()))
}

async fn post(server: &Server, path: &str, form: Sent) -> reqwest::Response {
    let request = server.asking(reqwest::Method::POST, &format!("/v1/audio/{path}")).multipart(form);
    timeout(PATIENCE, request.send()).await.unwrap().unwrap()
}

/// The status and the body of an error.
async fn refused(server: &Server, form: Sent) -> (u16, Value) {
    let response = post(server, "transcriptions", form).await;
    let status = response.status().as_u16();
    (status, response.json::<Value>().await.unwrap()["error"].clone())
}

#[tokio::test]
async fn a_file_becomes_text_and_its_options_arrive() {
    let (server, ear) = hearing(&["hello there", "bye"]).await;
    let fields = [
        ("model", "whisper-1"),
        ("language", "EN-us"),
        ("prompt", "words"),
        ("temperature", "0.4"),
        ("chunking_strategy", "auto"),
    ];
    let response = post(&server, "transcriptions", form(clip(2_000), &fields)).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-served-by"], "fake-ear");
    let body: Value = response.json().await.unwrap();
    assert_eq!(body, json!({"text": "hello there", "usage": {"type": "duration", "seconds": 2.0}}));
    assert_eq!(ear.heard.lock().unwrap()[0].duration(), Duration::from_secs(2));

    let fields = [("model", "mine"), ("response_format", "verbose_json"), ("timestamp_granularities[]", "word")];
    let body: Value = post(&server, "translations", form(clip(500), &fields)).await.json().await.unwrap();
    assert_eq!((&body["task"], &body["words"], body.get("segments")), (&json!("translate"), &json!([]), None));
    let asked = ear.asked.lock().unwrap();
    assert_eq!(
        (asked[0].languages.as_slice(), asked[0].prompt.as_deref()),
        (["en".to_owned()].as_slice(), Some("words"))
    );
    assert!((asked[0].temperature - 0.4).abs() < 1e-6 && asked[0].model.is_none() && !asked[0].word_times);
    assert!(asked[0].caller.request_id.is_some());
    assert_eq!((asked[1].model.as_deref(), asked[1].task), (Some("mine"), SttTask::Translate));
    assert!(asked[1].word_times && asked[1].languages.is_empty());
}

#[tokio::test]
async fn every_mistake_has_its_status_and_field() {
    // Only the file without samples is begun to be heard.
    let (server, _) = hearing(&["never said"]).await;
    let model = ("model", "whisper-1");
    let cases: [(&[(&str, &str)], &str); 8] = [
        (&[], "model"),
        (&[model, ("temperature", "2")], "temperature"),
        (&[model, ("response_format", "xml")], "response_format"),
        (&[model, ("timestamp_granularities[]", "word")], "timestamp_granularities"),
        (&[model, ("timestamp_granularities[]", "letter")], "timestamp_granularities"),
        (&[model, ("stream", "true"), ("response_format", "srt")], "response_format"),
        (&[model, ("stream", "perhaps")], "stream"),
        (&[model, ("include[]", "logprobs")], "include"),
    ];
    for (fields, param) in cases {
        let (status, error) = refused(&server, form(clip(100), fields)).await;
        assert_eq!((status, &error["param"]), (400, &json!(param)), "{fields:?}: {error}");
        assert_eq!(error["type"], "invalid_request_error");
    }
    let (status, error) = refused(&server, Sent::new().text("model", "whisper-1")).await;
    assert_eq!((status, &error["param"]), (400, &json!("file")), "{error}");
    for junk in [Vec::new(), b"this is no sound at all".repeat(100), clip(1_000)[..44].to_vec()] {
        let (status, error) = refused(&server, form(junk, &[model])).await;
        assert_eq!((status, &error["param"], &error["code"]), (400, &json!("file"), &json!("bad_audio")), "{error}");
    }
    let long = "word ".repeat(300_000);
    let (status, error) = refused(&server, form(clip(100), &[model, ("prompt", &long)])).await;
    assert_eq!((status, &error["param"]), (413, &json!("prompt")), "{error}");
    let (status, answer) = server
        .request(
            "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
        )
        .await;
    assert!(status == 400 && answer.contains("multipart/form-data"), "{answer}");
}

#[tokio::test]
async fn what_the_recogniser_refuses_keeps_its_status() {
    let (server, ear) = hearing(&[]).await;
    let language = ProviderError::LanguageUnsupported { language: "xx".to_owned(), what: "whisper".to_owned() };
    let busy = ProviderError::Overloaded { what: "whisper".to_owned(), retry_after: Duration::from_secs(2) };
    *ear.texts.lock().unwrap() = VecDeque::from([Err(language), Err(busy)]);
    let fields = [("model", "whisper-1"), ("language", "xx"), ("stream", "true")];
    let (status, error) = refused(&server, form(clip(100), &fields)).await;
    assert_eq!((status, &error["code"], &error["param"]), (400, &json!("language_unsupported"), &json!("language")));
    let response = post(&server, "transcriptions", form(clip(100), &fields[..1])).await;
    assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (503, &"2".parse().unwrap()));
}

/// Four hours and a second of silence in a few packets: no byte of it is decoded.
fn too_long() -> Vec<u8> {
    let seconds = LONGEST.as_secs() as u32 + 1;
    let (rate, bytes) = (8_000_u32, 8_000 * seconds);
    let mut file = wav::encode(&Mic::default());
    file.truncate(44);
    file[24..28].copy_from_slice(&rate.to_le_bytes());
    file[28..32].copy_from_slice(&rate.to_le_bytes());
    // One byte a sample.
    file[32..34].copy_from_slice(&1_u16.to_le_bytes());
    file[34..36].copy_from_slice(&8_u16.to_le_bytes());
    file[4..8].copy_from_slice(&(bytes + 36).to_le_bytes());
    file[40..44].copy_from_slice(&bytes.to_le_bytes());
    file.resize(44 + bytes as usize, 128);
    file
}

#[tokio::test]
async fn what_is_too_long_or_too_large_is_refused_soon() {
    let ear = Arc::new(FakeHearing::new(&[]));
    let (heard, mut folder) = (Arc::clone(&ear), std::path::PathBuf::new());
    let server = server_with(|state| {
        state.parts.stt = heard;
        folder.clone_from(&state.data_dir);
    })
    .await;
    let started = Instant::now();
    let (status, error) = refused(&server, form(too_long(), &[("model", "whisper-1")])).await;
    assert_eq!((status, &error["param"]), (413, &json!("file")), "{error}");
    assert!(error["message"].as_str().unwrap().contains("14400 s"), "{error}");
    assert!(ear.asked.lock().unwrap().is_empty(), "nobody was asked to hear it");
    // Announced only; the answer does not wait for what never comes.
    let head = "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 900000000\r\n\r\n";
    let (status, answer) = server.request(head).await;
    assert!(status == 413 && answer.contains("512 MB"), "{answer}");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    let left: Vec<_> = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| name.to_string_lossy().starts_with("test.db")), "{left:?}");
}

#[tokio::test]
async fn a_header_without_end_is_not_kept() {
    let (server, _) = hearing(&[]).await;
    let body = format!("--b\r\nContent-Disposition: form-data; name=\"{}", "x".repeat(20 * 1024 * 1024));
    let request = server.asking(reqwest::Method::POST, "/v1/audio/transcriptions");
    let request = request.header("content-type", "multipart/form-data; boundary=b").body(body);
    let response = timeout(PATIENCE, request.send()).await.unwrap().unwrap();
    assert_eq!(response.status(), 400);
}

#[tokio::test]
async fn a_stream_tells_the_whole_text_and_ends() {
    let (server, ear) = hearing(&["one two three four"]).await;
    let fields = [("model", "gpt-4o-mini-transcribe"), ("stream", "true")];
    let response = post(&server, "transcriptions", form(clip(2_000), &fields)).await;
    assert_eq!((response.status().as_u16(), &response.headers()["x-served-by"]), (200, &"fake-ear".parse().unwrap()));
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = timeout(PATIENCE, response.text()).await.unwrap().unwrap();
    let events: Vec<Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    assert_eq!(events.last().unwrap(), &json!({"type": "transcript.text.done", "text": "one two three four"}));
    let deltas: String = events.iter().filter_map(|event| event["delta"].as_str()).collect();
    assert_eq!(deltas, "one two three four");
    assert!(ear.asked.lock().unwrap()[0].partials);
}

#[tokio::test]
async fn a_file_that_turns_out_damaged_is_an_error_and_no_transcript() {
    let (server, _) = hearing(&["never said"]).await;
    // Frames whose headers are right and whose contents are noise.
    let mut state = 1_u32;
    let mut noise = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let frame: Vec<u8> = [0xFF, 0xFB, 0x90, 0x00].into_iter().chain((0..413).map(&mut noise)).collect();
    let (status, error) = refused(&server, form(frame.repeat(200), &[("model", "whisper-1")])).await;
    assert_eq!((status, &error["code"]), (400, &json!("bad_audio")), "{error}");
}

#[tokio::test]
async fn whoever_leaves_is_not_worked_for() {
    let mut slow = FakeHearing::new(&["too late"]);
    slow.delay = Duration::from_hours(1);
    let slow = Arc::new(slow);
    let left = Arc::clone(&slow);
    let server = server_with(move |state| state.parts.stt = left).await;
    let request = server.asking(reqwest::Method::POST, "/v1/audio/transcriptions");
    let request = request.multipart(form(clip(100), &[("model", "whisper-1")]));
    assert!(timeout(Duration::from_millis(800), request.send()).await.is_err(), "nothing answers for an hour");
    let mut patience = 100;
    while Arc::strong_count(&slow.heard) > 1 && patience > 0 {
        patience -= 1;
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(Arc::strong_count(&slow.heard), 1, "the transcription was dropped with its request");
}
