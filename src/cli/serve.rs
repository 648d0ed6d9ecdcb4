//! `aichat serve`: the server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::Context;
use clap::{Args, ValueEnum};
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};

use super::output;
use crate::api::{self, Access, ApiKey, Defaults, Limits, MODEL_SETTINGS, PartReport, PartState, Saved, State, Tls};
use crate::app::{App, tenancy};
use crate::config::{Config, SocketLimits};
use crate::provider::{Capability, ProviderState, Roster};
use crate::session::Bounds;
use crate::session::settings::Settings;
use crate::telemetry;

/// What nobody guesses by asking.
const LEAST_KEY_BYTES: usize = 16;

/// Serve voice chat over WebSocket
#[derive(Args, Debug)]
#[command(after_help = "Examples: aichat serve --port 9000 --llm-model qwen3-4b; \
                        aichat serve --host 0.0.0.0 --tls self-signed")]
pub(super) struct Serve {
    /// Speak TLS with a certificate that the server makes itself and keeps in DATA_DIR/tls, instead of TLS_CERT's
    #[arg(long, value_enum)]
    tls: Option<OwnTls>,
}

/// Certificates that need no files.
#[derive(ValueEnum, Clone, Copy, Debug)]
enum OwnTls {
    SelfSigned,
}

impl Serve {
    pub(super) async fn run(self, config: Config) -> anyhow::Result<()> {
        let started = Instant::now();
        let metrics = telemetry::metrics()?;
        api::describe_metrics();
        tell_unused(&config);
        tell_weak(&config);
        let tls = self.tls(&config)?;
        let mut app = App::new(config)?;
        tracing::info!(device = %app.device, reason = app.choice.reason, "profile");
        // Before the models, which take seconds: a port that is taken is told at once.
        let listener = TcpListener::bind(app.config.listen)
            .await
            .with_context(|| format!("listening on {}", app.config.listen))?;
        let address = listener.local_addr()?;
        let _tenancy = tenancy::move_in(&app.config.data_dir);
        let store = app.store().await?;
        let ledger = app.keep_books(&store).await?;
        let saved = Saved::read(store.settings().await?);
        let models = choose_saved(&mut app, &saved);
        let parts = app.parts(&store).await?;
        let locked = MODEL_SETTINGS.iter().filter(|(_, capability)| app.is_fixed(*capability)).map(|(name, _)| *name);
        let settings = Defaults::new(Settings::default(), app.model_shelf()?, models, locked.collect());
        settings.put(saved)?;
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
            settings,
            access: Access {
                api_key: app.config.api_key.as_ref().map(|key| ApiKey::new(key.expose_secret())),
                allowed_origins: app.config.allowed_origins.clone(),
                allowed_hosts: app.config.allowed_hosts.clone(),
                rate_limit_per_minute: app.config.rate_limit_per_minute,
            },
            tls: tls.clone(),
            limits: limits_of(&app.config.limits),
        };
        tracing::info!(seconds = started.elapsed().as_secs_f64(), "ready");
        let secure = if tls.is_some() { "s" } else { "" };
        output::line(&format!("aichat listens on http{secure}://{address} (ws{secure}://{address}/ws)"))?;
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

fn limits_of(limits: &SocketLimits) -> Limits {
    Limits {
        sessions: limits.sessions,
        queue: limits.queue,
        sessions_per_key: limits.sessions_per_key,
        message_bytes: limits.message_bytes,
        microphone_speed: limits.microphone_speed,
        microphone_burst: limits.microphone_burst,
        bounds: Bounds { utterance: limits.utterance, outbound: limits.outbound_frames },
        ping_every: limits.ping_every,
        silent_after: limits.silent_after,
        grace: limits.grace,
        ..Limits::default()
    }
}

impl Serve {
    fn tls(&self, config: &Config) -> anyhow::Result<Option<Tls>> {
        if self.tls.is_some() {
            let names = api::own_names(config.listen.ip(), &config.allowed_hosts);
            let tls = Tls::self_signed(&config.data_dir.join("tls"), names)?;
            tracing::info!(sha256 = tls.fingerprint(), "the certificate is our own; browsers ask before they trust it");
            return Ok(Some(tls));
        }
        let (Some(certificate), Some(key)) = (&config.tls.certificate, &config.tls.key) else { return Ok(None) };
        Ok(Some(Tls::from_files(certificate, key)?))
    }
}

/// Has saved models loaded in the place of the settings' own. Answers those, by the names of their settings.
fn choose_saved(app: &mut App, saved: &Saved) -> BTreeMap<&'static str, String> {
    let mut own = BTreeMap::new();
    for (setting, capability) in MODEL_SETTINGS {
        let first = app.chain(capability).first().map(ToString::to_string).unwrap_or_default();
        own.insert(setting, first);
        if let Some(name) = saved.model(capability)
            && let Err(reason) = app.choose(capability, name)
        {
            tracing::warn!(setting, reason, "a saved model cannot be asked; going on without it");
        }
    }
    own
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

/// A key that others can guess.
fn tell_weak(config: &Config) {
    let length = config.api_key.as_ref().map(|key| key.expose_secret().len());
    if !config.listen.ip().is_loopback() && length.is_some_and(|length| length < LEAST_KEY_BYTES) {
        tracing::warn!("AICHAT_API_KEY is short enough to be guessed; `openssl rand -hex 32` makes a better one");
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

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
