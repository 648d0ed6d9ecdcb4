use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future;

use super::*;

struct Lengths;

impl TextEmbedder for Lengths {
    fn embed(&self, request: EmbedRequest) -> BoxFuture<'static, Result<Embeddings, ProviderError>> {
        let vectors = request.texts.iter().map(|text| vec![text.len() as f32]).collect();
        future::ready(Ok(Embeddings { vectors, tokens: 1, served_by: "lengths".into() })).boxed()
    }
}

fn ask(text: &str) -> EmbedRequest {
    EmbedRequest { texts: vec![text.to_owned()], ..EmbedRequest::default() }
}

#[tokio::test]
async fn loads_once_and_again_only_after_a_failure() {
    let loads = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&loads);
    let embedder = LazyEmbedder::new(Arc::new(move || {
        let number = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            tokio::task::yield_now().await;
            if number == 0 {
                Err(ProviderError::Failed { what: "the disk".to_owned() })
            } else {
                Ok(Arc::new(Lengths) as _)
            }
        }
        .boxed()
    }));
    assert_eq!(loads.load(Ordering::SeqCst), 0, "nothing is loaded before it is needed");
    assert!(embedder.embed(ask("a")).await.is_err());
    let (one, other) = tokio::join!(embedder.embed(ask("ab")), embedder.embed(ask("abc")));
    assert_eq!((one.unwrap().vectors, other.unwrap().vectors), (vec![vec![2.0]], vec![vec![3.0]]));
    assert_eq!(embedder.embed(ask("")).await.unwrap().vectors, [[0.0]]);
    assert_eq!(loads.load(Ordering::SeqCst), 2);
}
