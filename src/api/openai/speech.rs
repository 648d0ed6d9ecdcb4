//! `POST /v1/audio/speech`: a text as a sound file that is sent while it is spoken.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State as Extract;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};

use super::described::SpeechAsked;
use super::error::Refusal;
use crate::api::House;
use crate::api::asker::Asker;
use crate::api::body::JsonBody;
use crate::api::narration::{self, Narration, Script};
use crate::api::openapi::{Binary, SentEvent};
use crate::api::problem::Problem;
use crate::audio::{EncodeError, Encoder, Format, Samples, Speech};
use crate::provider::{ProviderError, Urgency};

/// Audio is counted in tokens of this length, about OpenAI's own.
const TOKEN: Samples<24_000> = Samples::from_millis(50);

/// OpenAI's request. `instructions` and what else it may hold have no meaning for the engines here.
#[derive(Debug, Deserialize)]
pub(super) struct Request {
    model: Option<String>,
    input: String,
    voice: Option<Voice>,
    response_format: Option<Value>,
    speed: Option<f32>,
    stream_format: Option<Value>,
}

/// A voice's name, or what newer clients send.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Voice {
    Name(String),
    Object { id: String },
}

/// Speak a text
#[utoipa::path(
    post,
    path = "/audio/speech",
    tag = "OpenAI",
    request_body = SpeechAsked,
    responses(
        (status = 200, description = "The sound, as it is made, or events of it", content(
            (inline(Binary) = "audio/*"),
            (SentEvent = "text/event-stream"),
        )),
        (status = "4XX", body = Refusal, description = "Refused"),
        (status = "5XX", body = Refusal, description = "Failed"),
    )
)]
pub(super) async fn create(
    Extract(house): Extract<Arc<House>>,
    Asker { caller, .. }: Asker,
    body: JsonBody,
) -> Result<Response, Problem> {
    let request: Request = body.read()?;
    let format = format(request.response_format)?;
    let as_events = match request.stream_format {
        None | Some(Value::Null) => false,
        Some(kind) if kind == "audio" => false,
        Some(kind) if kind == "sse" => true,
        Some(kind) => return Err(Problem::bad_field("stream_format", format!("{kind} is neither audio nor sse"))),
    };
    let encoder = format.encoder().map_err(|error| Problem::bad_field("response_format", error))?;
    let characters = request.input.chars().count();
    let script = Script {
        text: request.input,
        voice: request.voice.map(|voice| match voice {
            Voice::Name(name) | Voice::Object { id: name } => name,
        }),
        speed: request.speed.unwrap_or(1.0),
        model: request.model.as_deref().and_then(super::alias),
        urgency: Urgency::First,
        caller,
    };
    let Narration { served_by, audio } = narration::narrate(&house.state.parts.speech, script, "input").await?;
    let (kind, body) = if as_events {
        ("text/event-stream", events(audio, encoder, characters))
    } else {
        (format.content_type(), packed(audio, encoder).map(|part| part.map(|part| part.bytes)).boxed())
    };
    let mut response = Body::from_stream(body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(super::served_by(response, &served_by))
}

fn format(wanted: Option<Value>) -> Result<Format, Problem> {
    let Some(wanted) = wanted.filter(|value| !value.is_null()) else { return Ok(Format::default()) };
    wanted.as_str().and_then(Format::named).ok_or_else(|| {
        let known = Format::ALL.map(Format::name).join(", ");
        Problem::bad_field("response_format", format!("{wanted} is none of {known}"))
    })
}

/// Part of a sound file.
struct Part {
    bytes: Bytes,
    /// Of the audio that went into it.
    length: Samples<24_000>,
}

/// Why a file that has begun breaks off. The connection breaks with it, so that nobody takes it for whole.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Speech(#[from] ProviderError),
    #[error(transparent)]
    Encoding(#[from] EncodeError),
}

/// Packs audio as it comes.
fn packed(
    audio: BoxStream<'static, Result<Speech, ProviderError>>,
    encoder: Box<dyn Encoder>,
) -> BoxStream<'static, Result<Part, Broken>> {
    stream::unfold(Some((audio, encoder)), |state| async {
        let (mut audio, mut encoder) = state?;
        loop {
            let (part, going_on) = match audio.next().await {
                Some(Ok(speech)) => (pack(encoder.push(&speech), speech.len()), true),
                Some(Err(error)) => (Err(error.into()), false),
                None => (pack(encoder.finish().map(|ending| ending.bytes), Samples::default()), false),
            };
            if let Err(error) = &part {
                tracing::warn!(%error, "speech breaks off");
            }
            let going_on = going_on && part.is_ok();
            // Nothing to send yet.
            if going_on && part.as_ref().is_ok_and(|part| part.bytes.is_empty() && part.length.0 == 0) {
                continue;
            }
            return Some((part, going_on.then_some((audio, encoder))));
        }
    })
    .boxed()
}

fn pack(bytes: Result<Vec<u8>, EncodeError>, length: Samples<24_000>) -> Result<Part, Broken> {
    Ok(Part { bytes: bytes?.into(), length })
}

/// OpenAI's events: the same bytes in pieces, then what they cost.
fn events(
    audio: BoxStream<'static, Result<Speech, ProviderError>>,
    encoder: Box<dyn Encoder>,
    characters: usize,
) -> BoxStream<'static, Result<Bytes, Broken>> {
    let mut length = Samples::default();
    let mut failed = false;
    let parts = packed(audio, encoder).map(Some).chain(stream::once(async { None }));
    let events = parts.filter_map(move |part| {
        let event = match part {
            Some(Ok(part)) => {
                length += part.length;
                (!part.bytes.is_empty())
                    .then(|| json!({"type": "speech.audio.delta", "audio": STANDARD.encode(&part.bytes)}))
            }
            Some(Err(error)) => {
                failed = true;
                Some(json!({"type": "error", "error": {"type": "server_error", "message": error.to_string()}}))
            }
            None if failed => None,
            None => Some(json!({"type": "speech.audio.done", "usage": usage(characters, length)})),
        };
        std::future::ready(event.map(|event| Ok(Bytes::from(format!("data: {event}\n\n")))))
    });
    events.boxed()
}

/// Input is counted in characters, which is what a voice is paid by.
fn usage(characters: usize, length: Samples<24_000>) -> Value {
    let output = length.0.div_ceil(TOKEN.0);
    json!({"input_tokens": characters, "output_tokens": output, "total_tokens": characters as u64 + output})
}

#[cfg(test)]
#[path = "speech_tests.rs"]
mod tests;
