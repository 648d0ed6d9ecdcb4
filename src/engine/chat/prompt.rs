//! From messages to the tokens that a model reads.
//!
//! A speaker's text can never become a marker: every marker in it is broken before the template sees it, by a
//! character that no message holds, and mended after the template's own markers are found. So ordinary text has the
//! very tokens of the plain rendering. A history that is too long loses its oldest messages, several at a time, so that
//! the prompts of following turns begin alike and the prefix cache finds them.

use std::collections::HashSet;

use super::template::{ChatTemplate, TemplateMessage};
use super::tokenizer::{THINK, Tokenizer};
use crate::provider::{ChatMessage, ChatRequest, ProviderError, Role};

/// Old messages go this many at a time at most: half as many, and so on, where too few would be left.
const DROP_STEP: usize = 64;
/// What a template adds to a message, generously.
const MARKERS_PER_MESSAGE: usize = 8;
/// Bytes per token that no text exceeds by much: longer texts are refused before they are encoded.
const MOST_BYTES_PER_TOKEN: usize = 64;

/// How a model is spoken to.
pub(super) struct Language {
    pub(super) tokenizer: Tokenizer,
    pub(super) template: ChatTemplate,
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
        if request.messages.is_empty() {
            return Err(invalid("there is no message".to_owned()));
        }
        let reserve = request.sampling.max_tokens.clamp(1, self.window / 4);
        let budget = self.window - reserve;
        let mut messages = self.fitting(&request.messages, budget)?;
        loop {
            let prompt = self.rendered(&messages, true, request.thinking)?;
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
    fn fitting(&self, messages: &[ChatMessage], budget: usize) -> Result<Vec<ChatMessage>, ProviderError> {
        let system = usize::from(messages[0].role == Role::System);
        let last = messages.len() - 1;
        let cost = |message: &ChatMessage| -> Result<usize, ProviderError> {
            // Texts far over the window are not worth encoding.
            if message.content.len() > self.window * MOST_BYTES_PER_TOKEN {
                return Ok(message.content.len() / 4);
            }
            Ok(self.tokenizer.encode_text(&message.content).map_err(invalid)?.len() + MARKERS_PER_MESSAGE)
        };
        let mut used = cost(&messages[last])?;
        if system < last {
            used += messages[..system].first().map_or(Ok(0), cost)?;
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
        let mut fitting = messages.to_vec();
        if kept > system {
            drop_oldest(&mut fitting, in_steps(kept - system, messages.len() - kept));
        }
        Ok(fitting)
    }

    fn rendered(&self, messages: &[ChatMessage], open: bool, thinking: bool) -> Result<Prompt, ProviderError> {
        let breaker = absent_character(messages);
        let disarmed: Vec<ChatMessage> = messages
            .iter()
            .map(|message| ChatMessage::new(message.role, self.tokenizer.disarm(&message.content, breaker)))
            .collect();
        let render = |messages: &[ChatMessage]| {
            let messages: Vec<_> = messages.iter().map(TemplateMessage::new).collect();
            self.template.render(&messages, open, thinking)
        };
        let text = render(&disarmed)
            .or_else(|refusal| render(&folded(&disarmed)).map_err(|_| refusal))
            .map_err(|refusal| invalid(format!("the model's template refuses them: {refusal}")))?;
        let tokens = self.tokenizer.encode_prompt(&text, breaker).map_err(invalid)?;
        Ok(Prompt { tokens, thinks_first: text.trim_end().ends_with(THINK.0) })
    }
}

fn too_long(tokens: usize, budget: usize) -> ProviderError {
    invalid(format!("the last message takes about {tokens} tokens with its system prompt; at most {budget} fit"))
}

fn invalid(message: String) -> ProviderError {
    ProviderError::InvalidRequest { field: "messages", message }
}

/// Rounds a number of messages to drop up to a step, so that the next turns drop the same ones, as long as that never
/// costs more than half of the `kept`.
fn in_steps(dropped: usize, kept: usize) -> usize {
    let steps = std::iter::successors(Some(DROP_STEP), |step| (*step > 2).then_some(step / 2));
    let mut affordable = steps.filter(|step| (step - 1) * 2 <= kept);
    affordable.next().map_or(dropped, |step| dropped.next_multiple_of(step))
}

/// Drops `count` of the oldest messages that are not the system's, and more until a user's is first. Keeps the last.
fn drop_oldest(messages: &mut Vec<ChatMessage>, count: usize) {
    let system = usize::from(messages.first().is_some_and(|first| first.role == Role::System));
    let last = messages.len().saturating_sub(1);
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
        match folded.last_mut() {
            Some(last) if last.role == role => {
                last.content.push_str("\n\n");
                last.content.push_str(&message.content);
            }
            // A conversation that the character opened.
            None if role == Role::Assistant => {
                folded.push(ChatMessage::new(Role::User, ""));
                folded.push(message.clone());
            }
            _ => folded.push(ChatMessage::new(role, message.content.clone())),
        }
    }
    folded
}

/// A private-use character that no message holds.
fn absent_character(messages: &[ChatMessage]) -> char {
    let private = '\u{F0000}'..='\u{FFFFD}';
    let used: HashSet<char> =
        messages.iter().flat_map(|message| message.content.chars()).filter(|letter| private.contains(letter)).collect();
    // 65,534 candidates: messages that held them all would be far over the window.
    private.clone().find(|letter| !used.contains(letter)).unwrap_or('\u{10FFFD}')
}

fn common(one: &[u32], other: &[u32]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
#[path = "prompt_tests.rs"]
mod tests;
