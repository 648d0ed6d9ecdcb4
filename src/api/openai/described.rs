//! What requests may hold, for the API's description: the doors themselves read field by field, so that they take what
//! any client sends.

use utoipa::ToSchema;

/// How tokens are drawn, and how many answers there are.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes a request")]
pub(super) struct SamplingAsked {
    /// A model of `GET /v1/models`; `local` is the server's own.
    model: Option<String>,
    #[schema(minimum = 0.0, maximum = 2.0)]
    temperature: Option<f32>,
    #[schema(minimum = 0.0, maximum = 1.0)]
    top_p: Option<f32>,
    top_k: Option<u32>,
    #[schema(minimum = 1)]
    max_tokens: Option<u32>,
    #[schema(minimum = 1, maximum = 4)]
    n: Option<u32>,
    seed: Option<i64>,
    /// Up to four strings at which an answer ends.
    stop: Option<Stop>,
    #[schema(minimum = -2.0, maximum = 2.0)]
    presence_penalty: Option<f32>,
    #[schema(minimum = -2.0, maximum = 2.0)]
    frequency_penalty: Option<f32>,
    stream: Option<bool>,
}

#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes a request")]
pub(super) enum Stop {
    One(String),
    Several(Vec<String>),
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "describes a request")]
pub(super) struct ChatAsked {
    #[serde(flatten)]
    sampling: SamplingAsked,
    messages: Vec<MessageAsked>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "describes a request")]
pub(super) struct MessageAsked {
    role: RoleAsked,
    content: String,
}

#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "describes a request")]
pub(super) enum RoleAsked {
    System,
    User,
    Assistant,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "describes a request")]
pub(super) struct TextAsked {
    #[serde(flatten)]
    sampling: SamplingAsked,
    prompt: String,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "describes a request")]
pub(super) struct EmbeddingAsked {
    model: String,
    input: Stop,
    /// `float` or `base64`.
    #[schema(pattern = "^(float|base64)$")]
    encoding_format: Option<String>,
    #[schema(minimum = 1)]
    dimensions: Option<u32>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "describes a request")]
pub(super) struct SpeechAsked {
    model: Option<String>,
    #[schema(min_length = 1)]
    input: String,
    voice: Option<String>,
    #[schema(pattern = "^(mp3|opus|aac|flac|wav|pcm)$")]
    response_format: Option<String>,
    #[schema(minimum = 0.25, maximum = 4.0)]
    speed: Option<f32>,
    /// `audio`, or `sse`: events with pieces of the sound.
    #[schema(pattern = "^(audio|sse)$")]
    stream_format: Option<String>,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "describes a request")]
pub(super) struct RecordingAsked {
    /// A sound file of up to 512 MB and 4 hours.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
    model: String,
    /// ISO 639-1.
    language: Option<String>,
    prompt: Option<String>,
    #[schema(minimum = 0.0, maximum = 1.0)]
    temperature: Option<f32>,
    #[schema(pattern = "^(json|text|srt|vtt|verbose_json)$")]
    response_format: Option<String>,
    stream: Option<bool>,
}
