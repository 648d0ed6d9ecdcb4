//! `POST /api/voices/upload`: a recording of somebody, made fit to be a voice.
//!
//! It is decoded within limits, trimmed and brought to a loudness, by as many threads at once as memory allows; what is
//! said in it is what the client says, or what the recogniser hears.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{DefaultBodyLimit, Request, State as Extract};
use axum::http::StatusCode;
use futures::{StreamExt, stream};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::making::{blocking, disk, make};
use super::wire::{LONGEST_NAME, LONGEST_TRANSCRIPT, NewMethod, NewVoice, Voice, check_language, rounded};
use super::{check_free, told};
use crate::api::House;
use crate::api::asker::Asker;
use crate::api::problem::{Problem, ProblemBody};
use crate::api::rest::text;
use crate::api::upload::{self, Form};
use crate::audio::reference::{self, Reference, ReferenceError};
use crate::audio::{Decoder, Format, Limits, MIC_HZ, Mic, SPEECH_HZ, Speech, resample};
use crate::provider::{Caller, FinalTranscript, SttOptions, Transcript, VAD_FRAME, VoiceActivity};
use crate::store::{self, Recordings, Scope, Upload};

const FILE_BYTES: u64 = 25 * 1024 * 1024;
/// For a whole file, on a slow line.
const UPLOAD_TIME: Duration = Duration::from_mins(2);
/// The longest recording. A part of it becomes the voice.
const LONGEST: Duration = Duration::from_mins(5);
/// Recordings that are decoded at once: each takes 50 MB.
static DECODING: Semaphore = Semaphore::const_new(2);
/// With less speech in it a recording makes a poor voice.
const LEAST_SPEECH: f32 = 0.5;

/// The form with a recording.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `upload` reads")]
struct RecordingForm {
    /// WAV, MP3, FLAC, Ogg, WebM or M4A of at most 25 MB and 5 minutes, with at least 3 seconds of speech.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
    /// Makes the voice at once, with this name.
    #[schema(min_length = 1, max_length = 100)]
    voice_name: Option<String>,
    /// What is said in it. Without it the server writes it down.
    #[schema(max_length = 2000)]
    transcript: Option<String>,
    /// What is spoken in it, as `en`; the server hears it where it is absent.
    #[schema(pattern = "^[a-z]{2,3}(-[a-z0-9]{2,8})?$")]
    language: Option<String>,
}

/// A recording that is kept for a day.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VoiceUpload)]
struct Uploaded {
    upload_id: String,
    /// Of what was kept of it.
    seconds: f64,
    transcript: String,
    language: String,
    /// Which part of it holds speech.
    #[schema(minimum = 0.0, maximum = 1.0)]
    speech: f32,
    /// What could be better about it.
    warnings: Vec<String>,
    /// The voice, where `voice_name` was sent.
    #[schema(required)]
    voice: Option<Voice>,
}

pub(super) fn routes() -> OpenApiRouter<Arc<House>> {
    // The upload counts for itself.
    OpenApiRouter::new().routes(routes!(send)).layer(DefaultBodyLimit::disable())
}

/// Send a recording that a voice is to be made of
#[utoipa::path(
    post,
    path = "/voices/upload",
    tag = "Voices",
    request_body(content = RecordingForm, content_type = "multipart/form-data"),
    responses(
        (status = 201, body = Uploaded),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn send(
    Extract(house): Extract<Arc<House>>,
    asker: Asker,
    request: Request,
) -> Result<(StatusCode, Json<Uploaded>), Problem> {
    asker.needs(Scope::User)?;
    let late = |_| Problem::new(StatusCode::REQUEST_TIMEOUT, "too_slow", "the file took too long to come");
    let read = upload::read(request, &house.state.data_dir, FILE_BYTES);
    let sent = Sent::read(timeout(UPLOAD_TIME, read).await.map_err(late)??)?;
    if let Some(name) = &sent.voice_name {
        check_free(&house, name)?;
    }
    let name = sent.voice_name.clone();
    let Kept { upload, speech, warnings } = keep(&house, &asker, sent).await?;
    let voice = match name {
        Some(name) => Some(make(&house, &asker.rows, clone_of(name, &upload), Some(upload.clone())).await?),
        None => None,
    };
    let uploaded = Uploaded {
        upload_id: upload.id,
        seconds: rounded(upload.recording.seconds),
        transcript: upload.transcript,
        language: upload.language,
        speech,
        warnings,
        voice: voice.map(|voice| told(&house, voice)),
    };
    Ok((StatusCode::CREATED, Json(uploaded)))
}

/// A recording that is kept.
struct Kept {
    upload: Upload,
    /// Which part of it holds speech.
    speech: f32,
    warnings: Vec<String>,
}

/// Makes the recording fit, has its words, and keeps both.
async fn keep(house: &House, asker: &Asker, sent: Sent) -> Result<Kept, Problem> {
    let (vad, file) = (Arc::clone(&house.state.parts.vad), sent.file);
    let prepared = {
        // The semaphore is never closed.
        let _permit = DECODING.acquire().await;
        blocking(move || prepare(file, &*vad)).await??
    };
    let Prepared { reference, heard, wav } = prepared;
    let mut warnings = warnings(&reference);
    let given = sent.transcript.filter(|_| !reference.is_cut);
    let (transcript, language) = match given {
        Some(transcript) => (transcript, sent.language.unwrap_or_default()),
        None => transcribe(house, asker.caller.clone(), heard, sent.language, &mut warnings).await?,
    };
    let seconds = reference.audio.len().seconds();
    let recordings = Recordings::new(&house.state.data_dir);
    let recording = blocking(move || recordings.upload(&wav, seconds)).await?.map_err(|error| disk(&error))?;
    let upload = Upload { id: Uuid::new_v4().to_string(), recording, transcript, language };
    if asker.rows.create_upload(&upload).await? == store::Kept::Full {
        let detail = "there are as many uploads of the last day as one may have; come back tomorrow";
        return Err(Problem::new(StatusCode::CONFLICT, "too_many_uploads", detail));
    }
    Ok(Kept { upload, speech: reference.speech, warnings })
}

fn clone_of(name: String, upload: &Upload) -> NewVoice {
    NewVoice {
        name,
        method: NewMethod::Clone,
        speaker_description: None,
        scene_prompt: None,
        upload_id: Some(upload.id.clone()),
        transcript: None,
        language: None,
    }
}

/// The form, checked.
struct Sent {
    file: File,
    voice_name: Option<String>,
    transcript: Option<String>,
    language: Option<String>,
}

impl Sent {
    fn read(form: Form) -> Result<Self, Problem> {
        let (mut voice_name, mut transcript, mut language) = (None, None, None);
        for (name, value) in form.fields {
            match name.as_str() {
                "voice_name" => {
                    text::check("voice_name", &value, 1..=LONGEST_NAME)?;
                    voice_name = Some(value);
                }
                "transcript" => {
                    text::check("transcript", &value, 0..=LONGEST_TRANSCRIPT)?;
                    transcript = Some(value.trim().to_owned()).filter(|words| !words.is_empty());
                }
                "language" if !value.is_empty() => {
                    check_language(&value)?;
                    language = Some(value);
                }
                _ => {}
            }
        }
        let file = form.file.ok_or_else(|| Problem::bad_field("file", "is missing"))?;
        Ok(Self { file, voice_name, transcript, language })
    }
}

/// What a file came to.
struct Prepared {
    reference: Reference,
    /// The same, for the recogniser.
    heard: Mic,
    wav: Vec<u8>,
}

/// Blocks for some seconds.
fn prepare(file: File, vad: &dyn VoiceActivity) -> Result<Prepared, Problem> {
    let failed = |reason: &dyn std::fmt::Display| {
        tracing::error!(%reason, "a recording cannot be prepared");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the recording could not be prepared")
    };
    let decoder = Decoder::<SPEECH_HZ>::from_file(file, Limits::up_to(LONGEST));
    let audio = decoder.and_then(Decoder::decode).map_err(|error| Problem::unreadable(&error))?;
    let heard = microphone(&audio).map_err(|error| failed(&error))?;
    let mut listening = vad.open();
    let scores = heard.as_slice().as_chunks::<VAD_FRAME>().0.iter().map(|frame| listening.score(frame));
    let probabilities: Vec<f32> = scores.collect();
    let reference = reference::prepare(&audio, &probabilities).map_err(|error| unfit(&error))?;
    let wav = Format::Wav.encode(&reference.audio).map_err(|error| failed(&error))?;
    let heard = microphone(&reference.audio).map_err(|error| failed(&error))?;
    Ok(Prepared { reference, heard, wav })
}

fn microphone(audio: &Speech) -> Result<Mic, crate::audio::ResampleError> {
    resample::<MIC_HZ>(audio.as_slice(), SPEECH_HZ)
}

fn unfit(error: &ReferenceError) -> Problem {
    let code = match error {
        ReferenceError::Silent => "recording_silent",
        ReferenceError::TooShort { .. } => "recording_too_short",
    };
    Problem::new(StatusCode::BAD_REQUEST, code, error.to_string()).about("file")
}

fn warnings(reference: &Reference) -> Vec<String> {
    let mut warnings = Vec::new();
    if reference.speech < LEAST_SPEECH {
        let percent = (reference.speech * 100.0).round();
        warnings.push(format!("only {percent} % of it is speech; a recording without pauses or music is better"));
    }
    if reference.is_cut {
        let seconds = reference.audio.len().seconds();
        let what = "was kept, and the server wrote its words down anew";
        warnings.push(format!("it is longer than 30 s: the part of {seconds:.1} s with the most speech {what}"));
    }
    warnings
}

/// What is said in it, and in which language.
async fn transcribe(
    house: &House,
    caller: Caller,
    heard: Mic,
    language: Option<String>,
    warnings: &mut Vec<String>,
) -> Result<(String, String), Problem> {
    let known = |language: &str| language.split('-').next().unwrap_or(language).to_owned();
    let languages = language.iter().map(|language| known(language)).collect();
    let options = SttOptions { languages, caller, ..SttOptions::default() };
    let mut flow = house.state.parts.stt.transcribe(stream::once(async { heard }).boxed(), options);
    let mut last = None;
    while let Some(item) = flow.next().await {
        if let Transcript::Final(transcript) = item? {
            last = Some(transcript);
        }
    }
    let no_words = || {
        let detail = "no words were understood in the recording; send what is said in it as transcript";
        Problem::new(StatusCode::BAD_REQUEST, "recording_without_words", detail).about("transcript")
    };
    let FinalTranscript { text, language: heard_language, .. } = last.ok_or_else(no_words)?;
    let mut words = text.trim().replace('\0', "");
    if words.is_empty() {
        return Err(no_words());
    }
    if let Some((end, _)) = words.char_indices().nth(LONGEST_TRANSCRIPT) {
        words.truncate(end);
        warnings.push("more words were understood than fit in the time; check the transcript".to_owned());
    }
    Ok((words, language.unwrap_or(heard_language)))
}
