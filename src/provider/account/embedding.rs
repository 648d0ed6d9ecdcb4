//! Embeddings in the books.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};

use super::books::Link;
use super::watch::{Tally, watch};
use super::{Usd, Used};
use crate::provider::{EmbedRequest, Embeddings, ProviderError, TextEmbedder};

pub(super) struct CountedEmbedder {
    pub(super) link: Arc<Link>,
    pub(super) door: Arc<dyn TextEmbedder>,
}

impl TextEmbedder for CountedEmbedder {
    fn embed(&self, request: EmbedRequest) -> BoxFuture<'static, Result<Embeddings, ProviderError>> {
        // No tokenizer makes more tokens than bytes.
        let bytes = request.texts.iter().map(String::len).sum();
        let most = Used { prompt_tokens: bytes, ..Used::default() };
        let (door, caller) = (Arc::clone(&self.door), request.caller.clone());
        let start = move || stream::once(door.embed(request)).boxed();
        let mut answer = watch(&self.link, caller, most, EmbeddedTally { tokens: None }, start);
        let what = self.link.name.to_string();
        async move { answer.next().await.unwrap_or(Err(ProviderError::Failed { what })) }.boxed()
    }
}

struct EmbeddedTally {
    tokens: Option<usize>,
}

impl Tally<Embeddings> for EmbeddedTally {
    fn see(&mut self, embeddings: &Embeddings) -> bool {
        self.tokens = Some(embeddings.tokens);
        true
    }

    fn used(&self, most: &Used) -> (Used, Option<Usd>) {
        (Used { prompt_tokens: self.tokens.unwrap_or(most.prompt_tokens), ..Used::default() }, None)
    }
}
