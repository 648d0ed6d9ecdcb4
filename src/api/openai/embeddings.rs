//! `POST /v1/embeddings`: texts as vectors.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Extract;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::described::EmbeddingAsked;
use super::error::Refusal;
use super::{alias, served_by};
use crate::api::House;
use crate::api::asker::Asker;
use crate::api::body::JsonBody;
use crate::api::problem::Problem;
use crate::provider::EmbedRequest;

/// As many texts as OpenAI takes in one request.
const MOST_TEXTS: usize = 2_048;

#[derive(Deserialize)]
struct Asked {
    model: String,
    input: Value,
    encoding_format: Option<String>,
    dimensions: Option<usize>,
}

/// What a text means, as numbers.
#[derive(Serialize, ToSchema)]
struct Embeddings {
    object: &'static str,
    data: Vec<Embedding>,
    model: String,
    usage: EmbeddingUsage,
}

#[derive(Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "the API's own name")]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Vector {
    Floats(Vec<f32>),
    /// 32-bit floats, little-endian, in base64.
    Base64(String),
}

#[derive(Serialize, ToSchema)]
struct EmbeddingUsage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// Turn texts into vectors
#[utoipa::path(
    post,
    path = "/embeddings",
    tag = "OpenAI",
    request_body = EmbeddingAsked,
    responses(
        (status = 200, body = Embeddings),
        (status = "4XX", body = Refusal, description = "Refused"),
        (status = "5XX", body = Refusal, description = "Failed"),
    )
)]
pub(super) async fn create(
    Extract(house): Extract<Arc<House>>,
    Asker { caller, .. }: Asker,
    body: JsonBody,
) -> Result<Response, Problem> {
    let asked: Asked = body.read()?;
    let base64 = match asked.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(Problem::bad_field("encoding_format", "is float or base64")),
    };
    let request = EmbedRequest { texts: texts(asked.input)?, model: alias(&asked.model), caller };
    let embedded = house.state.embedder.embed(request).await?;
    let mut data = Vec::with_capacity(embedded.vectors.len());
    for (index, vector) in embedded.vectors.iter().enumerate() {
        let vector = match asked.dimensions {
            Some(dimensions) => cut(vector, dimensions)?,
            None => vector.clone(),
        };
        let shown = if base64 {
            let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
            Vector::Base64(STANDARD.encode(bytes))
        } else {
            Vector::Floats(vector)
        };
        data.push(Embedding { object: "embedding", index, embedding: shown });
    }
    let answer = Embeddings {
        object: "list",
        data,
        model: embedded.served_by.to_string(),
        usage: EmbeddingUsage { prompt_tokens: embedded.tokens, total_tokens: embedded.tokens },
    };
    Ok(served_by(Json(answer).into_response(), &embedded.served_by))
}

fn texts(input: Value) -> Result<Vec<String>, Problem> {
    let texts = match input {
        Value::String(text) => vec![text],
        Value::Array(texts) => texts.into_iter().map(text).collect::<Result<_, _>>()?,
        _ => return Err(Problem::bad_field("input", "is a text or a list of texts")),
    };
    if texts.is_empty() || texts.len() > MOST_TEXTS {
        return Err(Problem::bad_field("input", format!("holds {} texts; 1 to {MOST_TEXTS} may be", texts.len())));
    }
    if let Some(index) = texts.iter().position(|text| text.trim().is_empty()) {
        return Err(Problem::bad_field(format!("input[{index}]"), "is empty"));
    }
    Ok(texts)
}

fn text(item: Value) -> Result<String, Problem> {
    match item {
        Value::String(text) => Ok(text),
        // They would be another model's.
        Value::Number(_) | Value::Array(_) => Err(Problem::bad_field("input", "holds token ids; send texts")),
        _ => Err(Problem::bad_field("input", "is a text or a list of texts")),
    }
}

/// The first `dimensions` of a vector, again of length 1.
fn cut(vector: &[f32], dimensions: usize) -> Result<Vec<f32>, Problem> {
    if dimensions == 0 || dimensions > vector.len() {
        return Err(Problem::bad_field("dimensions", format!("the model gives 1 to {}", vector.len())));
    }
    let kept = &vector[..dimensions];
    let length = kept.iter().map(|value| value * value).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    Ok(kept.iter().map(|value| value / length).collect())
}

#[cfg(test)]
#[path = "embeddings_tests.rs"]
mod tests;
