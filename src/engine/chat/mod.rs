//! The local language model behind [`ChatModel`]: a GGUF file on a thread of its own.
//!
//! Messages become tokens by the file's own template and tables (`prompt`, `template`, `tokenizer`), `nn`'s decoder
//! reads them (`model`), and tokens become text again (`reply`, `filter`), thoughts and tool calls (`tools`) apart. A
//! reply may be held to a shape (`constraint`) and its tokens weighed anew (`adjustment`). All replies advance together, a token each, and what was read before is
//! not read again (`serve`, over the slots of `engine::batch`).

mod adjustment;
mod constraint;
mod filter;
mod model;
mod probability;
mod prompt;
mod reply;
mod serve;
mod template;
mod tokenizer;
mod tools;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};
use tokio::sync::{Semaphore, mpsc};

use self::model::Model;
use self::reply::ReplyOrder;
use self::serve::Command;
use super::EngineError;
use super::device::{self, DeviceChoice};
use super::precedence::Precedence;
use super::worker::{Ended, Resident, Worker};
use crate::provider::{ChatModel, ChatRequest, Delta, Flow, ProviderError, Sampling, ToolChoice};

/// Replies under way and waiting, together. One that waits behind this many would come too late for a conversation.
const MOST_REPLIES: usize = 16;
/// Prompts to prepare that the thread has not looked at yet. Preparing is a favour: more are dropped.
const MOST_PREPARATIONS: usize = 8;
/// What a refused caller is told to wait: about a reply's length.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// More than any window: a bound on the buffer of a reply.
const MOST_TOKENS: usize = 4096;
/// Likeliest tokens to tell with each token.
const MOST_LOGPROBS: usize = 20;

/// A language model. Clones share its thread, which ends with the last of them.
#[derive(Clone)]
pub struct ChatEngine {
    name: Arc<str>,
    worker: Worker<Command>,
    permits: Arc<Semaphore>,
    preparations: Arc<Semaphore>,
    /// Tokens, prompt and reply together. Known once the model is loaded.
    window: Arc<OnceLock<usize>>,
}

impl ChatEngine {
    /// Loads the GGUF file at `path` on a new thread that opens `device` for itself, warms up, and checks that the model
    /// makes sense. Takes seconds: call it off the async threads.
    ///
    /// # Errors
    /// [`EngineError::BadFile`] names the file and says what is wrong with it; [`EngineError::Device`];
    /// [`EngineError::Canary`].
    pub fn load(name: &str, path: &Path, device: DeviceChoice, precedence: Precedence) -> Result<Self, EngineError> {
        let (model_name, path) = (name.to_owned(), path.to_owned());
        Self::start(name, move || Model::load(&model_name, &path, &device::open(device)?), precedence)
    }

    fn start(
        name: &str,
        load: impl FnOnce() -> Result<Model, EngineError> + Send + 'static,
        precedence: Precedence,
    ) -> Result<Self, EngineError> {
        let window = Arc::new(OnceLock::new());
        let known = Arc::clone(&window);
        let load = move || {
            let model = load()?;
            // It is set once, here.
            let _ = known.set(model.language.window);
            Ok(model)
        };
        let run = move |model: Model, inbox| serve::serve(model, inbox, &precedence);
        let worker = Worker::spawn("chat", MOST_REPLIES + MOST_PREPARATIONS, load, run)?;
        Ok(Self {
            name: name.into(),
            worker,
            permits: Arc::new(Semaphore::new(MOST_REPLIES)),
            preparations: Arc::new(Semaphore::new(MOST_PREPARATIONS)),
            window,
        })
    }

    /// Bytes of device memory that the file at `path` will take, for the ledger: weights, and slots for what is read.
    ///
    /// # Errors
    /// [`EngineError::BadFile`], from the file's header.
    pub fn memory_estimate(path: &Path, device: DeviceChoice) -> Result<u64, EngineError> {
        Model::memory_estimate(path, device.resolve() == DeviceChoice::Cpu)
    }

    fn order(&self, mut request: ChatRequest) -> Result<mpsc::Receiver<Result<Delta, ProviderError>>, ProviderError> {
        check(&request)?;
        if request.raw_prompt.is_some() {
            // Beside it they do not count.
            request.messages.clear();
            request.tools.clear();
            request.tool_choice = ToolChoice::Auto;
            request.thinking = false;
        }
        let overloaded = || ProviderError::Overloaded { what: self.name.to_string(), retry_after: RETRY_AFTER };
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| overloaded())?;
        let (out, replies) = reply::channel(request.sampling.max_tokens.min(MOST_TOKENS));
        let order = ReplyOrder { request: Box::new(request), out, asked: Instant::now(), permit };
        match self.worker.send(Command::Reply(order)) {
            Ok(()) => Ok(replies),
            Err(mpsc::error::TrySendError::Full(_)) => Err(overloaded()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(self.gone()),
        }
    }

    fn gone(&self) -> ProviderError {
        ProviderError::Unavailable {
            what: self.name.to_string(),
            remedy: "its thread has ended; see the log and restart the server".to_owned(),
        }
    }
}

impl Resident for ChatEngine {
    fn ended(&self) -> Ended {
        self.worker.ended()
    }
}

impl ChatModel for ChatEngine {
    fn reply(&self, request: ChatRequest) -> Flow<Delta> {
        let replies = match self.order(request) {
            Ok(replies) => replies,
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        // The terminal item ends the stream; where the thread died before it, an error does.
        let gone = self.gone();
        stream::unfold(Some((replies, gone)), |open| async {
            let (mut replies, gone) = open?;
            match replies.recv().await {
                Some(item @ (Err(_) | Ok(Delta::Done { .. }))) => Some((item, None)),
                Some(item) => Some((item, Some((replies, gone)))),
                None => Some((Err(gone), None)),
            }
        })
        .boxed()
    }

    fn prepare(&self, request: ChatRequest) {
        // Where that many wait there is no idle time to prepare in.
        if let Ok(permit) = Arc::clone(&self.preparations).try_acquire_owned() {
            let _ = self.worker.send(Command::Prepare(Box::new(request), permit));
        }
    }

    fn window(&self) -> Option<usize> {
        self.window.get().copied()
    }
}

fn check(request: &ChatRequest) -> Result<(), ProviderError> {
    if request.logprobs.is_some_and(|most| most > MOST_LOGPROBS) {
        return invalid("logprobs", "must be at most 20");
    }
    check_sampling(&request.sampling)
}

fn check_sampling(sampling: &Sampling) -> Result<(), ProviderError> {
    if !(0.0..=10.0).contains(&sampling.temperature) {
        return invalid("temperature", "must be from 0 to 10");
    }
    if !(0.0..=1.0).contains(&sampling.top_p) {
        return invalid("top_p", "must be from 0 to 1");
    }
    if !(sampling.repetition_penalty > 0.0 && sampling.repetition_penalty <= 10.0) {
        return invalid("repetition_penalty", "must be above 0 and at most 10");
    }
    if !(-2.0..=2.0).contains(&sampling.presence_penalty) {
        return invalid("presence_penalty", "must be from -2 to 2");
    }
    if !(-2.0..=2.0).contains(&sampling.frequency_penalty) {
        return invalid("frequency_penalty", "must be from -2 to 2");
    }
    if sampling.logit_bias.iter().any(|(_, bias)| !(-100.0..=100.0).contains(bias)) {
        return invalid("logit_bias", "each must be from -100 to 100");
    }
    if sampling.max_tokens == 0 {
        return invalid("max_tokens", "must be at least 1");
    }
    if sampling.min_tokens > sampling.max_tokens {
        return invalid("min_tokens", "must be at most max_tokens");
    }
    Ok(())
}

fn invalid(field: &'static str, message: &str) -> Result<(), ProviderError> {
    Err(ProviderError::InvalidRequest { field, message: message.to_owned() })
}

#[cfg(test)]
pub(crate) use model::tests::tiny;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod weights_tests;
