//! What an embedding model is asked and what it answers.

use std::sync::Arc;

use super::Caller;

/// Texts to place in a vector space.
#[derive(Clone, Debug, Default)]
pub struct EmbedRequest {
    /// At least one, none of them empty.
    pub texts: Vec<String>,
    /// A model's name. None: the server's own.
    pub model: Option<String>,
    pub caller: Caller,
}

/// One vector per text, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Embeddings {
    /// All of one length, each of Euclidean norm 1.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens of all texts together.
    pub tokens: usize,
    pub served_by: Arc<str>,
}
