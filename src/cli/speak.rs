//! `aichat speak TEXT`: text as a sound file.

use std::io::Read;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;
use futures::StreamExt;

use super::{output, sound};
use crate::app::App;
use crate::audio::Speech;
use crate::config::Config;
use crate::provider::{SpeakRequest, voices};
use crate::text;

/// Say a text aloud, into a WAV file
#[derive(Args, Debug)]
#[command(after_help = "Example: aichat speak 'Hello, how are you?' --voice bf_emma -o hello.wav")]
pub(super) struct Speak {
    /// What to say; `-` reads it from standard input
    #[arg(required_unless_present = "voices")]
    text: Option<String>,
    /// Where to write; `-` is standard output
    #[arg(short, long, default_value = "speech.wav")]
    output: PathBuf,
    /// A voice's name: the engine's own, or one that was made here
    #[arg(long)]
    voice: Option<String>,
    /// As `en-gb`, where the voice speaks several
    #[arg(long)]
    language: Option<String>,
    /// From 0.5 to 2
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    speed: f32,
    /// The same seed gives the same audio
    #[arg(long)]
    seed: Option<u64>,
    /// List the voices instead
    #[arg(long)]
    voices: bool,
}

impl Speak {
    pub(super) async fn run(self, config: Config) -> anyhow::Result<()> {
        let text = self.text()?;
        let app = App::new(config)?;
        let mut speaker = app.speech_synthesizer().await?;
        if self.voices {
            for voice in speaker.voices() {
                output::line(&format!("{}\t{}", voice.name, voice.language))?;
            }
            return Ok(());
        }
        // Only a voice that somebody made is in the database.
        if self.voice.as_deref().is_some_and(|voice| !voices::is_known(&speaker.voices(), voice)) {
            speaker = app.voiced(speaker, &app.store().await?);
        }
        let started = Instant::now();
        let mut audio = Speech::default();
        let mut first = None;
        let mut chunks = speaker.speak(SpeakRequest {
            text: text::speakable(&text, self.language.as_deref().unwrap_or("en")),
            voice: self.voice.clone(),
            language: self.language.clone(),
            speed: self.speed,
            seed: self.seed,
            ..SpeakRequest::default()
        });
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            first.get_or_insert_with(|| started.elapsed());
            audio.extend(&chunk.audio);
        }
        if audio.is_empty() {
            bail!("there is nothing to say in {text:?}");
        }
        let took = started.elapsed().as_secs_f64();
        let seconds = audio.len().seconds();
        sound::write(&self.output, &audio)?;
        output::note(&format!(
            "{}: {seconds:.2} s of speech in {took:.2} s (real-time factor {:.2}), the first after {:.2} s",
            self.output.display(),
            took / seconds,
            first.unwrap_or_default().as_secs_f64(),
        ));
        Ok(())
    }

    fn text(&self) -> anyhow::Result<String> {
        let text = self.text.as_deref().unwrap_or_default();
        if text != "-" {
            return Ok(text.to_owned());
        }
        let mut read = String::new();
        std::io::stdin().read_to_string(&mut read).context("standard input is not UTF-8 text")?;
        Ok(read)
    }
}
