//! An answer's body, read within bounds: of silence, of time, of bytes, of one event.
//!
//! A service's answer is input like any other. One that never ends, that ends too early or that is not what was asked
//! for fails the call; it does not fill the memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eventsource_stream::{EventStreamError, Eventsource};
use futures::stream::{self, BoxStream, StreamExt};
use reqwest::Response;
use reqwest::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use super::service::Bounds;
use crate::provider::ProviderError;

/// The rest of an answer whose head has come.
pub(super) struct Body {
    what: Arc<str>,
    response: Response,
    bounds: Bounds,
    /// How long it was waited for so far. The receiver's own pace does not count.
    waited: Duration,
    /// Bytes that may still come.
    left: usize,
}

impl Body {
    pub(super) fn new(what: Arc<str>, response: Response, bounds: Bounds) -> Self {
        Self { what, response, waited: Duration::ZERO, left: bounds.body_bytes, bounds }
    }

    /// Lets no more than `bytes` come.
    pub(super) fn at_most(mut self, bytes: usize) -> Self {
        self.left = self.left.min(bytes);
        self
    }

    /// The media type as it was sent, in lower case; empty where none was.
    pub(super) fn media_type(&self) -> String {
        let value = self.response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_ascii_lowercase()
    }

    pub(super) fn is_json(&self) -> bool {
        self.media_type().split(';').next().is_some_and(|kind| kind.trim_end().ends_with("json"))
    }

    pub(super) fn failed(&self) -> ProviderError {
        ProviderError::Failed { what: self.what.to_string() }
    }

    /// The next bytes, or None at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ProviderError> {
        let (began, left) = (Instant::now(), self.bounds.whole.saturating_sub(self.waited));
        let chunk = timeout(self.bounds.idle.min(left), self.response.chunk()).await.map_err(|_| {
            let after = if self.bounds.idle < left { self.bounds.idle } else { self.bounds.whole };
            tracing::warn!(what = %self.what, ?after, "the answer stopped or did not end");
            ProviderError::TimedOut { what: self.what.to_string(), after }
        })?;
        self.waited += began.elapsed();
        let chunk = chunk.map_err(|error| {
            tracing::warn!(what = %self.what, reason = %super::fault::reason(error), "the answer broke off");
            self.failed()
        })?;
        if let Some(bytes) = &chunk {
            self.left = self.left.checked_sub(bytes.len()).ok_or_else(|| {
                tracing::warn!(what = %self.what, "the answer is longer than any should be");
                self.failed()
            })?;
        }
        Ok(chunk)
    }

    /// All that comes.
    pub(super) async fn whole(mut self) -> Result<Vec<u8>, ProviderError> {
        let mut whole = Vec::new();
        while let Some(bytes) = self.next().await? {
            whole.extend_from_slice(&bytes);
        }
        Ok(whole)
    }

    /// The data of its server-sent events. Comments are skipped. Ends where the body ends, or with an error.
    pub(super) fn events(self) -> BoxStream<'static, Result<String, ProviderError>> {
        let (what, failed) = (Arc::clone(&self.what), self.failed());
        let largest = self.bounds.event_bytes;
        let bytes = stream::try_unfold((self, EventLength::default()), move |(mut body, mut length)| async move {
            let Some(bytes) = body.next().await? else { return Ok(None) };
            if length.add(&bytes) > largest {
                tracing::warn!(what = %body.what, "an event is longer than any should be");
                return Err(body.failed());
            }
            Ok(Some((bytes, (body, length))))
        });
        bytes
            .boxed()
            .eventsource()
            .map(move |event| {
                event.map(|event| event.data).map_err(|error| match error {
                    EventStreamError::Transport(error) => error,
                    _ => {
                        tracing::warn!(%what, "the answer is no event stream");
                        failed.clone()
                    }
                })
            })
            .boxed()
    }
}

/// Reads JSON; the text of an error tells where it is wrong and not what stands there.
pub(super) fn parse<T: DeserializeOwned>(what: &str, json: &[u8]) -> Result<T, ProviderError> {
    serde_json::from_slice(json).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        tracing::warn!(what, line, column, kind = ?error.classify(), "the answer is not the JSON that was asked for");
        ProviderError::Failed { what: what.to_owned() }
    })
}

/// Counts the bytes of the event that is being received.
#[derive(Default)]
struct EventLength {
    bytes: usize,
    /// Whether the line so far is empty: a line's end then ends the event.
    blank: bool,
}

impl EventLength {
    /// The longest that the event was while these bytes came.
    fn add(&mut self, bytes: &[u8]) -> usize {
        let mut longest = 0;
        for byte in bytes {
            self.bytes += 1;
            longest = longest.max(self.bytes);
            match byte {
                b'\n' if self.blank => self.bytes = 0,
                b'\n' => self.blank = true,
                b'\r' => {}
                _ => self.blank = false,
            }
        }
        longest
    }
}
