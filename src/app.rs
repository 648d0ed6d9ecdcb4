//! The composition root: the only file where settings, models on disk, engines and the database meet.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use candle_core::Device;

use crate::catalog::{Catalog, Choice, HubOptions};
use crate::config::{self, Config};
use crate::engine::EngineError;
use crate::engine::chat::ChatEngine;
use crate::engine::device::{self, DeviceChoice};
use crate::engine::memory::{MemoryLedger, Reservation};
use crate::engine::speech::KokoroEngine;
use crate::engine::stt::WhisperEngine;
use crate::engine::vad::SileroVad;
use crate::provider::limit::LimitedSpeech;
use crate::provider::{ChatModel, SpeechSynthesizer, SpeechToText, VoiceActivity};
use crate::session::Parts;
use crate::store::Store;

/// Share of the device's free memory that models may take; the rest is for activations that nobody foresaw.
const BUDGET_PERCENT: u64 = 90;
/// What a manifest's megabyte is.
const MB: u64 = 1_000_000;

/// What every command starts from: settings, and which models they mean.
pub struct App {
    pub config: Config,
    pub catalog: Catalog,
    /// The profile, and why this one.
    pub choice: Choice,
    pub device: DeviceChoice,
    ledger: MemoryLedger,
}

impl App {
    /// Looks at the device and chooses a profile; loads nothing yet.
    ///
    /// # Errors
    /// A setting that names no device or profile, or a device that does not answer.
    pub fn new(config: Config) -> anyhow::Result<Self> {
        let wanted: DeviceChoice = config::parse("DEVICE", &config.device)?;
        let device = wanted.resolve();
        let free = device::memory(device)?.free;
        let catalog = catalog(&config)?;
        let choice = if config.profile == "auto" {
            catalog.choose_profile(free, device != DeviceChoice::Cpu)?
        } else {
            let profile = catalog.profile(&config.profile)?.clone();
            Choice { reason: format!("{}: as PROFILE says", profile.name), profile }
        };
        let ledger = MemoryLedger::default();
        ledger.set_budget(&device.to_string(), free / 100 * BUDGET_PERCENT);
        Ok(Self { config, catalog, choice, device, ledger })
    }

    pub fn stt_model(&self) -> &str {
        self.config.stt_model.as_deref().unwrap_or(&self.choice.profile.speech_to_text)
    }

    /// A name, or the path of a GGUF file.
    pub fn llm_model(&self) -> &str {
        self.config.llm_model.as_deref().unwrap_or(&self.choice.profile.chat)
    }

    pub fn tts_model(&self) -> &str {
        self.config.tts_model.as_deref().unwrap_or(&self.choice.profile.speech)
    }

    pub fn vad_model(&self) -> &str {
        &self.choice.profile.voice_activity
    }

    /// The models in use that are not on disk, or not whole, with the reason.
    pub fn missing_models(&self) -> Vec<(String, String)> {
        let names = [self.stt_model(), self.llm_model(), self.tts_model(), self.vad_model()];
        let check = |name: &str| self.weights(name).err().map(|error| (name.to_owned(), format!("{error:#}")));
        names.into_iter().filter_map(check).collect()
    }

    pub async fn speech_to_text(&self) -> anyhow::Result<Arc<dyn SpeechToText>> {
        let name = self.stt_model().to_owned();
        let folder = self.catalog.locate(&name)?;
        Ok(Arc::new(self.load(name, move |name, device| WhisperEngine::load(name, &folder, device)).await?))
    }

    pub async fn chat_model(&self) -> anyhow::Result<Arc<dyn ChatModel>> {
        let file = self.weights(self.llm_model())?;
        let name = self.llm_model().to_owned();
        Ok(Arc::new(self.load(name, move |name, device| ChatEngine::load(name, &file, device)).await?))
    }

    /// Bounded by `MAX_CONCURRENT_TTS`.
    pub async fn speech_synthesizer(&self) -> anyhow::Result<Arc<dyn SpeechSynthesizer>> {
        let name = self.tts_model().to_owned();
        let folder = self.catalog.locate(&name)?;
        let engine = self.load(name, move |name, device| KokoroEngine::load(name, &folder, device)).await?;
        Ok(Arc::new(LimitedSpeech::new(Arc::new(engine), self.config.max_concurrent_tts)))
    }

    pub fn voice_activity(&self) -> anyhow::Result<Arc<dyn VoiceActivity>> {
        Ok(Arc::new(SileroVad::load(&self.catalog.locate(self.vad_model())?)?))
    }

    /// The database.
    ///
    /// # Errors
    /// It cannot be opened, or a newer program wrote it.
    pub async fn store(&self) -> anyhow::Result<Store> {
        Ok(Store::open(&self.config.database_url).await?)
    }

    /// All that a session is made of, loaded side by side.
    ///
    /// # Errors
    /// The first model that is missing or cannot be loaded.
    pub async fn parts(&self, store: &Store) -> anyhow::Result<Parts> {
        let vad = self.voice_activity()?;
        let (stt, chat, speech) =
            tokio::try_join!(self.speech_to_text(), self.chat_model(), self.speech_synthesizer())?;
        Ok(Parts { stt, chat, speech, vad, records: Arc::new(store.clone()) })
    }

    /// The file with a model's weights, whole.
    pub fn weights(&self, name: &str) -> anyhow::Result<PathBuf> {
        if is_path(name) {
            let file = PathBuf::from(name);
            anyhow::ensure!(file.is_file(), "the model file {name} is not there");
            return Ok(file);
        }
        Ok(self.catalog.weights(name)?)
    }

    /// Books the model's memory, then loads it off the async threads, on a device of its own: candle's CUDA device must
    /// not be shared between model threads.
    async fn load<E: Send + 'static>(
        &self,
        name: String,
        load: impl FnOnce(&str, &Device) -> Result<E, EngineError> + Send + 'static,
    ) -> anyhow::Result<E> {
        let started = Instant::now();
        let choice = self.device;
        let booked = self.book(&name)?;
        let shown = name.clone();
        let loading = tokio::task::spawn_blocking(move || {
            let engine = load(&name, &device::open(choice)?)?;
            // Models stay until the process ends.
            std::mem::forget(booked);
            Ok::<_, EngineError>(engine)
        });
        let engine = loading.await.with_context(|| format!("loading {shown}"))??;
        tracing::info!(model = shown, device = %choice, seconds = started.elapsed().as_secs_f64(), "loaded");
        Ok(engine)
    }

    fn book(&self, name: &str) -> anyhow::Result<Reservation> {
        let bytes = if is_path(name) {
            std::fs::metadata(name).with_context(|| name.to_owned())?.len()
        } else {
            self.catalog.manifest(name)?.memory_mb * MB
        };
        Ok(self.ledger.reserve(&self.device.to_string(), name, bytes)?)
    }
}

/// The catalog of these settings.
///
/// # Errors
/// Never, unless this program was built wrong.
pub fn catalog(config: &Config) -> anyhow::Result<Catalog> {
    let hub = &config.hub;
    let options = HubOptions {
        endpoint: hub.endpoint.clone(),
        token: hub.token.clone(),
        cache: hub.home.as_ref().map(|home| home.join("hub")),
    };
    Ok(Catalog::new(&config.models_dir)?.with_hub(options))
}

/// Model names hold no slash and do not end in .gguf.
fn is_path(name: &str) -> bool {
    name.contains('/') || name.ends_with(".gguf")
}
