//! What a client sends, read field by field, so that a refusal names the field that is wrong.

use std::borrow::Cow;
use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Refusal;
use crate::audio::wav::WireFormat;
use crate::session::event::Input;
use crate::session::settings::{OutputKind, SettingsPatch};

/// What a client's own id of a message, and its `ref`, may measure, in bytes: the one is kept and indexed, the other
/// comes back with each answer.
const OWN_ID_BYTES: usize = 128;
/// No id of ours, and no model's name, has more characters; REST takes as many.
const ID: usize = 200;
/// Of a message's text, over the socket as over REST, so that what is said in the one can be imported in the other.
pub(in crate::api) const TEXT: usize = 100_000;
/// So many characters of what a client sent are repeated to it where they are wrong.
const REPEATED: usize = 64;
/// And so many of what is wrong with a setting, which may quote it.
const EXPLAINED: usize = 200;

/// Characters of one conversation: a listener cannot tell more voices apart.
const MAX_CHARACTERS: usize = 8;

/// One message of a client.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::api) struct Inbound {
    pub message: ClientMessage,
    /// Its `ref`.
    pub reference: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "one at a time, moved once")]
pub(in crate::api) enum ClientMessage {
    /// Still at the client's rate.
    Audio(AudioChunk),
    /// One Opus packet of the microphone.
    Packet(Vec<u8>),
    Session(Input),
    Resume(Resume),
    Ping,
}

/// Who wants to go on where a session was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::api) struct Resume {
    pub session_id: String,
    pub token: String,
    /// The last message that the client has.
    pub last_seq: u64,
}

/// A microphone chunk as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::api) struct AudioChunk {
    pub data: Vec<u8>,
    pub format: WireFormat,
    /// In hertz, as the client says; a WAV chunk says it itself, and 0 stands here.
    pub sample_rate: u32,
    pub channels: u32,
}

/// Reads one text frame.
///
/// # Errors
/// `bad_json`, `unknown_type`, `bad_field`, or `bad_audio`.
pub(in crate::api) fn read(text: &str) -> Result<Inbound, Refusal> {
    let value: Value =
        serde_json::from_str(text).map_err(|error| Refusal::new("bad_json", format!("this is not JSON: {error}")))?;
    let Value::Object(object) = value else {
        return Err(Refusal::new("bad_json", "a message must be a JSON object"));
    };
    let fields = Fields(&object);
    let reference = fields.optional_text("ref")?;
    if reference.as_ref().is_some_and(|reference| reference.len() > OWN_ID_BYTES) {
        return Err(bad_field("ref", &format!("must be at most {OWN_ID_BYTES} bytes")));
    }
    let message = read_message(&fields).map_err(|refusal| refusal.to(reference.clone()))?;
    Ok(Inbound { message, reference })
}

fn read_message(fields: &Fields<'_>) -> Result<ClientMessage, Refusal> {
    let input = match fields.text("type")?.as_str() {
        "audio_chunk" => return read_audio(fields),
        "resume" => return Ok(ClientMessage::Resume(read_resume(fields)?)),
        "ping" => return Ok(ClientMessage::Ping),
        "text_message" => read_text(fields)?,
        "characters" => {
            let character_ids = read_characters(fields)?.ok_or_else(|| bad_field("character_ids", "is missing"))?;
            if character_ids.is_empty() {
                return Err(bad_field("character_ids", "must name somebody"));
            }
            Input::Characters { character_ids }
        }
        "next_speaker" => Input::NextSpeaker { character_id: fields.id("character_id")? },
        "commit" => Input::Commit,
        "cancel_input" => Input::CancelInput,
        "interrupt" => {
            Input::Interrupt { item_id: fields.optional_id("item_id")?, played_ms: fields.optional_count("played_ms")? }
        }
        "playback_ack" => Input::PlaybackAck { item_id: fields.id("item_id")?, played_ms: fields.count("played_ms")? },
        "regenerate" => {
            let settings = read_settings(fields, &["item_id"])?;
            if settings.characters.is_some() {
                return Err(bad_field("characters", "is for settings; a reply has one character"));
            }
            Input::Regenerate { item_id: fields.id("item_id")?, terms: settings }
        }
        "settings" => Input::Settings(read_settings(fields, &[])?),
        other => {
            let message = format!("there is no message type \"{}\" here", excerpt(other, REPEATED));
            return Err(Refusal::new("unknown_type", message));
        }
    };
    Ok(ClientMessage::Session(input))
}

fn read_resume(fields: &Fields<'_>) -> Result<Resume, Refusal> {
    Ok(Resume {
        session_id: fields.text("session_id")?,
        token: fields.text("resume_token")?,
        last_seq: fields.count("last_seq")?,
    })
}

/// Those whom a message names. None: it has no such field.
fn read_characters(fields: &Fields<'_>) -> Result<Option<Vec<String>>, Refusal> {
    let Some(ids) = fields.find("character_ids") else { return Ok(None) };
    let ids = Vec::deserialize(ids).map_err(|_| bad_field("character_ids", "must be a list of strings"))?;
    named(ids).map(Some).map_err(|message| bad_field("character_ids", &message))
}

/// Characters that a client names: each once, in its order.
///
/// # Errors
/// Why they cannot be: they are too many, or no ids.
pub(in crate::api) fn named(mut ids: Vec<String>) -> Result<Vec<String>, String> {
    if ids.len() > MAX_CHARACTERS {
        return Err(format!("must name at most {MAX_CHARACTERS} characters"));
    }
    if !ids.iter().all(|id| is_id(id)) {
        return Err(format!("must have at most {ID} characters in each"));
    }
    let mut seen = HashSet::new();
    ids.retain(|id| seen.insert(id.clone()));
    Ok(ids)
}

fn read_audio(fields: &Fields<'_>) -> Result<ClientMessage, Refusal> {
    let (format, sample_rate) = match fields.optional_text("format")?.as_deref() {
        None | Some("pcm") => (Some(WireFormat::Pcm), fields.count("sample_rate")?),
        Some("wav") => (Some(WireFormat::Wav), 0),
        Some("opus") => (None, 0),
        Some(_) => return Err(bad_field("format", "must be \"pcm\", \"wav\" or \"opus\"")),
    };
    let text = fields.borrowed_text("audio_data")?;
    let data = STANDARD
        .decode(text)
        .map_err(|error| Refusal::new("bad_audio", format!("audio_data is not base64: {error}")))?;
    let Some(format) = format else { return Ok(ClientMessage::Packet(data)) };
    Ok(ClientMessage::Audio(AudioChunk {
        data,
        format,
        sample_rate: small(sample_rate, "sample_rate")?,
        channels: small(fields.optional_count("channels")?.unwrap_or(1), "channels")?,
    }))
}

fn read_text(fields: &Fields<'_>) -> Result<Input, Refusal> {
    let text = fields.text("text")?;
    if text.trim().is_empty() {
        return Err(bad_field("text", "must not be empty"));
    }
    if text.chars().count() > TEXT {
        return Err(bad_field("text", &format!("must have at most {TEXT} characters")));
    }
    let client_message_id = fields.optional_text("client_message_id")?;
    if client_message_id.as_ref().is_some_and(|id| id.is_empty() || id.len() > OWN_ID_BYTES) {
        return Err(bad_field("client_message_id", &format!("must be 1 to {OWN_ID_BYTES} bytes")));
    }
    let attachments = fields.0.get("attachments").and_then(Value::as_array);
    if attachments.is_none_or(|list| !list.is_empty()) && fields.has("attachments") {
        return Err(bad_field("attachments", "is not offered by this version; leave it out"));
    }
    let character_ids = read_characters(fields)?.unwrap_or_default();
    let output = match fields.optional_text("output")?.as_deref() {
        None => None,
        Some("audio") => Some(OutputKind::Audio),
        Some("text") => Some(OutputKind::Text),
        Some(_) => return Err(bad_field("output", "must be \"audio\" or \"text\"")),
    };
    let terms = SettingsPatch { output, ..SettingsPatch::default() };
    Ok(Input::Text { text, client_message_id, terms, character_ids })
}

/// Settings stand beside the message's own fields, which `others` names.
fn read_settings(fields: &Fields<'_>, others: &[&str]) -> Result<SettingsPatch, Refusal> {
    let own = |name: &str| name == "type" || name == "ref" || others.contains(&name);
    let settings: Map<_, _> =
        fields.0.iter().filter(|(name, _)| !own(name)).map(|(name, value)| (name.clone(), value.clone())).collect();
    SettingsPatch::read(&Value::Object(settings)).map_err(|error| {
        let (field, message) = (excerpt(&error.field, REPEATED), excerpt(&error.message, EXPLAINED));
        bad_field(&field, &message)
    })
}

fn bad_field(field: &str, message: &str) -> Refusal {
    Refusal::new("bad_field", format!("{field}: {message}"))
}

/// The beginning of what a client sent, in at most `most` characters: an answer is kept for whoever comes back.
fn excerpt(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

fn is_id(text: &str) -> bool {
    text.chars().nth(ID).is_none()
}

fn small(value: u64, field: &str) -> Result<u32, Refusal> {
    u32::try_from(value).map_err(|_| bad_field(field, "is far too large"))
}

/// The fields of a message. A field that is null is a field that is not there.
struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn find(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    fn borrowed_text(&self, name: &str) -> Result<&'a str, Refusal> {
        let value = self.find(name).ok_or_else(|| bad_field(name, "is missing"))?;
        value.as_str().ok_or_else(|| bad_field(name, "must be a string"))
    }

    fn text(&self, name: &str) -> Result<String, Refusal> {
        self.borrowed_text(name).map(str::to_owned)
    }

    fn optional_text(&self, name: &str) -> Result<Option<String>, Refusal> {
        self.has(name).then(|| self.text(name)).transpose()
    }

    /// One of ours, or a model's name.
    fn id(&self, name: &str) -> Result<String, Refusal> {
        let text = self.borrowed_text(name)?;
        if !is_id(text) {
            return Err(bad_field(name, &format!("must have at most {ID} characters")));
        }
        Ok(text.to_owned())
    }

    fn optional_id(&self, name: &str) -> Result<Option<String>, Refusal> {
        self.has(name).then(|| self.id(name)).transpose()
    }

    fn count(&self, name: &str) -> Result<u64, Refusal> {
        let value = self.find(name).ok_or_else(|| bad_field(name, "is missing"))?;
        value.as_u64().ok_or_else(|| bad_field(name, "must be a whole number, 0 or more"))
    }

    fn optional_count(&self, name: &str) -> Result<Option<u64>, Refusal> {
        self.has(name).then(|| self.count(name)).transpose()
    }
}
