//! `/api/settings`: what sessions and requests begin with, changed while the server runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State as Extract;
use axum::http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::House;
use crate::api::asker::Asker;
use crate::api::body::JsonBody;
use crate::api::defaults::{Defaults, MODEL_SETTINGS, OpenAiVoices, Saved};
use crate::api::problem::{Problem, ProblemBody};
use crate::provider::Capability;
use crate::session::settings::{Settings, VadSettings};
use crate::store::Scope;

pub(super) fn routes() -> OpenApiRouter<Arc<House>> {
    OpenApiRouter::new().routes(routes!(read, change))
}

/// One setting.
#[derive(Serialize, ToSchema)]
struct Setting<T> {
    /// In force.
    value: T,
    /// In force where nothing is saved.
    default: T,
    /// A flag or the environment fixes it.
    locked: bool,
}

/// A setting that may have no value of its own.
#[derive(Serialize, ToSchema)]
struct VoiceSetting {
    /// Null: the engine chooses.
    #[schema(required)]
    value: Option<String>,
    locked: bool,
}

/// The same of the voices that OpenAI's clients name.
#[derive(Serialize, ToSchema)]
struct VoiceNamesSetting {
    #[schema(required)]
    value: Option<OpenAiVoices>,
    locked: bool,
}

/// The server's settings. Sessions begin with them, and may change them for themselves.
#[derive(Serialize, ToSchema)]
struct ServerSettings {
    temperature: Setting<f32>,
    top_p: Setting<f32>,
    /// 0 is off.
    top_k: Setting<usize>,
    max_tokens: Setting<usize>,
    /// Of speech; 1 is natural.
    speed: Setting<f32>,
    summarize_history: Setting<bool>,
    /// A frame with at least this probability is speech.
    vad_threshold: Setting<f32>,
    /// So much silence ends an utterance.
    vad_silence_ms: Setting<u64>,
    /// So much audio from before its onset belongs to an utterance.
    vad_prefix_ms: Setting<u64>,
    stt_model: Setting<String>,
    llm_model: Setting<String>,
    tts_model: Setting<String>,
    voice: VoiceSetting,
    openai_voices: VoiceNamesSetting,
}

/// The server's settings
#[utoipa::path(
    get,
    path = "/settings",
    tag = "Settings",
    responses(
        (status = 200, body = ServerSettings),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn read(Extract(house): Extract<Arc<House>>, _: Asker) -> Json<ServerSettings> {
    Json(told(&house.state.settings))
}

/// Change the server's settings; null brings a default back
#[utoipa::path(
    put,
    path = "/settings",
    tag = "Settings",
    request_body = Saved,
    responses(
        (status = 200, body = ServerSettings),
        (status = 409, body = ProblemBody, content_type = "application/problem+json",
         description = "A flag or the environment fixes one of them"),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn change(
    Extract(house): Extract<Arc<House>>,
    asker: Asker,
    body: JsonBody,
) -> Result<Json<ServerSettings>, Problem> {
    asker.needs(Scope::Admin)?;
    let defaults = &house.state.settings;
    let changes: Map<String, Value> = body.read()?;
    if let Some(locked) = changes.keys().find(|name| defaults.is_locked(name)) {
        let detail = format!("a flag or the environment fixes {locked}; change it there, and start the server again");
        return Err(Problem::new(StatusCode::CONFLICT, "locked", detail).about(locked));
    }
    let _alone = defaults.alone().await;
    let saved = merged(&defaults.saved(), &changes)?;
    check(&house, &saved, &changes)?;
    let rows: BTreeMap<String, Option<Value>> =
        changes.into_iter().map(|(name, value)| (name, Some(value).filter(|value| !value.is_null()))).collect();
    house.state.store.save_settings(&rows).await?;
    defaults.put(saved).map_err(|error| Problem::bad_field(error.field, error.message))?;
    Ok(Json(told(defaults)))
}

/// What was saved, with the changes. A field that is null is no longer saved.
fn merged(saved: &Saved, changes: &Map<String, Value>) -> Result<Saved, Problem> {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(saved) else { return Ok(saved.clone()) };
    fields.extend(changes.clone());
    serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
        let message = error.inner().to_string();
        let unknown = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
        match unknown {
            Some(name) if changes.contains_key(name) => Problem::bad_field(name, "there is no such setting"),
            _ => Problem::bad_field(error.path().to_string(), message),
        }
    })
}

/// Whether all of it can be in force.
fn check(house: &House, saved: &Saved, changes: &Map<String, Value>) -> Result<(), Problem> {
    let wrong = |error: crate::session::settings::BadField| Problem::bad_field(error.field, error.message);
    saved.over(house.state.settings.base()).map_err(wrong)?;
    let cards = house.state.roster.models();
    for (setting, capability) in MODEL_SETTINGS.iter().filter(|(setting, _)| changes.contains_key(*setting)) {
        if let Some(name) = saved.model(*capability) {
            let is_known = cards.iter().any(|card| card.capability == *capability && card.name == name);
            let is_elsewhere =
                name.contains('/') && name.len() <= 200 && name.bytes().all(|byte| byte.is_ascii_graphic());
            if !is_known && !is_elsewhere {
                let here: Vec<&str> =
                    cards.iter().filter(|card| card.capability == *capability).map(|card| card.name.as_str()).collect();
                let message = format!("no such model is here; here are {}", here.join(", "));
                return Err(Problem::bad_field(*setting, message));
            }
            // Also says whether its service is configured. The change that follows puts it in force for good.
            let told = |error: crate::provider::ProviderError| Problem::bad_field(*setting, error);
            house.state.settings.shelf().prefer(*capability, name).map_err(told)?;
        }
    }
    let voices = house.state.parts.speech.voices();
    let check_voice = |field: String, name: &str| {
        if voices.iter().any(|voice| voice.name == name) {
            return Ok(());
        }
        Err(Problem::bad_field(field, "is no voice of the speech engine; GET /api/voices lists them"))
    };
    if changes.contains_key("voice")
        && let Some(name) = &saved.voice
    {
        check_voice("voice".to_owned(), name)?;
    }
    if changes.contains_key("openai_voices") {
        for (name, voice) in saved.openai_voices.iter().flat_map(OpenAiVoices::named) {
            check_voice(format!("openai_voices.{name}"), &voice)?;
        }
    }
    Ok(())
}

fn told(defaults: &Defaults) -> ServerSettings {
    let (now, base, saved) = (defaults.session(), defaults.base(), defaults.saved());
    let vad = |settings: &Settings| settings.vad.unwrap_or_default();
    let (now_vad, base_vad): (VadSettings, VadSettings) = (vad(&now), vad(base));
    let model = |setting: &str, capability: Capability| Setting {
        value: defaults.shelf().first(capability),
        default: defaults.model(setting),
        locked: defaults.is_locked(setting),
    };
    ServerSettings {
        temperature: plain(now.temperature, base.temperature),
        top_p: plain(now.top_p, base.top_p),
        top_k: plain(now.top_k, base.top_k),
        max_tokens: plain(now.max_tokens, base.max_tokens),
        speed: plain(now.speed, base.speed),
        summarize_history: plain(now.summarize_history, base.summarize_history),
        vad_threshold: plain(now_vad.threshold, base_vad.threshold),
        vad_silence_ms: plain(now_vad.silence_ms, base_vad.silence_ms),
        vad_prefix_ms: plain(now_vad.prefix_ms, base_vad.prefix_ms),
        stt_model: model("stt_model", Capability::Transcription),
        llm_model: model("llm_model", Capability::Chat),
        tts_model: model("tts_model", Capability::Speech),
        voice: VoiceSetting { value: saved.voice, locked: false },
        openai_voices: VoiceNamesSetting { value: saved.openai_voices, locked: false },
    }
}

fn plain<T>(value: T, default: T) -> Setting<T> {
    Setting { value, default, locked: false }
}

#[cfg(test)]
mod tests;
