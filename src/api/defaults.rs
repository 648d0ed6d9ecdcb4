//! What sessions and requests begin with: the program's own settings, and over them those that were saved while it ran.
//!
//! What is saved takes effect with the next session or request. What a flag or the environment fixes cannot be saved.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::{Mutex, MutexGuard};
use utoipa::ToSchema;

use crate::provider::{Capability, ModelShelf, VoiceNames};
use crate::session::settings::{BadField, Settings, SettingsPatch, VadPatch};

/// Settings of the server that were saved, each as its name has it. Null, or absent: not saved.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = ChangedSettings)]
pub struct Saved {
    #[schema(minimum = 0.0, maximum = 2.0)]
    pub temperature: Option<f32>,
    #[schema(minimum = 0.0, maximum = 1.0)]
    pub top_p: Option<f32>,
    #[schema(minimum = 0, maximum = 1_000_000)]
    pub top_k: Option<u32>,
    #[schema(minimum = 1, maximum = 8192)]
    pub max_tokens: Option<u32>,
    #[schema(minimum = 0.5, maximum = 2.0)]
    pub speed: Option<f32>,
    pub summarize_history: Option<bool>,
    #[schema(minimum = 0.05, maximum = 0.95)]
    pub vad_threshold: Option<f32>,
    #[schema(minimum = 100, maximum = 5000)]
    pub vad_silence_ms: Option<u32>,
    #[schema(minimum = 0, maximum = 2000)]
    pub vad_prefix_ms: Option<u32>,
    /// A model that is here, or of a service that is configured.
    #[schema(min_length = 1, max_length = 200)]
    pub stt_model: Option<String>,
    #[schema(min_length = 1, max_length = 200)]
    pub llm_model: Option<String>,
    #[schema(min_length = 1, max_length = 200)]
    pub tts_model: Option<String>,
    /// A voice of the speech engine.
    #[schema(min_length = 1, max_length = 200)]
    pub voice: Option<String>,
    /// Which voice of the speech engine stands for one of OpenAI's.
    pub openai_voices: Option<OpenAiVoices>,
}

/// A voice for each of OpenAI's. Null, or absent: the speech engine's own choice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OpenAiVoices {
    pub alloy: Option<String>,
    pub echo: Option<String>,
    pub fable: Option<String>,
    pub onyx: Option<String>,
    pub nova: Option<String>,
    pub shimmer: Option<String>,
}

/// The settings that name models.
pub const MODEL_SETTINGS: [(&str, Capability); 3] =
    [("stt_model", Capability::Transcription), ("llm_model", Capability::Chat), ("tts_model", Capability::Speech)];

impl OpenAiVoices {
    pub(super) fn named(&self) -> BTreeMap<String, String> {
        let Self { alloy, echo, fable, onyx, nova, shimmer } = self.clone();
        let all =
            [("alloy", alloy), ("echo", echo), ("fable", fable), ("onyx", onyx), ("nova", nova), ("shimmer", shimmer)];
        all.into_iter().filter_map(|(name, voice)| Some((name.to_owned(), voice?))).collect()
    }
}

impl Saved {
    /// What the database has. What this version does not understand of it is left out, and told.
    pub fn read(settings: BTreeMap<String, Value>) -> Self {
        let mut known = Map::new();
        for (name, value) in settings {
            let mut more = known.clone();
            more.insert(name.clone(), value);
            match serde_json::from_value::<Self>(Value::Object(more.clone())) {
                Ok(saved) if saved.over(&Settings::default()).is_ok() => known = more,
                Ok(_) | Err(_) => tracing::warn!(name, "a saved setting means nothing here and is ignored"),
            }
        }
        serde_json::from_value(Value::Object(known)).unwrap_or_default()
    }

    pub fn model(&self, capability: Capability) -> Option<&str> {
        match capability {
            Capability::Transcription => self.stt_model.as_deref(),
            Capability::Chat => self.llm_model.as_deref(),
            Capability::Speech => self.tts_model.as_deref(),
            Capability::Embedding => None,
        }
    }

    pub(super) fn voice_names(&self) -> VoiceNames {
        let openai = self.openai_voices.as_ref().map(OpenAiVoices::named).unwrap_or_default();
        VoiceNames { default: self.voice.clone(), openai }
    }

    /// What a session begins with.
    ///
    /// # Errors
    /// Names the first setting that is out of range.
    pub(super) fn over(&self, base: &Settings) -> Result<Settings, BadField> {
        let vad = VadPatch {
            threshold: self.vad_threshold,
            silence_ms: self.vad_silence_ms.map(u64::from),
            prefix_ms: self.vad_prefix_ms.map(u64::from),
            mode: None,
        };
        let patch = SettingsPatch {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k.map(|count| count as usize),
            max_tokens: self.max_tokens.map(|count| count as usize),
            speed: self.speed,
            summarize_history: self.summarize_history,
            vad: Some(Some(vad)),
            ..SettingsPatch::default()
        };
        base.patched(&patch).map_err(|error| BadField::new(error.field.replace("vad.", "vad_"), error.message))
    }
}

/// The settings in force. Clones share them.
#[derive(Clone)]
pub struct Defaults(Arc<Shared>);

struct Shared {
    base: Settings,
    shelf: Arc<dyn ModelShelf>,
    /// The models that are asked first where none was saved.
    models: BTreeMap<&'static str, String>,
    /// Names of settings that a flag or the environment fixes.
    locked: Vec<&'static str>,
    now: RwLock<(Settings, Saved)>,
    /// One change at a time.
    changing: Mutex<()>,
}

impl Defaults {
    /// `models` are the first choices without what was saved, by the names of their settings; `locked` names settings that
    /// a flag or the environment fixes.
    pub fn new(
        base: Settings,
        shelf: Arc<dyn ModelShelf>,
        models: BTreeMap<&'static str, String>,
        locked: Vec<&'static str>,
    ) -> Self {
        let now = RwLock::new((base.clone(), Saved::default()));
        Self(Arc::new(Shared { base, shelf, models, locked, now, changing: Mutex::new(()) }))
    }

    /// What a new session begins with.
    pub fn session(&self) -> Settings {
        self.0.now.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    pub(super) fn saved(&self) -> Saved {
        self.0.now.read().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    pub(super) fn base(&self) -> &Settings {
        &self.0.base
    }

    pub(super) fn shelf(&self) -> &Arc<dyn ModelShelf> {
        &self.0.shelf
    }

    /// A model that is asked first where none was saved.
    pub(super) fn model(&self, setting: &str) -> String {
        self.0.models.get(setting).cloned().unwrap_or_default()
    }

    pub(super) fn is_locked(&self, setting: &str) -> bool {
        self.0.locked.contains(&setting)
    }

    /// Keeps others from changing the settings meanwhile.
    pub(super) async fn alone(&self) -> MutexGuard<'_, ()> {
        self.0.changing.lock().await
    }

    /// Puts saved settings in force. A model that cannot be asked is left out, and told.
    ///
    /// # Errors
    /// Names the first setting that is out of range; nothing is changed then.
    pub fn put(&self, saved: Saved) -> Result<(), BadField> {
        let settings = saved.over(&self.0.base)?;
        for (setting, capability) in MODEL_SETTINGS {
            let wanted = saved.model(capability).filter(|_| !self.is_locked(setting));
            let name = wanted.map_or_else(|| self.model(setting), str::to_owned);
            if !name.is_empty()
                && name != self.0.shelf.first(capability)
                && let Err(error) = self.0.shelf.prefer(capability, &name)
            {
                tracing::warn!(setting, %error, "a saved model cannot be asked");
            }
        }
        self.0.shelf.name_voices(saved.voice_names());
        *self.0.now.write().unwrap_or_else(PoisonError::into_inner) = (settings, saved);
        Ok(())
    }
}
