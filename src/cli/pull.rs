//! `aichat pull NAME`: models onto the disk.

use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::output;
use crate::app;
use crate::catalog::{Progress, ProgressSink};
use crate::config::Config;

/// Fetch models, or all models of a profile
#[derive(Args, Debug)]
#[command(after_help = "Examples: aichat pull starter; aichat pull whisper-large-v3-turbo kokoro-82m")]
pub(super) struct Pull {
    /// Models or profiles, as `aichat models` lists them
    #[arg(required = true)]
    names: Vec<String>,
    /// Check every byte of what is here already
    #[arg(long)]
    verify: bool,
}

impl Pull {
    pub(super) async fn run(self, config: Config) -> anyhow::Result<()> {
        let catalog = app::catalog(&config)?;
        let mut models = Vec::new();
        for name in &self.names {
            models.extend(catalog.models_named(name)?.into_iter().map(|manifest| manifest.name.clone()));
        }
        for name in models {
            let here = if self.verify { catalog.verify(&name) } else { catalog.locate(&name) };
            let folder = match here {
                Ok(folder) => folder,
                Err(_) => catalog.pull(&name, bar()).await?,
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
