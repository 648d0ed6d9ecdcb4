//! `aichat talk FILE`: one whole voice turn, as the server would have it.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use super::output;
use super::sound::{self, Sound};
use crate::app::App;
use crate::audio::{MIC_HZ, Mic, Samples, Speech};
use crate::config::Config;
use crate::provider::Caller;
use crate::session::event::{Input, Output, TurnReport};
use crate::session::settings::Settings;
use crate::session::{self, Bounds, LONGEST_UTTERANCE, Opening};

/// Say a sound file to the default character and hear the answer
#[derive(Args, Debug)]
#[command(after_help = "Example: aichat talk question.wav -o answer.wav")]
pub(super) struct Talk {
    /// One utterance of at most 90 s: wav, mp3, flac, ogg, webm or m4a; .raw is 16-bit mono at 16 kHz
    file: PathBuf,
    /// Where to write the spoken answer
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Print one JSON object with transcript, reply, timings and `served_by`
    #[arg(long)]
    json: bool,
    /// The same seed gives the same answer
    #[arg(long)]
    seed: Option<u64>,
    /// Languages to listen for, as `en,pl`
    #[arg(long, value_delimiter = ',')]
    language: Vec<String>,
}

/// What a microphone would send at once.
const BLOCK: Samples<MIC_HZ> = Samples::from_millis(100);

/// What came of the turn.
struct Exchange {
    transcript: String,
    reply: String,
    audio: Speech,
    report: Box<TurnReport>,
}

impl Talk {
    pub(super) async fn run(self, config: Config) -> anyhow::Result<()> {
        let audio = Sound::open(&self.file)?.whole(LONGEST_UTTERANCE.duration())?;
        let app = App::new(config)?;
        let store = app.store().await?;
        let parts = app.parts(&store).await?;
        // The whole file is one utterance: pauses in it do not end it.
        let settings = Settings { seed: self.seed, languages: self.language.clone(), vad: None, ..Settings::default() };
        let opening = Opening {
            conversation_id: None,
            character_ids: Vec::new(),
            guests: Vec::new(),
            settings,
            paced: false,
            bounds: Bounds::default(),
            caller: Caller::default(),
        };
        let mut session = session::start(parts, opening).await?;
        let listening = async {
            for start in (0..audio.len().0).step_by(BLOCK.as_usize()).map(Samples) {
                let block = audio.slice(start, start + BLOCK);
                session.inbox.send(Input::Audio(block).into()).await.context("the session ended early")?;
            }
            // Shorter than one frame of its ear a session would not notice it.
            session.inbox.send(Input::Audio(Mic::silence(BLOCK)).into()).await.context("the session ended early")?;
            session.inbox.send(Input::Commit.into()).await.context("the session ended early")
        };
        let (listened, exchange) = tokio::join!(listening, answer(&mut session.outbox));
        let session::Handle { inbox, outbox, ending } = session;
        drop((inbox, outbox));
        ending.stored().await;
        store.checkpoint().await?;
        listened?;
        let exchange = exchange.with_context(|| self.file.display().to_string())?;
        if let Some(path) = &self.output {
            sound::write(path, &exchange.audio)?;
        }
        if self.json { print_json(&exchange) } else { print_text(&exchange) }
    }
}

/// Takes what the session tells until the turn is over, or until it is clear that there is none.
async fn answer(outbox: &mut session::Outbox) -> anyhow::Result<Exchange> {
    let (mut transcript, mut reply, mut audio) = (String::new(), String::new(), Speech::default());
    while let Some(told) = outbox.recv().await {
        match told.output {
            Output::Transcription(heard) if heard.is_final => {
                if heard.text.is_empty() {
                    bail!("no speech was heard");
                }
                transcript = heard.text;
            }
            Output::TextDone { text, .. } => reply = text,
            Output::Audio(piece) => audio.extend(&piece.audio),
            Output::TurnComplete(report) => return Ok(Exchange { transcript, reply, audio, report }),
            Output::Error(complaint) => bail!("{}", complaint.message),
            _ => {}
        }
    }
    bail!("the session ended without an answer")
}

fn print_text(exchange: &Exchange) -> anyhow::Result<()> {
    let timings = &exchange.report.timings;
    output::line(&format!("you:   {}", exchange.transcript))?;
    output::line(&format!("reply: {}", exchange.reply))?;
    let stage = |name: &str, millis: Option<u64>| millis.map(|millis| format!("{name} {millis} ms"));
    let stages = [
        stage("speech to text", timings.stt_ms),
        stage("first token", timings.llm_first_token_ms),
        stage("first audio of the first clause", timings.tts_first_audio_ms),
        stage("end of speech to first audio", timings.total_ms),
    ];
    output::line(&format!("times: {}", stages.into_iter().flatten().collect::<Vec<_>>().join(", ")))
}

fn print_json(exchange: &Exchange) -> anyhow::Result<()> {
    output::json(&json!({
        "transcript": exchange.transcript,
        "reply": exchange.reply,
        "timings": exchange.report.timings,
        "served_by": exchange.report.served_by,
        "usage": {
            "prompt_tokens": exchange.report.usage.prompt_tokens,
            "cached_tokens": exchange.report.usage.cached_tokens,
            "completion_tokens": exchange.report.usage.completion_tokens,
        },
    }))
}
