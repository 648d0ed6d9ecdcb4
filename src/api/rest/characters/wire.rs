//! What a character is over HTTP, and what of a request may become part of one.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::portrait;
use crate::api::body::{emptied, sent};
use crate::api::problem::Problem;
use crate::api::rest::text;
use crate::session::settings::{BadField, SettingsPatch};
use crate::store::{CharacterChange, StoredCharacter};

const LONGEST_NAME: usize = 100;
const LONGEST_DESCRIPTION: usize = 2000;
const LONGEST_PROMPT: usize = 32_768;
const LONGEST_VOICE: usize = 200;
const LONGEST_MODEL: usize = 200;
const LONGEST_URL: usize = 2048;
const MOST_LANGUAGES: usize = 50;
/// Every JSON reader knows whole numbers up to here.
const LARGEST_SEED: u64 = (1 << 53) - 1;

/// Somebody to talk to: a prompt with a voice.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Character {
    /// Of the first name that it had; it never changes.
    #[schema(example = "olivia-barns-001")]
    id: String,
    name: String,
    description: String,
    system_prompt: String,
    /// How it is: told to the language model after the system prompt.
    personality: String,
    /// Null: the server's default voice.
    #[schema(required)]
    voice: Option<String>,
    /// Null: none. `/api/characters/{id}/image` where one was uploaded.
    #[schema(required)]
    image_url: Option<String>,
    /// Null: the server's default model.
    #[schema(required)]
    model: Option<String>,
    parameters: Parameters,
    /// How readily it speaks up among several.
    #[schema(minimum = 0.0, maximum = 1.0)]
    talkativeness: f32,
    languages: Vec<String>,
    is_active: bool,
    /// RFC 3339, UTC.
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
}

/// How its replies are generated, where that differs from the server's settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0.0, maximum = 2.0)]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0.0, maximum = 1.0)]
    top_p: Option<f32>,
    /// 0 is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 1_000_000)]
    top_k: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 8192)]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    seed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 4)]
    stop: Option<Vec<String>>,
    /// Of speech; 1 is natural.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0.5, maximum = 2.0)]
    speed: Option<f32>,
}

/// A character to be made.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct NewCharacter {
    #[schema(min_length = 1, max_length = 100, pattern = "\\S", example = "Olivia Barns")]
    name: String,
    #[schema(max_length = 2000)]
    description: Option<String>,
    #[schema(max_length = 32768)]
    system_prompt: Option<String>,
    #[schema(max_length = 32768)]
    personality: Option<String>,
    #[schema(min_length = 1, max_length = 200, pattern = "\\S")]
    voice: Option<String>,
    #[schema(max_length = 2048, pattern = "^https?://[^\\s/]\\S*$")]
    image_url: Option<String>,
    /// It need not be here yet.
    #[schema(min_length = 1, max_length = 200, pattern = "^[!-~]+$", example = "qwen3-4b")]
    model: Option<String>,
    parameters: Option<Parameters>,
    #[schema(minimum = 0.0, maximum = 1.0, default = 0.5)]
    talkativeness: Option<f32>,
    /// ISO 639-1 codes, `en`.
    #[schema(max_items = 50, pattern = "^[a-z]{2,3}$")]
    languages: Option<Vec<String>>,
    #[schema(default = true)]
    is_active: Option<bool>,
}

/// What is to be different about a character; what is not sent stays.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[expect(clippy::option_option, reason = "JSON knows a null and an absence")]
pub(super) struct ChangedCharacter {
    #[schema(min_length = 1, max_length = 100, pattern = "\\S")]
    name: Option<String>,
    #[serde(default, deserialize_with = "emptied")]
    #[schema(max_length = 2000)]
    description: Option<String>,
    #[serde(default, deserialize_with = "emptied")]
    #[schema(max_length = 32768)]
    system_prompt: Option<String>,
    #[serde(default, deserialize_with = "emptied")]
    #[schema(max_length = 32768)]
    personality: Option<String>,
    /// Null: the server's default voice.
    #[serde(default, deserialize_with = "sent")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 200, pattern = "\\S")]
    voice: Option<Option<String>>,
    /// Another one, or null, removes a picture that was uploaded.
    #[serde(default, deserialize_with = "sent")]
    #[schema(value_type = Option<String>, max_length = 2048, pattern = "^https?://[^\\s/]\\S*$")]
    image_url: Option<Option<String>>,
    /// Null: the server's default model.
    #[serde(default, deserialize_with = "sent")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 200, pattern = "^[!-~]+$")]
    model: Option<Option<String>>,
    /// All of them: they take the place of those that were.
    #[serde(default, deserialize_with = "sent")]
    #[schema(value_type = Option<Parameters>)]
    parameters: Option<Option<Parameters>>,
    #[schema(minimum = 0.0, maximum = 1.0)]
    talkativeness: Option<f32>,
    #[schema(max_items = 50, pattern = "^[a-z]{2,3}$")]
    languages: Option<Vec<String>>,
    is_active: Option<bool>,
}

/// Whether a character takes part where nobody names one.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct Activity {
    pub(super) is_active: bool,
}

impl From<StoredCharacter> for Character {
    fn from(stored: StoredCharacter) -> Self {
        let StoredCharacter { character, image_url, image_file, created_at, updated_at, .. } = stored;
        let image_url = image_file.map(|_| portrait::address(&character.id)).or(image_url);
        Self {
            image_url,
            // Of what was written by other means, what has no place here is left out.
            parameters: serde_json::from_value(character.parameters).unwrap_or_default(),
            id: character.id,
            name: character.name,
            description: character.description,
            system_prompt: character.system_prompt,
            personality: character.personality,
            voice: character.voice,
            model: character.model,
            talkativeness: character.talkativeness,
            languages: character.languages,
            is_active: character.is_active,
            created_at,
            updated_at,
        }
    }
}

impl From<NewCharacter> for ChangedCharacter {
    fn from(new: NewCharacter) -> Self {
        Self {
            name: Some(new.name),
            description: new.description,
            system_prompt: new.system_prompt,
            personality: new.personality,
            voice: new.voice.map(Some),
            image_url: new.image_url.map(Some),
            model: new.model.map(Some),
            parameters: new.parameters.map(Some),
            talkativeness: new.talkativeness,
            languages: new.languages,
            is_active: new.is_active,
        }
    }
}

impl ChangedCharacter {
    /// The change, if all of it can be. A picture's address that is the character's own changes nothing.
    ///
    /// # Errors
    /// Names the first field that is wrong.
    pub(super) fn checked(self, id: Option<&str>) -> Result<CharacterChange, Problem> {
        let check = |field, text: Option<&String>, length| text.map_or(Ok(()), |text| text::check(field, text, length));
        check("name", self.name.as_ref(), 1..=LONGEST_NAME)?;
        check("description", self.description.as_ref(), 0..=LONGEST_DESCRIPTION)?;
        check("system_prompt", self.system_prompt.as_ref(), 0..=LONGEST_PROMPT)?;
        check("personality", self.personality.as_ref(), 0..=LONGEST_PROMPT)?;
        check("voice", self.voice.iter().flatten().next(), 1..=LONGEST_VOICE)?;
        check("model", self.model.iter().flatten().next(), 1..=LONGEST_MODEL)?;
        if self.model.iter().flatten().any(|name| !name.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(Problem::bad_field("model", "must be visible ASCII characters, as \"qwen3-4b\""));
        }
        if let Some(talkativeness) = self.talkativeness
            && !(0.0..=1.0).contains(&talkativeness)
        {
            return Err(Problem::bad_field("talkativeness", "must be from 0 to 1"));
        }
        self.languages.as_deref().map_or(Ok(()), check_languages)?;
        let image_url = self.image_url.filter(|url| id.map(portrait::address) != *url);
        image_url.iter().flatten().try_for_each(|url| check_url(url))?;
        Ok(CharacterChange {
            name: self.name,
            description: self.description,
            system_prompt: self.system_prompt,
            personality: self.personality,
            voice: self.voice,
            image_url,
            image_file: None,
            model: self.model,
            parameters: self.parameters.map(|parameters| parameters.unwrap_or_default().checked()).transpose()?,
            talkativeness: self.talkativeness,
            languages: self.languages,
            is_active: self.is_active,
        })
    }
}

impl Parameters {
    /// As they are stored. A session reads them by the same rules, so what is stored never fails later.
    fn checked(&self) -> Result<Value, Problem> {
        let wrong = |error: &BadField| Problem::bad_field(format!("parameters.{}", error.field), &error.message);
        if self.seed.is_some_and(|seed| seed > LARGEST_SEED) {
            return Err(Problem::bad_field("parameters.seed", format!("must be at most {LARGEST_SEED}")));
        }
        for stop in self.stop.iter().flatten() {
            text::check("parameters.stop", stop, 1..=1000)?;
        }
        let value = serde_json::to_value(self).unwrap_or_default();
        SettingsPatch::read(&value).map_err(|error| wrong(&error))?;
        Ok(value)
    }
}

fn check_languages(codes: &[String]) -> Result<(), Problem> {
    let is_code = |code: &String| matches!(code.len(), 2 | 3) && code.bytes().all(|byte| byte.is_ascii_lowercase());
    if let Some(place) = codes.iter().position(|code| !is_code(code)) {
        return Err(Problem::bad_field(format!("languages[{place}]"), "must be an ISO 639-1 code such as \"en\""));
    }
    if codes.len() > MOST_LANGUAGES {
        return Err(Problem::bad_field("languages", format!("must be at most {MOST_LANGUAGES}")));
    }
    Ok(())
}

fn check_url(url: &str) -> Result<(), Problem> {
    text::check("image_url", url, 1..=LONGEST_URL)?;
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let is_address = rest.is_some_and(|rest| {
        !rest.is_empty() && !rest.starts_with('/') && !rest.chars().any(|c| c.is_whitespace() || c.is_control())
    });
    if is_address { Ok(()) } else { Err(Problem::bad_field("image_url", "must begin with http:// or https://")) }
}
