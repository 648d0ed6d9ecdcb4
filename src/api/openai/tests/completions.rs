use super::*;

#[tokio::test]
async fn texts_go_on_as_they_stand() {
    let server = server().await;
    script(&server, vec![text(" upon"), text(" a time")], Ok((FinishReason::Length, stopped(4).unwrap().1)));
    let request = json!({"model": "m", "prompt": "Once", "ignore_eos": true, "min_tokens": 3, "max_tokens": 4});
    let answer = answer(&server, TEXT, &request).await;
    assert!(answer["id"].as_str().unwrap().starts_with("cmpl-") && answer["object"] == "text_completion", "{answer}");
    let choice = json!({"index": 0, "text": " upon a time", "logprobs": null, "finish_reason": "length"});
    assert_eq!((&answer["choices"], &answer["usage"]["total_tokens"]), (&json!([choice]), &json!(11)));
    let asked = server.chat.asked.lock().unwrap().pop().unwrap();
    assert_eq!((asked.raw_prompt.as_deref(), asked.model.as_deref()), (Some("Once"), Some("m")));
    assert_eq!((asked.sampling.min_tokens, asked.sampling.ignore_eos, asked.sampling.max_tokens), (3, true, 4));
    assert!(asked.messages.is_empty());
}

#[tokio::test]
async fn every_prompt_has_its_choices_in_a_row() {
    let server = server().await;
    for word in ["a", "b", "c", "d"] {
        script(&server, vec![text(word)], stopped(1));
    }
    let request = json!({"prompt": ["one", "two"], "n": 2, "best_of": 2, "suffix": "", "echo": false});
    let answer = answer(&server, TEXT, &request).await;
    let told: Vec<_> =
        answer["choices"].as_array().unwrap().iter().map(|choice| choice["text"].as_str().unwrap()).collect();
    assert_eq!(told, ["a", "b", "c", "d"]);
    let asked: Vec<_> = server.chat.asked.lock().unwrap().drain(..).map(|asked| asked.raw_prompt.unwrap()).collect();
    assert_eq!(asked, ["one", "one", "two", "two"]);
    // Each prompt counts once.
    let usage = &answer["usage"];
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(14), &json!(4)));
}

#[tokio::test]
async fn probabilities_are_lists_with_offsets() {
    let server = server().await;
    let items =
        || vec![Delta::Logprobs(vec![token("é", -0.5)]), text("é"), Delta::Logprobs(vec![token("b", -1.0)]), text("b")];
    script(&server, items(), stopped(2));
    let request = json!({"prompt": "x", "logprobs": 2});
    let whole = answer(&server, TEXT, &request).await;
    let logprobs = json!({"tokens": ["é", "b"], "token_logprobs": [-0.5, -1.0],
        "top_logprobs": [{"é": -0.5, "other": -9999.0}, {"b": -1.0, "other": -9999.0}], "text_offset": [0, 1]});
    assert_eq!(whole["choices"][0]["logprobs"], logprobs);
    assert_eq!(server.chat.asked.lock().unwrap()[0].logprobs, Some(2));
    script(&server, items(), stopped(2));
    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    let (events, done) = events(&server, TEXT, &with(request, options)).await;
    assert!(done && events.iter().all(|event| event["object"] == "text_completion"));
    let texts: Vec<_> = events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
    assert_eq!(texts, ["é", "b", ""]);
    assert_eq!(events[1]["choices"][0]["logprobs"]["text_offset"], json!([1]));
    assert_eq!((&events[2]["choices"][0]["finish_reason"], &events[3]["choices"]), (&json!("stop"), &json!([])));
    assert_eq!(events[3]["usage"]["total_tokens"], 9);
}
