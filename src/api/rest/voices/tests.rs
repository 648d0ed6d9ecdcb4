//! Every path: its success, its 404, its validation errors, on both databases; recordings of every kind of wrong.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use reqwest::multipart::{Form as Multipart, Part};
use reqwest::{Client as Http, Method, Response, header};
use serde_json::{Value, json};

use crate::api::State;
use crate::api::fixture::{Server, server_on, server_with};
use crate::audio::{Format, Limits, Speech, decode_bytes};
use crate::provider::fake::{FakeHearing, FakeSpeech};
use crate::provider::voices::Voiced;
use crate::store::fixture::{TestStore, on_both_databases};
use crate::store::{CharacterChange, Kept, LOCAL_OWNER, NewVoice, Recordings, VoiceLibrary, VoiceMethod, VoiceStatus};

on_both_databases!(
    every_path_answers_and_names_what_is_wrong,
    a_voice_is_cloned_changed_and_deleted,
    lists_go_on_with_the_engines_voices,
    names_of_engines_voices_are_theirs,
    a_voice_in_use_is_told_with_its_users,
);

/// Parts of `(seconds, level)`, as a buzz.
fn buzz(parts: &[(f32, f32)]) -> Speech {
    let samples = parts.iter().flat_map(|(seconds, level)| {
        (0..(seconds * 24_000.0) as usize).map(move |at| if at / 60 % 2 == 0 { *level } else { -level })
    });
    Speech::new(samples.collect())
}

fn wav(parts: &[(f32, f32)]) -> Vec<u8> {
    Format::Wav.encode(&buzz(parts)).unwrap()
}

/// Five seconds of what the scripted detector takes for speech.
fn voice_of(level: f32) -> Vec<u8> {
    wav(&[(1.0, 0.0), (5.0, level), (1.0, 0.0)])
}

fn with_library(state: &mut State) {
    let library = VoiceLibrary::new(state.store.clone(), Recordings::new(&state.data_dir));
    state.parts.speech = Arc::new(Voiced::new(Arc::new(FakeSpeech::default()), Arc::new(library)));
    let texts = ["These are my words."; 8];
    state.parts.stt = Arc::new(FakeHearing::new(&texts));
}

async fn started(store: TestStore) -> (Server, PathBuf) {
    let mut data_dir = PathBuf::new();
    let server = server_on(store, |state| {
        with_library(state);
        data_dir = state.data_dir.clone();
    })
    .await;
    (server, data_dir)
}

async fn ask(server: &Server, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
    let mut request = Http::new().request(method, format!("http://{}/api/voices{path}", server.address));
    if let Some(body) = body {
        request = request.json(body);
    }
    answer(request.send().await.unwrap()).await
}

async fn answer(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let bytes = response.bytes().await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

async fn upload(server: &Server, file: Vec<u8>, file_name: &str, fields: &[(&str, &str)]) -> (u16, Value) {
    let mut form = Multipart::new();
    for (name, value) in fields {
        form = form.text((*name).to_owned(), (*value).to_owned());
    }
    let form = form.part("file", Part::bytes(file).file_name(file_name.to_owned()));
    let url = format!("http://{}/api/voices/upload", server.address);
    answer(Http::new().post(url).multipart(form).send().await.unwrap()).await
}

async fn every_path_answers_and_names_what_is_wrong(store: TestStore) {
    let theirs = NewVoice {
        name: "Theirs".to_owned(),
        method: VoiceMethod::Description,
        engine: "higgs".to_owned(),
        language: String::new(),
        speaker_description: "calm".to_owned(),
        scene_prompt: String::new(),
        transcript: String::new(),
        recording: None,
        status: VoiceStatus::Ready,
    };
    assert!(matches!(store.of("bob").create_voice(theirs).await, Ok(Kept::Done(_))));
    let (server, _) = started(store).await;
    let (get, post, put, delete) = (Method::GET, Method::POST, Method::PUT, Method::DELETE);
    let described = |name: &str| json!({"name": name, "method": "description", "speaker_description": "a calm man"});
    for (method, path, body, status, told) in [
        (&get, "", None, 200, ""),
        (&get, "?limit=0", None, 400, "limit"),
        (&get, "?limit=x", None, 400, "bad_query"),
        (&get, "?sort=colour", None, 400, "sort"),
        (&get, "/fake", None, 200, "builtin"),
        (&get, "/alloy", None, 200, "\"fake\""),
        (&post, "", Some(described("Nora")), 201, "\"nora\""),
        (&post, "", Some(described("Nora")), 201, "\"nora-2\""),
        (&get, "/nora", None, 200, "a calm man"),
        (&put, "/nora", Some(json!({"scene_prompt": "A hall.", "language": "en-gb"})), 200, "A hall."),
        (&put, "/nora", Some(json!({"scene_prompt": null, "language": null})), 200, "\"scene_prompt\":\"\""),
        (&post, "/nora/preview", Some(json!({"text": "Hello."})), 200, ""),
        (&delete, "/nora-2", None, 204, ""),
        // What is not there, or another's.
        (&get, "/nobody", None, 404, "not_found"),
        (&get, "/theirs", None, 404, "not_found"),
        (&get, "/n%00ra", None, 404, "not_found"),
        (&put, "/theirs", Some(json!({"name": "Mine"})), 404, "not_found"),
        (&delete, "/theirs?force=true", None, 404, "not_found"),
        (&post, "/theirs/preview", Some(json!({})), 404, "not_found"),
        (&get, "/theirs/sample", None, 404, "not_found"),
        (&get, "/nora/sample", None, 404, "no recording"),
        (&get, "/fake/sample", None, 404, "no recording"),
        // What cannot be.
        (&post, "", Some(json!({"name": "x"})), 400, "method"),
        (&post, "", Some(json!({"name": " ", "method": "description"})), 400, "name"),
        (&post, "", Some(json!({"name": "x".repeat(101), "method": "description"})), 400, "name"),
        (&post, "", Some(json!({"name": "x\u{0}", "method": "description"})), 400, "name"),
        (&post, "", Some(json!({"name": "x", "method": "magic"})), 400, "method"),
        (&post, "", Some(json!({"name": "x", "method": "description"})), 400, "speaker_description"),
        (&post, "", Some(json!({"name": "x", "method": "clone"})), 400, "upload_id"),
        (&post, "", Some(json!({"name": "x", "method": "clone", "upload_id": "../etc"})), 400, "upload_id"),
        (&post, "", Some(json!({"name": "x", "method": "clone", "upload_id": "\u{0}"})), 400, "upload_id"),
        (&put, "/nora", Some(json!({"speaker_description": null})), 400, "speaker_description"),
        (&put, "/nora", Some(json!({"transcript": "words"})), 400, "transcript"),
        (&put, "/nora", Some(json!({"language": "English"})), 400, "language"),
        (&put, "/nora", Some(json!({"name": ""})), 400, "name"),
        (&put, "/fake", Some(json!({"name": "x"})), 403, "voice_read_only"),
        (&delete, "/fake", None, 403, "voice_read_only"),
        (&delete, "/nora?force=perhaps", None, 400, "bad_query"),
        (&post, "/nora/preview", Some(json!({"text": " "})), 400, "text"),
        (&post, "/nora/preview", Some(json!({"text": "x".repeat(501)})), 400, "text"),
        (&post, "/upload", Some(json!({})), 400, "bad_form"),
    ] {
        let (answered, body) = ask(&server, method.clone(), path, body.as_ref()).await;
        assert_eq!(answered, status, "{method} {path}: {body}");
        assert!(body.to_string().contains(told), "{method} {path}: {body}");
    }
    let fixed = described("Nora")["name"].clone();
    let (_, voice) = ask(&server, get, "/nora", None).await;
    assert_eq!((&voice["name"], &voice["engine"], &voice["status"]), (&fixed, &json!("higgs"), &json!("ready")));
    assert_eq!(voice["available"], false, "no engine that learns voices is here");
    assert!(server.get("/openapi.json", "").await.1.contains("/api/voices/{voice}/preview"));
}

async fn a_voice_is_cloned_changed_and_deleted(store: TestStore) {
    let (server, data_dir) = started(store).await;
    let (status, sent) = upload(&server, voice_of(0.3), "me.wav", &[]).await;
    assert_eq!(status, 201, "{sent}");
    assert_eq!((&sent["transcript"], &sent["language"]), (&json!("These are my words."), &json!("en")));
    assert!((5.0..6.0).contains(&sent["seconds"].as_f64().unwrap()), "{sent}");
    assert_eq!((&sent["warnings"], &sent["voice"]), (&json!([]), &Value::Null));
    let clone = json!({"name": "Nora", "method": "clone", "upload_id": sent["upload_id"]});
    let (status, voice) = ask(&server, Method::POST, "", Some(&clone)).await;
    assert_eq!(status, 201, "{voice}");
    assert_eq!(voice["transcript"], "These are my words.");
    assert_eq!(voice["sample_url"], "/api/voices/nora/sample");
    // The recording: trimmed, as loud as others, whole or in part, and nothing but a sound.
    let url = format!("http://{}/api/voices/nora/sample", server.address);
    let whole = Http::new().get(&url).send().await.unwrap();
    assert_eq!(
        (&whole.headers()["content-type"], &whole.headers()["x-content-type-options"]),
        (&header::HeaderValue::from_static("audio/wav"), &header::HeaderValue::from_static("nosniff"))
    );
    let bytes = whole.bytes().await.unwrap();
    let audio: Speech = decode_bytes(bytes.to_vec(), Limits::default()).unwrap();
    assert!((audio.len().seconds() - sent["seconds"].as_f64().unwrap()).abs() < 0.02);
    let peak = audio.as_slice().iter().fold(0.0_f32, |peak, sample| peak.max(sample.abs()));
    assert!((0.09..0.2).contains(&peak), "{peak}");
    let part = Http::new().get(&url).header("range", "bytes=0-3").send().await.unwrap();
    assert_eq!((part.status().as_u16(), part.bytes().await.unwrap().as_ref()), (206, &b"RIFF"[..]));
    // Another recording takes its place, with its words; a stale tag changes nothing.
    let (_, other) = upload(&server, voice_of(0.5), "me.wav", &[("transcript", "Other words.")]).await;
    let put = |tag: &'static str, body: Value| {
        let url = format!("http://{}/api/voices/nora", server.address);
        async move { answer(Http::new().put(url).header("if-match", tag).json(&body).send().await.unwrap()).await }
    };
    let change = json!({"upload_id": other["upload_id"], "scene_prompt": "A hall."});
    assert_eq!(put("\"7\"", change.clone()).await.0, 412);
    let (status, changed) = put("\"1\"", change).await;
    assert_eq!((status, &changed["transcript"]), (200, &json!("Other words.")), "{changed}");
    let (status, problem) = put("\"2\"", json!({"transcript": " "})).await;
    assert_eq!((status, &problem["errors"][0]["field"]), (400, &json!("transcript")));
    let files = |folder: &str| std::fs::read_dir(data_dir.join(folder)).map_or(0, Iterator::count);
    assert_eq!((files("voices"), files("uploads")), (1, 2), "the old recording is gone, nothing is left over");
    assert_eq!(ask(&server, Method::DELETE, "/nora", None).await.0, 204);
    assert_eq!(files("voices"), 0);
    assert_eq!(ask(&server, Method::GET, "/nora", None).await.0, 404);
    // With a name the voice is made at once.
    let (status, sent) = upload(&server, voice_of(0.3), "me.wav", &[("voice_name", "Me"), ("language", "de")]).await;
    assert_eq!((status, &sent["voice"]["voice"], &sent["voice"]["language"]), (201, &json!("me"), &json!("de")));
    let preview = server.post("/api/voices/me/preview", &json!({})).await;
    assert_eq!(preview.headers()["x-served-by"], "fake-voice");
    let said: Speech = decode_bytes(preview.bytes().await.unwrap().to_vec(), Limits::default()).unwrap();
    assert!(said.len().seconds() > 1.0);
    let url = format!("http://{}/api/voices/me/preview", server.address);
    assert_eq!(Http::new().post(url).send().await.unwrap().status(), 200, "nothing to say needs no body");
}

async fn lists_go_on_with_the_engines_voices(store: TestStore) {
    let (server, _) = started(store).await;
    for name in ["Zoe", "Adam", "Mia"] {
        let body = json!({"name": name, "method": "description", "speaker_description": "calm"});
        assert_eq!(ask(&server, Method::POST, "", Some(&body)).await.0, 201);
        // Times are kept in milliseconds.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    for (sort, wanted) in [
        ("name", ["adam", "mia", "zoe", "fake"]),
        ("-name", ["zoe", "mia", "adam", "fake"]),
        ("created_at", ["zoe", "adam", "mia", "fake"]),
    ] {
        for limit in 1..=5 {
            let (mut seen, mut cursor) = (Vec::new(), String::new());
            loop {
                let (status, page) =
                    ask(&server, Method::GET, &format!("?sort={sort}&limit={limit}{cursor}"), None).await;
                assert_eq!((status, &page["total"]), (200, &json!(4)), "{page}");
                let items = page["items"].as_array().unwrap();
                assert!((1..=limit).contains(&items.len()), "{page}");
                seen.extend(items.iter().map(|voice| voice["voice"].as_str().unwrap().to_owned()));
                match page["next_cursor"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => break,
                }
            }
            assert_eq!(seen, wanted, "{sort} by {limit}");
        }
    }
}

async fn names_of_engines_voices_are_theirs(store: TestStore) {
    let (server, data_dir) = started(store).await;
    let create = |name: &str| json!({"name": name, "method": "description", "speaker_description": "calm"});
    for name in ["fake", "FAKE", " Fa-ke ", "alloy"] {
        let (status, problem) = ask(&server, Method::POST, "", Some(&create(name))).await;
        assert_eq!((status, &problem["code"]), (409, &json!("voice_exists")), "{name}");
        let (status, problem) = upload(&server, voice_of(0.3), "a.wav", &[("voice_name", name)]).await;
        assert_eq!((status, &problem["code"]), (409, &json!("voice_exists")), "{name}");
    }
    assert_eq!(ask(&server, Method::POST, "", Some(&create("Nora"))).await.0, 201);
    assert_eq!(ask(&server, Method::PUT, "/nora", Some(&json!({"name": "Alloy"}))).await.0, 409);
    assert!(!data_dir.join("uploads").exists(), "a name is looked at before the recording");
}

async fn a_voice_in_use_is_told_with_its_users(store: TestStore) {
    let owned = store.of(LOCAL_OWNER);
    let (server, _) = started(store).await;
    let body = json!({"name": "Nora", "method": "description", "speaker_description": "calm"});
    ask(&server, Method::POST, "", Some(&body)).await;
    let speaker = CharacterChange {
        name: Some("Olivia".to_owned()),
        voice: Some(Some("nora".to_owned())),
        ..CharacterChange::default()
    };
    let olivia = owned.create_character(speaker).await.unwrap().character.id;
    let (status, problem) = ask(&server, Method::DELETE, "/nora", None).await;
    assert_eq!((status, &problem["code"]), (409, &json!("voice_in_use")));
    assert!(problem["detail"].as_str().unwrap().starts_with("Olivia speaks with this voice"), "{problem}");
    // She speaks with it, in a conversation as everywhere.
    server.will_say("Good morning.");
    let mut client = server.connect(&format!("?character_ids={olivia}")).await;
    client.until("session_started").await;
    client.say("Hello.").await;
    let heard = client.until("audio_chunk").await;
    assert!(heard.iter().all(|message| message["type"] != "error"), "{heard:?}");
    assert_eq!(ask(&server, Method::DELETE, "/nora?force=true", None).await.0, 204);
    assert_eq!(owned.character(&olivia).await.unwrap().character.voice, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_recording_of_a_voice_is_told() {
    let mut data_dir = PathBuf::new();
    let server = server_with(|state| {
        with_library(state);
        state.parts.stt = Arc::new(FakeHearing::new(&["", "A word.", "Words of the best part."]));
        data_dir = state.data_dir.clone();
    })
    .await;
    let long = wav(&[(301.5, 0.3)]);
    for (file, fields, status, code) in [
        (Vec::new(), &[][..], 400, "bad_audio"),
        (b"not a sound at all".to_vec(), &[], 400, "bad_audio"),
        (voice_of(0.3)[..100].to_vec(), &[], 400, "recording_silent"),
        (wav(&[(5.0, 0.0)]), &[], 400, "recording_silent"),
        (wav(&[(2.0, 0.0), (1.0, 0.3), (2.0, 0.0)]), &[], 400, "recording_too_short"),
        (long, &[], 413, "too_large"),
        (vec![0; 25 * 1024 * 1024 + 1], &[], 413, "too_large"),
        (voice_of(0.3), &[("voice_name", "")], 400, "bad_field"),
        (voice_of(0.3), &[("transcript", "\0")], 400, "bad_field"),
        (voice_of(0.3), &[("language", "Klingon")], 400, "bad_field"),
        // Nothing was understood.
        (voice_of(0.3), &[], 400, "recording_without_words"),
    ] {
        let (answered, problem) = upload(&server, file, "x.wav", fields).await;
        assert_eq!((answered, &problem["code"]), (status, &json!(code)), "{problem}");
    }
    assert!(!data_dir.join("uploads").exists(), "nothing was kept of them");
    // Half of it silence: it is taken, and told.
    let parts: Vec<(f32, f32)> = (0..8).flat_map(|_| [(0.5, 0.3), (1.0, 0.0)]).collect();
    let (status, sent) = upload(&server, wav(&parts), "x.wav", &[]).await;
    assert_eq!(status, 201, "{sent}");
    assert!(sent["speech"].as_f64().unwrap() < 0.5);
    assert!(sent["warnings"][0].as_str().unwrap().contains("is speech"), "{sent}");
    // Too long: its best part, whose words are not those that were sent.
    let parts: Vec<(f32, f32)> = (0..12).flat_map(|_| [(4.0, 0.3), (0.5, 0.0)]).collect();
    let (status, sent) = upload(&server, wav(&parts), "x.wav", &[("transcript", "All that was said.")]).await;
    assert_eq!((status, &sent["transcript"]), (201, &json!("Words of the best part.")), "{sent}");
    assert!((20.0..=30.0).contains(&sent["seconds"].as_f64().unwrap()), "{sent}");
    assert!(sent["warnings"][0].as_str().unwrap().contains("longer than 30 s"), "{sent}");
}

/// Names that have led programs elsewhere.
fn hostile() -> Vec<String> {
    let mut names: Vec<String> = [
        "..",
        ".",
        "../",
        "../../etc/passwd",
        "..\\..\\windows\\system32",
        "/etc/passwd",
        "//etc/passwd",
        "%2e%2e%2f%2e%2e%2fevil",
        "..%2fevil",
        "%252e%252e%252fevil",
        "....//....//evil",
        "..;/evil",
        "C:\\evil",
        "C:evil",
        "\\\\host\\share\\evil",
        "file:///etc/passwd",
        "evil.wav/../../x",
        "~/evil",
        "$HOME/evil",
        "`id`",
        "$(touch evil)",
        "evil; rm -rf x",
        "evil | cat",
        "evil\n../../x",
        "evil\r\nSet-Cookie: a=b",
        "\u{202e}vaw.live",
        "\u{feff}../evil",
        "\u{2025}/evil",
        "\u{ff0e}\u{ff0e}/evil",
        "..\u{2215}evil",
        "CON",
        "NUL.wav",
        "-rf",
        "--help",
        "test.db",
        "aichat.db-wal",
        "' OR '1'='1",
        "uuid_../../x",
        "7b0e9b6e-64a8-4d4f-9a0e-3f2f6b2d9f11/../../x",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push("../".repeat(33) + "x");
    names.push("a/".repeat(2000));
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_write_nothing_outside() {
    let mut data_dir = PathBuf::new();
    let outside = tempfile::tempdir().unwrap();
    let root = outside.path().to_owned();
    let server = server_with(|state| {
        state.data_dir = root.join("deep/er/data");
        with_library(state);
        let texts = vec!["Words."; 100];
        state.parts.stt = Arc::new(FakeHearing::new(&texts));
        data_dir = state.data_dir.clone();
    })
    .await;
    let names = hostile();
    assert!(names.len() >= 40);
    let file = voice_of(0.3);
    for name in &names {
        let (status, answer) = upload(&server, file.clone(), name, &[("voice_name", name), ("transcript", "W.")]).await;
        assert!(matches!(status, 201 | 400), "{name}: {status} {answer}");
        if status == 201 {
            let id = answer["voice"]["voice"].as_str().unwrap();
            let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            assert!(!id.is_empty() && id.bytes().all(is_plain), "{name}: {id}");
        }
        for action in ["sample", "preview"] {
            let encoded = name.bytes().fold(String::new(), |text, byte| format!("{text}%{byte:02x}"));
            let path = format!("/api/voices/{encoded}/{action}");
            let (status, _) = server.get(&path, "").await;
            assert!((400..500).contains(&status), "{name}: {status}");
        }
    }
    let inside = |path: &Path| path.starts_with(&data_dir);
    let files = walk(&root);
    assert!(files.len() > 60 && files.iter().all(|file| inside(file)), "{files:?}");
    let is_ours = |path: &PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        uuid::Uuid::try_parse(&name).is_ok() && path.extension().is_some_and(|kind| kind == "wav")
    };
    assert!(files.iter().all(is_ours), "{files:?}");
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
