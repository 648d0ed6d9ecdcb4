//! `aichat doctor`: what works here, what does not, and what to do about it.

use std::process::Stdio;

use anyhow::bail;
use clap::Args;
use tokio::process::Command;

use super::{keys, output};
use crate::app::{self, App, ModelName};
use crate::config::Config;
use crate::engine::device;
use crate::engine::speech::higgs::HiggsChoice;
use crate::provider::Capability;

/// Check the device, who does what, and the database
#[derive(Args, Debug)]
#[command(after_help = "Example: aichat doctor --profile standard-8")]
pub(super) struct Doctor {
    /// Read every model file and compare its checksum
    #[arg(long)]
    verify: bool,
}

/// A line of the report.
enum Finding {
    Good(String),
    /// Works without it.
    Note(String),
    Bad(String),
}

impl Doctor {
    pub(super) async fn run(self, config: Config) -> anyhow::Result<()> {
        let app = match App::new(config) {
            Ok(app) => app,
            Err(error) => bail!("device or settings: {error:#}"),
        };
        let mut findings = vec![device_finding(&app), Finding::Good(format!("profile {}", app.choice.reason))];
        for capability in [Capability::Transcription, Capability::Chat, Capability::Speech, Capability::Embedding] {
            findings.extend(self.chain(&app, capability));
        }
        findings.push(match self.place(&app, &ModelName::Local(app.vad_model().to_owned())) {
            Ok(place) => Finding::Good(format!("voice activity: {}: {place}", app.vad_model())),
            Err(error) => Finding::Note(format!("voice activity is judged by loudness: {error}")),
        });
        findings.push(higgs(&app));
        findings.push(database(&app).await);
        findings.push(espeak().await);
        findings.push(address(&app).await);
        let mut bad = 0;
        for finding in &findings {
            let (mark, text) = match finding {
                Finding::Good(text) => ("ok  ", text),
                Finding::Note(text) => ("note", text),
                Finding::Bad(text) => ("BAD ", text),
            };
            bad += usize::from(matches!(finding, Finding::Bad(_)));
            output::line(&format!("{mark}  {text}"))?;
        }
        if bad > 0 {
            bail!("{bad} of {} checks failed", findings.len());
        }
        Ok(())
    }

    /// Who does it, in order. One that cannot is bad only where nobody else can.
    fn chain(&self, app: &App, capability: Capability) -> Vec<Finding> {
        let places = |name: ModelName| (name.to_string(), self.place(app, &name));
        let places: Vec<_> = app.chain(capability).into_iter().map(places).collect();
        let is_served = places.iter().any(|(_, place)| place.is_ok());
        let what = capability.as_str();
        let finding = |(number, (name, place)): (usize, (String, Result<String, String>))| match place {
            Ok(place) => Finding::Good(format!("{what} {}: {name}: {place}", number + 1)),
            // A conversation needs no vectors.
            Err(error) if is_served || capability == Capability::Embedding => {
                Finding::Note(format!("{what} {}: {name}: {error}", number + 1))
            }
            Err(error) => Finding::Bad(format!("{what} {}: {name}: {error}", number + 1)),
        };
        places.into_iter().enumerate().map(finding).collect()
    }

    fn place(&self, app: &App, name: &ModelName) -> Result<String, String> {
        match name {
            ModelName::Local(local) if self.verify => {
                app.catalog.verify(local).map(|path| path.display().to_string()).map_err(|error| error.to_string())
            }
            name => app.place(name),
        }
    }
}

fn device_finding(app: &App) -> Finding {
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    let measured = device::open(app.device).and_then(|_| device::memory(app.device));
    match measured {
        Ok(memory) => Finding::Good(format!(
            "device {}: {:.1} of {:.1} GB free{}",
            app.device,
            gigabytes(memory.free),
            gigabytes(memory.total),
            if cfg!(feature = "cuda") {
                ""
            } else {
                " (this build has no CUDA; scripts/run makes one where there is a card)"
            },
        )),
        Err(error) => Finding::Bad(format!("device {}: {error}", app.device)),
    }
}

/// How much memory Higgs Audio v2 would take, and how it would be laid out beside the other models.
fn higgs(app: &App) -> Finding {
    let gigabytes = |bytes: u64| format!("{:.1} GB", bytes as f64 / 1e9);
    let report = || -> anyhow::Result<String> {
        let budget = app::budget(app.device)?;
        let others = app.need_beside_speech()?;
        let room = budget.saturating_sub(others);
        let choices = HiggsChoice::published(app.device, app.config.max_concurrent_tts)?;
        let need = |choice: Option<&HiggsChoice>| {
            choice.map(|it| format!("{} ({})", gigabytes(it.bytes), it.options)).unwrap_or_default()
        };
        let verdict = match choices.iter().find(|choice| choice.bytes <= room) {
            Some(choice) => format!("it fits {}", choice.options),
            None => "it does not fit".to_owned(),
        };
        Ok(format!(
            "higgs-audio-v2 would take {} at best, {} at least; of {} the other models take {}: {verdict}",
            need(choices.first()),
            need(choices.last()),
            gigabytes(budget),
            gigabytes(others)
        ))
    };
    Finding::Note(report().unwrap_or_else(|error| format!("higgs-audio-v2 cannot run here: {error:#}")))
}

async fn database(app: &App) -> Finding {
    match app.store().await {
        Ok(store) => {
            let path = store.place().to_owned();
            let keys = store.keys().await.map(|keys| keys.iter().filter(|key| key.is_living()).count());
            match (keys, store.checkpoint().await) {
                (Ok(keys), Ok(())) => Finding::Good(format!("database {path}, with {keys} keys")),
                (Err(error), _) => Finding::Bad(format!("database {path}: {error}")),
                (_, Err(error)) => Finding::Bad(format!("database {path}: {error}")),
            }
        }
        Err(error) => Finding::Bad(format!("database: {error:#}")),
    }
}

/// Kokoro's English needs nothing; other languages go through this program.
async fn espeak() -> Finding {
    let run = Command::new("espeak-ng").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().await;
    match run {
        Ok(status) if status.success() => Finding::Good("espeak-ng: speech in es, fr, hi, it and pt-br".into()),
        _ => Finding::Note(
            "espeak-ng is not installed: speech in English only (on Debian: apt install espeak-ng)".into(),
        ),
    }
}

async fn address(app: &App) -> Finding {
    if let Some(fault) = keys::listening_fault(&app.config, &[]).await {
        return Finding::Bad(fault.to_string());
    }
    match tokio::net::TcpListener::bind(app.config.listen).await {
        Ok(_) => Finding::Good(format!("address {} is free", app.config.listen)),
        Err(error) => Finding::Note(format!("address {}: {error}; a server may be running", app.config.listen)),
    }
}
