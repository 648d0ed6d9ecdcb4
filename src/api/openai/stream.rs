//! An answer as server-sent events: one JSON text each, `[DONE]` at the end, or an error and nothing after it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;

use super::refusal;
use super::replies::{Replies, Step, TokenUsage};

/// A comment keeps proxies from closing a stream in which nothing happens for so long.
pub(in crate::api) const COMMENT_EVERY: Duration = Duration::from_secs(15);
const DONE: &str = "[DONE]";

/// How an endpoint tells of its choices.
pub(super) trait Chunks: Send + 'static {
    /// The JSON texts for what happened.
    fn of(&mut self, step: Step) -> Vec<String>;

    /// The JSON text after all choices have ended, if one is wanted.
    fn last(&mut self, usage: TokenUsage) -> Option<String>;

    /// How many choices in a row have the same prompt.
    fn choices_per_prompt(&self) -> usize;
}

/// Tells of `replies` as they come. Whoever drops the response cancels them.
pub(super) fn respond(replies: Replies, chunks: impl Chunks) -> Response {
    let line = Line { replies: Some(replies), chunks, ready: VecDeque::new() };
    let texts = stream::unfold(line, |mut line| async move {
        let text = line.next().await?;
        Some((Ok::<_, Infallible>(Event::default().data(text)), line))
    });
    Sse::new(texts).keep_alive(KeepAlive::new().interval(COMMENT_EVERY)).into_response()
}

struct Line<C> {
    /// None once all is told.
    replies: Option<Replies>,
    chunks: C,
    ready: VecDeque<String>,
}

impl<C: Chunks> Line<C> {
    async fn next(&mut self) -> Option<String> {
        while self.ready.is_empty() {
            match self.replies.as_mut()?.next().await {
                Some(Ok(step)) => self.ready.extend(self.chunks.of(step)),
                Some(Err(error)) => {
                    self.replies = None;
                    self.ready.push_back(super::error::body(&refusal(error)));
                }
                None => {
                    let replies = self.replies.take()?;
                    let usage = replies.usage(self.chunks.choices_per_prompt());
                    self.ready.extend(self.chunks.last(usage));
                    self.ready.push_back(DONE.to_owned());
                }
            }
        }
        self.ready.pop_front()
    }
}
