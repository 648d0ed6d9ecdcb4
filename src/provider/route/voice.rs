//! OpenAI's six voices where a local model speaks.

use std::sync::Arc;

use crate::provider::{Flow, SpeakRequest, SpeechChunk, SpeechSynthesizer, VoiceInfo};

/// Each with the local voices that stand in for it: the first that is there.
pub const OPENAI_VOICES: [(&str, [&str; 2]); 6] = [
    ("alloy", ["af_alloy", "af_heart"]),
    ("echo", ["am_echo", "am_michael"]),
    ("fable", ["bm_fable", "bm_george"]),
    ("onyx", ["am_onyx", "am_fenrir"]),
    ("nova", ["af_nova", "af_bella"]),
    ("shimmer", ["af_sky", "af_nicole"]),
];

/// A local synthesiser that knows them.
pub struct OpenAiVoices(pub Arc<dyn SpeechSynthesizer>);

impl OpenAiVoices {
    fn local(&self, wanted: &str) -> Option<String> {
        let (_, candidates) = OPENAI_VOICES.iter().find(|(name, _)| *name == wanted)?;
        let here = self.0.voices();
        let is_here = |name: &str| here.iter().any(|voice| voice.name == name);
        if is_here(wanted) {
            return None;
        }
        candidates.iter().find(|name| is_here(name)).map(|name| (*name).to_owned())
    }
}

impl SpeechSynthesizer for OpenAiVoices {
    fn speak(&self, mut request: SpeakRequest) -> Flow<SpeechChunk> {
        if let Some(local) = request.voice.as_deref().and_then(|wanted| self.local(wanted)) {
            request.voice = Some(local);
        }
        self.0.speak(request)
    }

    fn voices(&self) -> Vec<VoiceInfo> {
        self.0.voices()
    }
}
