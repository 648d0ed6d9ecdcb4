//! A voice elsewhere: `/audio/speech`, streamed as raw PCM.
//!
//! No service tells word times, so there are none: whoever needs them estimates them from the text.

use std::sync::Arc;

use serde_json::json;

use super::body::Body;
use super::flow::{Outlet, flow, refused};
use super::service::{Dialect, Service, Target};
use crate::audio::{SPEECH_HZ, Speech};
use crate::provider::{
    Flow, Gender, ProviderError, SpeakRequest, SpeechChunk, SpeechSynthesizer, VoiceEngine, VoiceInfo, voices,
};

/// OpenAI's voices. All of its speech models have them.
pub const VOICES: [&str; 6] = ["alloy", "echo", "fable", "onyx", "nova", "shimmer"];
/// How each of them sounds to most.
const GENDERS: [Option<Gender>; 6] =
    [None, Some(Gender::Male), Some(Gender::Male), Some(Gender::Male), Some(Gender::Female), Some(Gender::Female)];
/// What its newer models have beside them: passed on, not offered.
const NEWER_VOICES: [&str; 7] = ["ash", "ballad", "cedar", "coral", "marin", "sage", "verse"];

/// Of one chunk: 100 ms.
const CHUNK_BYTES: usize = SPEECH_HZ as usize / 10 * 2;

/// Which of a service's voices stands for a name that it may not know. None: none does, and the request is refused.
pub type VoiceFor = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// A [`SpeechSynthesizer`] of a service.
pub struct RemoteSpeech {
    target: Target,
    voice_for: VoiceFor,
}

impl RemoteSpeech {
    /// `model` as the service names it. A name that is no voice of OpenAI's is always spoken by the same one of the six;
    /// other services may have voices of any name and are asked for it.
    pub fn new(service: Service, model: &str) -> Self {
        let voice_for: VoiceFor = match service.dialect() {
            Dialect::Vllm => Arc::new(|name| Some(name.to_owned())),
            Dialect::OpenAi | Dialect::OpenRouter => Arc::new(|name| Some(stand_in(name).to_owned())),
        };
        Self { target: Target::new(service, model), voice_for }
    }

    /// Chooses the voices otherwise.
    #[must_use]
    pub fn with_voices(mut self, voice_for: VoiceFor) -> Self {
        self.voice_for = voice_for;
        self
    }

    fn voice(&self, wanted: Option<&str>) -> Result<String, ProviderError> {
        let Some(wanted) = wanted else { return Ok(VOICES[0].to_owned()) };
        let unavailable =
            || ProviderError::VoiceUnavailable { voice: wanted.to_owned(), nearest: stand_in(wanted).to_owned() };
        let voice = (self.voice_for)(wanted).ok_or_else(unavailable)?;
        if voice != wanted {
            tracing::info!(what = %self.target.what, wanted, voice, "another voice speaks");
        }
        Ok(voice)
    }
}

impl SpeechSynthesizer for RemoteSpeech {
    fn speak(&self, request: SpeakRequest) -> Flow<SpeechChunk> {
        if let Some(own) = &request.own_voice {
            return refused(voices::unavailable(own, &self.voices()));
        }
        let voice = self.target.admit(&request.caller).and_then(|()| self.voice(request.voice.as_deref()));
        match voice {
            Ok(voice) => {
                let target = self.target.clone();
                flow("remote speech", target.what.clone(), |outlet| speak(target, request, voice, outlet))
            }
            Err(error) => refused(error),
        }
    }

    fn voices(&self) -> Vec<VoiceInfo> {
        // They speak the language of the text; they were trained on English first.
        let voice = |(name, gender): (&&str, Option<Gender>)| VoiceInfo {
            name: (*name).to_owned(),
            language: "en".to_owned(),
            engine: VoiceEngine::Remote,
            gender,
            aliases: Vec::new(),
        };
        VOICES.iter().zip(GENDERS).map(voice).collect()
    }
}

async fn speak(
    target: Target,
    request: SpeakRequest,
    voice: String,
    outlet: Outlet<SpeechChunk>,
) -> Result<SpeechChunk, ProviderError> {
    let chunk = |bytes: &[u8], last| SpeechChunk {
        audio: Speech::from_s16le(bytes),
        words: Vec::new(),
        last,
        served_by: target.what.clone(),
    };
    if request.text.trim().is_empty() {
        return Ok(chunk(&[], true));
    }
    let mut json = json!({
        "model": &*target.model,
        "input": request.text,
        "voice": voice,
        "response_format": "pcm",
    });
    if (request.speed - 1.0).abs() > f32::EPSILON {
        json["speed"] = f64::from(request.speed).into();
    }
    let body = target.ask("audio/speech", &json, &request.caller).await?;
    let mut body = pcm(&target, body).await?;
    let mut held: Vec<u8> = Vec::new();
    while let Some(bytes) = body.next().await? {
        held.extend_from_slice(&bytes);
        // The last chunk has a sound in it, so one sample at least stays behind.
        let ready = held.len().saturating_sub(2) / CHUNK_BYTES * CHUNK_BYTES;
        for piece in held[..ready].chunks_exact(CHUNK_BYTES) {
            outlet.give(chunk(piece, false)).await;
        }
        held.drain(..ready);
    }
    if held.len() < 2 {
        tracing::warn!(what = %target.what, "the answer has no sound in it");
        return Err(target.failed());
    }
    Ok(chunk(&held, true))
}

/// A body that is 24 kHz PCM. Anything else played as such would be noise.
async fn pcm(target: &Target, body: Body) -> Result<Body, ProviderError> {
    let audio_bytes = target.bounds().audio_bytes;
    if body.is_json() {
        target.json(body).await?;
        tracing::warn!(what = %target.what, "the answer is JSON where sound was asked for");
        return Err(target.failed());
    }
    let media_type = body.media_type();
    let (kind, parameters) = media_type.split_once(';').unwrap_or((&media_type, ""));
    let raw = matches!(kind.trim(), "" | "audio/pcm" | "audio/l16" | "audio/x-pcm" | "application/octet-stream");
    let rates = parameters.split(';').filter_map(|parameter| parameter.trim().strip_prefix("rate="));
    let other_rate = rates.filter_map(|rate| rate.parse::<u32>().ok()).any(|rate| rate != SPEECH_HZ);
    if !raw || other_rate {
        tracing::warn!(what = %target.what, "the answer is not the PCM that was asked for");
        return Err(target.failed());
    }
    Ok(body.at_most(audio_bytes))
}

/// The voice that stands for a name: itself where it is one of OpenAI's, and else always the same one of the six.
pub fn stand_in(name: &str) -> &str {
    if VOICES.contains(&name) || NEWER_VOICES.contains(&name) {
        return name;
    }
    // FNV-1a: the same on every machine and in every version.
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    VOICES[name.bytes().fold(0xcbf2_9ce4_8422_2325, mix) as usize % VOICES.len()]
}

#[cfg(test)]
#[path = "speech_tests.rs"]
mod tests;
