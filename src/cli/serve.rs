//! `aichat serve`: the server.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};

use super::output;
use crate::api::{self, Access, ApiKey, Limits, PartReport, PartState, State};
use crate::app::App;
use crate::config::Config;
use crate::session::settings::Settings;
use crate::store::{Budgets, StoredLedger};
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
        let app = App::new(config)?;
        tracing::info!(device = %app.device, reason = app.choice.reason, "profile");
        // Before the models, which take seconds: a port that is taken is told at once.
        let listener = TcpListener::bind(app.config.listen)
            .await
            .with_context(|| format!("listening on {}", app.config.listen))?;
        let address = listener.local_addr()?;
        let store = app.store().await?;
        let ledger = StoredLedger::new(store.clone(), Budgets::default());
        ledger.recover().await;
        let parts = app.parts(&store).await?;
        let (_engines, reports) = watch::channel(part_reports(&app));
        let state = State {
            parts,
            embedder: app.embedder(),
            roster: app.roster(),
            ledger,
            data_dir: app.config.data_dir.clone(),
            store: store.clone(),
            engines: reports,
            metrics: Arc::new(move || metrics.render()),
            settings: Settings::default(),
            access: Access {
                api_key: app.config.api_key.as_deref().map(ApiKey::new),
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

/// Every engine is loaded and checked before the server answers.
fn part_reports(app: &App) -> Vec<PartReport> {
    let parts =
        [("stt", app.stt_model()), ("llm", app.llm_model()), ("tts", app.tts_model()), ("vad", app.vad_model())];
    let report =
        |(part, name): (&str, &str)| PartReport { part: part.into(), name: name.into(), state: PartState::Ready };
    parts.map(report).to_vec()
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
