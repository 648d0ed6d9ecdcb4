//! One reply on its way: from a row of logits to a token, and from tokens to what the listener gets.

use std::time::{Duration, Instant};

use rand::random;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::filter::ReplyText;
use super::probability;
use super::prompt::Language;
use crate::nn::sampling::{Sampler, SamplingOptions};
use crate::provider::{ChatRequest, Delta, FinishReason, ProviderError, Usage};

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

pub(super) struct Reply {
    out: Listener,
    sampler: Sampler,
    /// None once a stop string has come.
    text: Option<ReplyText>,
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
        let prompt = match language.prompt(&request) {
            Ok(prompt) => prompt,
            Err(error) => {
                give(&out, Err(error));
                return None;
            }
        };
        let settings = request.sampling;
        let options = SamplingOptions {
            temperature: settings.temperature,
            top_k: settings.top_k,
            top_p: settings.top_p,
            repetition_penalty: settings.repetition_penalty,
        };
        let pads_first_word = language.tokenizer.pads_first_word();
        let reply = Self {
            sampler: Sampler::new(options, settings.seed.unwrap_or_else(random)),
            text: Some(ReplyText::new(prompt.thinks_first, pads_first_word, settings.stop)),
            logprobs: request.logprobs,
            prompt: prompt.tokens.len(),
            written: 0,
            most_tokens: settings.max_tokens.min(language.window - prompt.tokens.len()),
            out,
            asked,
            first_token: None,
            _permit: permit,
        };
        Some((reply, prompt.tokens))
    }

    /// Nobody listens any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.out.is_closed()
    }

    /// Takes the logits after `so_far`, which are changed, and gives the next token, with the reason where it is the
    /// last. What there is to tell of it has been told.
    ///
    /// # Errors
    /// [`ProviderError::Failed`]: the logits are not finite.
    pub(super) fn write(
        &mut self,
        model: &str,
        language: &Language,
        logits: &mut [f32],
        so_far: &[u32],
    ) -> Result<(u32, Option<FinishReason>), ProviderError> {
        let raw = self.logprobs.map(|_| logits.to_vec());
        let token = self.sampler.choose(logits, so_far).map_err(|error| failed(model, &error))?;
        self.written += 1;
        if self.first_token.is_none() {
            self.first_token = Some(self.asked.elapsed());
            give(&self.out, Ok(Delta::Begin { served_by: model.into() }));
        }
        if language.tokenizer.is_end(token) {
            return Ok((token, Some(FinishReason::Stop)));
        }
        if let (Some(raw), Some(most)) = (raw, self.logprobs) {
            let bytes = |token| language.tokenizer.shown(token).unwrap_or_default().to_vec();
            give(&self.out, Ok(Delta::Logprobs(vec![probability::of(&raw, token, most, bytes)])));
        }
        if let Some(text) = &mut self.text {
            let shown = text.push(language.tokenizer.shown(token).unwrap_or_default());
            self.show(shown.text);
            if shown.stopped {
                self.text = None;
                return Ok((token, Some(FinishReason::Stop)));
            }
        }
        Ok((token, (self.written >= self.most_tokens).then_some(FinishReason::Length)))
    }

    /// Tells the rest and the end. `cached`: tokens of the prompt that were not read anew.
    pub(super) fn finish(mut self, reason: FinishReason, cached: usize) {
        if let Some(text) = self.text.take() {
            self.show(text.finish().text);
        }
        let usage = Usage {
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

    fn show(&self, text: String) {
        if !text.is_empty() {
            give(&self.out, Ok(Delta::Text(text)));
        }
    }
}

/// A reader that has gone is found at the next step.
fn give(out: &Listener, item: Result<Delta, ProviderError>) {
    let _ = out.try_send(item);
}

/// What the listener is told of `error`; the log has the rest.
pub(super) fn failed(model: &str, error: &dyn std::error::Error) -> ProviderError {
    tracing::error!(model, %error, "the language model failed");
    let what = model.to_owned();
    if error.to_string().to_lowercase().contains("out of memory") {
        ProviderError::OutOfMemory { what }
    } else {
        ProviderError::Failed { what }
    }
}
