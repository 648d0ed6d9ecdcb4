use std::fs;
use std::path::PathBuf;

use futures::StreamExt;
use tempfile::TempDir;

use super::model::tests::tiny;
use super::*;
use crate::engine::precedence::Precedence;
use crate::provider::{
    ChatMessage, FinishReason, OutputShape, Role, Sampling, TokenLogprob, ToolCall, ToolSpec, Usage,
};
use crate::testing;

/// A model with random weights: it babbles, but deterministically.
fn babbler(architecture: &str) -> (ChatEngine, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, tiny(architecture)).unwrap();
    (ChatEngine::load("babbler", &path, DeviceChoice::Cpu, Precedence::default()).unwrap(), folder)
}

pub(super) fn smollm_file() -> PathBuf {
    testing::model("smollm2-135m-instruct").join("model.gguf")
}

pub(super) fn greedy(messages: &[(Role, &str)], max_tokens: usize) -> ChatRequest {
    let messages = messages.iter().map(|(role, content)| ChatMessage::new(*role, *content)).collect();
    let sampling = Sampling { temperature: 0.0, repetition_penalty: 1.0, max_tokens, ..Sampling::default() };
    ChatRequest { messages, sampling, ..ChatRequest::default() }
}

pub(super) struct Told {
    pub(super) text: String,
    pub(super) reason: FinishReason,
    pub(super) usage: Usage,
    pub(super) logprobs: Vec<TokenLogprob>,
    pub(super) calls: Vec<ToolCall>,
}

/// Folds a whole reply and checks the order of its items.
pub(super) async fn told(mut reply: Flow<Delta>) -> Result<Told, ProviderError> {
    let (mut text, mut logprobs, mut calls) = (String::new(), Vec::new(), Vec::new());
    let mut begun = false;
    while let Some(item) = reply.next().await {
        match item? {
            Delta::Begin { .. } => assert!(!std::mem::replace(&mut begun, true) && text.is_empty()),
            Delta::Text(more) => {
                assert!(begun && !more.is_empty());
                text.push_str(&more);
            }
            Delta::Logprobs(more) => logprobs.extend(more),
            Delta::ToolCall(call) => calls.push(call),
            Delta::Thought(_) => panic!("nobody asked for it"),
            Delta::Done { reason, usage } => {
                assert!(reply.next().await.is_none(), "nothing follows the terminal item");
                return Ok(Told { text, reason, usage, logprobs, calls });
            }
        }
    }
    panic!("the reply ended without its terminal item");
}

const QUESTION: &[(Role, &str)] = &[(Role::System, "You babble."), (Role::User, "hello")];

#[tokio::test]
async fn what_is_cached_changes_nothing() {
    for architecture in ["llama", "qwen2", "qwen3"] {
        let (engine, _folder) = babbler(architecture);
        let first = told(engine.reply(greedy(QUESTION, 30))).await.unwrap();
        assert_eq!(first.usage.cached_tokens, 0);
        let again = told(engine.reply(greedy(QUESTION, 30))).await.unwrap();
        assert_eq!(again.text, first.text, "{architecture}");
        // A longer conversation with the same beginning, warm here and cold on another engine.
        let longer = [QUESTION, &[(Role::Assistant, &first.text), (Role::User, "and then?")]].concat();
        let warm = told(engine.reply(greedy(&longer, 30))).await.unwrap();
        let (fresh, _folder) = babbler(architecture);
        let cold = told(fresh.reply(greedy(&longer, 30))).await.unwrap();
        assert_eq!((warm.text, warm.usage.prompt_tokens), (cold.text, cold.usage.prompt_tokens), "{architecture}");
        // All but the last token, which is read for its logits. What was babbled may read otherwise.
        assert_eq!(again.usage.cached_tokens, again.usage.prompt_tokens - 1);
        assert!(warm.usage.cached_tokens >= first.usage.prompt_tokens, "{:?}", warm.usage);
        // Another character's prompt begins alike only up to a point.
        let other = [(Role::System, "You babble!"), (Role::User, "hello")];
        let warm = told(engine.reply(greedy(&other, 30))).await.unwrap();
        let cold = told(fresh.reply(greedy(&other, 30))).await.unwrap();
        assert_eq!(warm.text, cold.text, "{architecture}");
    }
}

#[tokio::test]
async fn replies_at_the_same_time_are_those_alone() {
    let (engine, _folder) = babbler("llama");
    let ask = |word: &str| greedy(&[(Role::User, word)], 60);
    let words = ["one", "two", "three", "four", "five", "six"];
    let together = futures::future::join_all(words.map(|word| told(engine.reply(ask(word))))).await;
    let (fresh, _folder) = babbler("llama");
    for (word, together) in words.iter().zip(together) {
        let alone = told(fresh.reply(ask(word))).await.unwrap();
        assert_eq!(together.unwrap().text, alone.text, "{word}");
    }
}

#[tokio::test]
async fn seeds_repeat_and_limits_hold() {
    let (engine, _folder) = babbler("llama");
    let mut request = greedy(QUESTION, 40);
    request.sampling = Sampling { max_tokens: 40, seed: Some(7), temperature: 1.5, ..Sampling::default() };
    let one = told(engine.reply(request.clone())).await.unwrap();
    let two = told(engine.reply(request.clone())).await.unwrap();
    assert_eq!(one.text, two.text);
    assert!(one.usage.completion_tokens <= 40 && one.usage.first_token <= one.usage.total);
    if one.reason == FinishReason::Length {
        assert_eq!(one.usage.completion_tokens, 40);
    }
    // A stop string from its own text ends the reply before it.
    let stop: String = one.text.chars().skip(5).take(3).collect();
    request.sampling.stop = vec![stop.clone()];
    let stopped = told(engine.reply(request)).await.unwrap();
    assert_eq!(stopped.reason, FinishReason::Stop);
    assert_eq!(stopped.text, one.text[..one.text.find(&stop).unwrap()]);
    // The window of 256 tokens ends a reply, however many are asked for.
    let endless = told(engine.reply(greedy(QUESTION, 100_000))).await.unwrap();
    assert!(endless.usage.prompt_tokens + endless.usage.completion_tokens <= 256);
}

#[tokio::test]
async fn a_shape_holds_beside_free_replies() {
    let (engine, _folder) = babbler("llama");
    let shaped =
        |pattern: &str| ChatRequest { shape: Some(OutputShape::Regex(pattern.to_owned())), ..greedy(QUESTION, 40) };
    let free = told(engine.reply(greedy(QUESTION, 40))).await.unwrap().text;
    let shapes = ["[0-9]{3}", "yes|no"].map(|pattern| told(engine.reply(shaped(pattern))));
    let beside = told(engine.reply(greedy(QUESTION, 40)));
    let (shaped_replies, beside) = futures::join!(futures::future::join_all(shapes), beside);
    let [digits, answer] = &shaped_replies[..] else { panic!("two were asked for") };
    let digits = digits.as_ref().unwrap();
    assert!(digits.text.len() == 3 && digits.text.bytes().all(|byte| byte.is_ascii_digit()), "{}", digits.text);
    assert!(["yes", "no"].contains(&answer.as_ref().unwrap().text.as_str()));
    assert_eq!(digits.reason, FinishReason::Stop);
    assert_eq!(beside.unwrap().text, free);
    let error = told(engine.reply(shaped("("))).await.err().unwrap();
    assert!(matches!(error, ProviderError::InvalidRequest { field: "shape", .. }), "{error}");
}

#[tokio::test]
async fn probabilities_are_told_where_asked_for() {
    let (engine, _folder) = babbler("llama");
    let plain = told(engine.reply(greedy(QUESTION, 20))).await.unwrap();
    assert!(plain.logprobs.is_empty());
    let asked = told(engine.reply(ChatRequest { logprobs: Some(3), ..greedy(QUESTION, 20) })).await.unwrap();
    assert_eq!(asked.text, plain.text);
    let content = asked.usage.completion_tokens - usize::from(asked.reason == FinishReason::Stop);
    assert_eq!(asked.logprobs.len(), content);
    let bytes: Vec<u8> = asked.logprobs.iter().flat_map(|token| token.bytes.clone()).collect();
    assert_eq!(String::from_utf8_lossy(&bytes), asked.text);
    for token in &asked.logprobs {
        // Greedy takes the likeliest.
        assert_eq!((token.top.len(), &token.top[0]), (3, &(token.bytes.clone(), token.logprob)));
        assert!(token.top.is_sorted_by(|one, other| one.1 >= other.1) && token.logprob < 0.0);
    }
    // A penalty changes what is chosen, not what is told.
    let mut request = ChatRequest { logprobs: Some(1), ..greedy(QUESTION, 20) };
    request.sampling.repetition_penalty = 5.0;
    let penalised = told(engine.reply(request)).await.unwrap();
    assert_eq!(
        penalised.logprobs[0],
        TokenLogprob { top: asked.logprobs[0].top[..1].to_vec(), ..penalised.logprobs[0].clone() }
    );
}

/// A question that the babbler answers in `least..most` tokens and then ends its turn.
async fn ended_by_itself(engine: &ChatEngine, least: usize, most: usize) -> (ChatRequest, Told) {
    for number in 0..200 {
        let request = greedy(&[(Role::User, &format!("question {number}"))], most);
        let told = told(engine.reply(request.clone())).await.unwrap();
        if told.reason == FinishReason::Stop && told.usage.completion_tokens > least {
            return (request, told);
        }
    }
    panic!("no reply ended by itself");
}

#[tokio::test]
async fn a_reply_is_as_long_as_it_must_be() {
    let (engine, _folder) = babbler("llama");
    let (request, ended) = ended_by_itself(&engine, 1, 60).await;
    let length = ended.usage.completion_tokens;
    let with = |change: &dyn Fn(&mut Sampling)| {
        let mut request = request.clone();
        change(&mut request.sampling);
        told(engine.reply(request))
    };
    let endless = with(&|sampling| sampling.ignore_eos = true).await.unwrap();
    assert_eq!((endless.reason, endless.usage.completion_tokens), (FinishReason::Length, 60));
    assert!(endless.text.starts_with(ended.text.trim_end_matches('\u{FFFD}')), "{} {}", endless.text, ended.text);
    let longer = with(&|sampling| sampling.min_tokens = length).await.unwrap();
    assert!(longer.usage.completion_tokens > length, "{} {length}", longer.usage.completion_tokens);
    let unchanged = with(&|sampling| sampling.min_tokens = length - 1).await.unwrap();
    assert_eq!((unchanged.text, unchanged.usage.completion_tokens), (ended.text, length));
    // A shape that is complete ends the reply all the same.
    let shape = Some(OutputShape::Regex("[0-9]{3}".to_owned()));
    let mut shaped = ChatRequest { shape, ..request };
    shaped.sampling.ignore_eos = true;
    assert_eq!(told(engine.reply(shaped)).await.unwrap().text.len(), 3);
}

#[tokio::test]
async fn biases_and_penalties_change_what_is_written() {
    let (engine, _folder) = babbler("llama");
    let with = |change: &dyn Fn(&mut Sampling)| {
        let mut request = greedy(QUESTION, 30);
        request.sampling.ignore_eos = true;
        change(&mut request.sampling);
        told(engine.reply(request))
    };
    let letter = u32::from(b'A');
    let biased = with(&|sampling| sampling.logit_bias = vec![(letter, 100.0)]).await.unwrap();
    assert_eq!(biased.text, "A".repeat(30));
    // Each time that it came makes it less likely, until others are likelier.
    let varied = with(&|sampling| {
        sampling.logit_bias = vec![(letter, 20.0)];
        sampling.frequency_penalty = 2.0;
    });
    let varied = varied.await.unwrap().text;
    assert!(varied.starts_with('A') && (2..25).contains(&varied.matches('A').count()), "{varied}");
    let error = with(&|sampling| sampling.logit_bias = vec![(262, 1.0)]).await.err().unwrap();
    assert!(matches!(error, ProviderError::InvalidRequest { field: "logit_bias", .. }), "{error}");
}

#[tokio::test]
async fn raw_text_goes_on_without_a_template() {
    let (engine, _folder) = babbler("llama");
    let raw = |text: &str| ChatRequest { raw_prompt: Some(text.to_owned()), ..greedy(QUESTION, 20) };
    let told_raw = told(engine.reply(raw("hello"))).await.unwrap();
    // One merge, and no marker.
    assert_eq!(told_raw.usage.prompt_tokens, 4);
    // What a conversation has does not count beside it.
    let parameters = serde_json::json!({"type": "object"});
    let tool = ToolSpec { name: "f".to_owned(), description: String::new(), parameters };
    let busy = ChatRequest { tools: vec![tool], tool_choice: ToolChoice::Required, thinking: true, ..raw("hello") };
    let told_busy = told(engine.reply(busy)).await.unwrap();
    assert_eq!((told_busy.text, told_busy.usage.prompt_tokens), (told_raw.text, 4));
    for wrong in [String::new(), "x".repeat(10_000)] {
        let error = told(engine.reply(raw(&wrong))).await.err().unwrap();
        assert!(matches!(error, ProviderError::InvalidRequest { field: "prompt", .. }), "{error}");
    }
}

#[tokio::test]
async fn too_many_are_refused_and_dropping_frees() {
    let (engine, _folder) = babbler("llama");
    let hold = || engine.reply(greedy(QUESTION, 100_000));
    let held: Vec<_> = (0..MOST_REPLIES).map(|_| hold()).collect();
    let mut refused = 0;
    // Replies of this small model end quickly, so ask until the room is full.
    for _ in 0..100 {
        if matches!(hold().next().await, Some(Err(ProviderError::Overloaded { .. }))) {
            refused += 1;
        }
    }
    assert!(refused > 0);
    drop(held);
    let told = told(engine.reply(greedy(QUESTION, 5)));
    let told = tokio::time::timeout(Duration::from_secs(5), told).await;
    // The dropped ones are found at the next step.
    assert!(matches!(told, Ok(Ok(_) | Err(ProviderError::Overloaded { .. }))));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(engine.permits.available_permits(), MOST_REPLIES);
}

#[tokio::test]
async fn nonsense_is_refused_at_the_door() {
    let (engine, _folder) = babbler("llama");
    for (field, sampling) in [
        ("temperature", Sampling { temperature: f32::NAN, ..Sampling::default() }),
        ("temperature", Sampling { temperature: -1.0, ..Sampling::default() }),
        ("top_p", Sampling { top_p: 1.1, ..Sampling::default() }),
        ("repetition_penalty", Sampling { repetition_penalty: 0.0, ..Sampling::default() }),
        ("presence_penalty", Sampling { presence_penalty: 2.1, ..Sampling::default() }),
        ("frequency_penalty", Sampling { frequency_penalty: f32::NAN, ..Sampling::default() }),
        ("logit_bias", Sampling { logit_bias: vec![(1, 101.0)], ..Sampling::default() }),
        ("min_tokens", Sampling { min_tokens: 513, ..Sampling::default() }),
        ("max_tokens", Sampling { max_tokens: 0, ..Sampling::default() }),
    ] {
        let request = ChatRequest { sampling, ..greedy(QUESTION, 1) };
        let error = told(engine.reply(request)).await.err().unwrap();
        assert!(matches!(&error, ProviderError::InvalidRequest { field: at, .. } if *at == field), "{error}");
    }
    for (field, request) in
        [("messages", ChatRequest::default()), ("logprobs", ChatRequest { logprobs: Some(21), ..greedy(QUESTION, 1) })]
    {
        let error = told(engine.reply(request)).await.err().unwrap();
        assert!(matches!(&error, ProviderError::InvalidRequest { field: at, .. } if *at == field), "{error}");
    }
}

#[tokio::test]
async fn what_is_prepared_is_not_read_again() {
    let (engine, _folder) = babbler("llama");
    engine.prepare(greedy(&QUESTION[..1], 30));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let warm = told(engine.reply(greedy(QUESTION, 30))).await.unwrap();
    assert!(warm.usage.cached_tokens > 10, "{:?}", warm.usage);
    let (fresh, _folder) = babbler("llama");
    assert_eq!(warm.text, told(fresh.reply(greedy(QUESTION, 30))).await.unwrap().text);
}

#[tokio::test]
async fn memory_stays_flat_over_hundreds_of_requests() {
    let (engine, _folder) = babbler("llama");
    let resident = || {
        let statm = fs::read_to_string("/proc/self/statm").unwrap();
        statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    let turn = async |round: usize| {
        let words = "word ".repeat(round % 23);
        let text = format!("{round} {words}");
        drop(told(engine.reply(greedy(&[(Role::User, &text)], 8))).await);
    };
    for round in 0..100 {
        turn(round).await;
    }
    let before = resident();
    for round in 100..500 {
        turn(round).await;
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 16 << 20, "{} MB more after 400 requests", grown >> 20);
}
