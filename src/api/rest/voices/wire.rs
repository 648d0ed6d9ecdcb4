//! Voices as clients see and send them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::body::sent;
use crate::api::problem::Problem;
use crate::api::rest::text;
use crate::provider::{VoiceEngine, VoiceInfo};
use crate::store::{StoredVoice, VoiceMethod, VoiceStatus};

pub(super) const LONGEST_NAME: usize = 100;
/// Words tell a model what a voice is like; a page of them tells it nothing more.
pub(super) const LONGEST_DESCRIPTION: usize = 1000;
/// Thirty seconds of fast speech, four times over.
pub(super) const LONGEST_TRANSCRIPT: usize = 2000;

/// A voice that characters can have: an engine's own, or one that was made here.
#[derive(Debug, Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "the contract's own name")]
pub(super) struct Voice {
    /// Its id, by which requests and characters name it.
    #[schema(example = "nora")]
    pub(super) voice: String,
    pub(super) name: String,
    pub(super) method: Method,
    /// What speaks with it.
    pub(super) engine: Engine,
    /// Whether that engine is here to speak.
    pub(super) available: bool,
    /// As `en-gb`; empty: unknown.
    pub(super) language: String,
    pub(super) speaker_description: String,
    pub(super) scene_prompt: String,
    /// What is said in its recording.
    pub(super) transcript: String,
    /// Its recording; null where it has none.
    #[schema(required)]
    pub(super) sample_url: Option<String>,
    /// Length of its recording.
    #[schema(required)]
    pub(super) seconds: Option<f64>,
    pub(super) status: Status,
    /// Why it failed.
    #[schema(required)]
    pub(super) error: Option<String>,
    /// Names of OpenAI's voices that it answers to.
    pub(super) aliases: Vec<String>,
    /// Null: it came with its engine.
    #[schema(required, format = DateTime)]
    pub(super) created_at: Option<String>,
    #[schema(required, format = DateTime)]
    pub(super) updated_at: Option<String>,
}

/// What a voice is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = VoiceMethod)]
pub(super) enum Method {
    /// A recording.
    Clone,
    /// Words.
    Description,
    /// It came with its engine.
    Builtin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = VoiceEngine)]
pub(super) enum Engine {
    Higgs,
    Kokoro,
    Remote,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = VoiceStatus)]
pub(super) enum Status {
    Ready,
    /// Its engine is learning it. It can be spoken with already; the first words come later.
    Processing,
    Failed,
}

/// A voice to be made.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct NewVoice {
    #[schema(min_length = 1, max_length = 100, pattern = "\\S", example = "Nora")]
    pub(super) name: String,
    pub(super) method: NewMethod,
    /// Needed by `description`: as `masculine;moderate pitch;mature`, or a sentence.
    #[schema(max_length = 1000)]
    pub(super) speaker_description: Option<String>,
    /// Where it is heard, as `Audio is recorded from a quiet room.`
    #[schema(max_length = 1000)]
    pub(super) scene_prompt: Option<String>,
    /// Needed by `clone`: what `POST /api/voices/upload` answered.
    pub(super) upload_id: Option<String>,
    /// What is said in the recording; the upload's own where it is absent.
    #[schema(max_length = 2000)]
    pub(super) transcript: Option<String>,
    #[schema(pattern = "^[a-z]{2,3}(-[a-z0-9]{2,8})?$", example = "en")]
    pub(super) language: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum NewMethod {
    Clone,
    Description,
}

/// What is to be different about a voice; what is not sent stays, and null empties it.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[expect(clippy::option_option, reason = "JSON knows a null and an absence")]
pub(super) struct ChangedVoice {
    #[schema(min_length = 1, max_length = 100, pattern = "\\S")]
    pub(super) name: Option<String>,
    #[serde(default, deserialize_with = "sent")]
    #[schema(value_type = Option<String>, max_length = 1000)]
    pub(super) speaker_description: Option<Option<String>>,
    #[serde(default, deserialize_with = "sent")]
    #[schema(value_type = Option<String>, max_length = 1000)]
    pub(super) scene_prompt: Option<Option<String>>,
    /// Another recording, for a voice that is cloned.
    pub(super) upload_id: Option<String>,
    #[schema(max_length = 2000)]
    pub(super) transcript: Option<String>,
    #[serde(default, deserialize_with = "sent")]
    #[schema(value_type = Option<String>, pattern = "^[a-z]{2,3}(-[a-z0-9]{2,8})?$")]
    pub(super) language: Option<Option<String>>,
}

impl Voice {
    /// `available`: whether an engine that learns voices is here.
    pub(super) fn stored(voice: StoredVoice, available: bool) -> Self {
        Self {
            name: voice.name,
            method: match voice.method {
                VoiceMethod::Clone => Method::Clone,
                VoiceMethod::Description => Method::Description,
            },
            // No other learns voices.
            engine: Engine::Higgs,
            available,
            language: voice.language,
            speaker_description: voice.speaker_description,
            scene_prompt: voice.scene_prompt,
            transcript: voice.transcript,
            sample_url: voice.recording.as_ref().map(|_| format!("/api/voices/{}/sample", voice.id)),
            seconds: voice.recording.map(|recording| rounded(recording.seconds)),
            status: match voice.status {
                VoiceStatus::Ready => Status::Ready,
                VoiceStatus::Processing => Status::Processing,
                VoiceStatus::Failed => Status::Failed,
            },
            error: voice.error,
            aliases: Vec::new(),
            created_at: Some(voice.created_at),
            updated_at: Some(voice.updated_at),
            voice: voice.id,
        }
    }

    pub(super) fn builtin(voice: VoiceInfo) -> Self {
        Self {
            voice: voice.name.clone(),
            name: voice.name,
            method: Method::Builtin,
            engine: match voice.engine {
                VoiceEngine::Higgs => Engine::Higgs,
                VoiceEngine::Kokoro => Engine::Kokoro,
                VoiceEngine::Remote => Engine::Remote,
            },
            available: true,
            language: voice.language,
            speaker_description: String::new(),
            scene_prompt: String::new(),
            transcript: String::new(),
            sample_url: None,
            seconds: None,
            status: Status::Ready,
            error: None,
            aliases: voice.aliases,
            created_at: None,
            updated_at: None,
        }
    }
}

impl NewVoice {
    /// # Errors
    /// Names the first field that is wrong.
    pub(super) fn check(&self) -> Result<(), Problem> {
        text::check("name", &self.name, 1..=LONGEST_NAME)?;
        optional("speaker_description", self.speaker_description.as_deref(), LONGEST_DESCRIPTION)?;
        optional("scene_prompt", self.scene_prompt.as_deref(), LONGEST_DESCRIPTION)?;
        optional("transcript", self.transcript.as_deref(), LONGEST_TRANSCRIPT)?;
        self.language.as_deref().map_or(Ok(()), check_language)?;
        let is_described = self.speaker_description.as_deref().is_some_and(|words| !words.trim().is_empty());
        match self.method {
            NewMethod::Description if !is_described => {
                Err(Problem::bad_field("speaker_description", "is needed: say what the voice is like"))
            }
            NewMethod::Description if self.upload_id.is_some() => {
                Err(Problem::bad_field("upload_id", "goes with the method clone"))
            }
            NewMethod::Clone if self.upload_id.is_none() => {
                let message = "is needed: send the recording to /api/voices/upload first";
                Err(Problem::bad_field("upload_id", message))
            }
            NewMethod::Clone | NewMethod::Description => Ok(()),
        }
    }
}

impl ChangedVoice {
    /// # Errors
    /// Names the first field that is wrong, as far as that can be told without the voice.
    pub(super) fn check(&self) -> Result<(), Problem> {
        self.name.as_deref().map_or(Ok(()), |name| text::check("name", name, 1..=LONGEST_NAME))?;
        let description = self.speaker_description.iter().flatten().next();
        optional("speaker_description", description.map(String::as_str), LONGEST_DESCRIPTION)?;
        let scene = self.scene_prompt.iter().flatten().next();
        optional("scene_prompt", scene.map(String::as_str), LONGEST_DESCRIPTION)?;
        self.transcript.as_deref().map_or(Ok(()), |words| text::check("transcript", words, 1..=LONGEST_TRANSCRIPT))?;
        self.language.iter().flatten().try_for_each(|language| check_language(language))
    }

    /// Changes the voice but for its recording.
    ///
    /// # Errors
    /// Names the field that such a voice has not, or cannot do without.
    pub(super) fn apply(self, voice: &mut StoredVoice) -> Result<(), Problem> {
        if voice.method == VoiceMethod::Description {
            for (field, is_sent) in [("upload_id", self.upload_id.is_some()), ("transcript", self.transcript.is_some())]
            {
                if is_sent {
                    return Err(Problem::bad_field(field, "goes with voices that are cloned"));
                }
            }
        }
        let take = |field: &mut String, value: Option<Option<String>>| {
            if let Some(value) = value {
                *field = value.unwrap_or_default();
            }
        };
        take(&mut voice.name, self.name.map(Some));
        take(&mut voice.speaker_description, self.speaker_description);
        take(&mut voice.scene_prompt, self.scene_prompt);
        take(&mut voice.transcript, self.transcript.map(Some));
        take(&mut voice.language, self.language);
        if voice.method == VoiceMethod::Description && voice.speaker_description.trim().is_empty() {
            return Err(Problem::bad_field("speaker_description", "is all that this voice is made of"));
        }
        Ok(())
    }
}

fn optional(field: &str, words: Option<&str>, longest: usize) -> Result<(), Problem> {
    words.map_or(Ok(()), |words| text::check(field, words, 0..=longest))
}

/// As `en` or `en-gb`.
pub(super) fn check_language(language: &str) -> Result<(), Problem> {
    let (primary, region) = language.split_once('-').map_or((language, None), |(one, two)| (one, Some(two)));
    let is_primary = (2..=3).contains(&primary.len()) && primary.bytes().all(|byte| byte.is_ascii_lowercase());
    let is_plain = |region: &str| region.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if is_primary && region.is_none_or(|region| (2..=8).contains(&region.len()) && is_plain(region)) {
        return Ok(());
    }
    Err(Problem::bad_field("language", "must be a code as \"en\" or \"en-gb\""))
}

/// To a hundredth.
pub(super) fn rounded(seconds: f64) -> f64 {
    (seconds * 100.0).round() / 100.0
}
