//! `aichat pull NAME`: models onto the disk.

use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::output;
use crate::app::{self, App};
use crate::catalog::{Progress, ProgressSink};
use crate::config::Config;

/// Fetch models, or all models of a profile
#[derive(Args, Debug)]
#[command(after_help = "Examples: aichat pull starter; aichat pull whisper-large-v3-turbo kokoro-82m")]
pub(super) struct Pull {
    /// Models or profiles, as `aichat models` lists them; `configured` is what the settings come to on this machine
    #[arg(required = true)]
    names: Vec<String>,
    /// Check every byte of what is here already
    #[arg(long)]
    verify: bool,
    /// Fetch anew, whatever is here
    #[arg(long, conflicts_with = "verify")]
    force: bool,
}

impl Pull {
    pub(super) async fn run(self, config: Config) -> anyhow::Result<()> {
        let catalog = app::catalog(&config)?;
        let mut models = Vec::new();
        for name in &self.names {
            if name == "configured" {
                let app = App::new(config.clone())?;
                output::note(&app.choice.reason);
                models.extend(app.models());
            } else {
                models.extend(catalog.models_named(name)?.into_iter().map(|manifest| manifest.name.clone()));
            }
        }
        for name in models {
            // A pull reads every byte of what is here already; names and sizes are enough to go on.
            let folder = match catalog.locate(&name) {
                _ if self.force => catalog.pull_anew(&name, bar()).await?,
                Ok(folder) if !self.verify => folder,
                _ => catalog.pull(&name, bar()).await?,
            };
            output::line(&format!("{name}: {}", folder.display()))?;
        }
        Ok(())
    }
}

/// One bar on standard error that follows the file in work. Nothing where that is not a terminal.
fn bar() -> ProgressSink {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{msg} {bytes}/{total_bytes} {bar:30} {eta}") {
        bar.set_style(style);
    }
    let shown = Mutex::new(String::new());
    Arc::new(move |progress: Progress| {
        let message = format!("{} {} {}", progress.model, progress.stage, progress.file);
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        if *shown != message {
            bar.set_message(message.clone());
            *shown = message;
        }
        bar.set_length(progress.total_bytes.unwrap_or(progress.done_bytes));
        bar.set_position(progress.done_bytes);
    })
}
