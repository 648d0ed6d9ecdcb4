//! A content filter elsewhere: `/moderations`.
//!
//! What a private conversation says is not sent there, and so not judged.

use futures::FutureExt;
use futures::future::{self, BoxFuture};
use serde::Deserialize;
use serde_json::json;

use super::service::{Service, Target};
use crate::provider::filter::{ContentFilter, Grain};
use crate::provider::{Caller, ProviderError};

/// A [`ContentFilter`] of a service.
pub struct Moderation {
    target: Target,
}

impl Moderation {
    /// `model` as the service names it.
    pub fn new(service: Service, model: &str) -> Self {
        Self { target: Target::new(service, model) }
    }
}

impl ContentFilter for Moderation {
    fn check(&self, text: String, caller: &Caller) -> BoxFuture<'static, Result<(), ProviderError>> {
        if caller.private {
            return future::ready(Ok(())).boxed();
        }
        let (target, caller) = (self.target.clone(), caller.clone());
        async move { check(&target, &text, &caller).await }.boxed()
    }

    fn sees(&self) -> Grain {
        Grain::Sentence
    }
}

async fn check(target: &Target, text: &str, caller: &Caller) -> Result<(), ProviderError> {
    let body = target.ask("moderations", &json!({ "model": &*target.model, "input": text }), caller).await?;
    let answer = target.json(body).await?;
    let Ok(Answer { results }) = serde_json::from_value(answer) else {
        tracing::warn!(what = %target.what, "its answer is no verdict");
        return Err(target.failed());
    };
    if results.is_empty() {
        return Err(target.failed());
    }
    if results.iter().any(|verdict| verdict.flagged) {
        return Err(ProviderError::Filtered { reason: format!("{} flagged it", target.what) });
    }
    Ok(())
}

#[derive(Deserialize)]
struct Answer {
    results: Vec<Verdict>,
}

#[derive(Deserialize)]
struct Verdict {
    flagged: bool,
}

#[cfg(test)]
#[path = "moderation_tests.rs"]
mod tests;
