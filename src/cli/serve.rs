//! `aichat serve`: the server.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};

use super::output;
use crate::api::{self, Access, ApiKey, Limits, PartReport, PartState, State};
use crate::app::App;
use crate::config::Config;
use crate::provider::{Capability, ProviderState, Roster};
use crate::session::settings::Settings;
use crate::telemetry;

/// Serve voice chat over WebSocket
#[derive(Args, Debug)]
#[command(after_help = "Example: aichat serve --port 9000 --llm-model qwen3-4b")]
pub(super) struct Serve {}

impl Serve {
    pub(super) async fn run(self, config: Config) -> anyhow::Result<()> {
        let started = Instant::now();
        let metrics = telemetry::metrics()?;
        api::describe_metrics();
        tell_unused(&config);
        let mut app = App::new(config)?;
        tracing::info!(device = %app.device, reason = app.choice.reason, "profile");
        // Before the models, which take seconds: a port that is taken is told at once.
        let listener = TcpListener::bind(app.config.listen)
            .await
            .with_context(|| format!("listening on {}", app.config.listen))?;
        let address = listener.local_addr()?;
        let store = app.store().await?;
        let ledger = app.keep_books(&store).await?;
        let parts = app.parts(&store).await?;
        let roster = app.roster();
        tell_chains(&*roster);
        let (_engines, reports) = watch::channel(part_reports(&*roster, &app));
        let state = State {
            parts,
            embedder: app.embedder(),
            roster,
            ledger,
            data_dir: app.config.data_dir.clone(),
            store: store.clone(),
            recordings: Arc::new(AtomicBool::new(app.config.recordings.unwrap_or_default())),
            engines: reports,
            metrics: Arc::new(move || metrics.render()),
            settings: Settings::default(),
            access: Access {
                api_key: app.config.api_key.as_ref().map(|key| ApiKey::new(key.expose_secret())),
                allowed_origins: app.config.allowed_origins.clone(),
            },
            limits: Limits::default(),
        };
        tracing::info!(seconds = started.elapsed().as_secs_f64(), "ready");
        output::line(&format!("aichat listens on http://{address} (ws://{address}/ws)"))?;
        let mut stop = StopSignals::new()?;
        let (told, stopping) = oneshot::channel::<()>();
        // A server that is told to stop a second time does not wait for what is under way.
        let stopped = async { stopping.await.unwrap_or_default() };
        tokio::select! {
            () = api::serve(listener, state, stopped) => {}
            () = async {
                stop.next().await;
                let _ = told.send(());
                stop.next().await;
            } => {
                tracing::warn!("told to stop twice; ending at once");
                std::process::exit(1);
            }
        }
        store.checkpoint().await?;
        tracing::info!("ended");
        Ok(())
    }
}

/// Settings that change nothing.
fn tell_unused(config: &Config) {
    if !config.unknown.is_empty() {
        tracing::info!(names = config.unknown.join(", "), "settings in .env that aichat does not know are ignored");
    }
    if config.higgs.is_named && config.tts.first.is_none() {
        tracing::info!(
            "HIGGS_MODEL_PATH names the hub's model and chooses nothing: `aichat pull higgs-audio-v2` and \
             TTS_MODEL=higgs-audio-v2 make it speak; a folder in its place does, too"
        );
    }
}

fn tell_chains(roster: &dyn Roster) {
    // What is missing was told where it was missed.
    for provider in roster.providers().iter().filter(|it| !matches!(it.state, ProviderState::Missing { .. })) {
        let capability = provider.capability.as_str();
        tracing::info!(capability, name = provider.name, remote = provider.remote, "serves");
    }
}

/// Who does what. Everything is loaded and checked before the server answers.
fn part_reports(roster: &dyn Roster, app: &App) -> Vec<PartReport> {
    let providers = roster.providers();
    let serves = |capability| {
        let mut chain = providers.iter().filter(|provider| provider.capability == capability);
        let first = chain.find(|provider| !matches!(provider.state, ProviderState::Missing { .. }));
        first.map(|provider| provider.name.clone()).unwrap_or_default()
    };
    let parts = [
        ("stt", serves(Capability::Transcription)),
        ("llm", serves(Capability::Chat)),
        ("tts", serves(Capability::Speech)),
        ("vad", app.vad_model().to_owned()),
    ];
    parts.map(|(part, name)| PartReport { part: part.into(), name, state: PartState::Ready }).to_vec()
}

/// SIGTERM and SIGINT.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
