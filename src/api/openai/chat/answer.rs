//! What a client gets: a whole answer, or chunks of one.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::api::openai::head::{Answer, Chunk, Head, IMPOSSIBLE};
use crate::api::openai::replies::{Event, Replies, Step, TokenUsage};
use crate::api::openai::stream::Chunks;
use crate::provider::{ProviderError, TokenLogprob, ToolCall};

const ASSISTANT: &str = "assistant";
/// Characters of a call's arguments in a chunk: a whole call comes at once, and clients expect pieces.
const PIECE: usize = 24;

#[derive(Serialize, ToSchema)]
#[schema(as = ChatChoice)]
pub(super) struct Choice {
    index: usize,
    message: Message,
    #[schema(required)]
    logprobs: Option<Logprobs>,
    finish_reason: &'static str,
}

#[derive(Default, Serialize, ToSchema)]
#[schema(as = ChatMessage)]
struct Message {
    role: &'static str,
    /// Null where there are only calls.
    #[schema(required)]
    content: Option<String>,
    /// Models here do not tell refusals apart.
    #[schema(required)]
    refusal: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    reasoning_content: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ChatCall)]
struct Call {
    id: String,
    r#type: &'static str,
    function: Function,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ChatFunction)]
struct Function {
    name: String,
    arguments: String,
}

#[derive(Default, Serialize, ToSchema)]
#[schema(as = ChatLogprobs)]
struct Logprobs {
    content: Vec<Token>,
    #[schema(required)]
    refusal: Option<Vec<Token>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ChatToken)]
struct Token {
    #[serde(flatten)]
    likely: Likely,
    top_logprobs: Vec<Likely>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ChatLikely)]
struct Likely {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

impl Likely {
    fn new(bytes: Vec<u8>, logprob: f32) -> Self {
        Self { token: String::from_utf8_lossy(&bytes).into_owned(), logprob: logprob.max(IMPOSSIBLE), bytes }
    }
}

impl From<TokenLogprob> for Token {
    fn from(token: TokenLogprob) -> Self {
        let top_logprobs = token.top.into_iter().map(|(bytes, logprob)| Likely::new(bytes, logprob)).collect();
        Self { likely: Likely::new(token.bytes, token.logprob), top_logprobs }
    }
}

fn tokens(logprobs: Vec<TokenLogprob>) -> impl Iterator<Item = Token> {
    logprobs.into_iter().map(Token::from)
}

/// Waits for the end of all choices.
///
/// # Errors
/// Of the first choice that fails.
pub(super) async fn whole(
    mut replies: Replies,
    choices: usize,
    with_logprobs: bool,
) -> Result<Response, ProviderError> {
    let choice = |index| Choice {
        index,
        message: Message { role: ASSISTANT, ..Message::default() },
        logprobs: with_logprobs.then(Logprobs::default),
        finish_reason: "stop",
    };
    let mut all: Vec<Choice> = (0..choices).map(choice).collect();
    while let Some(step) = replies.next().await {
        let Step { index, event } = step?;
        all[index].take(event);
    }
    for choice in &mut all {
        let message = &mut choice.message;
        if message.tool_calls.is_empty() {
            message.content.get_or_insert_default();
        }
    }
    let head = Head::new("chatcmpl", "chat.completion", &replies.served_by);
    Ok(Json(Answer { head, choices: all, usage: replies.usage(choices) }).into_response())
}

impl Choice {
    fn take(&mut self, event: Event) {
        match event {
            Event::Begun => {}
            Event::Text { text, logprobs } => {
                self.message.content.get_or_insert_default().push_str(&text);
                if let Some(told) = &mut self.logprobs {
                    told.content.extend(tokens(logprobs));
                }
            }
            Event::Thought(thought) => self.message.reasoning_content.push_str(&thought),
            Event::Call { call: ToolCall { id, name, arguments }, .. } => {
                self.message.tool_calls.push(Call { id, r#type: "function", function: Function { name, arguments } });
            }
            Event::Ended(reason) => self.finish_reason = reason,
        }
    }
}

#[derive(Serialize)]
struct ChunkChoice {
    index: usize,
    delta: Delta,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Default, Serialize)]
struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallDelta>,
}

/// The first of a call has its id and name; the others only arguments.
#[derive(Serialize)]
struct CallDelta {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    function: FunctionDelta,
}

#[derive(Serialize)]
struct FunctionDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    arguments: String,
}

/// Tells of a chat's choices in chunks.
pub(super) struct ChatChunks {
    head: Head,
    choices: usize,
    include_usage: bool,
}

impl ChatChunks {
    pub(super) fn new(model: &Arc<str>, choices: usize, include_usage: bool) -> Self {
        Self { head: Head::new("chatcmpl", "chat.completion.chunk", model), choices, include_usage }
    }

    fn chunk(&self, choices: Vec<ChunkChoice>, usage: Option<TokenUsage>) -> String {
        json!(Chunk { head: &self.head, choices, usage: self.include_usage.then_some(usage) }).to_string()
    }
}

impl Chunks for ChatChunks {
    fn of(&mut self, Step { index, event }: Step) -> Vec<String> {
        let mut told = None;
        let mut finish_reason = None;
        let deltas = match event {
            Event::Begun => {
                vec![Delta { role: Some(ASSISTANT), content: Some(String::new()), ..Delta::default() }]
            }
            Event::Text { text, logprobs } => {
                let content: Vec<Token> = tokens(logprobs).collect();
                told = (!content.is_empty()).then_some(Logprobs { content, refusal: None });
                vec![Delta { content: Some(text), ..Delta::default() }]
            }
            Event::Thought(thought) => vec![Delta { reasoning_content: Some(thought), ..Delta::default() }],
            Event::Call { place, call } => in_pieces(place, call),
            Event::Ended(reason) => {
                finish_reason = Some(reason);
                vec![Delta::default()]
            }
        };
        let choice = |delta| ChunkChoice { index, delta, logprobs: told.take(), finish_reason };
        let choices: Vec<ChunkChoice> = deltas.into_iter().map(choice).collect();
        choices.into_iter().map(|choice| self.chunk(vec![choice], None)).collect()
    }

    fn last(&mut self, usage: TokenUsage) -> Option<String> {
        self.include_usage.then(|| self.chunk(Vec::new(), Some(usage)))
    }

    fn choices_per_prompt(&self) -> usize {
        self.choices
    }
}

fn in_pieces(index: usize, call: ToolCall) -> Vec<Delta> {
    let delta = |call| Delta { tool_calls: vec![call], ..Delta::default() };
    let named = FunctionDelta { name: Some(call.name), arguments: String::new() };
    let first = CallDelta { index, id: Some(call.id), r#type: Some("function"), function: named };
    let letters: Vec<char> = call.arguments.chars().collect();
    let pieces = letters.chunks(PIECE).map(|piece| {
        let function = FunctionDelta { name: None, arguments: piece.iter().collect() };
        CallDelta { index, id: None, r#type: None, function }
    });
    std::iter::once(first).chain(pieces).map(delta).collect()
}
