//! Several replies at once: the choices of one answer, folded into steps that know which choice they are of.
//!
//! Nothing is told before the first token of any choice, so that whatever fails before it can be answered with a status.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll};
use serde::Serialize;
use utoipa::ToSchema;

use crate::provider::{ChatModel, ChatRequest, Delta, FinishReason, ProviderError, TokenLogprob, ToolCall, Usage};

type Item = (usize, Result<Delta, ProviderError>);

/// The choices of one answer, under way. Dropping it cancels them all.
pub(super) struct Replies {
    flows: SelectAll<BoxStream<'static, Item>>,
    /// What was waited for.
    first: Option<Item>,
    choices: Vec<Choice>,
    rules: Rules,
    pub(super) served_by: Arc<str>,
}

/// What of the replies is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) thoughts: bool,
    /// Calls beyond the first are left out, where a remote model writes more than it was asked for.
    pub(super) one_call: bool,
}

#[derive(Default)]
struct Choice {
    begun: bool,
    ended: bool,
    /// Of tokens whose text has not come.
    logprobs: Vec<TokenLogprob>,
    calls: usize,
    usage: Usage,
}

/// What happened to one of the choices.
pub(super) struct Step {
    pub(super) index: usize,
    pub(super) event: Event,
}

pub(super) enum Event {
    Begun,
    Text {
        text: String,
        /// Of the tokens that it came of. Empty where nobody asked.
        logprobs: Vec<TokenLogprob>,
    },
    Thought(String),
    /// `place` counts the choice's calls.
    Call {
        place: usize,
        call: ToolCall,
    },
    /// Nothing follows. The reason is in OpenAI's words.
    Ended(&'static str),
}

/// Tokens of all choices together, in OpenAI's words. A prompt counts once, however many choices it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct TokenUsage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    prompt_tokens_details: PromptDetails,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
struct PromptDetails {
    cached_tokens: usize,
}

impl Replies {
    /// Asks for all at the same time, and waits for the first token of any.
    ///
    /// # Errors
    /// What came instead of it.
    pub(super) async fn ask(
        model: &dyn ChatModel,
        requests: Vec<ChatRequest>,
        rules: Rules,
    ) -> Result<Self, ProviderError> {
        let choices = requests.iter().map(|_| Choice::default()).collect();
        let flow = |(index, request)| model.reply(request).map(move |item| (index, item)).boxed();
        let mut flows: SelectAll<_> = requests.into_iter().enumerate().map(flow).collect();
        match flows.next().await {
            Some((index, Ok(Delta::Begin { served_by }))) => {
                let first = Some((index, Ok(Delta::Begin { served_by: Arc::clone(&served_by) })));
                Ok(Self { flows, first, choices, rules, served_by })
            }
            Some((_, Err(error))) => Err(error),
            Some((_, Ok(_))) | None => Err(broken()),
        }
    }

    /// What happens next. None: all choices have ended.
    ///
    /// # Errors
    /// After one, nothing of any choice follows.
    pub(super) async fn next(&mut self) -> Option<Result<Step, ProviderError>> {
        loop {
            let item = match self.first.take() {
                Some(first) => Some(first),
                None => self.flows.next().await,
            };
            let Some((index, item)) = item else {
                // A flow ends with a terminal item, or its provider is broken.
                let all_ended = self.choices.iter().all(|choice| choice.ended);
                return (!all_ended).then(|| Err(broken()));
            };
            match self.take(index, item) {
                Ok(Some(event)) => return Some(Ok(Step { index, event })),
                Ok(None) => {}
                Err(error) => {
                    self.flows.clear();
                    self.choices.clear();
                    return Some(Err(error));
                }
            }
        }
    }

    /// `choices_per_prompt` in a row have the same prompt.
    pub(super) fn usage(&self, choices_per_prompt: usize) -> TokenUsage {
        let usages: Vec<&Usage> = self.choices.iter().map(|choice| &choice.usage).collect();
        let mut usage = TokenUsage::default();
        for same in usages.chunks(choices_per_prompt.max(1)) {
            usage.prompt_tokens += same.iter().map(|usage| usage.prompt_tokens).max().unwrap_or(0);
            // The others find in the cache what the first has read.
            usage.prompt_tokens_details.cached_tokens +=
                same.iter().map(|usage| usage.cached_tokens).min().unwrap_or(0);
            usage.completion_tokens += same.iter().map(|usage| usage.completion_tokens).sum::<usize>();
        }
        usage.total_tokens = usage.prompt_tokens + usage.completion_tokens;
        usage
    }

    fn take(&mut self, index: usize, item: Result<Delta, ProviderError>) -> Result<Option<Event>, ProviderError> {
        let choice = &mut self.choices[index];
        Ok(match item {
            Ok(Delta::Begin { .. }) => {
                choice.begun = true;
                Some(Event::Begun)
            }
            Ok(Delta::Logprobs(more)) => {
                choice.logprobs.extend(more);
                None
            }
            Ok(Delta::Text(text)) => Some(Event::Text { text, logprobs: std::mem::take(&mut choice.logprobs) }),
            Ok(Delta::Thought(thought)) => {
                choice.logprobs.clear();
                self.rules.thoughts.then_some(Event::Thought(thought))
            }
            Ok(Delta::ToolCall(call)) => {
                choice.logprobs.clear();
                let place = choice.calls;
                choice.calls += 1;
                (place == 0 || !self.rules.one_call).then_some(Event::Call { place, call })
            }
            Ok(Delta::Done { reason, usage }) => {
                choice.ended = true;
                choice.usage = usage;
                Some(Event::Ended(match reason {
                    FinishReason::Stop => "stop",
                    FinishReason::Length => "length",
                    FinishReason::ToolCalls => "tool_calls",
                }))
            }
            // What has been told stays; the rest is held back.
            Err(ProviderError::Filtered { .. }) if choice.begun => {
                choice.ended = true;
                Some(Event::Ended("content_filter"))
            }
            Err(error) => return Err(error),
        })
    }
}

fn broken() -> ProviderError {
    tracing::error!("a reply ended without its terminal item");
    ProviderError::Failed { what: "the language model".to_owned() }
}
