//! Which chain a request goes along: the server's own, or one that begins with the model that the request names.
//!
//! A name that nobody serves is an error of the request. What a name means is [`Models`]' business; what it came to is
//! kept for the latest names, so that a model's failures are remembered from one request to the next.

mod lazy;

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use futures::future::{self, BoxFuture};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};

use super::fallback::{Fallback, Link};
use super::{
    ChatModel, ChatRequest, Delta, EmbedRequest, Embeddings, Flow, ProviderError, SpeakRequest, SpeechChunk,
    SpeechSynthesizer, SpeechToText, SttOptions, TextEmbedder, Transcript, VoiceInfo, VoiceNames, VoiceStudio,
};
use crate::audio::Mic;
pub use lazy::{Facts, Known, Lazy};

/// Names that are kept. Requests choose them, so there must be a bound.
const NAMES: usize = 64;
/// No model's name is longer.
const LONGEST_NAME: usize = 200;

/// What names mean.
pub trait Models<D: ?Sized>: Send + Sync {
    /// The one that serves the model `name`.
    ///
    /// # Errors
    /// [`ProviderError::UnknownModel`], with the names there are.
    fn link(&self, name: &str) -> Result<Link<D>, ProviderError>;
}

/// A door that looks at the request's `model`.
pub struct Routed<D: ?Sized> {
    own: Fallback<D>,
    models: Arc<dyn Models<D>>,
    /// The latest last.
    named: Mutex<Vec<(String, Link<D>)>>,
    wishes: RwLock<Wishes<D>>,
}

/// What was wished for while the server runs.
struct Wishes<D: ?Sized> {
    /// Asked before the server's chain.
    first: Option<Link<D>>,
    voices: VoiceNames,
}

impl<D: Send + Sync + ?Sized + 'static> Routed<D> {
    /// `own` is the server's chain.
    pub fn new(own: Fallback<D>, models: Arc<dyn Models<D>>) -> Self {
        let wishes = Wishes { first: None, voices: VoiceNames::default() };
        Self { own, models, named: Mutex::default(), wishes: RwLock::new(wishes) }
    }

    /// The chain of requests that name no model.
    pub fn own(&self) -> Fallback<D> {
        let wishes = self.wishes.read().unwrap_or_else(PoisonError::into_inner);
        wishes.first.clone().map_or_else(|| self.own.clone(), |first| self.own.headed_by(first))
    }

    /// Puts a model before the server's chain.
    ///
    /// # Errors
    /// [`ProviderError::UnknownModel`].
    pub fn prefer(&self, name: &str) -> Result<(), ProviderError> {
        let link = self.link(name)?;
        let is_first = self.own.links().first().is_some_and(|first| first.name == link.name);
        let mut wishes = self.wishes.write().unwrap_or_else(PoisonError::into_inner);
        wishes.first = (!is_first).then_some(link);
        Ok(())
    }

    /// What names of voices mean.
    pub fn name_voices(&self, names: VoiceNames) {
        self.wishes.write().unwrap_or_else(PoisonError::into_inner).voices = names;
    }

    fn chain(&self, model: Option<&str>) -> Result<Fallback<D>, ProviderError> {
        match model {
            None => Ok(self.own()),
            Some(name) => Ok(self.own.led_by(self.link(name)?)),
        }
    }

    fn link(&self, name: &str) -> Result<Link<D>, ProviderError> {
        let own = |name: &str| self.own.links().iter().find(|link| &*link.name == name).cloned();
        if let Some(link) = own(name) {
            return Ok(link);
        }
        // It ends up in logs and in a header.
        if name.len() > LONGEST_NAME || name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            let model = name.chars().filter(|c| !c.is_control()).take(40).collect();
            let remedy = format!("a name is at most {LONGEST_NAME} visible ASCII characters");
            return Err(ProviderError::UnknownModel { model, remedy });
        }
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let link = match named.iter().position(|(known, _)| known == name) {
            Some(place) => named.remove(place).1,
            None => self.models.link(name)?,
        };
        // Another name of one that the server's chain has.
        if let Some(link) = own(&link.name) {
            return Ok(link);
        }
        if named.len() == NAMES {
            named.remove(0);
        }
        named.push((name.to_owned(), link.clone()));
        Ok(link)
    }
}

fn refuse<T: Send + 'static>(error: ProviderError) -> Flow<T> {
    stream::once(future::ready(Err(error))).boxed()
}

impl Routed<dyn SpeechSynthesizer> {
    /// The voice that a request means. One that nobody here has is left to the engine.
    fn voice(&self, request: &SpeakRequest) -> Option<String> {
        let names = self.wishes.read().unwrap_or_else(PoisonError::into_inner).voices.clone();
        let meant = match &request.voice {
            None => names.default.as_ref(),
            Some(name) => names.openai.get(name),
        };
        // A model that the request names has voices of its own.
        let Some(meant) = meant.filter(|_| request.model.is_none()) else { return request.voice.clone() };
        let tongue = |language: &str| language.split('-').next().unwrap_or_default().to_owned();
        let voices = self.voices();
        let known = voices.iter().find(|voice| voice.name == *meant);
        // A default voice does not speak a language that is not its own.
        let speaks = |voice: &VoiceInfo| match &request.language {
            Some(language) if request.voice.is_none() => tongue(language) == tongue(&voice.language),
            _ => true,
        };
        known.filter(|voice| speaks(voice)).map(|voice| voice.name.clone()).or_else(|| request.voice.clone())
    }
}

impl ChatModel for Routed<dyn ChatModel> {
    fn reply(&self, request: ChatRequest) -> Flow<Delta> {
        match self.chain(request.model.as_deref()) {
            Ok(chain) => chain.reply(request),
            Err(error) => refuse(error),
        }
    }

    fn prepare(&self, request: ChatRequest) {
        // A request for a model that nobody knows is told so when it comes.
        if let Ok(chain) = self.chain(request.model.as_deref()) {
            chain.prepare(request);
        }
    }

    fn window(&self) -> Option<usize> {
        self.own().window()
    }

    fn check_model(&self, name: &str) -> Result<(), ProviderError> {
        self.link(name).map(|_| ())
    }
}

impl SpeechToText for Routed<dyn SpeechToText> {
    fn transcribe(&self, audio: BoxStream<'static, Mic>, options: SttOptions) -> Flow<Transcript> {
        match self.chain(options.model.as_deref()) {
            Ok(chain) => chain.transcribe(audio, options),
            Err(error) => refuse(error),
        }
    }

    fn languages(&self) -> Vec<String> {
        self.own().languages()
    }

    fn check_model(&self, name: &str) -> Result<(), ProviderError> {
        self.link(name).map(|_| ())
    }
}

impl SpeechSynthesizer for Routed<dyn SpeechSynthesizer> {
    fn speak(&self, mut request: SpeakRequest) -> Flow<SpeechChunk> {
        request.voice = self.voice(&request);
        match self.chain(request.model.as_deref()) {
            Ok(chain) => chain.speak(request),
            Err(error) => refuse(error),
        }
    }

    fn voices(&self) -> Vec<VoiceInfo> {
        self.own().voices()
    }

    fn studio(&self) -> Option<Arc<dyn VoiceStudio>> {
        self.own().studio()
    }

    fn check_model(&self, name: &str) -> Result<(), ProviderError> {
        self.link(name).map(|_| ())
    }
}

impl TextEmbedder for Routed<dyn TextEmbedder> {
    fn embed(&self, request: EmbedRequest) -> BoxFuture<'static, Result<Embeddings, ProviderError>> {
        match self.chain(request.model.as_deref()) {
            Ok(chain) => chain.embed(request),
            Err(error) => future::ready(Err(error)).boxed(),
        }
    }
}

#[cfg(test)]
mod tests;
