//! `aichat doctor`: what works here, what does not, and what to do about it.

use std::process::Stdio;

use anyhow::bail;
use clap::Args;
use tokio::process::Command;

use super::output;
use crate::app::App;
use crate::config::Config;
use crate::engine::device;

/// Check the device, the models and the database
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
        findings.extend(
            [app.stt_model(), app.llm_model(), app.tts_model(), app.vad_model()].map(|name| self.model(&app, name)),
        );
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

    fn model(&self, app: &App, name: &str) -> Finding {
        let found = if self.verify && app.catalog.manifest(name).is_ok() {
            app.catalog.verify(name).map_err(Into::into)
        } else {
            app.weights(name)
        };
        match found {
            Ok(path) => Finding::Good(format!("model {name}: {}", path.display())),
            Err(error) => Finding::Bad(format!("model {name}: {error:#}")),
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

async fn database(app: &App) -> Finding {
    match app.store().await {
        Ok(store) => {
            let path = store.path().display().to_string();
            match store.checkpoint().await {
                Ok(()) => Finding::Good(format!("database {path}")),
                Err(error) => Finding::Bad(format!("database {path}: {error}")),
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
    match tokio::net::TcpListener::bind(app.config.listen).await {
        Ok(_) => Finding::Good(format!("address {} is free", app.config.listen)),
        Err(error) => Finding::Note(format!("address {}: {error}; a server may be running", app.config.listen)),
    }
}
