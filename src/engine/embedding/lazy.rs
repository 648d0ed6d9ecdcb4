//! A model that few requests need: loaded when the first one comes, kept from then on.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use tokio::sync::OnceCell;

use crate::provider::{EmbedRequest, Embeddings, ProviderError, TextEmbedder};

/// Brings the model. It is asked again by the next request where it failed: the model may be there by then.
type Load = dyn Fn() -> BoxFuture<'static, Result<Arc<dyn TextEmbedder>, ProviderError>> + Send + Sync;

/// An embedding model that is loaded when it is first asked. Requests that come meanwhile wait for the one loading.
pub struct LazyEmbedder {
    load: Arc<Load>,
    loaded: Arc<OnceCell<Arc<dyn TextEmbedder>>>,
}

impl LazyEmbedder {
    pub fn new(load: Arc<Load>) -> Self {
        Self { load, loaded: Arc::default() }
    }
}

impl TextEmbedder for LazyEmbedder {
    fn embed(&self, request: EmbedRequest) -> BoxFuture<'static, Result<Embeddings, ProviderError>> {
        if let Some(loaded) = self.loaded.get() {
            return loaded.embed(request);
        }
        let (load, cell) = (Arc::clone(&self.load), Arc::clone(&self.loaded));
        async move {
            let loaded = Arc::clone(cell.get_or_try_init(|| load()).await?);
            loaded.embed(request).await
        }
        .boxed()
    }
}

#[cfg(test)]
#[path = "lazy_tests.rs"]
mod tests;
