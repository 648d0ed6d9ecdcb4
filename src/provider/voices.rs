//! Voices that people made: recorded or described, kept by their owner, spoken by an engine that can learn a voice.
//!
//! [`Voiced`] is the decorator that looks a request's voice up in a [`VoiceBook`], so that whoever asks for speech needs
//! nothing but its name. An engine's own voices come first: nobody's voice can take one's name. An engine that learns no
//! voices answers [`ProviderError::VoiceUnavailable`], with the nearest that it has.

use std::fmt::Debug;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{StreamExt, stream};

use super::{Caller, Flow, Gender, Language, ProviderError, SpeakRequest, SpeechChunk, SpeechSynthesizer, VoiceInfo};
use crate::audio::Speech;

/// A voice that somebody made.
#[derive(Clone, Debug)]
pub struct OwnVoice {
    /// By which requests name it.
    pub name: Arc<str>,
    /// Empty: unknown.
    pub language: Language,
    /// In words, as `masculine;moderate pitch;mature` or a sentence. It may be empty where there is a recording.
    pub speaker: String,
    /// Where it is heard, in words.
    pub scene: Option<String>,
    /// None: there are only words.
    pub reference: Option<VoiceReference>,
}

/// How a voice sounds, and the words that it says there.
#[derive(Clone, Debug)]
pub struct VoiceReference {
    /// Equal where the recordings are.
    pub key: Arc<str>,
    pub transcript: String,
    pub recording: Arc<dyn VoiceRecording>,
}

/// A recording, and what engines have made of it. Every method blocks while it reads or writes.
pub trait VoiceRecording: Send + Sync + Debug {
    /// # Errors
    /// [`ProviderError::Failed`] where it is gone or damaged; the log says more.
    fn sound(&self) -> Result<Speech, ProviderError>;

    /// What was kept for `engine`. None: nothing, or it cannot be read.
    fn kept(&self, engine: &str) -> Option<Vec<u8>>;

    /// Keeps what `engine` made of it. Where that fails it is made again some day.
    fn keep(&self, engine: &str, tokens: &[u8]);
}

/// Learns voices: what [`SpeechSynthesizer::studio`] gives.
pub trait VoiceStudio: Send + Sync + Debug {
    /// Makes ready what the first sentence of a voice would wait for; nothing where that was done.
    ///
    /// # Errors
    /// [`ProviderError::InvalidRequest`] says what is wrong with the recording.
    fn learn(self: Arc<Self>, voice: Arc<OwnVoice>) -> BoxFuture<'static, Result<(), ProviderError>>;
}

/// Whose voices there are.
pub trait VoiceBook: Send + Sync {
    /// The voice of the caller's that has this name. None: there is none.
    ///
    /// # Errors
    /// [`ProviderError::Failed`] where nobody can tell.
    fn find(&self, caller: &Caller, name: &str) -> BoxFuture<'static, Result<Option<OwnVoice>, ProviderError>>;
}

/// A synthesiser that knows the voices of a book.
pub struct Voiced {
    inner: Arc<dyn SpeechSynthesizer>,
    book: Arc<dyn VoiceBook>,
}

impl Voiced {
    pub fn new(inner: Arc<dyn SpeechSynthesizer>, book: Arc<dyn VoiceBook>) -> Self {
        Self { inner, book }
    }
}

impl SpeechSynthesizer for Voiced {
    fn speak(&self, mut request: SpeakRequest) -> Flow<SpeechChunk> {
        let Some(name) = request.voice.clone().filter(|_| request.own_voice.is_none()) else {
            return self.inner.speak(request);
        };
        if is_known(&self.inner.voices(), &name) {
            return self.inner.speak(request);
        }
        let (found, inner) = (self.book.find(&request.caller, &name), Arc::clone(&self.inner));
        // It begins at the call: what is asked of the book is under way before anybody listens.
        let looking = tokio::spawn(found);
        let speaking = async move {
            let found = looking.await.unwrap_or_else(|_| Err(ProviderError::Failed { what: "the voices".to_owned() }));
            match found {
                Ok(voice) => {
                    request.own_voice = voice.map(Arc::new);
                    inner.speak(request)
                }
                Err(error) => stream::once(async { Err(error) }).boxed(),
            }
        };
        stream::once(speaking).flatten().boxed()
    }

    fn voices(&self) -> Vec<VoiceInfo> {
        self.inner.voices()
    }

    fn studio(&self) -> Option<Arc<dyn VoiceStudio>> {
        self.inner.studio()
    }

    fn check_model(&self, name: &str) -> Result<(), ProviderError> {
        self.inner.check_model(name)
    }
}

/// Whether one of `voices` has this name, or answers to it.
pub fn is_known(voices: &[VoiceInfo], name: &str) -> bool {
    voices.iter().any(|voice| voice.name == name || voice.aliases.iter().any(|alias| alias == name))
}

/// What an engine with these voices answers where it cannot speak with `own`: the nearest speaks the same language and,
/// as far as words tell, is of the same gender.
pub fn unavailable(own: &OwnVoice, voices: &[VoiceInfo]) -> ProviderError {
    let gender = told_gender(&own.speaker);
    let language = if own.language.is_empty() { "en" } else { &own.language };
    let nearness = |voice: &VoiceInfo| {
        let speaks = match () {
            () if voice.language.eq_ignore_ascii_case(language) => 2,
            () if primary(&voice.language).eq_ignore_ascii_case(primary(language)) => 1,
            () => 0,
        };
        (speaks > 0, gender.is_some() && voice.gender == gender, speaks)
    };
    let nearest = voices.iter().rev().max_by_key(|voice| nearness(voice)).map(|voice| voice.name.clone());
    ProviderError::VoiceUnavailable { voice: own.name.to_string(), nearest: nearest.unwrap_or_default() }
}

/// What a description says of it.
fn told_gender(description: &str) -> Option<Gender> {
    let mut words = description.split(|c: char| !c.is_alphanumeric()).map(str::to_lowercase);
    words.find_map(|word| match word.as_str() {
        "female" | "feminine" | "woman" | "girl" | "lady" | "she" | "her" => Some(Gender::Female),
        "male" | "masculine" | "man" | "boy" | "gentleman" | "he" | "his" => Some(Gender::Male),
        _ => None,
    })
}

fn primary(language: &str) -> &str {
    language.split(['-', '_']).next().unwrap_or(language)
}

#[cfg(test)]
#[path = "voices_tests.rs"]
mod tests;
