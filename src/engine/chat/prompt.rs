//! From messages to the tokens that a model reads.
//!
//! A speaker's text can never become a marker: every marker in it is broken before the template sees it, by a
//! character that no message holds, and mended after the template's own markers are found. So ordinary text has the
//! very tokens of the plain rendering. Tools, calls and results are rendered by the model's own template, or explained in
//! the system message where it knows none; the tags that calls are told by are broken for good in whatever else is said,
//! where they are no markers but text like any other. A history that is too long loses its oldest messages, several at a time, so that
//! the prompts of following turns begin alike and the prefix cache finds them.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::constraint::{Constraint, ConstraintFactory, callable};
use super::filter::ReplyText;
use super::template::{ChatTemplate, template_messages, template_tools};
use super::tokenizer::{THINK, Tokenizer};
use super::tools::{self, Dialect, ToolParser};
use crate::provider::{ChatMessage, ChatRequest, ProviderError, Role, ToolCall, ToolChoice};

/// Old messages go this many at a time at most: half as many, and so on, where too few would be left.
const DROP_STEP: usize = 64;
/// What a template adds to a message, generously.
const MARKERS_PER_MESSAGE: usize = 8;
/// What a template adds to a call, its name included.
const CALL_TOKENS: usize = 24;
/// Bytes per token that no text exceeds by much: longer texts are refused before they are encoded.
const MOST_BYTES_PER_TOKEN: usize = 64;

/// How a model is spoken to.
pub(super) struct Language {
    pub(super) tokenizer: Tokenizer,
    pub(super) template: ChatTemplate,
    pub(super) constraints: ConstraintFactory,
    /// Tokens that fit, prompt and reply together.
    pub(super) window: usize,
}

#[derive(Debug)]
pub(super) struct Prompt {
    pub(super) tokens: Vec<u32>,
    /// The template has opened the model's thoughts already.
    pub(super) thinks_first: bool,
}

impl Language {
    /// Renders and encodes what fits of `request`.
    ///
    /// # Errors
    /// [`ProviderError::InvalidRequest`]: there is no message, the last is too long, or the template refuses them.
    pub(super) fn prompt(&self, request: &ChatRequest) -> Result<Prompt, ProviderError> {
        if let Some(text) = &request.raw_prompt {
            return self.raw(text);
        }
        if request.messages.is_empty() {
            return Err(invalid("there is no message".to_owned()));
        }
        let reserve = request.sampling.max_tokens.clamp(1, self.window / 4);
        let budget = self.window - reserve;
        let mut messages = self.fitting(request, budget)?;
        loop {
            let prompt = self.rendered(&messages, request)?;
            if prompt.tokens.len() <= budget {
                return Ok(prompt);
            }
            let before = messages.len();
            drop_oldest(&mut messages, 1);
            if messages.len() == before {
                return Err(too_long(prompt.tokens.len(), budget));
            }
        }
    }

    /// Text as it stands, behind the model's begin token. What looks like a marker in it stays text, as in messages.
    fn raw(&self, text: &str) -> Result<Prompt, ProviderError> {
        let refused = |message: String| ProviderError::InvalidRequest { field: "prompt", message };
        let too_long = |tokens| refused(format!("takes about {tokens} tokens; at most {} fit", self.window - 1));
        if text.len() > self.window * MOST_BYTES_PER_TOKEN {
            return Err(too_long(text.len() / 4));
        }
        let mut tokens: Vec<u32> =
            self.tokenizer.begin.iter().filter(|begin| begin.always).map(|begin| begin.id).collect();
        tokens.extend(self.tokenizer.encode_text(text).map_err(refused)?);
        match tokens.len() {
            0 => Err(refused("is empty".to_owned())),
            length if length >= self.window => Err(too_long(length)),
            _ => Ok(Prompt { tokens, thinks_first: false }),
        }
    }

    /// What holds the reply to the request's shape and tools. None: it is free.
    ///
    /// # Errors
    /// As [`Constraint::new`].
    pub(super) fn constraint(
        &self,
        request: &ChatRequest,
        thinks_first: bool,
    ) -> Result<Option<Constraint>, ProviderError> {
        Constraint::new(&self.constraints, &self.tokenizer, request, thinks_first)
    }

    /// What turns the reply's bytes into text, thoughts and calls.
    ///
    /// # Errors
    /// [`ProviderError::InvalidRequest`]: the request's tools are out of bounds.
    pub(super) fn reply_text(&self, request: &ChatRequest, thinks_first: bool) -> Result<ReplyText, ProviderError> {
        if request.raw_prompt.is_some() {
            // The first space of a continuation is one.
            return Ok(ReplyText::new(false, false, request.sampling.stop.clone()).keeping_thoughts());
        }
        let tools = callable(request)?;
        let parser = (!tools.is_empty()).then(|| ToolParser::new(self.template.dialect, &tools));
        let text = ReplyText::new(thinks_first, self.tokenizer.pads_first_word(), request.sampling.stop.clone());
        Ok(text.telling_thoughts(request.thinking).with_tools(parser))
    }

    /// The tokens that every prompt beginning with these messages begins with. Where the last message is a user's, its
    /// text may still grow.
    ///
    /// # Errors
    /// As [`Language::prompt`].
    pub(super) fn beginning(&self, request: &ChatRequest) -> Result<Vec<u32>, ProviderError> {
        let with = |ending: &str| {
            let mut messages = request.messages.clone();
            match messages.last_mut() {
                Some(last) if last.role == Role::User => last.content.push_str(ending),
                _ => messages.push(ChatMessage::new(Role::User, ending)),
            }
            let grown = ChatRequest { messages, ..request.clone() };
            self.prompt(&grown).map(|prompt| prompt.tokens)
        };
        let (one, other) = (with(" one")?, with("! 2")?);
        Ok(one[..common(&one, &other)].to_vec())
    }

    /// The messages without those of the past that cannot fit, by an estimate.
    fn fitting(&self, request: &ChatRequest, budget: usize) -> Result<Vec<ChatMessage>, ProviderError> {
        let messages = &request.messages;
        let system = usize::from(messages[0].role == Role::System);
        let last = last_turn(messages);
        let text_cost = |text: &str| -> Result<usize, ProviderError> {
            // Texts far over the window are not worth encoding.
            if text.len() > self.window * MOST_BYTES_PER_TOKEN {
                return Ok(text.len() / 4);
            }
            Ok(self.tokenizer.encode_text(text).map_err(invalid)?.len())
        };
        let cost = |message: &ChatMessage| -> Result<usize, ProviderError> {
            let calls = message.tool_calls.iter().map(|call| text_cost(&call.arguments).map(|cost| cost + CALL_TOKENS));
            Ok(text_cost(&message.content)? + calls.sum::<Result<usize, _>>()? + MARKERS_PER_MESSAGE)
        };
        let mut used = 0;
        for tool in tools_of(request) {
            used += text_cost(&tool.to_string())?;
        }
        for message in messages[last..].iter().chain(&messages[..system.min(last)]) {
            used += cost(message)?;
        }
        if used > budget + 2 * MARKERS_PER_MESSAGE {
            return Err(too_long(used, budget));
        }
        let mut kept = last;
        while kept > system {
            used += cost(&messages[kept - 1])?;
            if used > budget {
                break;
            }
            kept -= 1;
        }
        let mut fitting = messages.clone();
        if kept > system {
            drop_oldest(&mut fitting, in_steps(kept - system, messages.len() - kept));
        }
        Ok(fitting)
    }

    fn rendered(&self, messages: &[ChatMessage], request: &ChatRequest) -> Result<Prompt, ProviderError> {
        let tools = tools_of(request);
        let breaker = absent_character(messages, &tools);
        let calls = |message: &ChatMessage| message.role == Role::Tool || !message.tool_calls.is_empty();
        let tags = if tools.is_empty() && !messages.iter().any(calls) { &[] } else { self.template.dialect.tags() };
        let break_text = |text: &str| self.disarmed(text, tags, breaker);
        let tools: Vec<Value> = tools.iter().map(|tool| break_strings(tool, &break_text)).collect();
        let messages: Vec<ChatMessage> = messages.iter().map(|message| broken(message, &break_text)).collect();
        let (messages, tools) = match self.template.dialect {
            Dialect::Generic => (told_plainly(messages, &tools), Vec::new()),
            Dialect::Mistral | Dialect::MistralArguments => (with_short_ids(messages), tools),
            Dialect::Llama => (one_call_each(messages), tools),
            Dialect::Hermes => (messages, tools),
        };
        let render = |messages: &[ChatMessage]| {
            self.template.render(&template_messages(messages), &tools, true, request.thinking)
        };
        let text = render(&messages)
            .or_else(|refusal| render(&folded(&messages)).map_err(|_| refusal))
            .map_err(|refusal| invalid(format!("the model's template refuses them: {refusal}")))?;
        let tokens = self.tokenizer.encode_prompt(&text, breaker).map_err(invalid)?;
        Ok(Prompt { tokens, thinks_first: text.trim_end().ends_with(THINK.0) })
    }

    /// `tags` that the vocabulary has no markers for are told apart from a speaker's by a space that stays.
    fn disarmed(&self, text: &str, tags: &[&str], breaker: char) -> String {
        let mut text = text.to_owned();
        for tag in tags.iter().filter(|tag| self.tokenizer.marker(tag).is_none()) {
            if text.contains(tag) {
                text = text.replace(tag, &format!("{} {}", &tag[..1], &tag[1..]));
            }
        }
        self.tokenizer.disarm(&text, breaker)
    }
}

fn too_long(tokens: usize, budget: usize) -> ProviderError {
    invalid(format!("the last message takes about {tokens} tokens with its system prompt; at most {budget} fit"))
}

fn invalid(message: String) -> ProviderError {
    ProviderError::InvalidRequest { field: "messages", message }
}

/// Rounds a number of messages to drop up to a step, so that the next turns drop the same ones, as long as that costs
/// at most half of the `kept`.
fn in_steps(dropped: usize, kept: usize) -> usize {
    let mut steps = std::iter::successors(Some(DROP_STEP), |step| (*step > 2).then_some(step / 2));
    let affordable = |step: &usize| (dropped.next_multiple_of(*step) - dropped) * 2 <= kept;
    steps.find(affordable).map_or(dropped, |step| dropped.next_multiple_of(step))
}

/// Where the last turn begins: with its user's message, or what there is of it.
fn last_turn(messages: &[ChatMessage]) -> usize {
    let last = messages.len().saturating_sub(1);
    match messages.last().map(|message| message.role) {
        // The results of calls are nothing without what was asked and called.
        Some(Role::Tool) => messages.iter().rposition(|message| message.role == Role::User).unwrap_or(last),
        _ => last,
    }
}

/// The tools that the prompt tells of, as templates know them.
fn tools_of(request: &ChatRequest) -> Vec<Value> {
    if request.tool_choice == ToolChoice::None { Vec::new() } else { template_tools(&request.tools) }
}

/// A message with all its texts broken.
fn broken(message: &ChatMessage, break_text: &impl Fn(&str) -> String) -> ChatMessage {
    let call = |call: &ToolCall| ToolCall {
        id: break_text(&call.id),
        name: break_text(&call.name),
        arguments: break_strings(&call.arguments_value(), break_text).to_string(),
    };
    ChatMessage {
        role: message.role,
        content: break_text(&message.content),
        tool_calls: message.tool_calls.iter().map(call).collect(),
        tool_call_id: message.tool_call_id.as_deref().map(break_text),
    }
}

fn break_strings(value: &Value, break_text: &impl Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::from(break_text(text)),
        Value::Array(items) => items.iter().map(|item| break_strings(item, break_text)).collect(),
        Value::Object(entries) => {
            let entry = |(key, item): (&String, &Value)| (break_text(key), break_strings(item, break_text));
            Value::Object(entries.iter().map(entry).collect::<Map<String, Value>>())
        }
        other => other.clone(),
    }
}

/// For templates that know no tools: the system's message explains them, calls are text, and results are a user's.
fn told_plainly(messages: Vec<ChatMessage>, tools: &[Value]) -> Vec<ChatMessage> {
    let mut told: Vec<ChatMessage> = Vec::new();
    if !tools.is_empty() {
        told.push(ChatMessage::new(Role::System, tools::instruction(tools)));
    }
    for message in messages {
        let ChatMessage { role, mut content, tool_calls, .. } = message;
        match (role, told.first_mut()) {
            (Role::System, Some(first)) if first.role == Role::System => {
                first.content = format!("{content}\n\n{}", first.content);
                continue;
            }
            (Role::Tool, _) => content = format!("{}\n{content}\n{}", tools::RESULT.0, tools::RESULT.1),
            _ => {}
        }
        for call in &tool_calls {
            let separator = if content.is_empty() { "" } else { "\n" };
            content = format!("{content}{separator}{}", tools::written(&call.name, &call.arguments_value()));
        }
        let role = if role == Role::Tool { Role::User } else { role };
        match told.last_mut() {
            // The results of several calls are one message.
            Some(last) if [last.content.as_str(), &content].iter().all(|text| text.starts_with(tools::RESULT.0)) => {
                last.content = format!("{}\n{content}", last.content);
            }
            _ => told.push(ChatMessage::new(role, content)),
        }
    }
    told
}

/// For templates that take one call a message: each call is a message of its own, with its result behind it.
fn one_call_each(messages: Vec<ChatMessage>) -> Vec<ChatMessage> {
    let mut single: Vec<ChatMessage> = Vec::new();
    let mut rest = messages.into_iter().peekable();
    while let Some(mut message) = rest.next() {
        if message.tool_calls.len() < 2 {
            single.push(message);
            continue;
        }
        let mut results = Vec::new();
        while let Some(result) = rest.next_if(|next| next.role == Role::Tool) {
            results.push(result);
        }
        for call in std::mem::take(&mut message.tool_calls) {
            let of_call = |result: &ChatMessage| result.tool_call_id.as_ref() == Some(&call.id);
            let result = results.iter().position(of_call).map(|place| results.remove(place));
            let content = std::mem::take(&mut message.content);
            single.push(ChatMessage { tool_calls: vec![call], ..ChatMessage::new(Role::Assistant, content) });
            single.extend(result);
        }
        single.append(&mut results);
    }
    single
}

fn with_short_ids(mut messages: Vec<ChatMessage>) -> Vec<ChatMessage> {
    for message in &mut messages {
        message.tool_calls.iter_mut().for_each(|call| call.id = tools::short_id(&call.id));
        message.tool_call_id = message.tool_call_id.as_deref().map(tools::short_id);
    }
    messages
}

/// Drops `count` of the oldest messages that are not the system's, and more until a user's is first. Keeps the last
/// turn.
fn drop_oldest(messages: &mut Vec<ChatMessage>, count: usize) {
    let system = usize::from(messages.first().is_some_and(|first| first.role == Role::System));
    let last = last_turn(messages);
    let mut keep_from = (system + count).min(last);
    while keep_from < last && messages[keep_from].role != Role::User {
        keep_from += 1;
    }
    if keep_from > system {
        messages.drain(system..keep_from);
    }
}

/// For templates that know no system message and want user and assistant in turns: the system's text goes to the first
/// user, and neighbours of one role are joined.
fn folded(messages: &[ChatMessage]) -> Vec<ChatMessage> {
    let mut folded: Vec<ChatMessage> = Vec::new();
    for message in messages {
        let role = if message.role == Role::System { Role::User } else { message.role };
        let is_text = role != Role::Tool && message.tool_calls.is_empty();
        match folded.last_mut() {
            Some(last) if is_text && last.role == role && last.tool_calls.is_empty() => {
                last.content.push_str("\n\n");
                last.content.push_str(&message.content);
            }
            // A conversation that the character opened.
            None if role == Role::Assistant => {
                folded.push(ChatMessage::new(Role::User, ""));
                folded.push(message.clone());
            }
            _ => folded.push(ChatMessage { role, ..message.clone() }),
        }
    }
    folded
}

/// A private-use character that neither messages nor tools hold.
fn absent_character(messages: &[ChatMessage], tools: &[Value]) -> char {
    let private = '\u{F0000}'..='\u{FFFFD}';
    let mut used = HashSet::new();
    let mut look = |text: &str| used.extend(text.chars().filter(|letter| private.contains(letter)));
    for message in messages {
        look(&message.content);
        message.tool_call_id.iter().for_each(|id| look(id));
        for call in &message.tool_calls {
            // The arguments are JSON: a character may be written as an escape.
            for text in [&call.id, &call.name, &call.arguments_value().to_string()] {
                look(text);
            }
        }
    }
    for tool in tools {
        look(&tool.to_string());
    }
    // 65,534 candidates: messages that held them all would be far over the window.
    private.clone().find(|letter| !used.contains(letter)).unwrap_or('\u{10FFFD}')
}

fn common(one: &[u32], other: &[u32]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
#[path = "prompt_tests.rs"]
mod tests;
