//! What a client may set for its connection: the values in force, and a patch that changes some of them.
//!
//! A patch is checked as it is read and again as it is applied; either way one error names the one field that is wrong,
//! and then nothing is changed.

mod patch;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::patch::{SettingsPatch, VadPatch};
use crate::audio::Format;
use crate::provider::Sampling;

/// The values in force.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// The language model. None: the character's own, else the server's.
    pub model: Option<String>,
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
    /// The speech recogniser. None: the server's own.
    pub stt_model: Option<String>,
    /// Languages to listen for, as ISO 639-1 codes. Empty: all.
    pub languages: Vec<String>,
    /// The speech synthesiser. None: the server's own.
    pub tts_model: Option<String>,
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
    /// What was set for single characters, by their ids. It is stronger than what holds for all.
    pub characters: BTreeMap<String, SettingsPatch>,
}

impl Default for Settings {
    fn default() -> Self {
        let sampling = Sampling::default();
        Self {
            model: None,
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            top_k: sampling.top_k,
            max_tokens: SPOKEN_TOKENS,
            seed: sampling.seed,
            stop: sampling.stop,
            system_prompt: None,
            summarize_history: false,
            stt_model: None,
            languages: Vec::new(),
            tts_model: None,
            speed: 1.0,
            output: OutputKind::Audio,
            audio_format: AudioFormat::Pcm,
            lead_ms: 300,
            vad: Some(VadSettings::default()),
            turn_taking: TurnTaking::default(),
            characters: BTreeMap::new(),
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
/// No model's name is longer.
const LONGEST_NAME: usize = 200;
/// More than any vocabulary has.
const LARGEST_TOP_K: usize = 1_000_000;
/// Every language that anybody may speak, and not the same ones over and over.
const LANGUAGES: usize = 128;
/// As many stop strings as OpenAI's API takes.
const MAX_STOPS: usize = 4;
/// A longer system prompt would leave small models no room for the conversation.
const MAX_SYSTEM_PROMPT: usize = 32_768;

impl Settings {
    /// These settings with `patch` applied.
    ///
    /// # Errors
    /// Names the first field that is out of range.
    pub fn patched(&self, patch: &SettingsPatch) -> Result<Self, BadField> {
        let mut settings = self.clone();
        take(&mut settings.model, patch.model.as_ref());
        take(&mut settings.temperature, patch.temperature.as_ref());
        take(&mut settings.top_p, patch.top_p.as_ref());
        take(&mut settings.top_k, patch.top_k.as_ref());
        take(&mut settings.max_tokens, patch.max_tokens.as_ref());
        take(&mut settings.seed, patch.seed.as_ref());
        take(&mut settings.stop, patch.stop.as_ref());
        take(&mut settings.system_prompt, patch.system_prompt.as_ref());
        take(&mut settings.summarize_history, patch.summarize_history.as_ref());
        take(&mut settings.stt_model, patch.stt_model.as_ref());
        take(&mut settings.languages, patch.languages.as_ref());
        take(&mut settings.tts_model, patch.tts_model.as_ref());
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
        for (id, patch) in patch.characters.iter().flatten() {
            settings.characters.entry(id.clone()).or_default().merge(patch);
        }
        settings.checked()
    }

    /// What holds for one character.
    #[must_use]
    pub fn of(mut self, character_id: &str) -> Self {
        let own = std::mem::take(&mut self.characters).remove(character_id);
        own.and_then(|own| self.patched(&own).ok()).unwrap_or(self)
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
        is_name("model", self.model.as_ref())?;
        is_name("stt_model", self.stt_model.as_ref())?;
        is_name("tts_model", self.tts_model.as_ref())?;
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
        if self.languages.len() > LANGUAGES {
            return Err(BadField::new("languages", format!("has more than {LANGUAGES} codes")));
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

/// Of a model, as a request may name one.
fn is_name(field: &str, name: Option<&String>) -> Result<(), BadField> {
    let is_one =
        |name: &String| (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(|it| it.is_ascii_graphic());
    if name.is_none_or(is_one) {
        return Ok(());
    }
    Err(BadField::new(field, format!("must be 1 to {LONGEST_NAME} visible ASCII characters, as \"qwen3-4b\", or null")))
}

/// Whisper also knows a few languages by three letters, as `yue`.
fn is_language_code(code: &str) -> bool {
    matches!(code.len(), 2 | 3) && code.bytes().all(|byte| byte.is_ascii_lowercase())
}

#[cfg(test)]
mod tests;
