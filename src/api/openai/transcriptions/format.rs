//! A transcript in each of OpenAI's formats.

use std::time::Duration;

use axum::Json;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::language;
use crate::api::problem::Problem;
use crate::provider::{FinalTranscript, Segment, SttTask, Word};
use crate::text::repetition::compression_ratio;
use crate::text::subtitle::{self, Cue};

/// What was said.
#[derive(Serialize, ToSchema)]
pub(super) struct Transcription {
    text: String,
    usage: DurationUsage,
}

/// What was said, and when.
#[derive(Serialize, ToSchema)]
pub(super) struct VerboseTranscription {
    task: &'static str,
    language: String,
    duration: f64,
    text: String,
    usage: DurationUsage,
    #[serde(skip_serializing_if = "Option::is_none")]
    segments: Option<Vec<TimedSegment>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<Vec<TimedWord>>,
}

#[derive(Serialize, ToSchema)]
struct TimedSegment {
    id: usize,
    /// In steps of 10 ms.
    seek: u64,
    start: f64,
    end: f64,
    text: String,
    tokens: Vec<u32>,
    temperature: f32,
    avg_logprob: f32,
    compression_ratio: f32,
    no_speech_prob: f32,
}

#[derive(Serialize, ToSchema)]
struct TimedWord {
    word: String,
    start: f64,
    end: f64,
}

#[derive(Serialize, ToSchema)]
struct DurationUsage {
    r#type: &'static str,
    seconds: f64,
}

/// What `response_format` may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Text,
    Srt,
    Vtt,
    VerboseJson,
}

impl Format {
    pub(super) fn parse(name: &str) -> Result<Self, Problem> {
        match name.trim() {
            "json" | "" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            "srt" => Ok(Self::Srt),
            "vtt" => Ok(Self::Vtt),
            "verbose_json" => Ok(Self::VerboseJson),
            other => {
                let message = format!("\"{other}\" is none of json, text, srt, vtt and verbose_json");
                Err(Problem::bad_field("response_format", message))
            }
        }
    }
}

/// What a request wants to read.
pub(super) struct Wanted {
    pub(super) task: SttTask,
    pub(super) format: Format,
    /// Of verbose_json.
    pub(super) words: bool,
    pub(super) segments: bool,
    pub(super) temperature: f32,
}

impl Wanted {
    pub(super) fn response(&self, transcript: &FinalTranscript) -> Response {
        let plain = |text: String| ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response();
        match self.format {
            Format::Json => {
                Json(Transcription { text: transcript.text.clone(), usage: usage(transcript) }).into_response()
            }
            Format::VerboseJson => Json(self.verbose(transcript)).into_response(),
            Format::Text => plain(format!("{}\n", transcript.text)),
            Format::Srt => plain(subtitle::srt(cues(transcript))),
            Format::Vtt => plain(subtitle::vtt(cues(transcript))),
        }
    }

    fn verbose(&self, transcript: &FinalTranscript) -> VerboseTranscription {
        let (task, language) = match self.task {
            SttTask::Transcribe => ("transcribe", language::name(&transcript.language)),
            // What a translation is written in.
            SttTask::Translate => ("translate", "english"),
        };
        let segments = || transcript.segments.iter().enumerate().map(|(id, segment)| self.segment(id, segment));
        let words = || transcript.segments.iter().flat_map(|segment| &segment.words).map(word);
        VerboseTranscription {
            task,
            language: language.to_owned(),
            duration: seconds(transcript.audio),
            text: transcript.text.clone(),
            usage: usage(transcript),
            segments: self.segments.then(|| segments().collect()),
            words: self.words.then(|| words().collect()),
        }
    }

    fn segment(&self, id: usize, segment: &Segment) -> TimedSegment {
        TimedSegment {
            id,
            seek: u64::try_from(segment.start.as_millis() / 10).unwrap_or(u64::MAX),
            start: seconds(segment.start),
            end: seconds(segment.end),
            text: format!(" {}", segment.text),
            tokens: Vec::new(),
            temperature: self.temperature,
            avg_logprob: segment.log_probability,
            compression_ratio: compression_ratio(&segment.text),
            no_speech_prob: segment.no_speech,
        }
    }
}

fn word(word: &Word) -> TimedWord {
    TimedWord { word: word.text.clone(), start: seconds(word.start), end: seconds(word.end) }
}

fn usage(transcript: &FinalTranscript) -> DurationUsage {
    DurationUsage { r#type: "duration", seconds: transcript.audio.as_secs_f64().ceil() }
}

/// To the millisecond.
fn seconds(at: Duration) -> f64 {
    at.as_millis() as f64 / 1000.0
}

/// Where whoever transcribed gives no times, all is one cue.
fn cues(transcript: &FinalTranscript) -> Vec<Cue<'_>> {
    if transcript.segments.is_empty() {
        return vec![Cue { start: Duration::ZERO, end: transcript.audio, text: &transcript.text }];
    }
    let segments = transcript.segments.iter();
    segments.map(|segment| Cue { start: segment.start, end: segment.end, text: &segment.text }).collect()
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
