//! The commands, one file each: parse, call the app, print.

mod backup;
mod chat;
mod doctor;
mod keys;
mod models;
mod output;
mod pull;
mod serve;
mod sound;
mod speak;
mod talk;
mod transcribe;

use clap::{Parser, Subcommand};

use crate::app;
use crate::config::{Config, Flags};
use crate::telemetry::{self, LogFormat};

/// A private, real-time voice-chat server: Whisper hears, a language model answers, Kokoro speaks.
#[derive(Parser, Debug)]
#[command(version, about, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    flags: Flags,
    /// What to log, as `info` or `aichat=debug` [default: info for serve, warn otherwise]
    #[arg(long, env = "LOG", global = true, hide_env_values = true)]
    log: Option<String>,
    /// How to log
    #[arg(long, env = "LOG_FORMAT", global = true, hide_env_values = true, value_enum, default_value_t)]
    log_format: LogFormat,
}

#[derive(Subcommand, Debug)]
enum Command {
    Serve(serve::Serve),
    Pull(pull::Pull),
    Models(models::Models),
    Transcribe(transcribe::Transcribe),
    Speak(speak::Speak),
    Chat(chat::Chat),
    Talk(talk::Talk),
    Keys(keys::Keys),
    Doctor(doctor::Doctor),
    Backup(backup::Backup),
    Restore(backup::Restore),
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// Whatever went wrong, in words for the person at the terminal.
    pub async fn run(self) -> anyhow::Result<()> {
        // What a decoder thinks of a file, and the hub's client of its network, is told by our own error.
        let usual = if matches!(self.command, Command::Serve(_)) {
            "info"
        } else {
            "warn,symphonia=off,symphonia_core=off,hf_hub=off"
        };
        telemetry::logs(self.log.as_deref().unwrap_or(usual), self.log_format)?;
        let config = self.config().await?;
        match self.command {
            Command::Serve(command) => command.run(config).await,
            Command::Pull(command) => command.run(config).await,
            Command::Models(command) => command.run(&config),
            Command::Transcribe(command) => command.run(config).await,
            Command::Speak(command) => command.run(config).await,
            Command::Chat(command) => command.run(config).await,
            Command::Talk(command) => command.run(config).await,
            Command::Keys(command) => command.run(&config).await,
            Command::Doctor(command) => command.run(config).await,
            Command::Backup(command) => command.run(config).await,
            Command::Restore(command) => command.run(config).await,
        }
    }

    /// The settings, or all that is wrong with them, a line each.
    async fn config(&self) -> anyhow::Result<Config> {
        let (config, wrong) = Config::read(&self.flags);
        let mut lines: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        if matches!(self.command, Command::Serve(_)) {
            lines.extend(keys::listening_fault(&config, &wrong).await.map(|error| error.to_string()));
        }
        let needs_models = !matches!(
            self.command,
            Command::Models(_) | Command::Pull(_) | Command::Keys(_) | Command::Backup(_) | Command::Restore(_)
        );
        if needs_models {
            lines.extend(app::faults(&config, &wrong));
        }
        match lines.as_slice() {
            [] => Ok(config),
            [only] => anyhow::bail!("{only}"),
            several => anyhow::bail!("{} settings are wrong:\n{}", several.len(), several.join("\n")),
        }
    }
}
