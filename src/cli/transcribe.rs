//! `aichat transcribe FILE`: a sound file as text.

use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, ValueEnum};
use futures::StreamExt;
use serde_json::json;

use super::output;
use super::sound::Sound;
use crate::app::App;
use crate::config::Config;
use crate::provider::{FinalTranscript, Segment, SttOptions, SttTask, Transcript};
use crate::text::subtitle::{self, Cue};

/// Write down what is said in a sound file
#[derive(Args, Debug)]
#[command(after_help = "Example: aichat transcribe meeting.mp3 --format srt > meeting.srt")]
pub(super) struct Transcribe {
    /// wav, mp3, flac, ogg, webm or m4a; .raw is 16-bit mono at 16 kHz
    file: PathBuf,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Languages to choose from, as `en,pl`; one of them switches detection off
    #[arg(long, value_delimiter = ',')]
    language: Vec<String>,
    /// Words to expect
    #[arg(long)]
    prompt: Option<String>,
    /// Translate into English
    #[arg(long)]
    translate: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
    Srt,
    Vtt,
}

impl Transcribe {
    pub(super) async fn run(self, config: Config) -> anyhow::Result<()> {
        let format = if self.json { Format::Json } else { self.format };
        let audio = Sound::open(&self.file)?;
        let app = App::new(config)?;
        let listener = app.speech_to_text().await?;
        let options = SttOptions {
            languages: self.language,
            prompt: self.prompt,
            task: if self.translate { SttTask::Translate } else { SttTask::Transcribe },
            partials: false,
            word_times: format == Format::Json,
            ..SttOptions::default()
        };
        let (blocks, decoding) = audio.stream();
        let mut transcripts = listener.transcribe(blocks, options);
        let mut heard = None;
        while let Some(item) = transcripts.next().await {
            if let Transcript::Final(transcript) = item? {
                heard = Some(transcript);
            }
        }
        decoding.await??;
        let Some(transcript) = heard else { bail!("{}: the recogniser gave no answer", self.file.display()) };
        print(&transcript, format)
    }
}

fn print(transcript: &FinalTranscript, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Text => output::line(&transcript.text),
        Format::Json => output::json(&json!({
            "text": transcript.text,
            "language": transcript.language,
            "duration": transcript.audio.as_secs_f64(),
            "segments": transcript.segments.iter().map(segment_json).collect::<Vec<_>>(),
            "served_by": transcript.served_by.as_ref(),
        })),
        Format::Srt => output::piece(&subtitle::srt(cues(&transcript.segments))),
        Format::Vtt => output::piece(&subtitle::vtt(cues(&transcript.segments))),
    }
}

fn segment_json(segment: &Segment) -> serde_json::Value {
    json!({
        "text": segment.text,
        "start": segment.start.as_secs_f64(),
        "end": segment.end.as_secs_f64(),
        "words": segment.words.iter().map(|word| json!({
            "text": word.text,
            "start": word.start.as_secs_f64(),
            "end": word.end.as_secs_f64(),
        })).collect::<Vec<_>>(),
        "avg_logprob": segment.log_probability,
        "no_speech_prob": segment.no_speech,
    })
}

fn cues(segments: &[Segment]) -> impl Iterator<Item = Cue<'_>> {
    segments.iter().map(|segment| Cue { start: segment.start, end: segment.end, text: &segment.text })
}
