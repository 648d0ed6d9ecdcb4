//! What a client may set for its connection: the values in force, and a patch that changes some of them.
//!
//! A patch is checked as it is read and again as it is applied; either way one error names the one field that is wrong,
//! and then nothing is changed.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::audio::Format;
use crate::provider::Sampling;

/// The values in force.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settings {
    pub temperature: f32,
    pub top_p: f32,
    /// 0 is off.
    pub top_k: usize,
    pub max_tokens: usize,
    pub seed: Option<u64>,
    pub stop: Vec<String>,
    /// None: the character's own.
    pub system_prompt: Option<String>,
    /// Tell the language model the oldest messages as a summary, which it writes itself while nobody speaks.
    pub summarize_history: bool,
    /// Languages to listen for, as ISO 639-1 codes. Empty: all.
    pub languages: Vec<String>,
    /// Of speech; 1 is natural.
    pub speed: f32,
    pub output: OutputKind,
    pub audio_format: AudioFormat,
    /// How far audio may run ahead of its playback.
    pub lead_ms: u64,
    /// None: push-to-talk.
    pub vad: Option<VadSettings>,
    /// Who speaks where several characters take part.
    pub turn_taking: TurnTaking,
}

impl Default for Settings {
    fn default() -> Self {
        let sampling = Sampling::default();
        Self {
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            top_k: sampling.top_k,
            max_tokens: SPOKEN_TOKENS,
            seed: sampling.seed,
            stop: sampling.stop,
            system_prompt: None,
            summarize_history: false,
            languages: Vec::new(),
            speed: 1.0,
            output: OutputKind::Audio,
            audio_format: AudioFormat::Pcm,
            lead_ms: 300,
            vad: Some(VadSettings::default()),
            turn_taking: TurnTaking::default(),
        }
    }
}

/// Who answers the user where several characters take part. Whoever is named does, whichever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TurnTaking {
    /// Without a name whoever spoke last, else the first.
    Mention,
    /// Everyone, in order, those who are named first.
    All,
    /// Without a name the most talkative of those who spoke least.
    #[default]
    Natural,
    /// Without a name nobody: the client says who with `next_speaker`.
    Manual,
}

/// Whether replies are spoken or only written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputKind {
    #[default]
    Audio,
    Text,
}

/// How audio is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AudioFormat {
    /// Signed 16-bit little-endian samples at 24 kHz.
    #[default]
    Pcm,
    /// Every chunk a whole RIFF file.
    Wav,
    /// The chunks of a sentence together are an MP3 file.
    Mp3,
    /// Every chunk an Opus packet of 20 ms; a reply is one stream of them.
    Opus,
}

/// How the end of an utterance is found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct VadSettings {
    /// A frame with at least this probability is speech.
    pub threshold: f32,
    /// So much silence ends an utterance; by the semantic mode two thirds of it, or more.
    pub silence_ms: u64,
    /// So much audio from before the onset belongs to the utterance.
    pub prefix_ms: u64,
    pub mode: VadMode,
}

impl Default for VadSettings {
    fn default() -> Self {
        Self { threshold: 0.5, silence_ms: 300, prefix_ms: 300, mode: VadMode::default() }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VadMode {
    /// So much silence ends an utterance, whatever was said.
    Server,
    /// It ends a sentence that can have been all; whoever breaks off in the middle is waited for longer.
    #[default]
    Semantic,
}

/// Some of [`Settings`]. A field that is None stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SettingsPatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<usize>,
    /// `Some(None)` draws a new seed for each reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<Option<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<Vec<String>>,
    /// `Some(None)` gives the character its own back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_prompt: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summarize_history: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub languages: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio_format: Option<AudioFormat>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lead_ms: Option<u64>,
    /// `Some(None)` is push-to-talk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vad: Option<Option<VadPatch>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn_taking: Option<TurnTaking>,
}

/// Some of [`VadSettings`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct VadPatch {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub silence_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<VadMode>,
}

/// A setting that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct BadField {
    pub field: String,
    pub message: String,
}

impl BadField {
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// A reply that is listened to: about a minute of speech.
const SPOKEN_TOKENS: usize = 200;
/// The most a client may ask for in one reply.
const MAX_TOKENS: usize = 8192;
/// More than any vocabulary has.
const LARGEST_TOP_K: usize = 1_000_000;
/// As many stop strings as OpenAI's API takes.
const MAX_STOPS: usize = 4;
/// A longer system prompt would leave small models no room for the conversation.
const MAX_SYSTEM_PROMPT: usize = 32_768;

impl SettingsPatch {
    /// Reads the fields of a JSON object.
    ///
    /// # Errors
    /// Names the first field that is unknown, of the wrong type, or out of range.
    pub fn read(object: &Value) -> Result<Self, BadField> {
        let fields = object.as_object().ok_or_else(|| BadField::new("settings", "must be an object"))?;
        let mut patch = Self::default();
        for (name, value) in fields {
            patch.read_field(name, value)?;
        }
        // Whatever the settings are now, a patch that is out of range can be refused here.
        Settings::default().patched(&patch)?;
        Ok(patch)
    }

    /// # Errors
    /// Names the first language that is not among `known`, and those that are.
    pub(super) fn check_languages(&self, known: &[String]) -> Result<(), BadField> {
        let unknown = self.languages.iter().flatten().find(|code| !known.contains(code));
        unknown.map_or(Ok(()), |code| {
            let mut allowed: Vec<&str> = known.iter().map(String::as_str).collect();
            allowed.sort_unstable();
            let message = format!("\"{code}\" is not understood here; allowed are {}", allowed.join(", "));
            Err(BadField::new("languages", message))
        })
    }

    fn read_field(&mut self, name: &str, value: &Value) -> Result<(), BadField> {
        match name {
            "temperature" => self.temperature = Some(typed(name, "a number", value)?),
            "top_p" => self.top_p = Some(typed(name, "a number", value)?),
            "top_k" => self.top_k = Some(typed(name, "a whole number, 0 or more", value)?),
            "max_tokens" => self.max_tokens = Some(typed(name, "a whole number", value)?),
            "seed" => self.seed = Some(typed(name, "a whole number or null", value)?),
            "stop" => self.stop = Some(typed(name, "a list of strings", value)?),
            "system_prompt" => self.system_prompt = Some(typed(name, "a string or null", value)?),
            "summarize_history" => self.summarize_history = Some(typed(name, "true or false", value)?),
            "languages" => self.languages = Some(typed(name, "a list of language codes", value)?),
            "speed" => self.speed = Some(typed(name, "a number", value)?),
            "output" => self.output = Some(typed(name, "\"audio\" or \"text\"", value)?),
            "audio_format" => {
                let wanted = "\"pcm\", \"wav\", \"mp3\" or \"opus\"";
                self.audio_format = Some(typed(name, wanted, value)?);
            }
            "lead_ms" => self.lead_ms = Some(typed(name, "a whole number", value)?),
            "turn_taking" => {
                let wanted = "\"mention\", \"all\", \"natural\" or \"manual\"";
                self.turn_taking = Some(typed(name, wanted, value)?);
            }
            "vad" => self.vad = Some(if value.is_null() { None } else { Some(VadPatch::read(value)?) }),
            _ => return Err(BadField::new(name, "there is no such setting here")),
        }
        Ok(())
    }
}

impl VadPatch {
    fn read(value: &Value) -> Result<Self, BadField> {
        let fields = value.as_object().ok_or_else(|| BadField::new("vad", "must be an object or null"))?;
        let mut patch = Self::default();
        for (name, value) in fields {
            let path = format!("vad.{name}");
            match name.as_str() {
                "threshold" => patch.threshold = Some(typed(&path, "a number", value)?),
                "silence_ms" => patch.silence_ms = Some(typed(&path, "a whole number", value)?),
                "prefix_ms" => patch.prefix_ms = Some(typed(&path, "a whole number", value)?),
                "mode" => patch.mode = Some(typed(&path, "\"server\" or \"semantic\"", value)?),
                _ => return Err(BadField::new(path, "there is no such setting here")),
            }
        }
        Ok(patch)
    }
}

fn typed<T: DeserializeOwned>(field: &str, wanted: &str, value: &Value) -> Result<T, BadField> {
    T::deserialize(value).map_err(|_| BadField::new(field, format!("must be {wanted}")))
}

impl Settings {
    /// These settings with `patch` applied.
    ///
    /// # Errors
    /// Names the first field that is out of range.
    pub fn patched(&self, patch: &SettingsPatch) -> Result<Self, BadField> {
        let mut settings = self.clone();
        take(&mut settings.temperature, patch.temperature.as_ref());
        take(&mut settings.top_p, patch.top_p.as_ref());
        take(&mut settings.top_k, patch.top_k.as_ref());
        take(&mut settings.max_tokens, patch.max_tokens.as_ref());
        take(&mut settings.seed, patch.seed.as_ref());
        take(&mut settings.stop, patch.stop.as_ref());
        take(&mut settings.system_prompt, patch.system_prompt.as_ref());
        take(&mut settings.summarize_history, patch.summarize_history.as_ref());
        take(&mut settings.languages, patch.languages.as_ref());
        take(&mut settings.speed, patch.speed.as_ref());
        take(&mut settings.output, patch.output.as_ref());
        take(&mut settings.audio_format, patch.audio_format.as_ref());
        take(&mut settings.lead_ms, patch.lead_ms.as_ref());
        take(&mut settings.turn_taking, patch.turn_taking.as_ref());
        match &patch.vad {
            None => {}
            Some(None) => settings.vad = None,
            Some(Some(patch)) => settings.vad = Some(settings.vad.unwrap_or_default().patched(*patch)),
        }
        settings.checked()
    }

    /// How the language model is asked to choose its tokens.
    pub fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            max_tokens: self.max_tokens,
            seed: self.seed,
            stop: self.stop.clone(),
            ..Sampling::default()
        }
    }

    fn checked(self) -> Result<Self, BadField> {
        within("temperature", self.temperature, 0.0, 2.0)?;
        within("top_p", self.top_p, 0.0, 1.0)?;
        within("speed", self.speed, 0.5, 2.0)?;
        within("top_k", self.top_k, 0, LARGEST_TOP_K)?;
        within("max_tokens", self.max_tokens, 1, MAX_TOKENS)?;
        within("lead_ms", self.lead_ms, 300, 2000)?;
        if self.audio_format == AudioFormat::Mp3 && !Format::Mp3.is_built() {
            return Err(BadField::new(
                "audio_format",
                "\"mp3\" is not in this build; use \"pcm\", \"wav\" or \"opus\"",
            ));
        }
        if self.stop.len() > MAX_STOPS || self.stop.iter().any(String::is_empty) {
            return Err(BadField::new("stop", format!("must be at most {MAX_STOPS} strings, none of them empty")));
        }
        if self.system_prompt.as_ref().is_some_and(|prompt| prompt.len() > MAX_SYSTEM_PROMPT) {
            return Err(BadField::new("system_prompt", format!("must be at most {MAX_SYSTEM_PROMPT} bytes")));
        }
        if let Some(bad) = self.languages.iter().find(|code| !is_language_code(code)) {
            return Err(BadField::new("languages", format!("\"{bad}\" is not an ISO 639-1 code such as \"en\"")));
        }
        if let Some(vad) = self.vad {
            within("vad.threshold", vad.threshold, 0.05, 0.95)?;
            within("vad.silence_ms", vad.silence_ms, 100, 5000)?;
            within("vad.prefix_ms", vad.prefix_ms, 0, 2000)?;
        }
        Ok(self)
    }
}

impl VadSettings {
    fn patched(mut self, patch: VadPatch) -> Self {
        take(&mut self.threshold, patch.threshold.as_ref());
        take(&mut self.silence_ms, patch.silence_ms.as_ref());
        take(&mut self.prefix_ms, patch.prefix_ms.as_ref());
        take(&mut self.mode, patch.mode.as_ref());
        self
    }
}

fn take<T: Clone>(setting: &mut T, patch: Option<&T>) {
    if let Some(value) = patch {
        setting.clone_from(value);
    }
}

fn within<T: PartialOrd + Copy + std::fmt::Display>(field: &str, value: T, low: T, high: T) -> Result<(), BadField> {
    // Not a number is within nothing.
    if value >= low && value <= high {
        return Ok(());
    }
    Err(BadField::new(field, format!("must be from {low} to {high}")))
}

/// Whisper also knows a few languages by three letters, as `yue`.
fn is_language_code(code: &str) -> bool {
    matches!(code.len(), 2 | 3) && code.bytes().all(|byte| byte.is_ascii_lowercase())
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
