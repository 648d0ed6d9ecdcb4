//! Cloned voices from their upload to their sound, on a tiny random Higgs model: what it says is noise, all else is real.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use reqwest::Client as Http;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::api::fixture::{Client, PATIENCE, Server, server_with};
use crate::audio::Format;
use crate::audio::Speech;
use crate::engine::device::DeviceChoice;
use crate::engine::precedence::Precedence;
use crate::engine::speech::higgs::{HiggsEngine, HiggsOptions};
use crate::provider::fake::FakeHearing;
use crate::provider::limit::LimitedSpeech;
use crate::provider::voices::Voiced;
use crate::store::{CharacterChange, LOCAL_OWNER, Recordings, VoiceLibrary};
use crate::testing::fixture;

const SLOTS: usize = 3;

fn engine() -> Arc<HiggsEngine> {
    let options = HiggsOptions { slots: SLOTS, positions: 1024, ..HiggsOptions::default() };
    let (model, codec) = (fixture("higgs_lm/wide"), fixture("higgs_codec/transformers"));
    let loaded = HiggsEngine::load("higgs", &model, &codec, DeviceChoice::Cpu, options, Precedence::default());
    Arc::new(loaded.unwrap())
}

async fn started() -> (Server, PathBuf) {
    let mut data_dir = PathBuf::new();
    let server = server_with(|state| {
        let library = VoiceLibrary::new(state.store.clone(), Recordings::new(&state.data_dir));
        let limited = Arc::new(LimitedSpeech::new(engine(), "higgs", SLOTS));
        state.parts.speech = Arc::new(Voiced::new(limited, Arc::new(library)));
        state.parts.stt = Arc::new(FakeHearing::new(&["These are the words."; 8]));
        data_dir = state.data_dir.clone();
    })
    .await;
    (server, data_dir)
}

/// Three seconds and a half of something, as loud as speech.
fn recording(step: f32) -> Vec<u8> {
    let samples = (0..84_000).map(|at| 0.3 * (at as f32 * step).sin());
    Format::Wav.encode(&Speech::new(samples.collect())).unwrap()
}

async fn clone(server: &Server, name: &str, step: f32) {
    let form = Form::new().text("voice_name", name.to_owned());
    let form = form.part("file", Part::bytes(recording(step)).file_name("me.wav"));
    let url = format!("http://{}/api/voices/upload", server.address);
    let response = Http::new().post(url).multipart(form).send().await.unwrap();
    assert_eq!(response.status(), 201);
    let sent: Value = response.json().await.unwrap();
    assert_eq!((&sent["voice"]["voice"], &sent["voice"]["available"]), (&json!(name), &json!(true)), "{sent}");
    let started = Instant::now();
    loop {
        let (_, answer) = server.get(&format!("/api/voices/{name}"), "").await;
        let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        match body["status"].as_str().unwrap() {
            "processing" => tokio::time::sleep(Duration::from_millis(20)).await,
            "ready" => return,
            other => panic!("{other}: {body}"),
        }
        assert!(started.elapsed() < PATIENCE * 4, "it is never learned");
    }
}

async fn spoken(server: &Server, voice: &str) -> Vec<u8> {
    let body = json!({"model": "tts-1", "input": "Good morning.", "voice": voice, "response_format": "pcm"});
    let response = server.post("/v1/audio/speech", &body).await;
    assert_eq!(response.status(), 200);
    response.bytes().await.unwrap().to_vec()
}

/// A character with that voice, and somebody who has opened a conversation with it.
async fn call(server: &Server, voice: &str) -> Client {
    let change = CharacterChange {
        name: Some(format!("Who speaks as {voice}")),
        voice: Some(Some(voice.to_owned())),
        ..CharacterChange::default()
    };
    let id = server.store.of(LOCAL_OWNER).create_character(change).await.unwrap().character.id;
    let mut client = server.connect(&format!("?character_ids={id}")).await;
    client.until("session_started").await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn three_calls_speak_at_once_in_as_many_voices_one_of_them_described() {
    let (server, _) = started().await;
    clone(&server, "anna", 0.05).await;
    clone(&server, "bert", 0.07).await;
    let described =
        json!({"method": "description", "name": "dora", "speaker_description": "An old woman with a warm voice"});
    let response = server.post("/api/voices", &described).await;
    assert_eq!(response.status(), 201, "{}", response.text().await.unwrap());
    let calls = ["anna", "bert", "dora"].map(|voice| {
        let server = &server;
        async move {
            server.will_say("Good morning to you. And how are you?");
            let mut client = call(server, voice).await;
            client.say("Hello.").await;
            let mut first = Value::Null;
            // Both sentences, the second of which hears the first.
            loop {
                let chunk = client.until("audio_chunk").await.pop().unwrap();
                if first.is_null() {
                    first = chunk.clone();
                }
                if chunk["sequence_number"] == 2 {
                    return first["audio_data"].clone();
                }
            }
        }
    });
    let sounds = join_all(calls).await;
    assert!(sounds[0] != sounds[1] && sounds[1] != sounds[2] && sounds[0] != sounds[2], "each has its own voice");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_cloned_voices_speak_at_once_and_in_a_conversation() {
    let (server, data_dir) = started().await;
    let names = ["anna", "bert", "cleo"];
    for (name, step) in names.into_iter().zip([0.05, 0.07, 0.11]) {
        clone(&server, name, step).await;
    }
    let files = std::fs::read_dir(data_dir.join("voices")).unwrap();
    let tokens = files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|kind| kind == "tokens"));
    assert_eq!(tokens.count(), 3, "what was learned is kept beside the recordings");
    let together = join_all(names.map(|name| spoken(&server, name))).await;
    for (name, together) in names.into_iter().zip(&together) {
        assert!(!together.is_empty());
        assert!(spoken(&server, name).await == *together, "{name} says something else alone");
    }
    assert!(together[0] != together[1] && together[1] != together[2]);
    // A character has one of them; a voice that is not there is told with one that is.
    for voice in ["anna", "nobody"] {
        server.will_say("Good morning.");
        let mut client = call(&server, voice).await;
        client.say("Hello.").await;
        let ends = if voice == "anna" { "audio_chunk" } else { "error" };
        let last = client.until(ends).await.pop().unwrap();
        if voice == "nobody" {
            assert_eq!(last["code"], "voice_unavailable", "{last}");
        }
    }
    let unknown = json!({"model": "tts-1", "input": "Hi.", "voice": "nobody"});
    let problem: Value = server.post("/v1/audio/speech", &unknown).await.json().await.unwrap();
    assert_eq!(problem["error"]["code"], "voice_unavailable", "{problem}");
}
