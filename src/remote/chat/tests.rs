use std::sync::Arc;

use futures::StreamExt;
use serde_json::{Value, json};

use super::thinking::{Piece, Thinking};
use super::*;
use crate::provider::{
    Caller, ChatMessage, FinishReason, OutputShape, Role, Sampling, TokenLogprob, ToolCall, ToolChoice, ToolSpec,
};
use crate::remote::fake::{FakeProvider, Play};
use crate::remote::service::Dialect;

fn question() -> ChatRequest {
    let messages = vec![ChatMessage::new(Role::System, "Be brief."), ChatMessage::new(Role::User, "Hello?")];
    ChatRequest { messages, ..ChatRequest::default() }
}

fn tools() -> Vec<ToolSpec> {
    let parameters = json!({ "type": "object", "properties": { "city": { "type": "string" } } });
    vec![ToolSpec { name: "weather".to_owned(), description: "Tells the weather".to_owned(), parameters }]
}

async fn reply(play: Play, dialect: Dialect, request: ChatRequest) -> (Vec<Delta>, Value) {
    let fake = FakeProvider::start([play]).await;
    let service = fake.service_with(|settings| settings.dialect = Some(dialect));
    let flow = RemoteChat::new(service, "model").reply(request);
    let deltas = flow.map(|item| item.unwrap()).collect().await;
    (deltas, fake.received()[0].json())
}

fn text(deltas: &[Delta]) -> String {
    deltas.iter().filter_map(|delta| if let Delta::Text(text) = delta { Some(text.as_str()) } else { None }).collect()
}

fn end(deltas: &[Delta]) -> (FinishReason, Usage) {
    let Some(Delta::Done { reason, usage }) = deltas.last() else { panic!("{deltas:?}") };
    (*reason, usage.clone())
}

#[tokio::test]
async fn a_reply_streams_with_its_usage_and_cost() {
    let usage = json!({
        "prompt_tokens": 21, "completion_tokens": 3, "cost": 0.000_42, "prompt_tokens_details": { "cached_tokens": 16 },
    });
    let play = Play::events()
        .send(": OPENROUTER PROCESSING\n\n")
        .event(&json!({ "choices": [{ "index": 0, "delta": { "role": "assistant", "content": "" } }] }))
        .send(": OPENROUTER PROCESSING\n\n")
        .text("Good ")
        .text("dáy")
        .event(&json!({ "choices": [{ "index": 1, "delta": { "content": "another choice" } }] }))
        .finish("stop")
        .event(&json!({ "choices": [], "usage": usage }))
        .send("data: [DONE]\n\n")
        .end();
    let (deltas, _) = reply(play, Dialect::OpenRouter, question()).await;
    assert_eq!(deltas[0], Delta::Begin { served_by: "fake/model".into() });
    assert_eq!(text(&deltas), "Good dáy");
    let (reason, usage) = end(&deltas);
    assert_eq!(
        (reason, usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens),
        (FinishReason::Stop, 21, 16, 3)
    );
    assert_eq!(usage.cost_usd, Some(0.000_42));
    assert!(usage.first_token > Duration::ZERO && usage.first_token <= usage.total);
}

#[tokio::test]
async fn a_reply_without_done_or_usage_is_whole_and_counted() {
    for play in [
        Play::events().text("Hello").text(" there").finish("length").end(),
        Play::events().text("Hello").text(" there").finish("length"),
    ] {
        let (deltas, _) = reply(play, Dialect::Vllm, question()).await;
        let (reason, usage) = end(&deltas);
        assert_eq!((text(&deltas).as_str(), reason), ("Hello there", FinishReason::Length));
        assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.cost_usd), (4, 2, None));
    }
}

#[tokio::test]
async fn a_finished_reply_waits_little_for_its_usage() {
    let fake = FakeProvider::start([Play::events().text("Hello").finish("stop").hang()]).await;
    let service = fake.service_with(|settings| settings.bounds.tail = Duration::from_millis(100));
    let deltas: Vec<_> = RemoteChat::new(service, "model").reply(question()).collect().await;
    assert!(matches!(deltas.last(), Some(Ok(Delta::Done { reason: FinishReason::Stop, .. }))));
}

#[tokio::test]
async fn tool_calls_come_whole() {
    let part = |value: Value| json!({ "choices": [{ "index": 0, "delta": { "tool_calls": [value] } }] });
    let play = Play::events()
        .text("Let me see.")
        .event(&part(
            json!({ "index": 0, "id": "a", "type": "function", "function": { "name": "weather", "arguments": "" } }),
        ))
        .event(&part(json!({ "index": 0, "function": { "arguments": "{\"ci" } })))
        .event(&part(json!({ "index": 1, "id": "b", "function": { "name": "weather" } })))
        .event(&part(json!({ "index": 0, "function": { "arguments": "ty\":\"Oslo\"}" } })))
        .finish("tool_calls")
        .done(20);
    let (deltas, _) = reply(play, Dialect::OpenAi, ChatRequest { tools: tools(), ..question() }).await;
    let call = |id: &str, arguments: &str| {
        Delta::ToolCall(ToolCall { id: id.to_owned(), name: "weather".to_owned(), arguments: arguments.to_owned() })
    };
    assert_eq!(deltas[2..4], [call("a", "{\"city\":\"Oslo\"}"), call("b", "{}")]);
    assert_eq!(end(&deltas).0, FinishReason::ToolCalls);
}

#[tokio::test]
async fn a_call_that_was_cut_off_is_no_call() {
    let part = json!({ "index": 0, "id": "a", "function": { "name": "weather", "arguments": "{\"ci" } });
    let cut = Play::events().event(&json!({ "choices": [{ "index": 0, "delta": { "tool_calls": [part] } }] }));
    let request = ChatRequest { tools: tools(), ..question() };
    let (deltas, _) = reply(cut.clone().finish("length").done(5), Dialect::OpenAi, request.clone()).await;
    assert!(matches!(deltas.as_slice(), [Delta::Begin { .. }, Delta::Done { reason: FinishReason::Length, .. }]));
    let fake = FakeProvider::start([cut.finish("tool_calls").done(5)]).await;
    let items: Vec<_> = RemoteChat::new(fake.service(), "model").reply(request).collect().await;
    assert!(matches!(items.as_slice(), [Err(ProviderError::Failed { .. })]), "{items:?}");
}

#[tokio::test]
async fn a_filter_or_a_refusal_is_an_error() {
    let refusal = json!({ "choices": [{ "index": 0, "delta": { "refusal": "I will not" } }] });
    let fake = FakeProvider::start([
        Play::events().text("Well").finish("content_filter").done(1),
        Play::events().event(&refusal).finish("stop").done(1),
    ])
    .await;
    let chat = RemoteChat::new(fake.service(), "model");
    let filtered: Vec<_> = chat.reply(question()).collect().await;
    assert!(matches!(filtered.last(), Some(Err(ProviderError::Filtered { .. }))));
    let declined: Vec<_> = chat.reply(question()).collect().await;
    assert!(matches!(declined.as_slice(), [Err(ProviderError::Refused { .. })]));
}

#[tokio::test]
async fn thoughts_are_told_from_text_and_only_where_wanted() {
    let events = |field: &str| {
        Play::events()
            .event(&json!({ "choices": [{ "index": 0, "delta": { field: "Hm. " } }] }))
            .text("Yes.")
            .finish("stop")
            .done(2)
    };
    let inline = Play::events().text("<thi").text("nk>Hm. </th").text("ink>\n\nYes.").finish("stop").done(3);
    for play in [events("reasoning"), events("reasoning_content"), inline] {
        let (silent, _) = reply(play.clone(), Dialect::Vllm, question()).await;
        assert_eq!(silent.len(), 3, "{silent:?}");
        assert_eq!(text(&silent), "Yes.");
        let (told, _) = reply(play, Dialect::Vllm, ChatRequest { thinking: true, ..question() }).await;
        assert_eq!(told[1], Delta::Thought("Hm. ".to_owned()));
        assert_eq!(text(&told), "Yes.");
    }
}

#[test]
fn marks_of_thought_are_found_however_the_text_is_cut() {
    let cases = [
        ("<think>a<b</think> c", "a<b", "c"),
        ("  <think></think>c", "", "c"),
        ("<thin ice>", "", "<thin ice>"),
        ("<think>never closed</thi", "never closed</thi", ""),
        ("a <think>b</think>", "", "a <think>b</think>"),
        ("", "", ""),
    ];
    for (whole, thought, text) in cases {
        for length in 1..=whole.len().max(1) {
            let mut thinking = Thinking::default();
            let (mut thoughts, mut texts) = (String::new(), String::new());
            let mut pieces: Vec<_> = whole
                .as_bytes()
                .chunks(length)
                .flat_map(|it| thinking.take(std::str::from_utf8(it).unwrap()))
                .collect();
            pieces.extend(thinking.flush());
            for piece in pieces {
                match piece {
                    Piece::Thought(piece) => thoughts.push_str(&piece),
                    Piece::Text(piece) => texts.push_str(&piece),
                }
            }
            assert_eq!((thoughts.as_str(), texts.trim_start()), (thought, text.trim_start()), "{whole} by {length}");
        }
    }
}

#[tokio::test]
async fn logprobs_come_before_their_text() {
    let token = json!({
        "token": "é", "bytes": [195, 169], "logprob": -0.5,
        "top_logprobs": [
            { "token": "é", "bytes": [195, 169], "logprob": -0.5 }, { "token": "e", "bytes": null, "logprob": -1.5 },
            { "token": "x", "bytes": [120], "logprob": -3.0 },
        ],
    });
    let choice = json!({ "index": 0, "delta": { "content": "é" }, "logprobs": { "content": [token] } });
    let play = Play::events().event(&json!({ "choices": [choice] })).finish("stop").done(1);
    let (deltas, asked) = reply(play, Dialect::OpenAi, ChatRequest { logprobs: Some(2), ..question() }).await;
    let bytes = "é".as_bytes().to_vec();
    let top = vec![(bytes.clone(), -0.5), (b"e".to_vec(), -1.5)];
    assert_eq!(deltas[1], Delta::Logprobs(vec![TokenLogprob { bytes, logprob: -0.5, top }]));
    assert_eq!(deltas[2], Delta::Text("é".to_owned()));
    assert_eq!((&asked["logprobs"], &asked["top_logprobs"]), (&json!(true), &json!(2)));
}

#[tokio::test]
async fn a_raw_prompt_goes_to_completions() {
    let logprobs =
        json!({ "tokens": [" a"], "token_logprobs": [-0.25], "top_logprobs": [{ " b": -2.0, " a": -0.25 }] });
    let choice = json!({ "index": 0, "text": " a", "logprobs": logprobs, "finish_reason": null });
    let play = Play::events().event(&json!({ "choices": [choice] })).finish("length").done(1);
    let fake = FakeProvider::start([play]).await;
    let service = fake.service_with(|settings| settings.dialect = Some(Dialect::Vllm));
    let sampling = Sampling { max_tokens: 1, min_tokens: 1, ignore_eos: true, ..Sampling::default() };
    let raw_prompt = Some("Once upon".to_owned());
    let request = ChatRequest { raw_prompt, logprobs: Some(2), sampling, tools: tools(), ..question() };
    let deltas: Vec<_> = RemoteChat::new(service, "model").reply(request).map(|item| item.unwrap()).collect().await;
    let top = vec![(b" a".to_vec(), -0.25), (b" b".to_vec(), -2.0)];
    assert_eq!(deltas[1], Delta::Logprobs(vec![TokenLogprob { bytes: b" a".to_vec(), logprob: -0.25, top }]));
    assert_eq!(text(&deltas), " a");
    let received = &fake.received()[0];
    assert!(received.head.starts_with("POST /v1/completions HTTP/1.1"));
    let asked = received.json();
    assert_eq!(
        (&asked["prompt"], &asked["logprobs"], &asked["max_tokens"]),
        (&json!("Once upon"), &json!(2), &json!(1))
    );
    assert_eq!((&asked["ignore_eos"], &asked["min_tokens"]), (&json!(true), &json!(1)));
    assert!(asked.get("messages").is_none() && asked.get("tools").is_none());
}

#[test]
fn each_dialect_is_asked_in_its_words() {
    let sampling = Sampling { seed: Some(u64::MAX), stop: vec!["END".to_owned()], ..Sampling::default() };
    let request = ChatRequest { sampling, ..question() };
    let ask = |dialect, model| request::body(dialect, model, &request).unwrap();
    let openai = ask(Dialect::OpenAi, "gpt-4o-mini");
    assert_eq!(
        openai,
        json!({
            "model": "gpt-4o-mini", "stream": true, "stream_options": { "include_usage": true },
            "messages": [{ "role": "system", "content": "Be brief." }, { "role": "user", "content": "Hello?" }],
            "max_completion_tokens": 512, "seed": i64::MAX, "stop": ["END"], "temperature": 0.7, "top_p": 0.9,
        })
    );
    let thinker = ask(Dialect::OpenAi, "o3-mini");
    assert!(thinker.get("temperature").is_none() && thinker["reasoning_effort"] == "low");
    let router = ask(Dialect::OpenRouter, "anthropic/claude-3.5-sonnet");
    assert_eq!((&router["usage"], &router["reasoning"]), (&json!({ "include": true }), &json!({ "exclude": true })));
    assert_eq!((&router["max_tokens"], &router["top_k"]), (&json!(512), &json!(40)));
    let vllm = ask(Dialect::Vllm, "qwen");
    assert_eq!(vllm["chat_template_kwargs"], json!({ "enable_thinking": false }));
    assert_eq!(vllm["repetition_penalty"], json!(1.1));
}

#[test]
fn tools_and_their_results_are_told() {
    let call = ToolCall { id: "a".to_owned(), name: "weather".to_owned(), arguments: "{}".to_owned() };
    let asked = ChatMessage { tool_calls: vec![call], ..ChatMessage::new(Role::Assistant, "") };
    let told = ChatMessage { tool_call_id: Some("a".to_owned()), ..ChatMessage::new(Role::Tool, "rain") };
    let tool_choice = ToolChoice::Named("weather".to_owned());
    let request = ChatRequest { messages: vec![asked, told], tools: tools(), tool_choice, ..ChatRequest::default() };
    let body = request::body(Dialect::OpenAi, "m", &request).unwrap();
    let function = json!({ "name": "weather", "arguments": "{}" });
    assert_eq!(
        body["messages"],
        json!([
            { "role": "assistant", "content": null, "tool_calls": [{ "id": "a", "type": "function", "function": function }] },
            { "role": "tool", "content": "rain", "tool_call_id": "a" },
        ])
    );
    assert_eq!(body["tool_choice"], json!({ "type": "function", "function": { "name": "weather" } }));
    assert_eq!(body["tools"][0]["function"]["name"], "weather");
}

#[test]
fn a_shape_is_asked_for_or_refused() {
    let body = |dialect, shape: &OutputShape| {
        request::body(dialect, "m", &ChatRequest { shape: Some(shape.clone()), ..question() })
    };
    let schema = OutputShape::JsonSchema(json!({ "type": "object" }));
    let asked = body(Dialect::OpenAi, &schema).unwrap();
    assert_eq!(asked["response_format"]["json_schema"]["schema"], json!({ "type": "object" }));
    assert_eq!(
        body(Dialect::OpenRouter, &OutputShape::Json).unwrap()["response_format"],
        json!({ "type": "json_object" })
    );
    let regex = OutputShape::Regex("[0-9]+".to_owned());
    let asked = body(Dialect::Vllm, &regex).unwrap();
    assert_eq!(
        (&asked["guided_regex"], &asked["structured_outputs"]),
        (&json!("[0-9]+"), &json!({ "regex": "[0-9]+" }))
    );
    for shape in [regex, OutputShape::Grammar("start: \"a\"".to_owned())] {
        let refused = body(Dialect::OpenAi, &shape);
        assert!(matches!(refused, Err(ProviderError::InvalidRequest { field: "response_format", .. })));
    }
    let sampling = Sampling { ignore_eos: true, ..Sampling::default() };
    let refused = request::body(Dialect::OpenAi, "m", &ChatRequest { sampling, ..question() });
    assert!(matches!(refused, Err(ProviderError::InvalidRequest { field: "ignore_eos", .. })));
}

#[tokio::test]
async fn a_private_conversation_stays_here() {
    let fake = FakeProvider::start([Play::chat(&["Hello"])]).await;
    let caller = Caller { private: true, ..Caller::default() };
    let chat = RemoteChat::new(fake.service(), "model");
    let items: Vec<_> = chat.reply(ChatRequest { caller, ..question() }).collect().await;
    assert!(matches!(items.as_slice(), [Err(ProviderError::Unavailable { .. })]));
    let caller = Caller { request_id: Some(Arc::from("request-7")), ..Caller::default() };
    let _: Vec<_> = chat.reply(ChatRequest { caller, ..question() }).collect().await;
    let received = fake.received();
    assert_eq!((received.len(), fake.connections()), (1, 1));
    assert_eq!(received[0].header("x-client-request-id"), Some("request-7"));
}
