//! The composition root: the only file where settings, models on disk, engines and the database meet.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, anyhow};
use futures::future::FutureExt;

use crate::catalog::{Catalog, Choice, HubOptions, Kind};
use crate::config::{self, Config};
use crate::engine::EngineError;
use crate::engine::chat::ChatEngine;
use crate::engine::device::{self, DeviceChoice};
use crate::engine::embedding::{BertEngine, LazyEmbedder};
use crate::engine::memory::MemoryLedger;
use crate::engine::precedence::Precedence;
use crate::engine::speech::KokoroEngine;
use crate::engine::stt::WhisperEngine;
use crate::engine::vad::SileroVad;
use crate::provider::limit::LimitedSpeech;
use crate::provider::{
    Capability, ChatModel, ModelCard, ProviderError, ProviderReport, ProviderState, Roster, SpeechSynthesizer,
    SpeechToText, TextEmbedder, VoiceActivity,
};
use crate::session::Parts;
use crate::store::Store;

/// Share of the device's free memory that models may take; the rest is for activations that nobody foresaw.
const BUDGET_PERCENT: u64 = 90;

/// Where `EMBEDDING_MODEL` names none.
const EMBEDDING_MODEL: &str = "all-minilm-l6-v2";

/// What every command starts from: settings, and which models they mean.
pub struct App {
    pub config: Config,
    pub catalog: Catalog,
    /// The profile, and why this one.
    pub choice: Choice,
    pub device: DeviceChoice,
    ledger: MemoryLedger,
    precedence: Precedence,
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
        Ok(Self { config, catalog, choice, device, ledger, precedence: Precedence::default() })
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

    /// The catalog's models in use.
    pub fn models(&self) -> Vec<&str> {
        let names = [self.stt_model(), self.llm_model(), self.tts_model(), self.vad_model()];
        names.into_iter().filter(|name| !is_path(name)).collect()
    }

    /// The models in use that are not on disk, or not whole, with the reason.
    pub fn missing_models(&self) -> Vec<(String, String)> {
        let names = [self.stt_model(), self.llm_model(), self.tts_model(), self.vad_model()];
        let check = |name: &str| self.weights(name).err().map(|error| (name.to_owned(), format!("{error:#}")));
        names.into_iter().filter_map(check).collect()
    }

    pub async fn speech_to_text(&self) -> anyhow::Result<Arc<dyn SpeechToText>> {
        self.require(Kind::SpeechToText, self.stt_model(), "STT_MODEL")?;
        let folder = self.catalog.locate(self.stt_model())?;
        // It is asked about doubtful text only.
        let voice_activity = Some(self.voice_activity()?);
        let precedence = self.precedence.clone();
        let load = move |name: &str, device, book: &Book| {
            let device = device::open(device)?;
            let (weights, working) = WhisperEngine::memory_estimate(&folder, &device)?;
            book.enter(name, weights + working, || {
                WhisperEngine::load(name, &folder, &device, voice_activity, precedence)
            })
        };
        Ok(Arc::new(self.load(self.stt_model(), load).await?))
    }

    pub async fn chat_model(&self) -> anyhow::Result<Arc<dyn ChatModel>> {
        if !is_path(self.llm_model()) {
            self.require(Kind::Chat, self.llm_model(), "LLM_MODEL")?;
        }
        let file = self.weights(self.llm_model())?;
        let precedence = self.precedence.clone();
        let load = move |name: &str, device, book: &Book| {
            let bytes = ChatEngine::memory_estimate(&file, device)?;
            book.enter(name, bytes, || ChatEngine::load(name, &file, device, precedence))
        };
        Ok(Arc::new(self.load(self.llm_model(), load).await?))
    }

    /// Bounded by `MAX_CONCURRENT_TTS`.
    pub async fn speech_synthesizer(&self) -> anyhow::Result<Arc<dyn SpeechSynthesizer>> {
        self.require(Kind::Speech, self.tts_model(), "TTS_MODEL")?;
        let folder = self.catalog.locate(self.tts_model())?;
        let precedence = self.precedence.clone();
        let load = move |name: &str, device, book: &Book| {
            let bytes = KokoroEngine::memory_estimate(&folder)?;
            book.enter(name, bytes, || KokoroEngine::load(name, &folder, &device::open(device)?, precedence))
        };
        let engine = self.load(self.tts_model(), load).await?;
        Ok(Arc::new(LimitedSpeech::new(Arc::new(engine), self.tts_model(), self.config.max_concurrent_tts)))
    }

    pub fn voice_activity(&self) -> anyhow::Result<Arc<dyn VoiceActivity>> {
        let loaded = SileroVad::load(&self.catalog.locate(self.vad_model())?);
        Ok(Arc::new(loaded.map_err(|error| with_remedy(self.vad_model(), error))?))
    }

    pub fn embedding_model(&self) -> &str {
        self.config.embedding_model.as_deref().unwrap_or(EMBEDDING_MODEL)
    }

    /// Loaded when it is first asked: few conversations need it.
    pub fn embedder(&self) -> Arc<dyn TextEmbedder> {
        let source = EmbeddingSource {
            name: self.embedding_model().to_owned(),
            catalog: self.catalog.clone(),
            device: self.device,
            ledger: self.ledger.clone(),
            precedence: self.precedence.clone(),
        };
        Arc::new(LazyEmbedder::new(Arc::new(move || source.clone().load().boxed())))
    }

    /// The loaded models.
    pub fn roster(&self) -> Arc<dyn Roster> {
        let named = |capability, name: &str| (capability, name.to_owned());
        Arc::new(Loaded(vec![
            named(Capability::Transcription, self.stt_model()),
            named(Capability::Chat, self.llm_model()),
            named(Capability::Speech, self.tts_model()),
        ]))
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

    /// A setting may name a model of another kind.
    fn require(&self, kind: Kind, name: &str, setting: &str) -> anyhow::Result<()> {
        let found = self.catalog.manifest(name)?.kind;
        anyhow::ensure!(
            found == kind,
            "{setting}={name}: that is a {found:?} model, not {kind:?}; see `aichat models`"
        );
        Ok(())
    }

    /// Loads a model off the async threads. Each one opens the device for itself: candle's CUDA device must not be
    /// shared between model threads.
    async fn load<E: Send + 'static>(
        &self,
        name: &str,
        load: impl FnOnce(&str, DeviceChoice, &Book) -> Result<E, EngineError> + Send + 'static,
    ) -> anyhow::Result<E> {
        let started = Instant::now();
        let book = Book { ledger: self.ledger.clone(), device: self.device };
        let (model, device) = (name.to_owned(), self.device);
        let loading = tokio::task::spawn_blocking(move || load(&model, device, &book));
        let loaded = loading.await.with_context(|| format!("loading {name}"))?;
        let engine = loaded.map_err(|error| with_remedy(name, error))?;
        tracing::info!(model = name, %device, seconds = started.elapsed().as_secs_f64(), "loaded");
        Ok(engine)
    }
}

/// What is loaded here.
struct Loaded(Vec<(Capability, String)>);

impl Roster for Loaded {
    fn models(&self) -> Vec<ModelCard> {
        let card = |(capability, name): &(Capability, String)| ModelCard {
            name: name.clone(),
            capability: *capability,
            provider: "local".into(),
        };
        self.0.iter().map(card).collect()
    }

    fn providers(&self) -> Vec<ProviderReport> {
        let report = |(capability, name): &(Capability, String)| ProviderReport {
            capability: *capability,
            name: name.clone(),
            remote: false,
            state: ProviderState::Ready,
        };
        self.0.iter().map(report).collect()
    }
}

/// All that loading the embedding model later takes.
#[derive(Clone)]
struct EmbeddingSource {
    name: String,
    catalog: Catalog,
    device: DeviceChoice,
    ledger: MemoryLedger,
    precedence: Precedence,
}

impl EmbeddingSource {
    async fn load(self) -> Result<Arc<dyn TextEmbedder>, ProviderError> {
        let Self { name, catalog, device, ledger, precedence } = self;
        let unavailable = |remedy: String| ProviderError::Unavailable { what: name.clone(), remedy };
        if catalog.manifest(&name).is_ok_and(|manifest| manifest.kind != Kind::Embedding) {
            return Err(unavailable(format!("it embeds no text; set EMBEDDING_MODEL={EMBEDDING_MODEL}")));
        }
        let folder = catalog.locate(&name).map_err(|_| unavailable(format!("fetch it with `aichat pull {name}`")))?;
        let model = name.clone();
        let loading = tokio::task::spawn_blocking(move || {
            let bytes = BertEngine::memory_estimate(&folder)?;
            let book = Book { ledger, device };
            book.enter(&model, bytes, || BertEngine::load(&model, &folder, &device::open(device)?, precedence))
        });
        let loaded = loading.await.map_err(|_| ProviderError::Failed { what: name.clone() })?;
        let engine = loaded.map_err(|error| {
            let error = with_remedy(&name, error);
            tracing::error!(model = name, error = format!("{error:#}"), "not loaded");
            unavailable("it could not be loaded; the server's log says why".to_owned())
        })?;
        tracing::info!(model = name, %device, "loaded");
        Ok(Arc::new(engine))
    }
}

/// The ledger's page of one device.
struct Book {
    ledger: MemoryLedger,
    device: DeviceChoice,
}

impl Book {
    /// Refuses what does not fit before it is loaded. A loaded model stays, and its memory with it, until the process
    /// ends.
    fn enter<E>(
        &self,
        model: &str,
        bytes: u64,
        load: impl FnOnce() -> Result<E, EngineError>,
    ) -> Result<E, EngineError> {
        let reserved = self.ledger.reserve(&self.device.to_string(), model, bytes)?;
        let engine = load()?;
        reserved.keep();
        Ok(engine)
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

/// Says what mends a model's broken file.
fn with_remedy(name: &str, error: EngineError) -> anyhow::Error {
    match error {
        EngineError::BadFile { .. } if is_path(name) => {
            anyhow!("{error}; fetch the file again, or set LLM_MODEL to another")
        }
        EngineError::BadFile { .. } => anyhow!("{error}; mend it with `aichat pull {name} --force`"),
        error => error.into(),
    }
}

/// Model names hold no slash and do not end in .gguf.
fn is_path(name: &str) -> bool {
    name.contains('/') || std::path::Path::new(name).extension().is_some_and(|extension| extension == "gguf")
}
