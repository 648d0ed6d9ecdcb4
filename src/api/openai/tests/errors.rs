use super::*;
use crate::api::{Access, ApiKey};

#[tokio::test]
async fn wrong_fields_are_named() {
    let server = server().await;
    let user = |message: Value| json!({"messages": [{"role": "user", "content": "a"}, message]});
    let part = |part: Value| user(json!({"role": "user", "content": [{"type": "text", "text": "a"}, part]}));
    let tool = |tool: Value| with(hello(), json!({"tools": [tool]}));
    let format = |format: Value| with(hello(), json!({"response_format": format}));
    let chats = [
        (json!({}), "messages"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": "hello"}), "messages"),
        (json!({"messages": ["hello"]}), "messages[0]"),
        (user(json!({"content": "a"})), "messages[1].role"),
        (user(json!({"role": "function", "content": "a"})), "messages[1].role"),
        (user(json!({"role": 1, "content": "a"})), "messages[1].role"),
        (user(json!({"role": "user"})), "messages[1].content"),
        (user(json!({"role": "user", "content": 5})), "messages[1].content"),
        (user(json!({"role": "assistant"})), "messages[1].content"),
        (user(json!({"role": "tool", "content": "a"})), "messages[1].tool_call_id"),
        (part(json!({"type": "image_url", "image_url": {"url": "x"}})), "messages[1].content[1].type"),
        (part(json!({"type": "text"})), "messages[1].content[1].text"),
        (user(json!({"role": "assistant", "tool_calls": [{"id": "1"}]})), "messages[1].tool_calls[0].function"),
        (with(hello(), json!({"model": 5})), "model"),
        (with(hello(), json!({"temperature": "hot"})), "temperature"),
        (with(hello(), json!({"max_tokens": 0})), "max_tokens"),
        (with(hello(), json!({"max_completion_tokens": -1})), "max_completion_tokens"),
        (with(hello(), json!({"n": 5})), "n"),
        (with(hello(), json!({"seed": 1.5})), "seed"),
        (with(hello(), json!({"stop": ["a", "b", "c", "d", "e"]})), "stop"),
        (with(hello(), json!({"stop": [1]})), "stop"),
        (with(hello(), json!({"logit_bias": {"a": 1}})), "logit_bias"),
        (with(hello(), json!({"logit_bias": [1]})), "logit_bias"),
        (with(hello(), json!({"top_logprobs": 2})), "top_logprobs"),
        (with(hello(), json!({"logprobs": true, "top_logprobs": 21})), "top_logprobs"),
        (with(hello(), json!({"stream": "yes"})), "stream"),
        (with(hello(), json!({"stream_options": {"include_usage": 1}})), "stream_options.include_usage"),
        (with(hello(), json!({"modalities": ["text", "audio"]})), "modalities"),
        (with(hello(), json!({"functions": []})), "functions"),
        (with(hello(), json!({"tool_choice": "maybe"})), "tool_choice"),
        (with(hello(), json!({"tool_choice": {"type": "function"}})), "tool_choice.function"),
        (tool(json!({"type": "web_search"})), "tools[0].type"),
        (tool(json!({"type": "function", "function": {}})), "tools[0].function.name"),
        (tool(json!({"type": "function", "function": {"name": "f", "parameters": 1}})), "tools[0].function.parameters"),
        (format(json!({"type": "xml"})), "response_format.type"),
        (format(json!({"type": "json_schema"})), "response_format.json_schema"),
        (format(json!({"type": "json_schema", "json_schema": {"name": "a"}})), "response_format.json_schema.schema"),
    ];
    let prompt = |more: Value| with(json!({"prompt": "a"}), more);
    let texts = [
        (json!({}), "prompt"),
        (json!({"prompt": []}), "prompt"),
        (json!({"prompt": [1, 2]}), "prompt"),
        (json!({"prompt": [[1, 2]]}), "prompt"),
        (json!({"prompt": vec!["a"; 17]}), "prompt"),
        (json!({"prompt": vec!["a"; 6], "n": 3}), "prompt"),
        (prompt(json!({"echo": true})), "echo"),
        (prompt(json!({"suffix": "b"})), "suffix"),
        (prompt(json!({"best_of": 2})), "best_of"),
        (prompt(json!({"logprobs": 21})), "logprobs"),
        (prompt(json!({"logprobs": true})), "logprobs"),
    ];
    let all = chats.map(|case| (CHAT, case)).into_iter().chain(texts.map(|case| (TEXT, case)));
    for (path, (request, field)) in all {
        let response = server.post(path, &request).await;
        assert_eq!(response.status(), 400, "{request}");
        let error = response.json::<Value>().await.unwrap()["error"].clone();
        assert_eq!((&error["param"], &error["type"]), (&json!(field), &json!("invalid_request_error")), "{request}");
        assert!(error["message"].as_str().unwrap().starts_with(field) && error["code"] == "bad_field", "{error}");
    }
    assert!(server.chat.asked.lock().unwrap().is_empty(), "nobody was asked");
}

#[tokio::test]
async fn bodies_that_are_no_json_are_refused() {
    let server = server().await;
    let post = async |kind: &str, body: &str| {
        let head = format!("POST {CHAT} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\n");
        let (status, answer) = server.request(&format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())).await;
        let body = answer.split("\r\n\r\n").nth(1).unwrap().to_owned();
        (status, serde_json::from_str::<Value>(&body).unwrap()["error"]["code"].clone())
    };
    // As a page of another origin may send it unasked.
    assert_eq!(post("text/plain", &hello().to_string()).await, (415, json!("not_json")));
    for body in ["", "{", "[]", "\"a\"", "\u{feff}{}"] {
        assert_eq!(post("application/json", body).await, (400, json!("bad_json")), "{body}");
    }
    let deep = format!("{{\"messages\": {}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(post("application/json; charset=utf-8", &deep).await, (400, json!("bad_json")));
    let long = json!({"messages": "x".repeat(3_000_000)});
    let response = server.post(CHAT, &long).await;
    assert_eq!(response.status(), 413);
    assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "too_large");
}

#[tokio::test]
async fn what_fails_before_the_first_token_has_a_status() {
    let server = server().await;
    let what = || "fake-mind".to_owned();
    let invalid = |field| ProviderError::InvalidRequest { field, message: "is wrong".to_owned() };
    let unknown = ProviderError::UnknownModel { model: "gpt-9".to_owned(), remedy: "none".to_owned() };
    let budget = ProviderError::OverBudget { budget: "day", limit_usd: "1.00".to_owned() };
    let cases = [
        (invalid("temperature"), 400, "bad_field", Some("temperature")),
        (invalid("shape"), 400, "bad_field", Some("response_format")),
        (unknown, 404, "model_not_found", Some("model")),
        (budget, 429, "insufficient_quota", None),
        (ProviderError::Overloaded { what: what(), retry_after: Duration::from_secs(3) }, 503, "overloaded", None),
        (ProviderError::Unavailable { what: what(), remedy: "pull it".to_owned() }, 503, "model_unavailable", None),
        (ProviderError::TimedOut { what: what(), after: Duration::from_secs(5) }, 504, "timed_out", None),
        (ProviderError::OutOfMemory { what: what() }, 503, "out_of_memory", None),
        (ProviderError::Filtered { reason: "a word".to_owned() }, 400, "content_filter", None),
        (ProviderError::Failed { what: what() }, 500, "provider_failed", None),
    ];
    for (error, status, code, param) in cases {
        for stream in [false, true] {
            for (path, request) in [(CHAT, hello()), (TEXT, json!({"prompt": "a"}))] {
                server.chat.fail(error.clone());
                let response = server.post(path, &with(request, json!({"stream": stream}))).await;
                assert_eq!(response.status(), status, "{error}");
                let wait = response.headers().get("retry-after").map(|wait| wait.to_str().unwrap().to_owned());
                assert_eq!(wait.as_deref(), (code == "overloaded").then_some("3"), "{error}");
                let told = response.json::<Value>().await.unwrap()["error"].clone();
                assert_eq!((&told["code"], &told["param"]), (&json!(code), &json!(param)), "{error}");
                assert!(told["type"].is_string() && !told["message"].as_str().unwrap().is_empty());
            }
        }
    }
    // One choice that fails is enough, even where another has begun to be written.
    server.chat.say("too late", Duration::from_secs(5), Duration::ZERO);
    server.chat.fail(ProviderError::Failed { what: what() });
    let response = server.post(CHAT, &with(hello(), json!({"n": 2, "stream": true}))).await;
    assert_eq!(response.status(), 500);
    super::idle(&server).await;
}

#[tokio::test]
async fn what_fails_later_ends_the_stream_with_an_error() {
    let server = server().await;
    let failed = || Err(ProviderError::Failed { what: "fake-mind".to_owned() });
    script(&server, vec![text("Hel")], failed());
    let (events, done) = events(&server, CHAT, &with(hello(), json!({"stream": true}))).await;
    assert!(!done);
    assert_eq!(events[1]["choices"][0]["delta"]["content"], "Hel");
    assert_eq!(events[2]["error"]["code"], "provider_failed");
    assert_eq!(events.len(), 3);
    script(&server, vec![text("Hel")], failed());
    assert_eq!(server.post(CHAT, &hello()).await.status(), 500);
    // A provider that ends without an end is no better.
    server.chat.scripts.lock().unwrap().push_back(vec![
        (Duration::ZERO, Ok(Delta::Begin { served_by: "fake-mind".into() })),
        (Duration::ZERO, Ok(text("Hel"))),
    ]);
    assert_eq!(server.post(CHAT, &hello()).await.status(), 500);
    // What the filter stopped later stays as far as it was told.
    let filtered = || Err(ProviderError::Filtered { reason: "a word".to_owned() });
    script(&server, vec![text("Hel")], filtered());
    let whole = answer(&server, CHAT, &hello()).await;
    let choice = &whole["choices"][0];
    assert_eq!((&choice["finish_reason"], &choice["message"]["content"]), (&json!("content_filter"), &json!("Hel")));
    script(&server, vec![text("Hel")], filtered());
    let (events, done) = super::events(&server, CHAT, &with(hello(), json!({"stream": true}))).await;
    assert!(done && events.last().unwrap()["choices"][0]["finish_reason"] == "content_filter");
}

#[tokio::test]
async fn the_key_is_asked_for_and_never_told() {
    let access = || Access { api_key: Some(ApiKey::new("sesame")), ..Access::default() };
    let server = server_with(|state| state.access = access()).await;
    let response = server.post(CHAT, &hello()).await;
    assert_eq!(response.status(), 401);
    let error = response.json::<Value>().await.unwrap()["error"].clone();
    assert_eq!((&error["type"], &error["code"]), (&json!("authentication_error"), &json!("unauthorized")));
    script(&server, vec![text("Hello")], stopped(1));
    let request = server.asking(reqwest::Method::POST, CHAT).bearer_auth("sesame").header("x-request-id", "r-1");
    let response = request.json(&hello()).send().await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["x-request-id"]), (200, &"r-1".parse().unwrap()));
    let caller = server.chat.asked.lock().unwrap().pop().unwrap().caller;
    assert_eq!((caller.key.as_deref(), caller.request_id.as_deref()), (Some("AICHAT_API_KEY"), Some("r-1")));
    let (status, answer) = server.get("/v1/nothing", "Authorization: Bearer sesame\r\n").await;
    assert!(status == 404 && answer.contains(r#""error":{"message":"#), "{answer}");
    let (status, answer) = server.get(CHAT, "Authorization: Bearer sesame\r\n").await;
    assert!(status == 405 && answer.contains("method_not_allowed"), "{answer}");
}
