//! What a client sends to change some settings, and the sum of what it has sent.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{AudioFormat, BadField, OutputKind, Settings, TurnTaking, VadMode, VadSettings};
use crate::provider::Capability;

/// Characters for whom something is set at once: as many as take part in a conversation.
const MOST_CHARACTERS: usize = 32;
/// Longer ids are nobody's.
const LONGEST_ID: usize = 200;

/// Some of [`Settings`]. A field that is None stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SettingsPatch {
    /// `Some(None)` gives the character its own back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<Option<String>>,
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
    /// `Some(None)` is the server's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stt_model: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub languages: Option<Vec<String>>,
    /// `Some(None)` is the server's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tts_model: Option<Option<String>>,
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
    /// For single characters, by their ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub characters: Option<BTreeMap<String, Self>>,
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
    pub fn check_languages(&self, known: &[String]) -> Result<(), BadField> {
        let unknown = self.languages.iter().flatten().find(|code| !known.contains(code));
        unknown.map_or(Ok(()), |code| {
            let mut allowed: Vec<&str> = known.iter().map(String::as_str).collect();
            allowed.sort_unstable();
            let message = format!("\"{code}\" is not understood here; allowed are {}", allowed.join(", "));
            Err(BadField::new("languages", message))
        })
    }

    /// # Errors
    /// Names the first character for whom it sets something and who does not take part.
    pub(in crate::session) fn check_characters(&self, takes_part: impl Fn(&str) -> bool) -> Result<(), BadField> {
        let stranger = self.characters.iter().flatten().find(|(id, _)| !takes_part(id));
        stranger.map_or(Ok(()), |(id, _)| {
            Err(BadField::new(format!("characters.{id}"), "does not take part in this conversation"))
        })
    }

    fn read_field(&mut self, name: &str, value: &Value) -> Result<(), BadField> {
        match name {
            "model" => self.model = Some(typed(name, "a model's name or null", value)?),
            "temperature" => self.temperature = Some(typed(name, "a number", value)?),
            "top_p" => self.top_p = Some(typed(name, "a number", value)?),
            "top_k" => self.top_k = Some(typed(name, "a whole number, 0 or more", value)?),
            "max_tokens" => self.max_tokens = Some(typed(name, "a whole number", value)?),
            "seed" => self.seed = Some(typed(name, "a whole number or null", value)?),
            "stop" => self.stop = Some(typed(name, "a list of strings", value)?),
            "system_prompt" => self.system_prompt = Some(typed(name, "a string or null", value)?),
            "summarize_history" => self.summarize_history = Some(typed(name, "true or false", value)?),
            "stt_model" => self.stt_model = Some(typed(name, "a model's name or null", value)?),
            "languages" => self.languages = Some(typed(name, "a list of language codes", value)?),
            "tts_model" => self.tts_model = Some(typed(name, "a model's name or null", value)?),
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
            "characters" => self.characters = Some(read_characters(value)?),
            _ => return Err(BadField::new(name, "there is no such setting here")),
        }
        Ok(())
    }

    /// What may be set for one character: how its replies are written and spoken.
    fn read_own(object: &Value) -> Result<Self, BadField> {
        let patch = Self::read(object)?;
        let Self { stt_model, summarize_history, languages, output, audio_format, lead_ms, vad, turn_taking, .. } =
            &patch;
        let shared = [
            ("characters", patch.characters.is_some()),
            ("stt_model", stt_model.is_some()),
            ("summarize_history", summarize_history.is_some()),
            ("languages", languages.is_some()),
            ("output", output.is_some()),
            ("audio_format", audio_format.is_some()),
            ("lead_ms", lead_ms.is_some()),
            ("vad", vad.is_some()),
            ("turn_taking", turn_taking.is_some()),
        ];
        match shared.into_iter().find(|(_, is_set)| *is_set) {
            Some((name, _)) => Err(BadField::new(name, "holds for all; it cannot be set for one character")),
            None => Ok(patch),
        }
    }

    /// Adds a later patch: applying the sum is applying both in turn.
    pub fn merge(&mut self, later: &Self) {
        add(&mut self.model, later.model.as_ref());
        add(&mut self.temperature, later.temperature.as_ref());
        add(&mut self.top_p, later.top_p.as_ref());
        add(&mut self.top_k, later.top_k.as_ref());
        add(&mut self.max_tokens, later.max_tokens.as_ref());
        add(&mut self.seed, later.seed.as_ref());
        add(&mut self.stop, later.stop.as_ref());
        add(&mut self.system_prompt, later.system_prompt.as_ref());
        add(&mut self.summarize_history, later.summarize_history.as_ref());
        add(&mut self.stt_model, later.stt_model.as_ref());
        add(&mut self.languages, later.languages.as_ref());
        add(&mut self.tts_model, later.tts_model.as_ref());
        add(&mut self.speed, later.speed.as_ref());
        add(&mut self.output, later.output.as_ref());
        add(&mut self.audio_format, later.audio_format.as_ref());
        add(&mut self.lead_ms, later.lead_ms.as_ref());
        add(&mut self.turn_taking, later.turn_taking.as_ref());
        match (&mut self.vad, later.vad) {
            (_, None) => {}
            (Some(Some(known)), Some(Some(later))) => known.merge(later),
            // What comes after push-to-talk begins with the defaults.
            (known @ Some(None), Some(Some(later))) => {
                let mut all = VadPatch::from(VadSettings::default());
                all.merge(later);
                *known = Some(Some(all));
            }
            (known, later) => *known = later,
        }
        for (id, later) in later.characters.iter().flatten() {
            self.characters.get_or_insert_default().entry(id.clone()).or_default().merge(later);
        }
    }

    /// The models that it names, each with its field.
    pub(in crate::session) fn models(&self) -> Vec<(String, Capability, &str)> {
        let own = [
            ("model", Capability::Chat, &self.model),
            ("stt_model", Capability::Transcription, &self.stt_model),
            ("tts_model", Capability::Speech, &self.tts_model),
        ];
        let own =
            own.into_iter().filter_map(|(field, of, name)| Some((field.to_owned(), of, name.as_ref()?.as_deref()?)));
        let single = self.characters.iter().flatten().flat_map(|(id, patch)| {
            patch.models().into_iter().map(move |(field, of, name)| (format!("characters.{id}.{field}"), of, name))
        });
        own.chain(single).collect()
    }
}

/// Each character's own patch.
fn read_characters(value: &Value) -> Result<BTreeMap<String, SettingsPatch>, BadField> {
    let all = value.as_object().ok_or_else(|| BadField::new("characters", "must be an object, by characters' ids"))?;
    if all.len() > MOST_CHARACTERS {
        return Err(BadField::new("characters", format!("must be at most {MOST_CHARACTERS}")));
    }
    let read = |(id, value): (&String, &Value)| {
        if !(1..=LONGEST_ID).contains(&id.len()) {
            return Err(BadField::new("characters", format!("an id is 1 to {LONGEST_ID} bytes")));
        }
        if !value.is_object() {
            return Err(BadField::new(format!("characters.{id}"), "must be an object"));
        }
        let placed = |error: BadField| BadField::new(format!("characters.{id}.{}", error.field), error.message);
        Ok((id.clone(), SettingsPatch::read_own(value).map_err(placed)?))
    };
    all.iter().map(read).collect()
}

impl From<VadSettings> for VadPatch {
    fn from(all: VadSettings) -> Self {
        let VadSettings { threshold, silence_ms, prefix_ms, mode } = all;
        let (silence_ms, prefix_ms) = (Some(silence_ms), Some(prefix_ms));
        Self { threshold: Some(threshold), silence_ms, prefix_ms, mode: Some(mode) }
    }
}

impl VadPatch {
    fn merge(&mut self, later: Self) {
        add(&mut self.threshold, later.threshold.as_ref());
        add(&mut self.silence_ms, later.silence_ms.as_ref());
        add(&mut self.prefix_ms, later.prefix_ms.as_ref());
        add(&mut self.mode, later.mode.as_ref());
    }

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

fn add<T: Clone>(known: &mut Option<T>, later: Option<&T>) {
    if later.is_some() {
        *known = later.cloned();
    }
}
