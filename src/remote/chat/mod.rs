//! A language model elsewhere: `/chat/completions`, or `/completions` where the prompt is text as it stands, streamed.

mod reading;
mod request;
mod thinking;

use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use self::reading::Reading;
use super::body::{Body, parse};
use super::flow::{Outlet, flow, refused};
use super::service::{Service, Target};
use crate::provider::{ChatModel, ChatRequest, Delta, Flow, ProviderError, Usage};

/// A [`ChatModel`] of a service.
pub struct RemoteChat {
    target: Target,
    window: Option<usize>,
}

impl RemoteChat {
    /// `model` as the service names it.
    pub fn new(service: Service, model: &str) -> Self {
        Self { target: Target::new(service, model), window: None }
    }

    /// Says how many tokens a prompt and its reply may take together.
    #[must_use]
    pub fn with_window(mut self, tokens: usize) -> Self {
        self.window = Some(tokens);
        self
    }
}

impl ChatModel for RemoteChat {
    fn reply(&self, request: ChatRequest) -> Flow<Delta> {
        let target = self.target.clone();
        let asked = target
            .admit(&request.caller)
            .and_then(|()| request::body(target.service.dialect(), &target.model, &request));
        let json = match asked {
            Ok(json) => json,
            Err(error) => return refused(error),
        };
        flow("remote chat", target.what.clone(), move |outlet| async move {
            let mut call = Call { started: Instant::now(), first: None, outlet, target };
            call.run(&request, &json).await
        })
    }

    fn window(&self) -> Option<usize> {
        self.window
    }
}

/// One reply on its way.
struct Call {
    target: Target,
    outlet: Outlet<Delta>,
    started: Instant,
    /// When the first token came.
    first: Option<Instant>,
}

impl Call {
    async fn run(&mut self, request: &ChatRequest, json: &Value) -> Result<Delta, ProviderError> {
        let path = if request.raw_prompt.is_some() { "completions" } else { "chat/completions" };
        let body = self.target.ask(path, json, &request.caller).await?;
        if body.is_json() {
            // Not a stream: an error under 200, or nothing that was asked for.
            self.target.json(body).await?;
            tracing::warn!(what = %self.target.what, "the answer is whole where a stream was asked for");
            return Err(self.target.failed());
        }
        let mut reading = Reading::new(request);
        self.read(body, &mut reading).await?;
        let end = Instant::now();
        let (deltas, reason, spent) = reading.end().map_err(|bad| self.wrong(bad))?;
        self.give(deltas).await;
        self.begin().await;
        let usage = Usage {
            prompt_tokens: spent.prompt,
            cached_tokens: spent.cached,
            completion_tokens: spent.completion,
            cost_usd: spent.cost_usd,
            first_token: self.first.map_or(Duration::ZERO, |first| first - self.started),
            total: end - self.started,
        };
        Ok(Delta::Done { reason, usage })
    }

    /// Reads until the stream says that it is over, or ends.
    async fn read(&mut self, body: Body, reading: &mut Reading) -> Result<(), ProviderError> {
        let mut events = body.events();
        while let Some(data) = self.next(&mut events, reading.is_finished()).await? {
            if data.trim() == "[DONE]" {
                return Ok(());
            }
            let event: Value = parse(&self.target.what, data.as_bytes())?;
            if let Some(error) = self.target.complaint_in(&event) {
                return Err(error);
            }
            let deltas = reading.take(event).map_err(|bad| self.wrong(bad))?;
            self.give(deltas).await;
        }
        Ok(())
    }

    /// The next event's data. A reply that is finished waits no longer than is worth it for its usage.
    async fn next(
        &self,
        events: &mut BoxStream<'static, Result<String, ProviderError>>,
        finished: bool,
    ) -> Result<Option<String>, ProviderError> {
        if !finished {
            return events.next().await.transpose();
        }
        let rest = timeout(self.target.bounds().tail, events.next()).await;
        Ok(rest.ok().flatten().and_then(Result::ok))
    }

    async fn give(&mut self, deltas: Vec<Delta>) {
        for delta in deltas {
            self.begin().await;
            self.outlet.give(delta).await;
        }
    }

    async fn begin(&mut self) {
        if self.first.is_none() {
            self.first = Some(Instant::now());
            self.outlet.give(Delta::Begin { served_by: self.target.what.clone() }).await;
        }
    }

    fn wrong(&self, bad: reading::Wrong) -> ProviderError {
        match bad {
            reading::Wrong::Filtered => {
                ProviderError::Filtered { reason: format!("{} stopped the reply", self.target.service.name()) }
            }
            reading::Wrong::Declined => ProviderError::Refused {
                what: self.target.what.to_string(),
                reason: "the model declines to answer in the form that was asked for".to_owned(),
            },
            reading::Wrong::Unreadable(reason) => {
                tracing::warn!(what = %self.target.what, reason, "the reply cannot be used");
                self.target.failed()
            }
        }
    }
}

#[cfg(test)]
mod tests;
