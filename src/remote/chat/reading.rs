//! The events of a streamed reply, put together: pure, so that it can be fed anything.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::thinking::{Piece, Thinking};
use crate::provider::{ChatRequest, Delta, FinishReason, TokenLogprob, ToolCall};

/// So many calls a reply may hold. More is no reply.
const MOST_CALLS: usize = 128;
/// Bytes of a prompt that make a token where a service does not count them.
const BYTES_PER_TOKEN: usize = 4;

/// Why a reply cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// The service's filter stopped it.
    Filtered,
    /// The model said that it will not.
    Declined,
    /// It is not what a service should send.
    Unreadable(&'static str),
}

/// What a reply took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Spent {
    pub(super) prompt: usize,
    pub(super) cached: usize,
    pub(super) completion: usize,
    pub(super) cost_usd: Option<f64>,
}

/// A reply of which part has come.
pub(super) struct Reading {
    /// Whether thoughts are wanted.
    thoughts: bool,
    /// How many likeliest tokens are wanted.
    logprobs: Option<usize>,
    thinking: Thinking,
    calls: BTreeMap<usize, ToolCall>,
    finish: Option<FinishReason>,
    spent: Option<Spent>,
    /// Events with something in them: about one a token.
    pieces: usize,
    prompt_bytes: usize,
}

impl Reading {
    pub(super) fn new(request: &ChatRequest) -> Self {
        let messages = request.messages.iter().map(|message| message.content.len());
        let prompt_bytes = request.raw_prompt.as_ref().map_or_else(|| messages.sum(), String::len);
        let raw = request.raw_prompt.is_some();
        Self {
            thoughts: request.thinking && !raw,
            logprobs: request.logprobs,
            thinking: if raw { Thinking::none() } else { Thinking::default() },
            calls: BTreeMap::new(),
            finish: None,
            spent: None,
            pieces: 0,
            prompt_bytes,
        }
    }

    /// Whether the service said why it ended: nothing but the usage may follow.
    pub(super) fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// What one event adds.
    pub(super) fn take(&mut self, event: Value) -> Result<Vec<Delta>, Wrong> {
        let unreadable = |_| Wrong::Unreadable("an event has other fields than a reply's");
        let event: Event = serde_json::from_value(event).map_err(unreadable)?;
        if let Some(usage) = event.usage {
            self.spent = Some(usage.spent());
        }
        let mut deltas = Vec::new();
        for choice in event.choices.unwrap_or_default() {
            if choice.index.unwrap_or(0) == 0 {
                self.take_choice(choice, &mut deltas)?;
            }
        }
        Ok(deltas)
    }

    fn take_choice(&mut self, choice: Choice, deltas: &mut Vec<Delta>) -> Result<(), Wrong> {
        let delta = choice.delta.unwrap_or_default();
        if let (Some(top), Some(logprobs)) = (self.logprobs, choice.logprobs) {
            let tokens = logprobs.tokens(top);
            deltas.extend((!tokens.is_empty()).then_some(Delta::Logprobs(tokens)));
        }
        if delta.refusal.is_some_and(|refusal| !refusal.is_empty()) {
            return Err(Wrong::Declined);
        }
        let said = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        let thought = delta.reasoning_content.filter(|text| !text.is_empty()).or(delta.reasoning);
        let text = delta.content.filter(|text| !text.is_empty()).or(choice.text);
        let calls = delta.tool_calls.unwrap_or_default();
        self.pieces += usize::from(said(&thought) || said(&text) || !calls.is_empty());
        if let Some(thought) = thought {
            self.add(Piece::Thought(thought), deltas);
        }
        for piece in self.thinking.take(text.as_deref().unwrap_or_default()) {
            self.add(piece, deltas);
        }
        for call in calls {
            self.take_call(call)?;
        }
        match choice.finish_reason.as_deref() {
            None | Some("") => {}
            Some("content_filter") => return Err(Wrong::Filtered),
            Some("error" | "abort") => return Err(Wrong::Unreadable("the service gave the reply up")),
            Some("length" | "max_tokens") => self.finish = Some(FinishReason::Length),
            Some("tool_calls" | "function_call") => self.finish = Some(FinishReason::ToolCalls),
            Some(_) => self.finish = Some(FinishReason::Stop),
        }
        Ok(())
    }

    fn add(&self, piece: Piece, deltas: &mut Vec<Delta>) {
        match piece {
            Piece::Text(text) if !text.is_empty() => deltas.push(Delta::Text(text)),
            Piece::Thought(text) if self.thoughts && !text.is_empty() => deltas.push(Delta::Thought(text)),
            Piece::Text(_) | Piece::Thought(_) => {}
        }
    }

    fn take_call(&mut self, part: CallPart) -> Result<(), Wrong> {
        // Who numbers no calls sends each whole.
        let place = part.index.unwrap_or(self.calls.len());
        let new = ToolCall { id: String::new(), name: String::new(), arguments: String::new() };
        let call = self.calls.entry(place).or_insert(new);
        if let Some(id) = part.id.filter(|id| !id.is_empty()) {
            call.id = id;
        }
        if let Some(function) = part.function {
            // A name comes whole, and from some services again and again.
            if let Some(name) = function.name.filter(|name| !name.is_empty()) {
                call.name = name;
            }
            match function.arguments {
                Some(Value::String(text)) => call.arguments.push_str(&text),
                Some(whole @ Value::Object(_)) => call.arguments = whole.to_string(),
                _ => {}
            }
        }
        if self.calls.len() > MOST_CALLS {
            return Err(Wrong::Unreadable("the reply has too many tool calls"));
        }
        Ok(())
    }

    /// What is left to give at the end of the stream, why it ended, and what it took.
    pub(super) fn end(mut self) -> Result<(Vec<Delta>, FinishReason, Spent), Wrong> {
        let mut reason = self.finish.ok_or(Wrong::Unreadable("the stream ended before the reply"))?;
        let mut deltas = Vec::new();
        if let Some(piece) = self.thinking.flush() {
            self.add(piece, &mut deltas);
        }
        let cut_off = reason == FinishReason::Length;
        for (place, mut call) in std::mem::take(&mut self.calls) {
            if call.arguments.trim().is_empty() && !cut_off {
                "{}".clone_into(&mut call.arguments);
            }
            if !serde_json::from_str::<Value>(&call.arguments).is_ok_and(|arguments| arguments.is_object()) {
                if cut_off {
                    continue;
                }
                return Err(Wrong::Unreadable("the arguments of a tool call are no JSON object"));
            }
            if call.name.is_empty() {
                return Err(Wrong::Unreadable("a tool call has no name"));
            }
            if call.id.is_empty() {
                call.id = format!("call_{place}_{:x}", crate::remote::service::chance());
            }
            deltas.push(Delta::ToolCall(call));
            if !cut_off {
                // Some say `stop` where the request named the tool.
                reason = FinishReason::ToolCalls;
            }
        }
        // Who counts nothing is counted: a reply that costs nothing would pass every budget.
        let counted = || Spent {
            prompt: self.prompt_bytes.div_ceil(BYTES_PER_TOKEN),
            completion: self.pieces,
            ..Spent::default()
        };
        Ok((deltas, reason, self.spent.unwrap_or_else(counted)))
    }
}

#[derive(Deserialize)]
struct Event {
    choices: Option<Vec<Choice>>,
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
struct Choice {
    index: Option<usize>,
    delta: Option<WireDelta>,
    /// Of `/completions`.
    text: Option<String>,
    finish_reason: Option<String>,
    logprobs: Option<WireLogprobs>,
}

#[derive(Default, Deserialize)]
struct WireDelta {
    content: Option<String>,
    /// OpenRouter's and newer vLLM's name for thoughts.
    reasoning: Option<String>,
    /// DeepSeek's, llama.cpp's and older vLLM's.
    reasoning_content: Option<String>,
    refusal: Option<String>,
    tool_calls: Option<Vec<CallPart>>,
}

#[derive(Deserialize)]
struct CallPart {
    index: Option<usize>,
    id: Option<String>,
    function: Option<FunctionPart>,
}

#[derive(Deserialize)]
struct FunctionPart {
    name: Option<String>,
    arguments: Option<Value>,
}

#[derive(Deserialize)]
struct WireUsage {
    prompt_tokens: Option<usize>,
    completion_tokens: Option<usize>,
    prompt_tokens_details: Option<PromptDetails>,
    cost: Option<f64>,
}

#[derive(Deserialize)]
struct PromptDetails {
    cached_tokens: Option<usize>,
}

impl WireUsage {
    fn spent(self) -> Spent {
        Spent {
            prompt: self.prompt_tokens.unwrap_or(0),
            cached: self.prompt_tokens_details.and_then(|details| details.cached_tokens).unwrap_or(0),
            completion: self.completion_tokens.unwrap_or(0),
            cost_usd: self.cost.filter(|cost| *cost >= 0.0),
        }
    }
}

#[derive(Deserialize)]
struct WireLogprobs {
    /// Of `/chat/completions`.
    content: Option<Vec<WireToken>>,
    /// The next three are of `/completions`.
    tokens: Option<Vec<String>>,
    token_logprobs: Option<Vec<Option<f32>>>,
    top_logprobs: Option<Vec<Option<BTreeMap<String, f32>>>>,
}

#[derive(Deserialize)]
struct WireToken {
    token: String,
    bytes: Option<Vec<u8>>,
    logprob: f32,
    top_logprobs: Option<Vec<WireToken>>,
}

impl WireToken {
    fn pair(self) -> (Vec<u8>, f32) {
        (self.bytes.unwrap_or_else(|| self.token.into_bytes()), self.logprob)
    }
}

impl WireLogprobs {
    fn tokens(self, most: usize) -> Vec<TokenLogprob> {
        if let Some(content) = self.content {
            let token = |mut token: WireToken| {
                let top = token.top_logprobs.take().unwrap_or_default().into_iter().take(most);
                let top = top.map(WireToken::pair).collect();
                let (bytes, logprob) = token.pair();
                TokenLogprob { bytes, logprob, top }
            };
            return content.into_iter().map(token).collect();
        }
        let tokens = self.tokens.unwrap_or_default().into_iter();
        let mut tops = self.top_logprobs.unwrap_or_default().into_iter();
        let scores = self.token_logprobs.unwrap_or_default().into_iter();
        let token = |(token, score): (String, Option<f32>)| {
            let top = tops.next().flatten().unwrap_or_default().into_iter();
            let mut top: Vec<_> = top.map(|(token, score)| (token.into_bytes(), score)).collect();
            top.sort_by(|a, b| b.1.total_cmp(&a.1));
            top.truncate(most);
            TokenLogprob { bytes: token.into_bytes(), logprob: score.unwrap_or(0.0), top }
        };
        tokens.zip(scores).map(token).collect()
    }
}
