//! A transcript in each of OpenAI's formats.

use std::time::Duration;

use axum::Json;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::language;
use crate::api::problem::Problem;
use crate::provider::{FinalTranscript, Segment, SttTask, Word};
use crate::text::repetition::compression_ratio;
use crate::text::subtitle::{self, Cue};

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
            Format::Json => Json(json!({"text": transcript.text, "usage": usage(transcript)})).into_response(),
            Format::VerboseJson => Json(self.verbose(transcript)).into_response(),
            Format::Text => plain(format!("{}\n", transcript.text)),
            Format::Srt => plain(subtitle::srt(cues(transcript))),
            Format::Vtt => plain(subtitle::vtt(cues(transcript))),
        }
    }

    fn verbose(&self, transcript: &FinalTranscript) -> Value {
        let (task, language) = match self.task {
            SttTask::Transcribe => ("transcribe", language::name(&transcript.language)),
            // What a translation is written in.
            SttTask::Translate => ("translate", "english"),
        };
        let mut verbose = json!({
            "task": task,
            "language": language,
            "duration": seconds(transcript.audio),
            "text": transcript.text,
            "usage": usage(transcript),
        });
        if self.segments {
            let segments = transcript.segments.iter().enumerate();
            verbose["segments"] = segments.map(|(id, segment)| self.segment(id, segment)).collect();
        }
        if self.words {
            verbose["words"] = transcript.segments.iter().flat_map(|segment| &segment.words).map(word).collect();
        }
        verbose
    }

    fn segment(&self, id: usize, segment: &Segment) -> Value {
        json!({
            "id": id,
            // In steps of 10 ms.
            "seek": segment.start.as_millis() / 10,
            "start": seconds(segment.start),
            "end": seconds(segment.end),
            "text": format!(" {}", segment.text),
            "tokens": [],
            "temperature": self.temperature,
            "avg_logprob": segment.log_probability,
            "compression_ratio": compression_ratio(&segment.text),
            "no_speech_prob": segment.no_speech,
        })
    }
}

fn word(word: &Word) -> Value {
    json!({"word": word.text, "start": seconds(word.start), "end": seconds(word.end)})
}

fn usage(transcript: &FinalTranscript) -> Value {
    json!({"type": "duration", "seconds": transcript.audio.as_secs_f64().ceil()})
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
