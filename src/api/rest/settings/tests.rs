use reqwest::Method;
use serde_json::{Value, json};

use crate::api::defaults::Saved;
use crate::api::fixture::{Server, server_on};
use crate::provider::{Capability, ModelCard, ProviderReport, Roster};
use crate::store::fixture::{TestStore, on_both_databases};

on_both_databases!(
    what_is_saved_is_in_force_at_once_and_null_brings_the_default_back,
    what_cannot_be_is_refused_and_changes_nothing,
);

struct Models;

impl Roster for Models {
    fn models(&self) -> Vec<ModelCard> {
        let card = |name: &str, capability| ModelCard { name: name.to_owned(), capability, provider: "local".into() };
        vec![card("small", Capability::Chat), card("large", Capability::Chat), card("hears", Capability::Transcription)]
    }

    fn providers(&self) -> Vec<ProviderReport> {
        Vec::new()
    }
}

async fn server(database: TestStore) -> Server {
    server_on(database, |state| state.roster = std::sync::Arc::new(Models)).await
}

async fn get(server: &Server) -> Value {
    let (status, answer) = server.get("/api/settings", "").await;
    assert_eq!(status, 200, "{answer}");
    serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap()
}

async fn put(server: &Server, body: &Value) -> (u16, Value) {
    let response = server.asking(Method::PUT, "/api/settings").json(body).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn what_is_saved_is_in_force_at_once_and_null_brings_the_default_back(database: TestStore) {
    let server = server(database).await;
    let before = get(&server).await;
    assert_eq!(before["llm_model"], json!({"value": "small", "default": "small", "locked": false}));
    assert_eq!(before["tts_model"]["locked"], true);
    let wanted = json!({
        "temperature": 0.25, "max_tokens": 50, "vad_silence_ms": 700, "llm_model": "large", "voice": "fake",
        "openai_voices": {"nova": "fake"},
    });
    let (status, told) = put(&server, &wanted).await;
    assert_eq!(status, 200, "{told}");
    assert_eq!(
        told["temperature"],
        json!({"value": 0.25, "default": before["temperature"]["default"], "locked": false})
    );
    assert_eq!(told["llm_model"], json!({"value": "large", "default": "small", "locked": false}));
    assert_eq!(told["openai_voices"]["value"]["nova"], "fake");
    assert_eq!(get(&server).await, told);
    let names = server.shelf.voices.lock().unwrap().clone();
    assert_eq!((names.default.as_deref(), names.openai["nova"].as_str()), (Some("fake"), "fake"));

    // The next session begins with it.
    let mut client = server.connect("").await;
    let started = client.next().await;
    assert_eq!(started["settings"]["temperature"], 0.25, "{started}");
    assert_eq!(started["settings"]["vad"]["silence_ms"], 700);

    // A server that starts again reads the same.
    let saved = Saved::read(server.store.settings().await.unwrap());
    assert_eq!((saved.temperature, saved.llm_model.as_deref()), (Some(0.25), Some("large")));
    let nothing = json!({
        "temperature": null, "max_tokens": null, "vad_silence_ms": null, "llm_model": null, "voice": null,
        "openai_voices": null,
    });
    let (status, told) = put(&server, &nothing).await;
    assert_eq!((status, told), (200, before));
    assert!(server.store.settings().await.unwrap().is_empty());
}

async fn what_cannot_be_is_refused_and_changes_nothing(database: TestStore) {
    let server = server(database).await;
    let before = get(&server).await;
    for (body, status, code, field) in [
        (json!({"temperature": 3}), 400, "bad_field", "temperature"),
        (json!({"temperature": "hot"}), 400, "bad_field", "temperature"),
        (json!({"max_tokens": 0}), 400, "bad_field", "max_tokens"),
        (json!({"top_k": 2_000_000}), 400, "bad_field", "top_k"),
        (json!({"vad_threshold": 1}), 400, "bad_field", "vad_threshold"),
        (json!({"vad_silence_ms": 50}), 400, "bad_field", "vad_silence_ms"),
        (json!({"llm_model": "gone"}), 400, "bad_field", "llm_model"),
        (json!({"llm_model": "hears"}), 400, "bad_field", "llm_model"),
        (json!({"llm_model": "openrouter/gone"}), 400, "bad_field", "llm_model"),
        (json!({"voice": "nobody"}), 400, "bad_field", "voice"),
        (json!({"openai_voices": {"echo": "nobody"}}), 400, "bad_field", "openai_voices.echo"),
        (json!({"colour": 1}), 400, "bad_field", "colour"),
        (json!({"temperature": 0.5, "tts_model": "speaks"}), 409, "locked", "tts_model"),
    ] {
        let (found, problem) = put(&server, &body).await;
        let told = (found, problem["code"].as_str().unwrap(), problem["errors"][0]["field"].as_str().unwrap());
        assert_eq!(told, (status, code, field), "{body}: {problem}");
    }
    assert_eq!(get(&server).await, before);
    assert!(server.store.settings().await.unwrap().is_empty());
}
