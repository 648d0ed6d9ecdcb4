//! An embedding model elsewhere: `/embeddings`.

use futures::StreamExt;
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::json;

use super::flow::{flow, refused};
use super::service::{Service, Target};
use crate::provider::{EmbedRequest, Embeddings, Flow, ProviderError, TextEmbedder};

/// A [`TextEmbedder`] of a service.
pub struct RemoteEmbedder {
    target: Target,
}

impl RemoteEmbedder {
    /// `model` as the service names it.
    pub fn new(service: Service, model: &str) -> Self {
        Self { target: Target::new(service, model) }
    }
}

impl TextEmbedder for RemoteEmbedder {
    fn embed(&self, request: EmbedRequest) -> BoxFuture<'static, Result<Embeddings, ProviderError>> {
        let target = self.target.clone();
        let failed = target.failed();
        let mut embedding: Flow<Embeddings> = match target.admit(&request.caller) {
            Ok(()) => flow("remote embedding", target.what.clone(), |_| embed(target, request)),
            Err(error) => refused(error),
        };
        Box::pin(async move { embedding.next().await.unwrap_or(Err(failed)) })
    }
}

async fn embed(target: Target, request: EmbedRequest) -> Result<Embeddings, ProviderError> {
    let json = json!({ "model": &*target.model, "input": request.texts, "encoding_format": "float" });
    let body = target.ask("embeddings", &json, &request.caller).await?;
    let answer = target.json(body).await?;
    let wrong = |reason: &str| {
        tracing::warn!(what = %target.what, reason, "the vectors cannot be used");
        target.failed()
    };
    let Answer { mut data, usage } =
        serde_json::from_value(answer).map_err(|_| wrong("they are no list of vectors"))?;
    data.sort_by_key(|row| row.index);
    let length = data.first().map_or(0, |row| row.embedding.len());
    let in_order = data.iter().enumerate().all(|(place, row)| row.index == place && row.embedding.len() == length);
    if data.len() != request.texts.len() || !in_order || length == 0 {
        return Err(wrong("they are not one for each text, all of one length"));
    }
    let vectors = data.into_iter().map(|row| unit(row.embedding)).collect::<Option<_>>();
    Ok(Embeddings {
        vectors: vectors.ok_or_else(|| wrong("one of them has no direction"))?,
        tokens: usage.map_or(0, |usage| usage.prompt_tokens),
        served_by: target.what,
    })
}

/// A vector at length 1. Not all services send them so.
fn unit(mut vector: Vec<f32>) -> Option<Vec<f32>> {
    let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if !length.is_normal() {
        return None;
    }
    for x in &mut vector {
        *x = (f64::from(*x) / length) as f32;
    }
    Some(vector)
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<Row>,
    usage: Option<Tokens>,
}

#[derive(Deserialize)]
struct Row {
    index: usize,
    embedding: Vec<f32>,
}

#[derive(Deserialize)]
struct Tokens {
    prompt_tokens: usize,
}

#[cfg(test)]
#[path = "embedding_tests.rs"]
mod tests;
