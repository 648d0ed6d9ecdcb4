use super::*;
use crate::provider::{OutputShape, Role, ToolChoice};

#[tokio::test]
async fn a_whole_answer_has_openais_shape() {
    let server = server().await;
    script(&server, vec![text("Hello"), text(" there.")], stopped(4));
    let answer = answer(&server, CHAT, &hello()).await;
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"), "{answer}");
    assert_eq!((&answer["object"], &answer["model"]), (&json!("chat.completion"), &json!("fake-mind")));
    assert!(answer["created"].as_i64().unwrap() > 1_700_000_000);
    assert!(answer["system_fingerprint"].as_str().unwrap().starts_with("fp_"));
    let message = json!({"role": "assistant", "content": "Hello there.", "refusal": null});
    let choice = json!({"index": 0, "message": message, "logprobs": null, "finish_reason": "stop"});
    assert_eq!(answer["choices"], json!([choice]));
    let usage = json!({"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11,
        "prompt_tokens_details": {"cached_tokens": 3}});
    assert_eq!(answer["usage"], usage);
    let asked = server.chat.asked.lock().unwrap().pop().unwrap();
    assert_eq!((asked.model, asked.raw_prompt, asked.thinking, asked.logprobs), (None, None, false, None));
    // What the request leaves out is the server's setting.
    let sampling = asked.sampling;
    assert_eq!((sampling.temperature, sampling.top_p, sampling.repetition_penalty), (0.7, 0.9, 1.0));
    assert_eq!((sampling.max_tokens, sampling.seed, sampling.stop), (4096, None, vec![]));
    assert!(asked.caller.request_id.is_some() && asked.caller.key.is_none() && !asked.caller.private);
}

#[tokio::test]
async fn what_is_asked_reaches_the_model() {
    let server = server().await;
    script(&server, vec![text("ok")], stopped(1));
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let function = json!({"name": "weather", "description": "Tells it", "parameters": schema, "strict": true});
    let request = json!({
        "model": "openai/gpt-5",
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}], "name": "x"},
            {"role": "assistant", "content": null, "tool_calls":
                [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\": \"Ulm\"}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        ],
        "temperature": 0, "top_p": 0.5, "presence_penalty": 1, "frequency_penalty": -1.5, "seed": -1,
        "logit_bias": {"7": -100, "8": 2.5}, "max_tokens": 9, "max_completion_tokens": 11, "min_tokens": 2,
        "ignore_eos": true, "top_k": 3, "repetition_penalty": 1.2, "stop": "end",
        "tools": [{"type": "function", "function": function}, {"type": "function", "function": {"name": "now"}}],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}},
        "reasoning_effort": "low", "logprobs": true, "top_logprobs": 5,
        "user": "u", "metadata": {"a": "b"}, "store": true, "unknown": [1], "n": null, "service_tier": "auto",
    });
    answer(&server, CHAT, &request).await;
    let asked = server.chat.asked.lock().unwrap().pop().unwrap();
    assert_eq!((asked.model.as_deref(), asked.thinking, asked.logprobs), (Some("openai/gpt-5"), true, Some(5)));
    let roles: Vec<_> = asked.messages.iter().map(|message| message.role).collect();
    assert_eq!(roles, [Role::System, Role::User, Role::Assistant, Role::Tool]);
    let contents: Vec<_> = asked.messages.iter().map(|message| message.content.as_str()).collect();
    assert_eq!(contents, ["Be kind.\n\nBe brief.", "one\ntwo", "", "rain"]);
    assert_eq!(asked.messages[2].tool_calls[0].arguments, "{\"city\": \"Ulm\"}");
    assert_eq!(asked.messages[3].tool_call_id.as_deref(), Some("c1"));
    let sampling = &asked.sampling;
    assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k), (0.0, 0.5, 3));
    assert_eq!((sampling.presence_penalty, sampling.frequency_penalty, sampling.repetition_penalty), (1.0, -1.5, 1.2));
    assert_eq!((sampling.max_tokens, sampling.min_tokens, sampling.ignore_eos), (11, 2, true));
    assert_eq!((sampling.seed, &sampling.stop[..]), (Some(u64::MAX), &["end".to_owned()][..]));
    assert_eq!(sampling.logit_bias, [(7, -100.0), (8, 2.5)]);
    assert_eq!((asked.tools[0].name.as_str(), asked.tools[0].description.as_str()), ("weather", "Tells it"));
    assert_eq!((&asked.tools[0].parameters, &asked.tools[1].parameters["type"]), (&schema, &json!("object")));
    assert_eq!(asked.tool_choice, ToolChoice::Named("weather".to_owned()));
    assert_eq!(asked.shape, Some(OutputShape::JsonSchema(schema)));
    for (format, shape) in [("text", None), ("json_object", Some(OutputShape::Json))] {
        script(&server, vec![text("{}")], stopped(1));
        answer(&server, CHAT, &with(hello(), json!({"response_format": {"type": format}}))).await;
        assert_eq!(server.chat.asked.lock().unwrap().pop().unwrap().shape, shape);
    }
}

#[tokio::test]
async fn a_stream_tells_role_text_reason_and_usage_in_order() {
    let server = server().await;
    let request = with(hello(), json!({"stream": true, "stream_options": {"include_usage": true}}));
    script(&server, vec![text("Hel"), text("lo")], stopped(2));
    let (events, done) = events(&server, CHAT, &request).await;
    assert!(done);
    let ids: Vec<_> = events.iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert!(ids[0].starts_with("chatcmpl-") && ids.iter().all(|id| *id == ids[0]));
    assert!(events.iter().all(|event| event["object"] == "chat.completion.chunk" && event["model"] == "fake-mind"));
    let choice =
        |delta: Value, reason: Value| json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": reason}]);
    let told: Vec<_> = events.iter().map(|event| event["choices"].clone()).collect();
    assert_eq!(told[0], choice(json!({"role": "assistant", "content": ""}), Value::Null));
    assert_eq!(told[1], choice(json!({"content": "Hel"}), Value::Null));
    assert_eq!(told[2], choice(json!({"content": "lo"}), Value::Null));
    assert_eq!(told[3], choice(json!({}), json!("stop")));
    assert_eq!(told[4], json!([]));
    assert_eq!(told.len(), 5);
    assert!(events[..4].iter().all(|event| event.get("usage") == Some(&Value::Null)));
    assert_eq!((&events[4]["usage"]["total_tokens"], &events[4]["usage"]["completion_tokens"]), (&json!(9), &json!(2)));
    script(&server, vec![text("Hello")], Ok((FinishReason::Length, Usage::default())));
    let (events, _) = super::events(&server, CHAT, &with(hello(), json!({"stream": true}))).await;
    assert!(events.iter().all(|event| event.get("usage").is_none()));
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn calls_come_by_name_first_and_then_in_pieces() {
    let server = server().await;
    let arguments = r#"{"city": "Nürnberg", "days": 3, "unit": "celsius"}"#;
    let calls = || vec![text("Let me see."), call("c1", "weather", arguments), call("c2", "now", "{}")];
    let waits = || Ok((FinishReason::ToolCalls, Usage::default()));
    script(&server, calls(), waits());
    let (events, done) = events(&server, CHAT, &with(hello(), json!({"stream": true}))).await;
    let deltas: Vec<_> = events.iter().map(|event| event["choices"][0]["delta"].clone()).collect();
    let calls_told: Vec<_> = deltas.iter().filter_map(|delta| delta["tool_calls"].get(0).cloned()).collect();
    let first = json!({"index": 0, "id": "c1", "type": "function", "function": {"name": "weather", "arguments": ""}});
    assert_eq!((done, &calls_told[0]), (true, &first));
    let pieces: Vec<_> = calls_told.iter().filter(|call| call["index"] == 0 && call.get("id").is_none()).collect();
    assert!(pieces.len() > 1, "{calls_told:?}");
    let joined: String = pieces.iter().map(|call| call["function"]["arguments"].as_str().unwrap()).collect();
    assert_eq!(joined, arguments);
    assert!(calls_told.iter().any(|call| call["index"] == 1 && call["function"]["name"] == "now"));
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");

    script(&server, calls(), waits());
    let whole = answer(&server, CHAT, &hello()).await;
    let message = &whole["choices"][0]["message"];
    assert_eq!(
        (&message["content"], &message["tool_calls"][0]["function"]["arguments"]),
        (&json!("Let me see."), &json!(arguments))
    );
    assert_eq!(
        message["tool_calls"][1],
        json!({"id": "c2", "type": "function", "function": {"name": "now", "arguments": "{}"}})
    );
    assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");

    script(&server, calls()[1..].to_vec(), waits());
    let one = answer(&server, CHAT, &with(hello(), json!({"parallel_tool_calls": false}))).await;
    let message = &one["choices"][0]["message"];
    assert_eq!((&message["content"], message["tool_calls"].as_array().unwrap().len()), (&Value::Null, 1));
}

#[tokio::test]
async fn choices_are_replies_of_their_own() {
    let server = server().await;
    for words in ["one two three", "a b c"] {
        server.will_say(words);
    }
    let request = with(hello(), json!({"n": 2, "seed": 5}));
    let whole = answer(&server, CHAT, &request).await;
    let said: Vec<_> = (0..2).map(|index| whole["choices"][index]["message"]["content"].as_str().unwrap()).collect();
    assert_eq!((said, &whole["usage"]["completion_tokens"]), (vec!["one two three", "a b c"], &json!(6)));
    let seeds: Vec<_> = server.chat.asked.lock().unwrap().iter().map(|asked| asked.sampling.seed).collect();
    assert_eq!(seeds, [Some(5), Some(6)]);
    script(&server, vec![text("one"), text("two")], stopped(2));
    script(&server, vec![text("a"), text("b")], stopped(2));
    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    let (events, done) = events(&server, CHAT, &with(request, options)).await;
    assert!(done);
    let of = |index: u64| -> String {
        let choices = events.iter().filter_map(|event| event["choices"].get(0));
        choices
            .filter(|choice| choice["index"] == index)
            .filter_map(|choice| choice["delta"]["content"].as_str())
            .collect()
    };
    assert_eq!((of(0), of(1)), ("onetwo".to_owned(), "ab".to_owned()));
    // The prompt was the same.
    let usage = &events.last().unwrap()["usage"];
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(7), &json!(4)));
}

#[tokio::test]
async fn probabilities_come_with_their_text() {
    let server = server().await;
    let items = || {
        vec![
            Delta::Logprobs(vec![token("Hel", -0.5)]),
            Delta::Logprobs(vec![token("lo", -0.25)]),
            text("Hello"),
            // Of a stop string: never told.
            Delta::Logprobs(vec![token("END", -1.0)]),
        ]
    };
    script(&server, items(), stopped(3));
    let request = with(hello(), json!({"logprobs": true, "top_logprobs": 2}));
    let whole = answer(&server, CHAT, &request).await;
    let logprobs = &whole["choices"][0]["logprobs"];
    assert_eq!(logprobs["content"].as_array().unwrap().len(), 2);
    let first = json!({"token": "Hel", "logprob": -0.5, "bytes": [72, 101, 108], "top_logprobs": [
        {"token": "Hel", "logprob": -0.5, "bytes": [72, 101, 108]},
        {"token": "other", "logprob": -9999.0, "bytes": [111, 116, 104, 101, 114]},
    ]});
    assert_eq!((&logprobs["content"][0], &logprobs["refusal"]), (&first, &Value::Null));
    script(&server, items(), stopped(3));
    let (events, _) = events(&server, CHAT, &with(request, json!({"stream": true}))).await;
    let told: Vec<_> = events.iter().filter(|event| !event["choices"][0]["logprobs"].is_null()).collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["choices"][0]["delta"]["content"], "Hello");
    assert_eq!(told[0]["choices"][0]["logprobs"]["content"][0], first);
}

#[tokio::test]
async fn thoughts_are_told_only_to_who_asks() {
    let server = server().await;
    for (more, thinks, told) in [
        (json!({}), false, false),
        (json!({"reasoning_effort": "none"}), false, false),
        (json!({"reasoning_effort": "high"}), true, true),
        (json!({"include_reasoning": true}), true, true),
        (json!({"reasoning_effort": "low", "include_reasoning": false}), true, false),
    ] {
        let items = || vec![Delta::Thought("Hm.".to_owned()), text("Yes.")];
        script(&server, items(), stopped(2));
        let whole = answer(&server, CHAT, &with(hello(), more.clone())).await;
        let message = &whole["choices"][0]["message"];
        assert_eq!(server.chat.asked.lock().unwrap().last().unwrap().thinking, thinks, "{more}");
        assert_eq!((&message["content"], message.get("reasoning_content").is_some()), (&json!("Yes."), told), "{more}");
        script(&server, items(), stopped(2));
        let (events, _) = events(&server, CHAT, &with(with(hello(), more), json!({"stream": true}))).await;
        let thought = events.iter().find_map(|event| event["choices"][0]["delta"]["reasoning_content"].as_str());
        assert_eq!(thought, told.then_some("Hm."));
    }
}
