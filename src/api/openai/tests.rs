//! The OpenAI doors over real sockets, with a scripted model.

mod chat;
mod completions;
mod errors;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::alias;
use crate::api::fixture::{PATIENCE, Server, server, server_with};
use crate::provider::{
    Capability, Delta, FinishReason, ModelCard, ProviderError, ProviderReport, Roster, TokenLogprob, ToolCall, Usage,
};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

/// Adds a reply of these items, 2 ms each, after its begin and before its end.
fn script(server: &Server, items: Vec<Delta>, end: Result<(FinishReason, Usage), ProviderError>) {
    let begin = Delta::Begin { served_by: "fake-mind".into() };
    let step = |item| (Duration::from_millis(2), item);
    let end = end.map(|(reason, usage)| Delta::Done { reason, usage });
    let script = std::iter::once(begin).chain(items).map(Ok).chain([end]).map(step).collect();
    server.chat.scripts.lock().unwrap().push_back(script);
}

fn text(text: &str) -> Delta {
    Delta::Text(text.to_owned())
}

#[expect(clippy::unnecessary_wraps, reason = "scripts end in a result")]
fn stopped(completion_tokens: usize) -> Result<(FinishReason, Usage), ProviderError> {
    Ok((FinishReason::Stop, Usage { prompt_tokens: 7, cached_tokens: 3, completion_tokens, ..Usage::default() }))
}

fn token(text: &str, logprob: f32) -> TokenLogprob {
    let bytes = text.as_bytes().to_vec();
    TokenLogprob { top: vec![(bytes.clone(), logprob), (b"other".to_vec(), f32::NEG_INFINITY)], bytes, logprob }
}

fn call(id: &str, name: &str, arguments: &str) -> Delta {
    let [id, name, arguments] = [id, name, arguments].map(str::to_owned);
    Delta::ToolCall(ToolCall { id, name, arguments })
}

fn hello() -> Value {
    json!({"model": "local", "messages": [{"role": "user", "content": "hello"}]})
}

/// `request` with more fields.
fn with(mut request: Value, more: Value) -> Value {
    let Value::Object(more) = more else { panic!("an object") };
    request.as_object_mut().unwrap().extend(more);
    request
}

async fn answer(server: &Server, path: &str, request: &Value) -> Value {
    let response = server.post(path, request).await;
    assert_eq!(response.status(), 200, "{request}");
    assert_eq!(response.headers()["x-served-by"], "fake-mind");
    response.json().await.unwrap()
}

/// The events of a stream, and whether `[DONE]` was the last.
async fn events(server: &Server, path: &str, request: &Value) -> (Vec<Value>, bool) {
    let response = server.post(path, request).await;
    assert_eq!(response.status(), 200, "{request}");
    assert_eq!(response.headers()["x-served-by"], "fake-mind");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let body = timeout(PATIENCE, response.text()).await.unwrap().unwrap();
    let mut texts: Vec<&str> = body.split("\n\n").filter(|event| !event.is_empty()).collect();
    let done = texts.last() == Some(&"data: [DONE]");
    texts.truncate(texts.len() - usize::from(done));
    let event = |text: &&str| serde_json::from_str(text.strip_prefix("data: ").unwrap()).unwrap();
    (texts.iter().map(event).collect(), done)
}

#[test]
fn openais_names_stand_for_the_servers_own() {
    for own in ["", "local", "whisper-1", "gpt-4o-mini-transcribe", "tts-1-hd", "gpt-4o-mini-tts", "gpt-realtime-mini"]
    {
        assert_eq!(alias(own), None, "{own}");
    }
    for named in ["smollm2-135m-instruct", "gpt-4o", "openrouter/anthropic/claude-3.5-sonnet", "Local"] {
        assert_eq!(alias(named).as_deref(), Some(named));
    }
}

struct Two;

impl Roster for Two {
    fn models(&self) -> Vec<ModelCard> {
        let card = |name: &str, capability, provider: &str| ModelCard {
            name: name.to_owned(),
            capability,
            provider: provider.into(),
        };
        vec![
            card("smollm2-135m-instruct", Capability::Chat, "local"),
            card("openrouter/a/b", Capability::Chat, "openrouter"),
            card("kokoro-82m", Capability::Speech, "local"),
        ]
    }

    fn providers(&self) -> Vec<ProviderReport> {
        Vec::new()
    }
}

#[tokio::test]
async fn models_are_listed_with_the_names_that_stand_for_them() {
    let server = server_with(|state| state.roster = Arc::new(Two)).await;
    let get = async |path: &str| {
        let (status, answer) = server.get(path, "").await;
        let body = answer.split("\r\n\r\n").nth(1).unwrap().to_owned();
        (status, serde_json::from_str::<Value>(&body).unwrap())
    };
    let (status, list) = get("/v1/models").await;
    assert_eq!((status, &list["object"]), (200, &json!("list")));
    let names: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    // Nobody transcribes here.
    let names_of_speech = ["tts-1", "tts-1-hd", "gpt-4o-mini-tts"];
    let expected = [&["smollm2-135m-instruct", "openrouter/a/b", "kokoro-82m", "local"][..], &names_of_speech].concat();
    assert_eq!(names, expected);
    for path in ["/v1/models/openrouter/a/b", "/v1/models/openrouter%2Fa%2Fb"] {
        let (status, model) = get(path).await;
        assert_eq!((status, &model["id"], &model["owned_by"]), (200, &json!("openrouter/a/b"), &json!("openrouter")));
        assert!(model["object"] == "model" && model["created"].as_i64().unwrap() > 1_700_000_000, "{model}");
    }
    let (status, refusal) = get("/v1/models/gpt-9").await;
    assert_eq!((status, &refusal["error"]["code"]), (404, &json!("model_not_found")));
}

/// Waits until nothing is generated.
async fn idle(server: &Server) {
    let still = async {
        while server.chat.load.now() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(2), still).await.expect("the reply is cancelled");
}

#[tokio::test]
async fn who_leaves_cancels_the_reply() {
    let server = server().await;
    let endless = || server.chat.say(&"word ".repeat(100_000), Duration::from_millis(1), Duration::from_millis(2));
    endless();
    let mut response = server.post(CHAT, &with(hello(), json!({"stream": true}))).await;
    assert!(response.chunk().await.unwrap().is_some());
    assert_eq!(server.chat.load.now(), 1);
    drop(response);
    idle(&server).await;
    // Nor does anybody write for one who waited for the whole.
    endless();
    let request = hello();
    let waiting = timeout(Duration::from_millis(300), server.post(CHAT, &request));
    assert!(waiting.await.is_err() && server.chat.load.most() == 1);
    idle(&server).await;
}
