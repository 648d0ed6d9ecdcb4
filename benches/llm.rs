//! The language model: prefill of prompts that share no prefix, first token with a cached prefix, and decode.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a bench that fails says why and stops")]

mod starter;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aichat::provider::{ChatMessage, ChatModel, ChatRequest, Delta, Role, Sampling, Usage};
use futures::StreamExt;

fn main() {
    let Some(app) = starter::app() else { return };
    let runtime = starter::runtime();
    let model = runtime.block_on(app.chat_model()).unwrap();
    let mut criterion = starter::criterion();
    let count = AtomicUsize::new(0);
    for words in [10, 400] {
        criterion.bench_function(&format!("llm/{}/prefill {words} words", app.llm_model()), |bencher| {
            bencher.to_async(&runtime).iter(|| {
                // The number comes first, so that no earlier prompt is a prefix of this one.
                let number = count.fetch_add(1, Ordering::Relaxed);
                ask(&model, format!("{number} {}", "word ".repeat(words)), 1)
            });
        });
    }
    criterion.bench_function(&format!("llm/{}/first token, cached prefix", app.llm_model()), |bencher| {
        bencher.to_async(&runtime).iter(|| ask(&model, "word ".repeat(400), 1));
    });
    criterion.bench_function(&format!("llm/{}/64 tokens", app.llm_model()), |bencher| {
        bencher.to_async(&runtime).iter(|| ask(&model, "Tell me a long story about a river.".into(), 64));
    });
    criterion.final_summary();
}

async fn ask(model: &Arc<dyn ChatModel>, prompt: String, tokens: usize) -> Usage {
    let sampling = Sampling { temperature: 0.0, max_tokens: tokens, ..Sampling::default() };
    let messages = vec![ChatMessage::new(Role::User, prompt)];
    let mut deltas = model.reply(ChatRequest { messages, sampling, ..ChatRequest::default() });
    let mut taken = Usage::default();
    while let Some(delta) = deltas.next().await {
        if let Delta::Done { usage, .. } = delta.unwrap() {
            taken = usage;
        }
    }
    taken
}
