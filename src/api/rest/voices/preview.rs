//! How a voice sounds: something said by it, and the recording that it is made of.

use std::sync::Arc;

use axum::body::HttpBody;
use axum::extract::{FromRequest, Path as Segment, Request, State as Extract};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::TryStreamExt;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::making::{blocking, disk};
use super::{Found, found};
use crate::api::House;
use crate::api::asker::Asker;
use crate::api::body::JsonBody;
use crate::api::narration::{self, Script};
use crate::api::openapi::Binary;
use crate::api::problem::{Problem, ProblemBody};
use crate::api::rest::{file, text};
use crate::audio::{Format, Speech};
use crate::provider::Urgency;
use crate::store::Recordings;

/// Half a minute of speech.
const LONGEST_TEXT: usize = 500;
/// What is said where nothing else is asked for, in the voice's language.
const GREETINGS: [(&str, &str); 6] = [
    ("en", "Hello! This is how I sound. It is good to meet you."),
    ("de", "Hallo! So klinge ich. Schön, dich kennenzulernen."),
    ("es", "¡Hola! Así sueno yo. Me alegro de conocerte."),
    ("fr", "Bonjour ! Voici ma voix. Ravi de faire votre connaissance."),
    ("it", "Ciao! Questa è la mia voce. È un piacere conoscerti."),
    ("pt", "Olá! Esta é a minha voz. É um prazer conhecer você."),
];

/// What a voice is to say.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = VoicePreview)]
struct Preview {
    #[schema(min_length = 1, max_length = 500)]
    text: Option<String>,
}

pub(super) fn routes() -> OpenApiRouter<Arc<House>> {
    OpenApiRouter::new().routes(routes!(preview)).routes(routes!(sample))
}

/// Hear a voice
#[utoipa::path(
    post,
    path = "/voices/{voice}/preview",
    tag = "Voices",
    params(("voice" = String, Path, description = "The voice's id, or the name of an engine's own")),
    request_body(content = Option<Preview>),
    responses(
        (status = 200, description = "What it says", body = inline(Binary), content_type = "audio/wav"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn preview(
    Extract(house): Extract<Arc<House>>,
    Asker { caller, rows, .. }: Asker,
    Segment(id): Segment<String>,
    request: Request,
) -> Result<Response, Problem> {
    // Nothing to say needs no body.
    let is_empty = request.body().is_end_stream() && !request.headers().contains_key(header::CONTENT_TYPE);
    let wanted: Preview =
        if is_empty { Preview::default() } else { JsonBody::from_request(request, &()).await?.read()? };
    wanted.text.as_deref().map_or(Ok(()), |words| text::check("text", words, 1..=LONGEST_TEXT))?;
    let (voice, language) = match found(&house, &rows, &id).await? {
        Found::Builtin(voice) => (voice.name, voice.language),
        Found::Stored(voice) => (voice.id, voice.language),
    };
    let text = wanted.text.unwrap_or_else(|| greeting(&language).to_owned());
    let script = Script { text, voice: Some(voice), speed: 1.0, model: None, urgency: Urgency::First, caller };
    let narration = narration::narrate(&house.state.parts.speech, script, "text").await?;
    let mut audio = Speech::default();
    let mut blocks = narration.audio;
    while let Some(block) = blocks.try_next().await? {
        audio.extend(&block);
    }
    let wav = blocking(move || Format::Wav.encode(&audio))
        .await?
        .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "encoding_failed", error.to_string()))?;
    let mut response = wav.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("audio/wav"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(served_by) = HeaderValue::from_str(&narration.served_by) {
        headers.insert("x-served-by", served_by);
    }
    Ok(response)
}

fn greeting(language: &str) -> &'static str {
    let known = GREETINGS.iter().find(|(code, _)| language.split(['-', '_']).next() == Some(*code));
    known.unwrap_or(&GREETINGS[0]).1
}

/// The recording that a voice is made of, whole or in part
#[utoipa::path(
    get,
    path = "/voices/{voice}/sample",
    tag = "Voices",
    params(("voice" = String, Path, description = "The voice's id")),
    responses(
        (status = 200, description = "The recording", body = inline(Binary), content_type = "audio/wav"),
        (status = 206, description = "A part of it", body = inline(Binary), content_type = "audio/wav"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn sample(
    Extract(house): Extract<Arc<House>>,
    Asker { rows, .. }: Asker,
    Segment(id): Segment<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let none = || Problem::new(StatusCode::NOT_FOUND, "not_found", "this voice is made of no recording");
    let recording = match found(&house, &rows, &id).await? {
        Found::Builtin(_) => None,
        Found::Stored(voice) => voice.recording,
    };
    let recordings = Recordings::new(&house.state.data_dir);
    let path = recordings.path(&recording.ok_or_else(none)?).map_err(|error| disk(&error))?;
    file::send(&path, "audio/wav", &headers).await?.ok_or_else(none)
}
