//! One streamed answer from whoever in a chain gives it first.
//!
//! The next is asked only while nothing was yielded, only for errors that another may not meet, and as soon as the first
//! item is overdue. The first of them is asked at the call. Whoever is given up on is cancelled by dropping its stream.

use std::time::Duration;

use futures::future::BoxFuture;
use futures::{StreamExt, stream};

use super::link::{Turn, Walk};
use crate::provider::{Flow, ProviderError};

/// Asks a door. None: it cannot be asked again, and what has failed is the answer.
pub(super) type Ask<D, T> = Box<dyn FnMut(&D) -> Option<Flow<T>> + Send>;
/// Waits until an answer that should take so long is overdue.
pub(super) type Overdue = Box<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>;

/// How a request is put to each of a chain.
pub(super) struct Question<D: ?Sized, T> {
    pub(super) ask: Ask<D, T>,
    pub(super) overdue: Overdue,
    /// For a first item, where somebody else could still be asked.
    pub(super) deadline: Duration,
    /// For a first item, where nobody could. None: as long as it takes.
    pub(super) last_deadline: Option<Duration>,
    /// Knows the terminal item.
    pub(super) is_last: fn(&T) -> bool,
    /// The request names the first of them: that it does not know the model is the answer.
    pub(super) is_named: bool,
    /// The request's voice is one that somebody made: who cannot speak with it passes it on.
    pub(super) is_own_voice: bool,
    /// Told when the first item is out: nobody else will be asked.
    pub(super) settled: Box<dyn FnOnce() + Send>,
}

/// Whoever is answering.
struct Attempt<D: ?Sized, T> {
    turn: Turn<D>,
    flow: Flow<T>,
    overdue: Option<BoxFuture<'static, ()>>,
}

struct Journey<D: ?Sized, T> {
    walk: Walk<D>,
    question: Question<D, T>,
    stage: Stage<D, T>,
}

enum Stage<D: ?Sized, T> {
    /// Nothing was yielded yet. None: nobody is left.
    Seeking(Option<Attempt<D, T>>),
    Answering(Attempt<D, T>),
    Over,
}

/// Work begins at once.
pub(super) fn flow<D, T>(walk: Walk<D>, question: Question<D, T>) -> Flow<T>
where
    D: Send + Sync + ?Sized + 'static,
    T: Send + 'static,
{
    let mut journey = Journey { walk, question, stage: Stage::Over };
    journey.stage = Stage::Seeking(journey.ask_next());
    stream::unfold(journey, |mut journey| async move {
        let item = journey.next().await?;
        Some((item, journey))
    })
    .boxed()
}

impl<D, T> Journey<D, T>
where
    D: Send + Sync + ?Sized + 'static,
    T: Send + 'static,
{
    fn ask_next(&mut self) -> Option<Attempt<D, T>> {
        let turn = self.walk.next()?;
        let flow = (self.question.ask)(&turn.door)?;
        let deadline = if turn.is_last { self.question.last_deadline } else { Some(self.question.deadline) };
        let overdue = deadline.map(|deadline| (self.question.overdue)(deadline));
        Some(Attempt { turn, flow, overdue })
    }

    async fn next(&mut self) -> Option<Result<T, ProviderError>> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Seeking(attempt) => Some(self.seek(attempt).await),
            Stage::Answering(mut attempt) => {
                let item = item(&attempt.turn.name, attempt.flow.next().await);
                match &item {
                    Ok(last) if (self.question.is_last)(last) => {}
                    Ok(_) => self.stage = Stage::Answering(attempt),
                    Err(error) if error.is_fault() => attempt.turn.pass.failed(),
                    Err(_) => {}
                }
                Some(item)
            }
            Stage::Over => None,
        }
    }

    /// The first item, of whoever gives one.
    async fn seek(&mut self, mut attempt: Option<Attempt<D, T>>) -> Result<T, ProviderError> {
        while let Some(mut current) = attempt.take() {
            let error = match current.first().await {
                Ok(first) => {
                    current.turn.pass.succeeded();
                    std::mem::replace(&mut self.question.settled, Box::new(|| {}))();
                    if !(self.question.is_last)(&first) {
                        self.stage = Stage::Answering(current);
                    }
                    return Ok(first);
                }
                Err(error) => error,
            };
            let is_unknown = matches!(error, ProviderError::UnknownModel { .. });
            let is_voiceless = self.question.is_own_voice && matches!(error, ProviderError::VoiceUnavailable { .. });
            let is_theirs = is_voiceless || is_unknown && !(self.question.is_named && self.walk.is_at_first());
            if !error.is_fault() && !is_theirs {
                return Err(error);
            }
            // A full house of our own is in order; whoever is elsewhere and full may be so for long.
            let is_full = matches!(error, ProviderError::Overloaded { .. });
            if !is_voiceless && (current.turn.remote || !is_full) {
                current.turn.pass.failed();
            }
            self.walk.failed(&current.turn.name, error);
            // Its work ends before another's begins.
            drop(current);
            attempt = self.ask_next();
        }
        Err(self.walk.nothing_left())
    }
}

impl<D: ?Sized, T> Attempt<D, T> {
    async fn first(&mut self) -> Result<T, ProviderError> {
        let started = tokio::time::Instant::now();
        let answer = match &mut self.overdue {
            Some(overdue) => tokio::select! {
                biased;
                answer = self.flow.next() => answer,
                () = overdue => {
                    let (what, after) = (self.turn.name.to_string(), started.elapsed());
                    return Err(ProviderError::TimedOut { what, after });
                }
            },
            None => self.flow.next().await,
        };
        item(&self.turn.name, answer)
    }
}

/// A stream that ends without a terminal item has failed.
fn item<T>(name: &str, item: Option<Result<T, ProviderError>>) -> Result<T, ProviderError> {
    item.unwrap_or_else(|| {
        tracing::error!(provider = name, "a provider's answer ended without an end");
        Err(ProviderError::Failed { what: name.to_owned() })
    })
}
