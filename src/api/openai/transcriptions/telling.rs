//! A transcription as server-sent events: what is sure at once, and the whole at the end.

use std::convert::Infallible;
use std::sync::Arc;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use futures::stream;
use serde_json::{Value, json};

use super::Hearing;
use crate::api::openai::{error, served_by};
use crate::api::problem::Problem;
use crate::provider::{FinalTranscript, Transcript};

/// Server-sent events. The answer begins with the first item: what goes wrong before has a status of its own.
pub(super) async fn tell(mut hearing: Hearing) -> Result<Response, Problem> {
    let first = hearing.next().await?;
    let name = match &first {
        Transcript::Partial { served_by, .. } => Arc::clone(served_by),
        Transcript::Draft(transcript) | Transcript::Final(transcript) => Arc::clone(&transcript.served_by),
    };
    let state = Some((Some(Ok(first)), hearing, Telling::default()));
    let events = stream::unfold(state, |state| async move {
        let (first, mut hearing, mut telling) = state?;
        let item = match first {
            Some(item) => item,
            None => hearing.next().await,
        };
        let (events, over) = match item {
            Ok(Transcript::Partial { text, stable_chars, .. }) => (shown(&telling.partial(&text, stable_chars)), false),
            Ok(Transcript::Draft(_)) => (Vec::new(), false),
            Ok(Transcript::Final(transcript)) => (shown(&telling.last(&transcript)), true),
            Err(problem) => (vec![error::body(&problem)], true),
        };
        Some((stream::iter(events), (!over).then_some((None, hearing, telling))))
    });
    let events = events.flatten().map(|event| Ok::<_, Infallible>(Event::default().data(event)));
    let response = Sse::new(events).keep_alive(KeepAlive::default()).into_response();
    Ok(served_by(response, &name))
}

fn shown(events: &[Value]) -> Vec<String> {
    events.iter().map(Value::to_string).collect()
}

/// What was sent of a growing text.
#[derive(Default)]
struct Telling {
    sent: String,
}

impl Telling {
    fn partial(&mut self, text: &str, stable_chars: usize) -> Vec<Value> {
        let end = text.char_indices().nth(stable_chars).map_or(text.len(), |(at, _)| at);
        let stable = text[..end].trim_end();
        if stable.starts_with(&self.sent) { self.extend_to(stable) } else { Vec::new() }
    }

    /// What was sent stays: of a text that has become another in spite of the promise, the further words follow.
    fn last(&mut self, transcript: &FinalTranscript) -> Vec<Value> {
        let mut whole = transcript.text.clone();
        if !whole.starts_with(&self.sent) {
            let rest = transcript.text.split_whitespace().skip(self.sent.split_whitespace().count());
            whole = std::iter::once(self.sent.as_str()).chain(rest).collect::<Vec<_>>().join(" ");
        }
        let mut events = self.extend_to(&whole);
        events.push(json!({"type": "transcript.text.done", "text": whole}));
        events
    }

    fn extend_to(&mut self, text: &str) -> Vec<Value> {
        let delta = text[self.sent.len()..].to_owned();
        text.clone_into(&mut self.sent);
        if delta.is_empty() { Vec::new() } else { vec![json!({"type": "transcript.text.delta", "delta": delta})] }
    }
}

#[cfg(test)]
#[path = "telling_tests.rs"]
mod tests;
