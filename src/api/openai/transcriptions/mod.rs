//! `POST /v1/audio/transcriptions` and `/v1/audio/translations`: a sound file as text.
//!
//! The file is decoded packet by packet while the recogniser listens, so that hours of audio need no more memory than
//! seconds. With `stream`, text is sent as soon as it will not change; the deltas together are the whole text.

mod format;
mod language;
mod telling;

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State as Extract};
use axum::http::StatusCode;
use axum::response::Response;
use futures::StreamExt;
use futures::future::{Fuse, FutureExt};
use futures::stream::BoxStream;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use super::described::RecordingAsked;
use super::error::Refusal;
use super::{alias, served_by};
use crate::api::House;
use crate::api::asker::Asker;
use crate::api::openapi::SentEvent;
use crate::api::problem::Problem;
use crate::api::upload::{self, Form};
use crate::audio::container::{AudioError, Decoder, Limits};
use crate::audio::{MIC_HZ, Mic};
use crate::provider::{Caller, Flow, SttOptions, SttTask, Transcript};
use format::{Format, Transcription, VerboseTranscription, Wanted};

/// The longest file there may be.
const LONGEST: Duration = Duration::from_hours(4);
/// Of a recording's file.
const FILE_BYTES: u64 = 512 * 1024 * 1024;
/// Decoded blocks that wait for the recogniser: a few seconds.
const AHEAD: usize = 64;

/// What was said, as `response_format` has it.
#[derive(utoipa::ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what `Wanted` writes")]
enum Said {
    Json(Transcription),
    VerboseJson(VerboseTranscription),
}

/// Write down what is said in a recording
#[utoipa::path(
    post,
    path = "/audio/transcriptions",
    tag = "OpenAI",
    request_body(content = RecordingAsked, content_type = "multipart/form-data"),
    responses(
        (status = 200, content(
            (Said = "application/json"),
            (String = "text/plain"),
            (SentEvent = "text/event-stream"),
        )),
        (status = "4XX", body = Refusal, description = "Refused"),
        (status = "5XX", body = Refusal, description = "Failed"),
    )
)]
pub(super) async fn transcribe(
    Extract(house): Extract<Arc<House>>,
    Asker { caller, .. }: Asker,
    request: Request,
) -> Result<Response, Problem> {
    answer(house, caller, request, SttTask::Transcribe).await
}

/// Write down in English what is said in a recording
#[utoipa::path(
    post,
    path = "/audio/translations",
    tag = "OpenAI",
    request_body(content = RecordingAsked, content_type = "multipart/form-data"),
    responses(
        (status = 200, content(
            (Said = "application/json"),
            (String = "text/plain"),
            (SentEvent = "text/event-stream"),
        )),
        (status = "4XX", body = Refusal, description = "Refused"),
        (status = "5XX", body = Refusal, description = "Failed"),
    )
)]
pub(super) async fn translate(
    Extract(house): Extract<Arc<House>>,
    Asker { caller, .. }: Asker,
    request: Request,
) -> Result<Response, Problem> {
    answer(house, caller, request, SttTask::Translate).await
}

async fn answer(house: Arc<House>, caller: Caller, request: Request, task: SttTask) -> Result<Response, Problem> {
    let form = upload::read(request, &house.state.data_dir, FILE_BYTES).await?;
    let mut asked = Asked::read(form, task)?;
    asked.options.caller = caller;
    let (audio, fault) = decode(asked.file).await?;
    let flow = house.state.parts.stt.transcribe(audio, asked.options);
    let mut hearing = Hearing { flow, fault: fault.fuse() };
    if asked.stream {
        return telling::tell(hearing).await;
    }
    loop {
        if let Transcript::Final(transcript) = hearing.next().await? {
            return Ok(served_by(asked.wanted.response(&transcript), &transcript.served_by));
        }
    }
}

/// A request, checked.
struct Asked {
    file: File,
    options: SttOptions,
    wanted: Wanted,
    stream: bool,
}

impl Asked {
    fn read(form: Form, task: SttTask) -> Result<Self, Problem> {
        let mut options = SttOptions { task, ..SttOptions::default() };
        let mut wanted = Wanted { task, format: Format::Json, words: false, segments: false, temperature: 0.0 };
        let (mut stream, mut model) = (false, false);
        for (name, value) in form.fields {
            match name.as_str() {
                "model" => {
                    model = !value.trim().is_empty();
                    options.model = alias(value.trim());
                }
                "language" => options.languages = language(&value).into_iter().collect(),
                "prompt" => options.prompt = Some(value),
                "temperature" => options.temperature = temperature(&value)?,
                "response_format" => wanted.format = Format::parse(&value)?,
                "timestamp_granularities[]" | "timestamp_granularities" => match value.as_str() {
                    "word" => wanted.words = true,
                    "segment" => wanted.segments = true,
                    _ => return Err(Problem::bad_field("timestamp_granularities", "is word or segment")),
                },
                "stream" => stream = boolean(&value)?,
                "include[]" | "include" => {
                    let message = "this recogniser gives no log probabilities of single tokens; verbose_json has those of segments";
                    return Err(Problem::bad_field("include", message));
                }
                // Among them chunking_strategy: chunks are always the recogniser's own.
                _ => {}
            }
        }
        if !model {
            return Err(Problem::bad_field("model", "is missing; whisper-1 is the server's own"));
        }
        let timed = wanted.words || wanted.segments;
        if timed && wanted.format != Format::VerboseJson {
            return Err(Problem::bad_field("timestamp_granularities", "needs the response_format verbose_json"));
        }
        if stream && !matches!(wanted.format, Format::Json | Format::Text) {
            return Err(Problem::bad_field("response_format", "is json or text where stream is true"));
        }
        // Segments are what is given where nothing is said.
        wanted.segments |= !wanted.words;
        wanted.temperature = options.temperature;
        options.word_times = wanted.words;
        options.partials = stream;
        let file = form.file.ok_or_else(|| Problem::bad_field("file", "is missing"))?;
        Ok(Self { file, options, wanted, stream })
    }
}

/// `en` of ` en-US`. None where nothing is said.
fn language(value: &str) -> Option<String> {
    let code = value.trim().split(['-', '_']).next()?.to_lowercase();
    (!code.is_empty()).then_some(code)
}

fn temperature(value: &str) -> Result<f32, Problem> {
    let temperature = value.trim().parse::<f32>().ok().filter(|temperature| (0.0..=1.0).contains(temperature));
    temperature.ok_or_else(|| Problem::bad_field("temperature", "is a number from 0 to 1"))
}

fn boolean(value: &str) -> Result<bool, Problem> {
    match value.trim().to_lowercase().as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" | "" => Ok(false),
        _ => Err(Problem::bad_field("stream", "is true or false")),
    }
}

/// Opens a sound file and decodes it on a thread of its own, as fast as it is listened to. What goes wrong on the way
/// comes through the receiver before the audio ends.
async fn decode(file: File) -> Result<(BoxStream<'static, Mic>, oneshot::Receiver<AudioError>), Problem> {
    let limits = Limits::up_to(LONGEST);
    let open = move || Decoder::<MIC_HZ>::from_file(file, limits);
    let decoder = tokio::task::spawn_blocking(open).await.map_err(|error| {
        tracing::error!(%error, "opening an upload failed");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the file could not be opened")
    })?;
    let decoder = decoder.map_err(|error| Problem::unreadable(&error))?;
    let (sender, blocks) = mpsc::channel(AHEAD);
    let (broken, fault) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        for block in decoder {
            match block {
                Ok(block) => {
                    if sender.blocking_send(block).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    // Nobody listens any more where it cannot be sent.
                    let _ = broken.send(error);
                    return;
                }
            }
        }
    });
    Ok((ReceiverStream::new(blocks).boxed(), fault))
}

/// A transcription and what goes wrong with its audio meanwhile.
struct Hearing {
    flow: Flow<Transcript>,
    fault: Fuse<oneshot::Receiver<AudioError>>,
}

fn no_answer<T>() -> Result<T, Problem> {
    tracing::error!("a transcription ended without its last item");
    let detail = "the recogniser gave no answer";
    Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "provider_failed", detail))
}

impl Hearing {
    async fn next(&mut self) -> Result<Transcript, Problem> {
        tokio::select! {
            biased;
            Ok(error) = &mut self.fault => Err(Problem::unreadable(&error)),
            item = self.flow.next() => item.map_or_else(no_answer, |item| item.map_err(Problem::from)),
        }
    }
}

#[cfg(test)]
mod tests;
