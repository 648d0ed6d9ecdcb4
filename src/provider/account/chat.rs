//! Replies in the books.

use std::sync::Arc;

use super::books::Link;
use super::watch::{Tally, watch};
use super::{Usd, Used};
use crate::provider::{ChatModel, ChatRequest, Delta, Flow, Usage};

/// Tokens that a template adds to each message, at most.
const TOKENS_PER_MESSAGE: usize = 16;
/// Bytes of a token of ordinary text, for what broke off before its usage was told.
const BYTES_PER_TOKEN: usize = 4;

pub(super) struct CountedChat {
    pub(super) link: Arc<Link>,
    pub(super) door: Arc<dyn ChatModel>,
}

impl ChatModel for CountedChat {
    fn reply(&self, request: ChatRequest) -> Flow<Delta> {
        let bytes = prompt_bytes(&request);
        // No tokenizer makes more tokens than bytes.
        let most_prompt = bytes + TOKENS_PER_MESSAGE * request.messages.len();
        let most =
            Used { prompt_tokens: most_prompt, completion_tokens: request.sampling.max_tokens, ..Used::default() };
        let tally = ReplyTally { prompt_bytes: bytes, written_bytes: 0, usage: None };
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
    prompt_bytes: usize,
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

    fn used(&self) -> (Used, Option<Usd>) {
        let Some(usage) = &self.usage else {
            let guessed = Used {
                prompt_tokens: self.prompt_bytes.div_ceil(BYTES_PER_TOKEN),
                completion_tokens: self.written_bytes.div_ceil(BYTES_PER_TOKEN),
                ..Used::default()
            };
            return (guessed, None);
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
