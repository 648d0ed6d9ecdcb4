//! What a language model is asked and what it answers.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One reply to write.
#[derive(Clone, Debug, Default)]
pub struct ChatRequest {
    /// Oldest first; a system message, if any, comes first.
    pub messages: Vec<ChatMessage>,
    pub sampling: Sampling,
    /// Let a thinking model think. What it thinks is never yielded as text.
    pub thinking: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    pub role: Role,
    pub content: String,
}

impl ChatMessage {
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    System,
    User,
    Assistant,
    Tool,
}

/// How to choose each next token.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token.
    pub temperature: f32,
    pub top_p: f32,
    /// 0 is off.
    pub top_k: usize,
    /// Divides the logits of tokens that came lately; 1 is off.
    pub repetition_penalty: f32,
    pub max_tokens: usize,
    /// The same seed gives the same reply. None draws one.
    pub seed: Option<u64>,
    /// The reply ends before the first of these.
    pub stop: Vec<String>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.7,
            top_p: 0.9,
            top_k: 40,
            repetition_penalty: 1.1,
            max_tokens: 512,
            seed: None,
            stop: Vec::new(),
        }
    }
}

/// One item of a reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Delta {
    /// Comes with the first token.
    Begin { served_by: Arc<str> },
    /// More text, never empty.
    Text(String),
    /// The terminal item.
    Done { reason: FinishReason, usage: Usage },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended its turn, or a stop string came.
    Stop,
    /// `max_tokens`, or the context is full.
    Length,
}

/// What a reply took.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    pub prompt_tokens: usize,
    /// How many of the prompt's tokens were found in the prefix cache.
    pub cached_tokens: usize,
    pub completion_tokens: usize,
    /// From the call to the first token.
    pub first_token: Duration,
    /// From the call to the last token.
    pub total: Duration,
}
