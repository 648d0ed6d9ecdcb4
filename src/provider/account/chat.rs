//! Replies in the books.

use std::sync::Arc;

use super::books::Link;
use super::watch::{Tally, watch};
use super::{Usd, Used};
use crate::provider::{ChatModel, ChatRequest, Delta, Flow, Usage};

/// Tokens that a template adds to each message, at most.
const TOKENS_PER_MESSAGE: usize = 16;
/// Tokens that a service adds of its own: a template's default system prompt, the frame around tools.
const TOKENS_PER_PROMPT: usize = 64;
/// Tokens that a service may have written when it notices that nobody listens any more.
const TOKENS_ON_THE_WAY: usize = 64;

pub(super) struct CountedChat {
    pub(super) link: Arc<Link>,
    pub(super) door: Arc<dyn ChatModel>,
}

impl ChatModel for CountedChat {
    fn reply(&self, request: ChatRequest) -> Flow<Delta> {
        let bytes = prompt_bytes(&request);
        // No tokenizer makes more tokens than bytes.
        let most_prompt = bytes + TOKENS_PER_MESSAGE * request.messages.len() + TOKENS_PER_PROMPT;
        let most =
            Used { prompt_tokens: most_prompt, completion_tokens: request.sampling.max_tokens, ..Used::default() };
        let tally = ReplyTally { written_bytes: 0, usage: None };
        let (door, caller) = (Arc::clone(&self.door), request.caller.clone());
        watch(&self.link, caller, most, tally, move || door.reply(request))
    }

    fn prepare(&self, request: ChatRequest) {
        // Reading ahead is for models that are here: elsewhere it would cost.
        if self.link.price.is_none() {
            self.door.prepare(request);
        }
    }

    fn window(&self) -> Option<usize> {
        self.door.window()
    }
}

fn prompt_bytes(request: &ChatRequest) -> usize {
    if let Some(prompt) = &request.raw_prompt {
        return prompt.len();
    }
    let messages = request.messages.iter().map(|message| {
        let calls = message.tool_calls.iter().map(|call| call.name.len() + call.arguments.len()).sum::<usize>();
        message.content.len() + calls
    });
    let tools =
        request.tools.iter().map(|tool| tool.name.len() + tool.description.len() + tool.parameters.to_string().len());
    messages.chain(tools).sum()
}

struct ReplyTally {
    written_bytes: usize,
    usage: Option<Usage>,
}

impl Tally<Delta> for ReplyTally {
    fn see(&mut self, delta: &Delta) -> bool {
        match delta {
            Delta::Text(text) | Delta::Thought(text) => self.written_bytes += text.len(),
            Delta::ToolCall(call) => self.written_bytes += call.name.len() + call.arguments.len(),
            Delta::Begin { .. } | Delta::Logprobs(_) => {}
            Delta::Done { usage, .. } => self.usage = Some(usage.clone()),
        }
        self.usage.is_some()
    }

    fn used(&self, most: &Used) -> (Used, Option<Usd>) {
        let Some(usage) = &self.usage else {
            // No token is less than a byte.
            let written = most.completion_tokens.min(self.written_bytes + TOKENS_ON_THE_WAY);
            return (Used { completion_tokens: written, ..most.clone() }, None);
        };
        let used = Used {
            prompt_tokens: usage.prompt_tokens,
            cached_tokens: usage.cached_tokens,
            completion_tokens: usage.completion_tokens,
            ..Used::default()
        };
        (used, usage.cost_usd.map(Usd::dollars))
    }
}
