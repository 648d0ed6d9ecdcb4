//! What a client gets: whole texts, or chunks of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::api::openai::head::{Answer, Chunk, Head, IMPOSSIBLE};
use crate::api::openai::replies::{Event, Replies, Step, TokenUsage};
use crate::api::openai::stream::Chunks;
use crate::provider::{ProviderError, TokenLogprob};

const OBJECT: &str = "text_completion";

#[derive(Default, Serialize, ToSchema)]
#[schema(as = TextChoice)]
pub(super) struct Choice {
    index: usize,
    text: String,
    #[schema(required)]
    logprobs: Option<Logprobs>,
    /// Null where more comes.
    #[schema(required)]
    finish_reason: Option<&'static str>,
}

/// Lists of one length: an entry each per token.
#[derive(Default, Serialize, ToSchema)]
#[schema(as = TextLogprobs)]
#[expect(clippy::struct_field_names, reason = "the API's own names")]
struct Logprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    /// The likeliest tokens by their text.
    top_logprobs: Vec<BTreeMap<String, f32>>,
    /// Characters of the text before the token.
    text_offset: Vec<usize>,
}

impl Logprobs {
    /// Adds tokens behind `offset` characters, which grows by theirs.
    fn extend(&mut self, tokens: Vec<TokenLogprob>, offset: &mut usize) {
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        for token in tokens {
            let text = shown(&token.bytes);
            let top = token.top.iter().map(|(bytes, logprob)| (shown(bytes), logprob.max(IMPOSSIBLE)));
            self.top_logprobs.push(top.collect());
            self.token_logprobs.push(token.logprob.max(IMPOSSIBLE));
            self.text_offset.push(*offset);
            *offset += text.chars().count();
            self.tokens.push(text);
        }
    }
}

/// Waits for the end of all `count` choices.
///
/// # Errors
/// Of the first choice that fails.
pub(super) async fn whole(
    mut replies: Replies,
    count: usize,
    choices_per_prompt: usize,
    with_logprobs: bool,
) -> Result<Response, ProviderError> {
    let logprobs = || with_logprobs.then(Logprobs::default);
    let choice = |index| Choice { index, logprobs: logprobs(), finish_reason: Some("stop"), ..Choice::default() };
    let mut all: Vec<Choice> = (0..count).map(choice).collect();
    let mut offsets = vec![0; count];
    while let Some(step) = replies.next().await {
        let Step { index, event } = step?;
        let choice = &mut all[index];
        match event {
            Event::Text { text, logprobs } => {
                choice.text.push_str(&text);
                if let Some(told) = &mut choice.logprobs {
                    told.extend(logprobs, &mut offsets[index]);
                }
            }
            Event::Ended(reason) => choice.finish_reason = Some(reason),
            Event::Begun | Event::Thought(_) | Event::Call { .. } => {}
        }
    }
    let head = Head::new("cmpl", OBJECT, &replies.served_by);
    Ok(Json(Answer { head, choices: all, usage: replies.usage(choices_per_prompt) }).into_response())
}

/// Tells of texts in chunks.
pub(super) struct TextChunks {
    head: Head,
    choices_per_prompt: usize,
    include_usage: bool,
    /// Characters told of, by choice.
    offsets: Vec<usize>,
}

impl TextChunks {
    pub(super) fn new(model: &Arc<str>, count: usize, choices_per_prompt: usize, include_usage: bool) -> Self {
        Self { head: Head::new("cmpl", OBJECT, model), choices_per_prompt, include_usage, offsets: vec![0; count] }
    }

    fn chunk(&self, choices: Vec<Choice>, usage: Option<TokenUsage>) -> String {
        json!(Chunk { head: &self.head, choices, usage: self.include_usage.then_some(usage) }).to_string()
    }
}

impl Chunks for TextChunks {
    fn of(&mut self, Step { index, event }: Step) -> Vec<String> {
        let mut choice = Choice { index, ..Choice::default() };
        match event {
            Event::Text { text, logprobs } => {
                choice.text = text;
                if !logprobs.is_empty() {
                    choice.logprobs.get_or_insert_default().extend(logprobs, &mut self.offsets[index]);
                }
            }
            Event::Ended(reason) => choice.finish_reason = Some(reason),
            Event::Begun | Event::Thought(_) | Event::Call { .. } => return Vec::new(),
        }
        vec![self.chunk(vec![choice], None)]
    }

    fn last(&mut self, usage: TokenUsage) -> Option<String> {
        self.include_usage.then(|| self.chunk(Vec::new(), Some(usage)))
    }

    fn choices_per_prompt(&self) -> usize {
        self.choices_per_prompt
    }
}
