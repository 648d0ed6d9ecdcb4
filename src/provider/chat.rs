//! What a language model is asked and what it answers.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Caller;

/// One reply to write.
#[derive(Clone, Debug, Default)]
pub struct ChatRequest {
    /// Oldest first; a system message, if any, comes first.
    pub messages: Vec<ChatMessage>,
    /// Text to continue as it stands, without a chat template; then `messages`, `tools` and `thinking` do not count.
    pub raw_prompt: Option<String>,
    /// A model's name. None: the server's own.
    pub model: Option<String>,
    pub sampling: Sampling,
    /// Let a thinking model think. What it thinks is never yielded as text, only as [`Delta::Thought`].
    pub thinking: bool,
    /// What the model may call. Empty: it can call nothing.
    pub tools: Vec<ToolSpec>,
    /// Counts only where there are tools.
    pub tool_choice: ToolChoice,
    /// The reply ends with its first call.
    pub one_call: bool,
    /// What the whole text must be. A reply that [`FinishReason::Length`] cut off may be a beginning of it.
    pub shape: Option<OutputShape>,
    /// Yield the log-probability of each token and of this many of the likeliest ones at its place.
    pub logprobs: Option<usize>,
    pub caller: Caller,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    pub role: Role,
    pub content: String,
    /// What the assistant called, after its text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call whose result a tool's message is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
}

impl ChatMessage {
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into(), tool_calls: Vec::new(), tool_call_id: None }
    }
}

/// A function that the model may call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolSpec {
    pub name: String,
    /// What it does and when to call it, for the model. May be empty.
    #[serde(default)]
    pub description: String,
    /// The JSON schema of its arguments, an object's.
    pub parameters: Value,
}

/// Which tools a reply calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// None: the reply is text.
    None,
    /// The model decides.
    #[default]
    Auto,
    /// At least one, whichever.
    Required,
    /// The one of this name.
    Named(String),
}

/// One call of a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Names the call within its conversation.
    pub id: String,
    pub name: String,
    /// The text of one JSON object.
    pub arguments: String,
}

impl ToolCall {
    /// The arguments as JSON; as a string where they are none.
    pub fn arguments_value(&self) -> Value {
        serde_json::from_str(&self.arguments).unwrap_or_else(|_| Value::from(self.arguments.as_str()))
    }
}

/// What the text of a reply is held to, token by token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputShape {
    /// Any JSON object.
    Json,
    /// JSON that a JSON schema allows.
    JsonSchema(Value),
    /// What a grammar in llguidance's variant of Lark derives from its rule `start`.
    Grammar(String),
    /// What a regular expression matches from its first to its last character.
    Regex(String),
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
    /// Taken off the logits of tokens that the reply holds already, -2 to 2; 0 is off.
    pub presence_penalty: f32,
    /// The same for each time that the reply holds them.
    pub frequency_penalty: f32,
    /// Added to the logits of these token ids, -100 to 100.
    pub logit_bias: Vec<(u32, f32)>,
    pub max_tokens: usize,
    /// The model cannot end its turn before so many tokens.
    pub min_tokens: usize,
    /// The model cannot end its turn at all: the reply has `max_tokens`, unless a stop string ends it.
    pub ignore_eos: bool,
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
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            max_tokens: 512,
            min_tokens: 0,
            ignore_eos: false,
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
    /// More of what the model thinks before it speaks, never empty. Only where the request lets it think.
    Thought(String),
    /// A whole call of one of the request's tools.
    ToolCall(ToolCall),
    /// Of tokens as they were drawn, before the text that they are in. Only where the request asks for them.
    Logprobs(Vec<TokenLogprob>),
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
    /// The model ended its turn to wait for the results of its calls.
    ToolCalls,
}

/// How likely a token was where it was drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// Its text in UTF-8; may be part of a character.
    pub bytes: Vec<u8>,
    /// Natural logarithm, before sampling settings and shape.
    pub logprob: f32,
    /// The likeliest tokens here, likeliest first, as pairs of bytes and logarithm.
    pub top: Vec<(Vec<u8>, f32)>,
}

/// What a reply took.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    pub prompt_tokens: usize,
    /// How many of the prompt's tokens were found in the prefix cache.
    pub cached_tokens: usize,
    pub completion_tokens: usize,
    /// What whoever served it says that it cost, in US dollars. None: it does not say.
    pub cost_usd: Option<f64>,
    /// From the call to the first token.
    pub first_token: Duration,
    /// From the call to the last token.
    pub total: Duration,
}
