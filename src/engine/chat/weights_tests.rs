//! The engine on real weights: what a reply says does not depend on who else is there, nor on what was read before.

use super::model::{Model, Room};
use super::reply::sampling_options;
use super::tests::{Told, greedy, smollm_file, told};
use super::*;
use crate::nn::decoder::{Span, Wants};
use crate::nn::sampling::Sampler;
use crate::provider::{ChatMessage, FinishReason, Role, Sampling, ToolChoice, ToolSpec};

const NAME: &str = "smollm2-135m-instruct";

fn smollm(slots: usize, positions: usize) -> ChatEngine {
    let load =
        move || Model::load_with(NAME, &smollm_file(), &candle_core::Device::Cpu, Some(Room { slots, positions }));
    ChatEngine::start(NAME, load, Precedence::default()).unwrap()
}

/// Reads the prompt in one go and writes a token at a time, with nothing of the engine's loop.
fn alone(model: &mut Model, request: &ChatRequest) -> String {
    let settings = &request.sampling;
    let mut sampler = Sampler::new(sampling_options(settings), settings.seed.unwrap_or_default());
    let mut tokens = model.language.prompt(request).unwrap().tokens;
    let (mut read, mut bytes) = (0, Vec::new());
    for _ in 0..settings.max_tokens {
        let span = Span { slot: 0, start: read, tokens: &tokens[read..], wants: Wants::Last };
        let mut row = model.decoder.forward(&mut model.cache, &[span]).unwrap().row(0).to_vec();
        row.truncate(model.language.tokenizer.len());
        read = tokens.len();
        let token = sampler.choose(&mut row, &tokens).unwrap();
        if model.language.tokenizer.is_end(token) {
            break;
        }
        bytes.extend_from_slice(model.language.tokenizer.shown(token).unwrap());
        tokens.push(token);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

const QUESTIONS: [&str; 8] = [
    "What is the capital of France?",
    "Write a short poem about the sea.",
    "How do I boil an egg?",
    "Name three animals that live in the forest, and say one thing about each of them.",
    "Tell me a story about a dragon who was afraid of the dark.",
    "Why is the sky blue?",
    "Give me a recipe for pancakes with blueberries and honey.",
    "What should I pack for a trip to the mountains in winter?",
];

/// Every other one greedy, the rest with a seed of their own, all with the same long beginning.
fn requests(tokens: usize) -> Vec<ChatRequest> {
    let system = "You are Olivia, a cheerful friend who lives by the sea. You answer in short sentences.";
    let request = |(number, question): (usize, &&str)| {
        let mut request = greedy(&[(Role::System, system), (Role::User, question)], tokens);
        if number % 2 == 1 {
            request.sampling = Sampling { max_tokens: tokens, seed: Some(number as u64), ..Sampling::default() };
        }
        request
    };
    QUESTIONS.iter().enumerate().map(request).collect()
}

async fn together(engine: &ChatEngine, requests: &[ChatRequest]) -> Vec<Told> {
    let replies = requests.iter().map(|request| told(engine.reply(request.clone())));
    futures::future::join_all(replies).await.into_iter().map(Result::unwrap).collect()
}

#[tokio::test]
async fn a_text_is_the_same_alone_in_a_batch_after_an_eviction_and_cached() {
    let requests = requests(24);
    let mut model = Model::load(NAME, &smollm_file(), &candle_core::Device::Cpu).unwrap();
    let expected: Vec<String> = requests.iter().map(|request| alone(&mut model, request)).collect();
    drop(model);
    let same = |told: &[Told], how: &str| {
        for (told, expected) in told.iter().zip(&expected) {
            assert_eq!(&told.text, expected, "{how}");
        }
    };
    let engine = smollm(8, 512);
    let told = together(&engine, &requests).await;
    same(&told, "in a batch of eight");
    assert!(told.iter().filter(|told| told.usage.cached_tokens > 0).count() >= 6, "the beginning is shared");
    let told = together(&engine, &requests).await;
    same(&told, "from the prefix cache");
    // Where a reply's end is worth keeping, a prompt that comes again takes another's slot, the least recently used.
    let whole = |told: &&Told| told.usage.cached_tokens == told.usage.prompt_tokens - 1;
    assert!(told.iter().filter(whole).count() >= 3 && told.iter().all(|told| told.usage.cached_tokens > 0));
    // Half of them leave in the middle, and others take their slots.
    let held: Vec<_> = (0..4)
        .map(|number| engine.reply(greedy(&[(Role::User, &format!("{number} is a number. Tell me more."))], 400)))
        .collect();
    let first_half = together(&engine, &requests[..4]);
    let dropped = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(held);
    };
    let (told, ()) = tokio::join!(first_half, dropped);
    same(&told, "beside others that left");
    // Two slots for eight: each is evicted again and again.
    let narrow = smollm(2, 512);
    same(&together(&narrow, &requests).await, "in two slots");
    for (request, expected) in requests.iter().zip(&expected).rev() {
        assert_eq!(&told_of(&narrow, request).await.text, expected, "after an eviction");
    }
}

async fn told_of(engine: &ChatEngine, request: &ChatRequest) -> Told {
    told(engine.reply(request.clone())).await.unwrap()
}

#[tokio::test]
async fn a_long_prompt_whose_beginning_is_cached_answers_many_times_sooner() {
    let engine = smollm(2, 4096);
    let history = "The quick brown fox jumps over the lazy dog, and then it rests for a while. ".repeat(110);
    let ask = |question: &str| greedy(&[(Role::System, history.as_str()), (Role::User, question)], 4);
    let cold = told_of(&engine, &ask("Who jumps?")).await.usage;
    assert!(cold.prompt_tokens > 1900 && cold.cached_tokens == 0, "{cold:?}");
    let mut warm = Vec::new();
    for question in ["Who rests?", "Who is lazy?", "Who is brown?"] {
        let usage = told_of(&engine, &ask(question)).await.usage;
        assert!(usage.cached_tokens > 1900, "{usage:?}");
        warm.push(usage.first_token);
    }
    warm.sort_unstable();
    let times = cold.first_token.as_secs_f64() / warm[1].as_secs_f64();
    println!("first token of {} tokens: {:?}, cached {:?}: {times:.0}x", cold.prompt_tokens, cold.first_token, warm[1]);
    assert!(times >= 5.0, "{times}");
}

#[tokio::test]
async fn a_conversation_of_four_hundred_turns_goes_on_in_a_small_window() {
    let engine = smollm(4, 2048);
    let mut messages = vec![ChatMessage::new(Role::System, "You are Olivia, a cheerful friend.")];
    for turn in 0..400 {
        if turn == 9 || turn == 10 {
            let last = ChatMessage::new(Role::User, format!("And now, for the {turn}th time?"));
            let messages = messages.iter().cloned().chain([last]).collect();
            println!("turn {turn}: {:?}", told_of(&engine, &ChatRequest { messages, ..greedy(&[], 8) }).await.usage);
        }
        messages.push(ChatMessage::new(Role::User, format!("This is what I say in turn {turn}. What do you think?")));
        messages.push(ChatMessage::new(Role::Assistant, format!("I think that turn {turn} is a good turn.")));
    }
    let mut read = Vec::new();
    for turn in 0..4 {
        messages.push(ChatMessage::new(Role::User, format!("And now, for the {turn}th time?")));
        let request = ChatRequest { messages: messages.clone(), ..greedy(&[], 8) };
        let told = told_of(&engine, &request).await;
        assert!(told.usage.prompt_tokens < 2048 && told.usage.prompt_tokens > 1024, "{:?}", told.usage);
        println!("turn {}: {:?}", 400 + turn, told.usage);
        read.push(told.usage.prompt_tokens - told.usage.cached_tokens);
        messages.push(ChatMessage::new(Role::Assistant, told.text));
    }
    // The first reads all that fits. Of the next ones at most one begins where another message is now the oldest.
    read[1..].sort_unstable();
    assert!(read[0] > 1024 && read[2] < 64, "{read:?}");
}

#[tokio::test]
async fn who_leaves_the_queue_makes_room_at_once() {
    let engine = smollm(2, 2048);
    let ask = || engine.reply(greedy(&[(Role::User, "Tell me a long story.")], 2000));
    // These run for seconds at least.
    let mut running: Vec<_> = (0..2).map(|_| ask()).collect();
    for reply in &mut running {
        assert!(matches!(futures::StreamExt::next(reply).await, Some(Ok(Delta::Begin { .. }))));
    }
    let waiting: Vec<_> = (0..MOST_REPLIES - 2).map(|_| ask()).collect();
    let refused = told(ask()).await;
    assert!(matches!(refused, Err(ProviderError::Overloaded { .. })));
    drop(waiting);
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if engine.permits.available_permits() >= MOST_REPLIES - 2 {
            break;
        }
    }
    assert!(engine.permits.available_permits() >= MOST_REPLIES - 2);
    drop(running);
}

#[tokio::test]
async fn a_tool_that_must_be_called_is_called() {
    let engine = smollm(2, 1024);
    let parameters = serde_json::json!({
        "type": "object",
        "properties": { "city": { "type": "string", "maxLength": 20 }, "unit": { "enum": ["celsius", "fahrenheit"] } },
        "required": ["city", "unit"],
        "additionalProperties": false,
    });
    let tool = ToolSpec { name: "weather".to_owned(), description: "Tells the weather.".to_owned(), parameters };
    let question = greedy(&[(Role::User, "What is the weather in Paris, in celsius?")], 80);
    let request = ChatRequest { tools: vec![tool], tool_choice: ToolChoice::Required, ..question };
    let told = told_of(&engine, &request).await;
    // So small a model may call until there is no room.
    assert!([FinishReason::ToolCalls, FinishReason::Length].contains(&told.reason) && !told.calls.is_empty());
    for call in &told.calls {
        let arguments = call.arguments_value();
        assert!(call.name == "weather" && arguments["city"].is_string(), "{arguments}");
        assert!(["celsius", "fahrenheit"].contains(&arguments["unit"].as_str().unwrap()), "{arguments}");
    }
    // Where one is enough, the reply ends with it.
    let single = told_of(&engine, &ChatRequest { one_call: true, ..request }).await;
    assert_eq!((single.reason, single.calls.len(), single.text.as_str()), (FinishReason::ToolCalls, 1, ""));
    assert_eq!(single.calls[0].arguments, told.calls[0].arguments);
}

#[tokio::test]
async fn smollm_knows_the_capital_of_france() {
    let engine = ChatEngine::load(NAME, &smollm_file(), DeviceChoice::Cpu, Precedence::default()).unwrap();
    let messages = [(Role::System, "You are a helpful assistant."), (Role::User, "What is the capital of France?")];
    let told = told(engine.reply(greedy(&messages, 24))).await.unwrap();
    assert!(told.text.contains("Paris"), "{}", told.text);
    assert_eq!(told.reason, FinishReason::Stop);
    assert!(told.usage.cached_tokens < told.usage.prompt_tokens);
}

/// Figures rather than a verdict: `cargo test --lib chat_figures -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "prints figures"]
async fn chat_figures() {
    let start = Instant::now();
    let engine = ChatEngine::load(NAME, &smollm_file(), DeviceChoice::Cpu, Precedence::default()).unwrap();
    println!("load {:.2} s", start.elapsed().as_secs_f32());
    let per_second = |tokens: usize, time: Duration| tokens as f32 / time.as_secs_f32();
    let decode = |usage: &crate::provider::Usage| {
        per_second(usage.completion_tokens - 1, usage.total.saturating_sub(usage.first_token))
    };
    for words in [10, 110, 450] {
        let text = format!("{words} {}", "word like this ".repeat(words));
        let usage = told_of(&engine, &greedy(&[(Role::User, &text)], 64)).await.usage;
        println!(
            "{} tokens: first after {:?} ({:.0} tok/s prefill), decode {:.0} tok/s",
            usage.prompt_tokens,
            usage.first_token,
            per_second(usage.prompt_tokens, usage.first_token),
            decode(&usage),
        );
    }
    for streams in [1, 2, 4, 8] {
        let requests = &requests(64)[..streams];
        let started = Instant::now();
        let told = together(&engine, requests).await;
        let tokens = told.iter().map(|told| told.usage.completion_tokens).sum();
        println!("{streams} streams: {:.0} tok/s together", per_second(tokens, started.elapsed()));
    }
}
