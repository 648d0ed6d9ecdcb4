//! Models from disk into memory.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use tokio::time::timeout;

use super::name::ModelName;
use super::recorded;
use crate::catalog::{Catalog, CatalogError, Kind};
use crate::engine::EngineError;
use crate::engine::chat::ChatEngine;
use crate::engine::device::{self, DeviceChoice};
use crate::engine::embedding::BertEngine;
use crate::engine::loudness::Loudness;
use crate::engine::memory::{MemoryLedger, Reservation};
use crate::engine::precedence::Precedence;
use crate::engine::speech::KokoroEngine;
use crate::engine::speech::higgs::{HiggsChoice, HiggsEngine, HiggsOptions};
use crate::engine::stt::WhisperEngine;
use crate::engine::vad::SileroVad;
use crate::engine::worker::{Ended, Resident};
use crate::provider::limit::LimitedSpeech;
use crate::provider::{ChatModel, SpeechSynthesizer, SpeechToText, TextEmbedder, VoiceActivity};

/// Loads models on one device, as far as they fit. Clones share its books.
#[derive(Clone)]
pub(super) struct Loader {
    pub(super) catalog: Catalog,
    pub(super) device: DeviceChoice,
    pub(super) ledger: MemoryLedger,
    pub(super) precedence: Precedence,
    /// The voice activity model's name.
    pub(super) voice_activity: String,
    /// Sentences generated at once.
    pub(super) speech_permits: usize,
    /// Where models are that stand elsewhere than the others.
    pub(super) folders: BTreeMap<&'static str, PathBuf>,
    /// A model that nobody has used for so long is unloaded. None: never.
    pub(super) idle: Option<Duration>,
    /// How Higgs was laid out when it was first loaded.
    pub(super) laid_out: Arc<OnceLock<HiggsOptions>>,
    /// Threads of the models that were loaded, by name.
    pub(super) residents: Arc<Mutex<BTreeMap<String, Ended>>>,
}

/// A model that was unloaded is waited for so long, until it has given its memory back. It takes milliseconds.
const LONGEST_FAREWELL: Duration = Duration::from_secs(30);

impl Loader {
    /// What a name stands for: of the catalog, `base.en` is `whisper-base.en`.
    pub(super) fn resolve(&self, text: &str) -> ModelName {
        match ModelName::parse(text) {
            ModelName::Local(name) if self.catalog.manifest(&name).is_err() => {
                let whisper = format!("whisper-{name}");
                ModelName::Local(if self.catalog.manifest(&whisper).is_ok() { whisper } else { name })
            }
            name => name,
        }
    }

    /// The file with a local model's weights, whole.
    pub(super) fn weights(&self, name: &ModelName) -> anyhow::Result<PathBuf> {
        match name {
            ModelName::Local(name) => {
                // The model's own first: whoever fetches it fetches its companion, too.
                let weights = match self.folders.get(name.as_str()) {
                    Some(folder) => folder.clone(),
                    None => self.catalog.weights(name)?,
                };
                if let Some(companion) = &self.catalog.manifest(name)?.companion
                    && !self.folders.contains_key(companion.as_str())
                {
                    self.catalog.weights(companion)?;
                }
                Ok(weights)
            }
            ModelName::File(path) if path.is_file() => Ok(path.clone()),
            ModelName::File(path) => Err(anyhow!("the model file {} is not there", path.display())),
            ModelName::Remote(..) => Err(anyhow!("{name} runs elsewhere")),
        }
    }

    /// The folder of a model of this kind.
    fn folder(&self, kind: Kind, name: &ModelName) -> anyhow::Result<PathBuf> {
        let ModelName::Local(name) = name else { return Err(anyhow!("{name} is no {kind:?} model of ours")) };
        anyhow::ensure!(self.catalog.manifest(name)?.kind == kind, "{name} is no {kind:?} model");
        self.place(name)
    }

    fn place(&self, name: &str) -> anyhow::Result<PathBuf> {
        match self.folders.get(name) {
            Some(folder) => Ok(folder.clone()),
            None => Ok(self.catalog.locate(name)?),
        }
    }

    /// The folder of the model without which `name` does nothing.
    fn companion(&self, name: &ModelName) -> anyhow::Result<Option<PathBuf>> {
        let ModelName::Local(name) = name else { return Ok(None) };
        let companion = self.catalog.manifest(name)?.companion.clone();
        companion.map(|name| self.place(&name)).transpose()
    }

    /// Bytes that a local model takes of the device: as its files say, or where they are not here, roughly.
    pub(super) fn need(&self, name: &ModelName) -> anyhow::Result<u64> {
        let kind = match name {
            ModelName::Local(name) => self.catalog.manifest(name)?.kind,
            ModelName::File(_) => Kind::Chat,
            ModelName::Remote(..) => return Ok(0),
        };
        let of_files = || match kind {
            Kind::SpeechToText => {
                let (weights, working) =
                    WhisperEngine::memory_estimate(&self.folder(kind, name)?, &device::open(self.device)?)?;
                Ok(weights + working)
            }
            Kind::Chat => Ok(ChatEngine::memory_estimate(&self.weights(name)?, self.device)?),
            Kind::Embedding => Ok(BertEngine::memory_estimate(&self.folder(kind, name)?)?),
            Kind::Speech | Kind::SpeechCodec | Kind::VoiceActivity => Err(anyhow!("{name} is not measured")),
        };
        of_files().or_else(|error| match name {
            ModelName::Local(name) => Ok(self.catalog.manifest(name)?.memory_mb * 1_000_000),
            ModelName::File(_) | ModelName::Remote(..) => Err(error),
        })
    }

    pub(super) async fn hearing(&self, name: &ModelName) -> anyhow::Result<Arc<dyn SpeechToText>> {
        let folder = self.folder(Kind::SpeechToText, name)?;
        // It is asked about doubtful text only.
        let voice_activity = self.silero()?;
        let precedence = self.precedence.clone();
        let load = move |name: &str, device, book: &Book| {
            let device = device::open(device)?;
            let (weights, working) = WhisperEngine::memory_estimate(&folder, &device)?;
            book.enter(name, weights + working, || {
                WhisperEngine::load(name, &folder, &device, voice_activity, precedence)
            })
        };
        Ok(Arc::new(self.load(name, load).await?))
    }

    pub(super) async fn thinking(&self, name: &ModelName) -> anyhow::Result<Arc<dyn ChatModel>> {
        let file = self.weights(name)?;
        let precedence = self.precedence.clone();
        let load = move |name: &str, device, book: &Book| {
            let bytes = ChatEngine::memory_estimate(&file, device)?;
            book.enter(name, bytes, || ChatEngine::load(name, &file, device, precedence))
        };
        Ok(Arc::new(self.load(name, load).await?))
    }

    /// Bounded by `MAX_CONCURRENT_TTS`, and where memory is short by the voices that there is memory for.
    pub(super) async fn speech(&self, name: &ModelName) -> anyhow::Result<Arc<dyn SpeechSynthesizer>> {
        let folder = self.folder(Kind::Speech, name)?;
        let precedence = self.precedence.clone();
        if let Some(codec) = self.companion(name)? {
            let engine = self.higgs(name, folder, codec).await?;
            let permits = engine.slots();
            return Ok(Arc::new(LimitedSpeech::new(engine, &name.to_string(), permits)));
        }
        let load = move |name: &str, device, book: &Book| {
            let bytes = KokoroEngine::memory_estimate(&folder)?;
            book.enter(name, bytes, || KokoroEngine::load(name, &folder, &device::open(device)?, precedence))
        };
        let engine = Arc::new(self.load(name, load).await?);
        let limited = LimitedSpeech::new(engine, &name.to_string(), self.speech_permits);
        Ok(Arc::new(limited))
    }

    /// As well laid out as there is memory for, with the voices in the model's folder.
    async fn higgs(&self, name: &ModelName, model: PathBuf, codec: PathBuf) -> anyhow::Result<Arc<HiggsEngine>> {
        let precedence = self.precedence.clone();
        let (wanted, laid_out) = (self.speech_permits, Arc::clone(&self.laid_out));
        let load = move |name: &str, device: DeviceChoice, book: &Book| {
            // Others may need what it gave back when it was unloaded: it comes again as it was.
            let before = laid_out.get();
            let choices = HiggsChoice::all(&model, &codec, device, wanted)?.into_iter();
            let mut refusal = None;
            for HiggsChoice { options, bytes } in
                choices.skip_while(|choice| before.is_some_and(|before| choice.options != *before))
            {
                let precedence = precedence.clone();
                let loaded =
                    book.enter(name, bytes, || HiggsEngine::load(name, &model, &codec, device, options, precedence));
                match loaded {
                    Err(error @ EngineError::DoesNotFit { .. }) => refusal = Some(error),
                    Err(error) => return Err(error),
                    Ok(loaded) => {
                        recorded::enrol(&loaded.engine, &model.join("voices"));
                        tracing::info!(model = name, layout = %options, wanted_at_once = wanted, "laid out");
                        laid_out.get_or_init(|| options);
                        return Ok(loaded);
                    }
                }
            }
            Err(refusal.unwrap_or_else(|| EngineError::Device {
                device: device.to_string(),
                reason: "there is no layout to load".to_owned(),
            }))
        };
        Ok(Arc::new(self.load(name, load).await?))
    }

    pub(super) async fn embedding(&self, name: &ModelName) -> anyhow::Result<Arc<dyn TextEmbedder>> {
        let folder = self.folder(Kind::Embedding, name)?;
        let precedence = self.precedence.clone();
        let load = move |name: &str, device, book: &Book| {
            let bytes = BertEngine::memory_estimate(&folder)?;
            book.enter(name, bytes, || BertEngine::load(name, &folder, &device::open(device)?, precedence))
        };
        Ok(Arc::new(self.load(name, load).await?))
    }

    /// Silero, or where it is not on disk, loudness: worse among noises, but a server without a model hears too.
    pub(super) fn voice_activity(&self) -> anyhow::Result<Arc<dyn VoiceActivity>> {
        Ok(self.silero()?.unwrap_or_else(|| {
            let remedy = format!("fetch it with `aichat pull {}`", self.voice_activity);
            tracing::warn!(
                model = self.voice_activity,
                remedy,
                "not here: the ends of utterances are judged by loudness"
            );
            Arc::new(Loudness)
        }))
    }

    fn silero(&self) -> anyhow::Result<Option<Arc<dyn VoiceActivity>>> {
        let name = ModelName::Local(self.voice_activity.clone());
        match self.catalog.locate(&self.voice_activity) {
            Ok(folder) => {
                let loaded = SileroVad::load(&folder).map_err(|error| with_remedy(&name, error))?;
                Ok(Some(Arc::new(loaded)))
            }
            Err(CatalogError::Missing { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Loads a model off the async threads. Each one opens the device for itself: candle's CUDA device must not be
    /// shared between model threads. Its memory is booked until its threads have ended.
    async fn load<E: Resident + Send + 'static>(
        &self,
        name: &ModelName,
        load: impl FnOnce(&str, DeviceChoice, &Book) -> Result<Loaded<E>, EngineError> + Send + 'static,
    ) -> anyhow::Result<E> {
        let started = Instant::now();
        let before = self.residents().remove(&name.to_string());
        if let Some(before) = before
            && timeout(LONGEST_FAREWELL, before.wait()).await.is_err()
        {
            tracing::warn!(model = %name, "still in memory although it was unloaded");
        }
        let book = Book { ledger: self.ledger.clone(), device: self.device };
        let (model, device) = (name.to_string(), self.device);
        let loading = tokio::task::spawn_blocking(move || load(&model, device, &book));
        let loaded = loading.await.with_context(|| format!("loading {name}"))?;
        let Loaded { engine, booked } = loaded.map_err(|error| with_remedy(name, error))?;
        let ended = engine.ended();
        self.residents().insert(name.to_string(), ended.clone());
        tokio::spawn(async move {
            ended.wait().await;
            let given_back = tokio::task::spawn_blocking(move || device::give_back(device)).await;
            if let Ok(Err(error)) = given_back {
                tracing::warn!(%error, "memory stays with this process");
            }
            drop(booked);
        });
        tracing::info!(model = %name, %device, seconds = started.elapsed().as_secs_f64(), "loaded");
        Ok(engine)
    }

    fn residents(&self) -> MutexGuard<'_, BTreeMap<String, Ended>> {
        // Inserted and removed whole.
        self.residents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ledger's page of one device.
struct Book {
    ledger: MemoryLedger,
    device: DeviceChoice,
}

/// A model, and its line in the ledger.
struct Loaded<E> {
    engine: E,
    booked: Reservation,
}

impl Book {
    /// Refuses what does not fit before it is loaded.
    fn enter<E>(
        &self,
        model: &str,
        bytes: u64,
        load: impl FnOnce() -> Result<E, EngineError>,
    ) -> Result<Loaded<E>, EngineError> {
        let booked = self.ledger.reserve(&self.device.to_string(), model, bytes)?;
        Ok(Loaded { engine: load()?, booked })
    }
}

/// Says what mends a model's broken file.
fn with_remedy(name: &ModelName, error: EngineError) -> anyhow::Error {
    match (error, name) {
        (error @ EngineError::BadFile { .. }, ModelName::Local(name)) => {
            anyhow!("{error}; mend it with `aichat pull {name} --force`")
        }
        (error @ EngineError::BadFile { .. }, _) => {
            anyhow!("{error}; fetch the file again, or set LLM_MODEL to another")
        }
        (error, _) => error.into(),
    }
}
