use serde_json::{Value, json};

use std::time::SystemTime;

use super::*;
use crate::api::fixture::{Server, server_with};
use crate::api::{Access, ApiKey};
use crate::audio::{Limits, Speech, decode_bytes};
use crate::provider::ProviderError;
use crate::provider::fake::FakeSpeech;

const TEXT: &str = "One two three four five. Then come six and seven.";

async fn made(server: &Server, body: Value) -> Value {
    let response = server.post("/api/speech", &body).await;
    assert_eq!(response.status(), 200, "{body}");
    assert_eq!(response.headers()["x-served-by"], "fake-voice");
    response.json().await.unwrap()
}

async fn fetched(server: &Server, url: &str, range: Option<&str>) -> reqwest::Response {
    let mut request = server.asking(reqwest::Method::GET, url);
    if let Some(range) = range {
        request = request.header("range", range);
    }
    request.send().await.unwrap()
}

#[tokio::test]
async fn a_text_becomes_an_address_that_plays() {
    let mut data_dir = PathBuf::new();
    let server = server_with(|state| data_dir = state.data_dir.clone()).await;
    for format in Format::ALL {
        let speech = made(&server, json!({"text": TEXT, "voice": "fake", "format": format, "speed": 0.25})).await;
        assert_eq!(speech["format"], format.name());
        let url = speech["url"].as_str().unwrap();
        let response = fetched(&server, url, None).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], format.content_type());
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        let bytes = response.bytes().await.unwrap().to_vec();
        let audio = match format {
            Format::Pcm => Speech::from_s16le(&bytes),
            _ => decode_bytes(bytes.clone(), Limits::default()).unwrap(),
        };
        let seconds = speech["seconds"].as_f64().unwrap();
        assert!((seconds - 0.01..seconds + 0.2).contains(&audio.len().seconds()), "{speech}");
        if format == Format::Wav {
            let header = crate::audio::wav::header(24_000, Some(bytes.len() as u32 - 44));
            assert_eq!(bytes[..44], header, "its header says its length");
        }
    }
    let files = std::fs::read_dir(folder(&data_dir)).unwrap().count();
    assert_eq!(files, Format::ALL.len(), "nothing unfinished stays");
    assert_eq!(made(&server, json!({"text": TEXT})).await["format"], "mp3");
}

#[tokio::test]
async fn players_may_ask_for_parts() {
    let server = server_with(|_| {}).await;
    let speech = made(&server, json!({"text": TEXT, "format": "wav"})).await;
    let url = speech["url"].as_str().unwrap();
    let whole = fetched(&server, url, None).await;
    assert_eq!(whole.headers()["accept-ranges"], "bytes");
    let whole = whole.bytes().await.unwrap();
    let length = whole.len();
    for (range, part) in [
        ("bytes=0-1".to_owned(), 0..2),
        ("bytes=44-99".to_owned(), 44..100),
        ("bytes=100-".to_owned(), 100..length),
        ("bytes=-10".to_owned(), length - 10..length),
        (format!("bytes=10-{}", length * 2), 10..length),
    ] {
        let response = fetched(&server, url, Some(&range)).await;
        assert_eq!(response.status(), 206, "{range}");
        let said = format!("bytes {}-{}/{length}", part.start, part.end - 1);
        assert_eq!(response.headers()["content-range"], said.as_str());
        assert_eq!(response.bytes().await.unwrap(), whole[part], "{range}");
    }
    for range in [format!("bytes={length}-"), "bytes=-0".to_owned()] {
        let response = fetched(&server, url, Some(&range)).await;
        assert_eq!(response.status(), 416, "{range}");
        assert_eq!(response.headers()["content-range"], format!("bytes */{length}").as_str());
    }
    for range in ["bytes=5-2", "bytes=0-1,4-5", "items=0-1", "bytes=x-y"] {
        assert_eq!(fetched(&server, url, Some(range)).await.status(), 200, "{range}");
    }
}

#[tokio::test]
async fn only_what_was_made_is_found() {
    let mut data_dir = PathBuf::new();
    let server = server_with(|state| data_dir = state.data_dir.clone()).await;
    let url = made(&server, json!({"text": TEXT})).await["url"].as_str().unwrap().to_owned();
    std::fs::write(data_dir.join("secret.mp3"), "secret").unwrap();
    for path in [
        "/api/speech/..%2fsecret.mp3",
        "/api/speech/%2e%2e/secret.mp3",
        "/api/speech/secret.mp3",
        "/api/speech/test.db",
        "/api/speech/7b0e9b6e-64a8-4d4f-9a0e-3f2f6b2d9f11.mp3",
        &format!("{url}.part"),
        &url.replace(".mp3", ".wav"),
        &url.replace(".mp3", ""),
    ] {
        assert_eq!(server.get(path, "").await.0, 404, "{path}");
    }
    let path = folder(&data_dir).join(url.rsplit('/').next().unwrap());
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(SystemTime::now() - KEPT - Duration::from_secs(1)).unwrap();
    assert_eq!(fetched(&server, &url, None).await.status(), 404, "a day is over");
}

#[tokio::test]
async fn it_needs_the_key() {
    let server = server_with(|state| {
        state.access = Access { api_key: Some(ApiKey::new("secret")), ..Access::default() };
    })
    .await;
    assert_eq!(server.post("/api/speech", &json!({"text": TEXT})).await.status(), 401);
    assert_eq!(server.get("/api/speech/7b0e9b6e-64a8-4d4f-9a0e-3f2f6b2d9f11.mp3", "").await.0, 401);
}

#[tokio::test]
async fn mistakes_are_named_and_leave_nothing() {
    let mut data_dir = PathBuf::new();
    let failures = vec![("seven", ProviderError::Failed { what: "fake".to_owned() })];
    let speech = Arc::new(FakeSpeech { failures, ..FakeSpeech::default() });
    let server = server_with(|state| {
        data_dir = state.data_dir.clone();
        state.parts.speech = speech;
    })
    .await;
    for (body, status, code) in [
        (json!({}), 400, "bad_field"),
        (json!({"text": 5}), 400, "bad_field"),
        (json!(["Hello."]), 400, "bad_json"),
        (json!({"text": " "}), 400, "bad_field"),
        (json!({"text": "a", "format": "ogg"}), 400, "bad_field"),
        (json!({"text": "a", "speed": 9}), 400, "bad_field"),
        (json!({"text": TEXT}), 500, "provider_failed"),
    ] {
        let response = server.post("/api/speech", &body).await;
        assert_eq!(response.status(), status, "{body}");
        let problem: Value = response.json().await.unwrap();
        assert_eq!(problem["code"], code, "{problem}");
    }
    let left = std::fs::read_dir(folder(&data_dir)).map_or(0, Iterator::count);
    assert_eq!(left, 0);
}

#[test]
fn the_old_and_the_many_are_swept() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    for (name, hours, bytes) in [("old", 30, 10), ("older", 40, 10), ("a", 3, 100), ("b", 2, 100), ("c", 1, 100)] {
        let path = folder.path().join(name);
        std::fs::write(&path, vec![0; bytes]).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(now - Duration::from_hours(hours)).unwrap();
    }
    let left = || {
        let mut names: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(sweep(folder.path(), KEPT, 1_000).unwrap(), 2);
    assert_eq!(left(), ["a", "b", "c"]);
    assert_eq!(sweep(folder.path(), KEPT, 250).unwrap(), 1);
    assert_eq!(left(), ["b", "c"]);
    assert_eq!(sweep(folder.path(), KEPT, 250).unwrap(), 0);
    assert_eq!(sweep(&folder.path().join("none"), KEPT, 0).unwrap(), 0);
}

#[test]
fn an_address_is_its_owners() {
    let id = own_id("anna", Uuid::new_v4());
    assert_eq!(own_id("anna", id), id);
    assert_ne!(own_id("bob", id), id);
}
