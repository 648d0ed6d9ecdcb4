//! What every answer and every chunk of one begins with.

use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::replies::TokenUsage;

/// OpenAI's number for the logarithm of what cannot come.
pub(super) const IMPOSSIBLE: f32 = -9999.0;

/// A whole answer with choices of type `C`.
#[derive(Serialize, ToSchema)]
pub(super) struct Answer<C> {
    #[serde(flatten)]
    pub(super) head: Head,
    pub(super) choices: Vec<C>,
    pub(super) usage: TokenUsage,
}

/// A part of one.
#[derive(Serialize)]
pub(super) struct Chunk<'a, C> {
    #[serde(flatten)]
    pub(super) head: &'a Head,
    pub(super) choices: Vec<C>,
    /// Null but in the last chunk, and absent where nobody asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[expect(clippy::option_option, reason = "JSON knows a null and an absence")]
    pub(super) usage: Option<Option<TokenUsage>>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Head {
    id: String,
    object: &'static str,
    /// Unix time in seconds.
    created: i64,
    /// Who serves it, whatever name was asked for.
    #[schema(value_type = String)]
    model: Arc<str>,
    system_fingerprint: String,
}

impl Head {
    /// `prefix` is of the id, as `chatcmpl`.
    pub(super) fn new(prefix: &str, object: &'static str, model: &Arc<str>) -> Self {
        Self {
            id: format!("{prefix}-{}", Uuid::new_v4().simple()),
            object,
            created: OffsetDateTime::now_utc().unix_timestamp(),
            model: Arc::clone(model),
            system_fingerprint: fingerprint(model),
        }
    }
}

/// Changes where the same seed may give another reply: with the model, and with our version.
fn fingerprint(model: &str) -> String {
    let digest = Sha256::digest(format!("{} {model}", env!("CARGO_PKG_VERSION")));
    digest.iter().take(5).fold("fp_".to_owned(), |fingerprint, byte| format!("{fingerprint}{byte:02x}"))
}
