//! One reply on its way: from a row of logits to a token, and from tokens to what the listener gets.

use std::time::{Duration, Instant};

use rand::random;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::adjustment::Adjustment;
use super::constraint::{Constraint, Progress};
use super::filter::{ReplyText, Shown};
use super::probability;
use super::prompt::Language;
use crate::engine::failure;
use crate::nn::sampling::{Sampler, SamplingOptions};
use crate::provider::{ChatRequest, Delta, FinishReason, ProviderError, Sampling, Usage};

/// What a token can yield: its probability, thoughts, text, and a call that it completes.
const ITEMS_PER_TOKEN: usize = 4;
/// Items of a reply beside its tokens': the begin, the text held back, the end.
const OTHER_ITEMS: usize = 4;

pub(super) type Listener = mpsc::Sender<Result<Delta, ProviderError>>;

/// A channel that holds the whole of a reply of `tokens`, so that a slow reader never holds up the thread.
pub(super) fn channel(tokens: usize) -> (Listener, mpsc::Receiver<Result<Delta, ProviderError>>) {
    mpsc::channel(tokens * ITEMS_PER_TOKEN + OTHER_ITEMS)
}

/// A request that waits for a slot.
pub(super) struct ReplyOrder {
    pub(super) request: Box<ChatRequest>,
    pub(super) out: Listener,
    pub(super) asked: Instant,
    /// Given back when the reply is over.
    pub(super) permit: OwnedSemaphorePermit,
}

/// What came of a row of logits.
pub(super) enum Written {
    /// The grammar is still being compiled: the row is wanted again.
    Nothing,
    Token(u32),
    /// The reply is complete.
    End(FinishReason),
}

pub(super) struct Reply {
    out: Listener,
    sampler: Sampler,
    /// None once a stop string has come.
    text: Option<ReplyText>,
    constraint: Option<Constraint>,
    adjustment: Option<Adjustment>,
    has_called: bool,
    one_call: bool,
    /// How many of the likeliest tokens are told with each token.
    logprobs: Option<usize>,
    prompt: usize,
    written: usize,
    most_tokens: usize,
    asked: Instant,
    first_token: Option<Duration>,
    _permit: OwnedSemaphorePermit,
}

impl Reply {
    /// The reply, and the tokens of its prompt. None: the request is refused, and the listener knows.
    pub(super) fn begin(order: ReplyOrder, language: &Language) -> Option<(Self, Vec<u32>)> {
        let ReplyOrder { request, out, asked, permit } = order;
        let beginning = match Beginning::of(&request, language) {
            Ok(beginning) => beginning,
            Err(error) => {
                give(&out, Err(error));
                return None;
            }
        };
        let settings = &request.sampling;
        let Beginning { tokens, text, constraint, adjustment } = beginning;
        let reply = Self {
            sampler: Sampler::new(sampling_options(settings), settings.seed.unwrap_or_else(random)),
            text: Some(text),
            constraint,
            adjustment,
            has_called: false,
            one_call: request.one_call,
            logprobs: request.logprobs,
            prompt: tokens.len(),
            written: 0,
            most_tokens: settings.max_tokens.min(language.window - tokens.len()),
            out,
            asked,
            first_token: None,
            _permit: permit,
        };
        Some((reply, tokens))
    }

    /// Nobody listens any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.out.is_closed()
    }

    /// Takes the logits after `so_far`, which are changed, and chooses the next token. What there is to tell of it has
    /// been told.
    ///
    /// # Errors
    /// [`ProviderError::Failed`]: the logits are not finite. [`ProviderError::InvalidRequest`]: no reply has the shape.
    pub(super) fn write(
        &mut self,
        model: &str,
        language: &Language,
        logits: &mut [f32],
        so_far: &[u32],
    ) -> Result<Written, ProviderError> {
        if self.constraint.as_mut().is_some_and(|constraint| !constraint.is_ready()) {
            return Ok(Written::Nothing);
        }
        let raw = self.logprobs.map(|_| logits.to_vec());
        if let Some(constraint) = &mut self.constraint {
            constraint.mask(logits)?;
        }
        if let Some(adjustment) = &self.adjustment {
            adjustment.apply(logits, language.tokenizer.ends(), self.written);
        }
        let token = self.sampler.choose(logits, so_far).map_err(|error| failure(model, &error))?;
        self.written += 1;
        if let Some(adjustment) = &mut self.adjustment {
            adjustment.count(token);
        }
        if self.first_token.is_none() {
            self.first_token = Some(self.asked.elapsed());
            give(&self.out, Ok(Delta::Begin { served_by: model.into() }));
        }
        if language.tokenizer.is_end(token) {
            return Ok(Written::End(FinishReason::Stop));
        }
        if let (Some(raw), Some(most)) = (raw, self.logprobs) {
            let bytes = |token| language.tokenizer.shown(token).unwrap_or_default().to_vec();
            give(&self.out, Ok(Delta::Logprobs(vec![probability::of(&raw, token, most, bytes)])));
        }
        let bytes = language.tokenizer.shown(token).unwrap_or_default();
        let progress = match &mut self.constraint {
            Some(constraint) => constraint.accept(token, bytes)?,
            None => Progress::More,
        };
        let shown = self.text.as_mut().map(|text| text.push(bytes)).unwrap_or_default();
        let stopped = shown.stopped;
        self.tell(shown);
        let is_over = stopped || self.one_call && self.has_called;
        if is_over {
            self.text = None;
        }
        let full = self.written >= self.most_tokens;
        Ok(if is_over || progress == Progress::Complete {
            Written::End(FinishReason::Stop)
        } else if full {
            Written::End(FinishReason::Length)
        } else {
            Written::Token(token)
        })
    }

    /// Tells the rest and the end. `cached`: tokens of the prompt that were not read anew.
    pub(super) fn finish(mut self, reason: FinishReason, cached: usize) {
        if let Some(text) = self.text.take() {
            self.tell(text.finish());
        }
        let waits_for_results = self.has_called && reason == FinishReason::Stop;
        let reason = if waits_for_results { FinishReason::ToolCalls } else { reason };
        let usage = Usage {
            cost_usd: None,
            prompt_tokens: self.prompt,
            cached_tokens: cached,
            completion_tokens: self.written,
            first_token: self.first_token.unwrap_or_default(),
            total: self.asked.elapsed(),
        };
        give(&self.out, Ok(Delta::Done { reason, usage }));
    }

    pub(super) fn fail(self, error: ProviderError) {
        give(&self.out, Err(error));
    }

    fn tell(&mut self, shown: Shown) {
        let Shown { text, thought, calls, .. } = shown;
        if !thought.is_empty() {
            give(&self.out, Ok(Delta::Thought(thought)));
        }
        if !text.is_empty() {
            give(&self.out, Ok(Delta::Text(text)));
        }
        self.has_called |= !calls.is_empty();
        for call in calls {
            give(&self.out, Ok(Delta::ToolCall(call)));
        }
    }
}

/// What a request comes to before anything is read.
struct Beginning {
    tokens: Vec<u32>,
    text: ReplyText,
    constraint: Option<Constraint>,
    adjustment: Option<Adjustment>,
}

impl Beginning {
    fn of(request: &ChatRequest, language: &Language) -> Result<Self, ProviderError> {
        let prompt = language.prompt(request)?;
        if prompt.tokens.is_empty() {
            let message = "the model's template makes no text of them".to_owned();
            return Err(ProviderError::InvalidRequest { field: "messages", message });
        }
        let text = language.reply_text(request, prompt.thinks_first)?;
        let adjustment = Adjustment::new(&request.sampling, &language.tokenizer)?;
        // Compiles on a thread of its own while the prompt is read.
        let constraint = language.constraint(request, prompt.thinks_first)?;
        Ok(Self { tokens: prompt.tokens, text, constraint, adjustment })
    }
}

pub(super) fn sampling_options(settings: &Sampling) -> SamplingOptions {
    SamplingOptions {
        temperature: settings.temperature,
        top_k: settings.top_k,
        top_p: settings.top_p,
        repetition_penalty: settings.repetition_penalty,
    }
}

/// A reader that has gone is found at the next step.
fn give(out: &Listener, item: Result<Delta, ProviderError>) {
    let _ = out.try_send(item);
}
