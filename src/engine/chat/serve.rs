//! The model thread's loop: takes requests in, lets each sequence go one step in turn, gives tokens out.
//!
//! A step is one chunk of a prompt or one token. Whoever is no longer listened to is dropped before its next step.
//! Prompts that are prepared ahead go on only while nobody waits for a reply.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use rand::random;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::constraint::{Constraint, Progress};
use super::decoder::Decoder;
use super::filter::{ReplyText, Shown};
use super::model::Model;
use super::prefix::PrefixCache;
use crate::engine::precedence::Precedence;
use crate::nn::sampling::{Sampler, SamplingOptions};
use crate::provider::{ChatRequest, Delta, FinishReason, ProviderError, Usage};

/// Prompts to prepare that wait; the oldest is forgotten.
const MOST_PREPARED: usize = 4;
/// Between two looks at a grammar that is being compiled, which takes milliseconds.
const GRAMMAR_WAIT: Duration = Duration::from_millis(1);

pub(super) enum Command {
    Reply(ReplyOrder),
    /// The permit goes as soon as the thread has looked at it.
    Prepare(Box<ChatRequest>, OwnedSemaphorePermit),
}

pub(super) struct ReplyOrder {
    pub(super) request: Box<ChatRequest>,
    /// Holds a whole reply, so that a slow reader never holds up the thread.
    pub(super) out: mpsc::Sender<Result<Delta, ProviderError>>,
    pub(super) asked: Instant,
    /// Given back when the reply is over.
    pub(super) permit: OwnedSemaphorePermit,
}

/// Runs until nobody can command any more.
pub(super) fn serve(model: &Model, mut inbox: mpsc::Receiver<Command>, precedence: &Precedence) {
    let mut desk = Desk {
        model,
        cache: PrefixCache::new(model.shape.cache_bytes_per_token, model.limits.snapshot_bytes),
        waiting: VecDeque::new(),
        replies: VecDeque::new(),
        prepared: VecDeque::new(),
    };
    while desk.take_in(&mut inbox) {
        precedence.give_way();
        desk.step();
    }
}

struct Desk<'a> {
    model: &'a Model,
    cache: PrefixCache,
    /// First come, first served. Their permits bound them.
    waiting: VecDeque<ReplyOrder>,
    /// The first goes next.
    replies: VecDeque<Reply>,
    prepared: VecDeque<Sequence>,
}

impl Desk<'_> {
    /// Takes in what has come, and waits where there is nothing to do. False: the engine is gone.
    fn take_in(&mut self, inbox: &mut mpsc::Receiver<Command>) -> bool {
        loop {
            // Whoever has gone gives up the place in the queue.
            self.waiting.retain(|order| !order.out.is_closed());
            while self.replies.len() < self.model.limits.sequences {
                let Some(order) = self.waiting.pop_front() else { break };
                self.admit(order);
            }
            let idle = self.replies.is_empty() && self.prepared.is_empty();
            match if idle { inbox.blocking_recv() } else { inbox.try_recv().ok() } {
                Some(Command::Reply(order)) => self.waiting.push_back(order),
                Some(Command::Prepare(request, permit)) => {
                    drop(permit);
                    self.prepare(&request);
                }
                None => return !idle,
            }
        }
    }

    fn admit(&mut self, order: ReplyOrder) {
        // What was prepared so far may be the beginning of this.
        for sequence in self.prepared.drain(..) {
            self.cache.keep(sequence.read(), &*sequence.decoder);
        }
        match Reply::new(self.model, &mut self.cache, order) {
            Ok(reply) => self.replies.push_back(reply),
            Err((out, error)) => give(&out, Err(error)),
        }
    }

    fn prepare(&mut self, request: &ChatRequest) {
        if !self.model.shape.forks {
            return;
        }
        let tokens = match self.model.language.beginning(request) {
            Ok(tokens) if !self.cache.holds(&tokens) && !tokens.is_empty() => tokens,
            Ok(_) => return,
            Err(error) => {
                tracing::debug!(%error, "a prompt cannot be prepared");
                return;
            }
        };
        if self.prepared.len() == MOST_PREPARED {
            self.prepared.pop_front();
        }
        self.prepared.push_back(Sequence::new(self.model, &mut self.cache, tokens, Vec::new()));
    }

    /// One step of the reply whose turn it is, or of a prepared prompt.
    fn step(&mut self) {
        if let Some(mut reply) = self.replies.pop_front() {
            let out = reply.out.clone();
            if self.guarded(&out, |desk| reply.step(desk.model, &mut desk.cache)) {
                self.replies.push_back(reply);
            }
        } else if let Some(mut sequence) = self.prepared.pop_front() {
            match sequence.read_chunk(self.model, &mut self.cache) {
                Ok(Some(_)) => self.cache.keep(sequence.read(), &*sequence.decoder),
                Ok(None) => self.prepared.push_front(sequence),
                Err(error) => tracing::warn!(%error, "a prompt could not be prepared"),
            }
        }
    }

    /// Runs a step; a panic in it ends this reply, not the thread. True: there is more to do.
    fn guarded(
        &mut self,
        out: &mpsc::Sender<Result<Delta, ProviderError>>,
        step: impl FnOnce(&mut Self) -> Result<bool, ProviderError>,
    ) -> bool {
        let name = self.model.name.clone();
        let outcome = catch_unwind(AssertUnwindSafe(|| step(self)));
        match outcome.unwrap_or(Err(ProviderError::Failed { what: name })) {
            Ok(more) => more,
            Err(error) => {
                give(out, Err(error));
                false
            }
        }
    }
}

/// Tokens and a decoder that reads them.
struct Sequence {
    tokens: Vec<u32>,
    decoder: Box<dyn Decoder>,
    /// How many of the tokens the decoder has read.
    position: usize,
    /// How many it had read when it was forked.
    cached: usize,
    /// Where to leave a snapshot on the way, ascending.
    shared: Vec<usize>,
}

impl Sequence {
    fn new(model: &Model, cache: &mut PrefixCache, tokens: Vec<u32>, shared: Vec<usize>) -> Self {
        let (decoder, cached) = cache.find(&tokens).unwrap_or_else(|| (model.pristine.fork(), 0));
        Self { tokens, decoder, position: cached, cached, shared }
    }

    fn read(&self) -> &[u32] {
        &self.tokens[..self.position]
    }

    /// Reads one chunk, up to the next place to leave a snapshot. The logits after the last token, once it is read.
    fn read_chunk(&mut self, model: &Model, cache: &mut PrefixCache) -> candle_core::Result<Option<Vec<f32>>> {
        let stop = self.shared.iter().copied().find(|shared| model.shape.forks && *shared > self.position);
        let end = (self.position + model.limits.chunk).min(self.tokens.len()).min(stop.unwrap_or(usize::MAX));
        let chunk = &self.tokens[self.position..end];
        if let Some(id) = chunk.iter().find(|id| **id as usize >= model.shape.vocabulary) {
            candle_core::bail!("the token {id} is not below {}", model.shape.vocabulary);
        }
        let logits = self.decoder.forward(chunk, self.position)?;
        self.position = end;
        if stop == Some(end) && end < self.tokens.len() {
            cache.keep(self.read(), &*self.decoder);
        }
        Ok((end == self.tokens.len()).then_some(logits))
    }
}

/// A reply on its way.
struct Reply {
    sequence: Sequence,
    prompt: usize,
    sampler: Sampler,
    text: Option<ReplyText>,
    /// None: the reply is free.
    constraint: Option<Constraint>,
    /// It has called a tool.
    called: bool,
    most_tokens: usize,
    out: mpsc::Sender<Result<Delta, ProviderError>>,
    asked: Instant,
    first_token: Option<Duration>,
    _permit: OwnedSemaphorePermit,
}

type Refused = (mpsc::Sender<Result<Delta, ProviderError>>, ProviderError);

impl Reply {
    fn new(model: &Model, cache: &mut PrefixCache, order: ReplyOrder) -> Result<Self, Refused> {
        let ReplyOrder { request, out, asked, permit } = order;
        let prompt = match model.language.prompt(&request) {
            Ok(prompt) => prompt,
            Err(error) => return Err((out, error)),
        };
        let language = &model.language;
        let prepared = language.reply_text(&request, prompt.thinks_first).and_then(|text| {
            let constraint = language.constraint(&request, prompt.thinks_first)?;
            Ok((text, constraint))
        });
        let (text, constraint) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Err((out, error)),
        };
        let settings = request.sampling;
        let options = SamplingOptions {
            temperature: settings.temperature,
            top_k: settings.top_k,
            top_p: settings.top_p,
            repetition_penalty: settings.repetition_penalty,
        };
        Ok(Self {
            prompt: prompt.tokens.len(),
            most_tokens: settings.max_tokens.min(model.shape.window - prompt.tokens.len()),
            sequence: Sequence::new(model, cache, prompt.tokens, prompt.shared),
            sampler: Sampler::new(options, settings.seed.unwrap_or_else(random)),
            text: Some(text),
            constraint,
            called: false,
            out,
            asked,
            first_token: None,
            _permit: permit,
        })
    }

    /// Reads a chunk or a token, and once the prompt is read writes a token. True: there is more to do.
    fn step(&mut self, model: &Model, cache: &mut PrefixCache) -> Result<bool, ProviderError> {
        if self.out.is_closed() {
            cache.keep(self.sequence.read(), &*self.sequence.decoder);
            return Ok(false);
        }
        if self.waits_for_grammar(model.limits.chunk) {
            // Others go on meanwhile.
            thread::sleep(GRAMMAR_WAIT);
            return Ok(true);
        }
        let read = self.sequence.read_chunk(model, cache);
        let Some(mut logits) = read.map_err(|error| failed(&model.name, &error))? else { return Ok(true) };
        // Rows that pad the vocabulary stand for no token.
        logits.truncate(model.language.tokenizer.len());
        if let Some(constraint) = &mut self.constraint {
            constraint.mask(&mut logits)?;
        }
        let token = self.sampler.choose(&mut logits, &self.sequence.tokens);
        let token = token.map_err(|error| failed(&model.name, &error))?;
        let finished = self.write(model, token)?;
        if let Some(reason) = finished {
            self.finish(reason);
            cache.keep(self.sequence.read(), &*self.sequence.decoder);
        }
        Ok(finished.is_none())
    }

    /// The next chunk ends in logits, and the grammar that masks them is still being compiled.
    fn waits_for_grammar(&mut self, chunk: usize) -> bool {
        let is_last = self.sequence.tokens.len() - self.sequence.position <= chunk;
        is_last && self.constraint.as_mut().is_some_and(|constraint| !constraint.is_ready())
    }

    fn write(&mut self, model: &Model, token: u32) -> Result<Option<FinishReason>, ProviderError> {
        self.sequence.tokens.push(token);
        if self.first_token.is_none() {
            self.first_token = Some(self.asked.elapsed());
            give(&self.out, Ok(Delta::Begin { served_by: model.name.as_str().into() }));
        }
        if model.language.tokenizer.is_end(token) {
            return Ok(Some(FinishReason::Stop));
        }
        let bytes = model.language.tokenizer.shown(token).unwrap_or_default();
        let Some(text) = &mut self.text else { return Ok(Some(FinishReason::Stop)) };
        let shown = text.push(bytes);
        let stopped = shown.stopped;
        self.show(shown);
        if stopped {
            self.text = None;
            return Ok(Some(FinishReason::Stop));
        }
        if let Some(constraint) = &mut self.constraint
            && constraint.accept(token, bytes)? == Progress::Complete
        {
            return Ok(Some(FinishReason::Stop));
        }
        Ok((self.written() >= self.most_tokens).then_some(FinishReason::Length))
    }

    fn finish(&mut self, reason: FinishReason) {
        if let Some(text) = self.text.take() {
            self.show(text.finish());
        }
        let reason = if self.called && reason == FinishReason::Stop { FinishReason::ToolCalls } else { reason };
        let usage = Usage {
            prompt_tokens: self.prompt,
            cached_tokens: self.sequence.cached,
            completion_tokens: self.written(),
            first_token: self.first_token.unwrap_or_default(),
            total: self.asked.elapsed(),
        };
        give(&self.out, Ok(Delta::Done { reason, usage }));
    }

    fn show(&mut self, shown: Shown) {
        self.called |= !shown.calls.is_empty();
        let deltas = [(shown.thought, Delta::Thought as fn(String) -> Delta), (shown.text, Delta::Text)];
        for (text, delta) in deltas {
            if !text.is_empty() {
                give(&self.out, Ok(delta(text)));
            }
        }
        for call in shown.calls {
            give(&self.out, Ok(Delta::ToolCall(call)));
        }
    }

    fn written(&self) -> usize {
        self.sequence.tokens.len() - self.prompt
    }
}

/// A reader that has gone is found at the next step.
fn give(out: &mpsc::Sender<Result<Delta, ProviderError>>, item: Result<Delta, ProviderError>) {
    let _ = out.try_send(item);
}

fn failed(model: &str, error: &dyn std::error::Error) -> ProviderError {
    tracing::error!(model, %error, "the language model failed");
    let what = model.to_owned();
    if error.to_string().to_lowercase().contains("out of memory") {
        ProviderError::OutOfMemory { what }
    } else {
        ProviderError::Failed { what }
    }
}
