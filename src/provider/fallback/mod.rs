//! A decorator that asks one after another: whoever comes first in a chain and answers.
//!
//! The next is asked only while nothing was yielded, and only where the fault is the provider's: overload, absence,
//! silence beyond a deadline, a failure, a refusal that is about our key. Each has a circuit breaker. A private caller's
//! request goes to nobody elsewhere. Where nobody is left, one error says why, of everyone.

mod breaker;
mod journey;
mod link;
mod tape;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use tokio::time::sleep;

use super::{
    Caller, ChatModel, ChatRequest, Delta, EmbedRequest, Embeddings, Flow, ProviderError, SpeakRequest, SpeechChunk,
    SpeechSynthesizer, SpeechToText, SttOptions, TextEmbedder, Transcript, VoiceInfo, VoiceStudio,
};
use crate::audio::Mic;
use journey::{Ask, Overdue, Question, flow};
pub use link::Link;
use link::Walk;
use tape::Tape;

/// For the first token of a reply, where another could write it.
pub const FIRST_TOKEN: Duration = Duration::from_secs(20);
/// For the first audio of a sentence, where another could speak it: somebody waits in silence.
pub const FIRST_AUDIO: Duration = Duration::from_secs(10);
/// For a transcript, from the end of the audio and beyond its length, where another could write it down. Two of them
/// are within the time that a session waits.
pub const TRANSCRIPT: Duration = Duration::from_secs(10);
/// For vectors, where another could make them. They are not the same vectors: a chain of embedders is a choice.
pub const EMBEDDINGS: Duration = Duration::from_secs(20);
/// Where there is no other: longer than any prompt is read.
const LAST: Duration = Duration::from_mins(2);

/// A chain, the first choice first. Clones are the same chain.
pub struct Fallback<D: ?Sized> {
    what: &'static str,
    links: Arc<[Link<D>]>,
    is_named: bool,
}

impl<D: ?Sized> Clone for Fallback<D> {
    fn clone(&self) -> Self {
        Self { what: self.what, links: Arc::clone(&self.links), is_named: self.is_named }
    }
}

impl<D: Send + Sync + ?Sized + 'static> Fallback<D> {
    /// `what` the links do, as errors name it: `a language model`.
    pub fn new(what: &'static str, links: impl IntoIterator<Item = Link<D>>) -> Self {
        Self { what, links: links.into_iter().collect(), is_named: false }
    }

    /// The same with `first` before all others. A request names it: that it does not know the model is the answer.
    #[must_use]
    pub(super) fn led_by(&self, first: Link<D>) -> Self {
        Self { is_named: true, ..self.headed_by(first) }
    }

    /// The same with `first` before all others.
    #[must_use]
    pub(super) fn headed_by(&self, first: Link<D>) -> Self {
        let mut links = vec![first];
        let others = self.links.iter().filter(|link| link.name != links[0].name).cloned().collect::<Vec<_>>();
        links.extend(others);
        Self { links: links.into_iter().collect(), ..self.clone() }
    }

    pub fn links(&self) -> &[Link<D>] {
        &self.links
    }

    fn doors(&self) -> impl Iterator<Item = &Arc<D>> {
        self.links.iter().filter_map(Link::door)
    }

    fn first_for(&self, caller: &Caller) -> Option<&Arc<D>> {
        self.links.iter().find(|link| link.is_for(caller)).and_then(Link::door)
    }

    fn question<T>(&self, deadline: Duration, ask: Ask<D, T>, is_last: fn(&T) -> bool) -> Question<D, T> {
        Question {
            ask,
            overdue: Box::new(|deadline| sleep(deadline).boxed()),
            deadline,
            last_deadline: Some(LAST),
            is_last,
            is_named: self.is_named,
            is_own_voice: false,
            settled: Box::new(|| {}),
        }
    }

    fn walk(&self, caller: &Caller) -> Walk<D> {
        Walk::new(self.what, &self.links, caller.clone())
    }
}

impl ChatModel for Fallback<dyn ChatModel> {
    fn reply(&self, request: ChatRequest) -> Flow<Delta> {
        let walk = self.walk(&request.caller);
        let ask: Ask<dyn ChatModel, Delta> = Box::new(move |door| Some(door.reply(request.clone())));
        flow(walk, self.question(FIRST_TOKEN, ask, |delta| matches!(delta, Delta::Done { .. })))
    }

    fn prepare(&self, request: ChatRequest) {
        if let Some(door) = self.first_for(&request.caller) {
            door.prepare(request);
        }
    }

    fn window(&self) -> Option<usize> {
        self.doors().next().and_then(|door| door.window())
    }
}

impl SpeechSynthesizer for Fallback<dyn SpeechSynthesizer> {
    fn speak(&self, request: SpeakRequest) -> Flow<SpeechChunk> {
        let walk = self.walk(&request.caller);
        let is_own_voice = request.own_voice.is_some();
        let ask: Ask<dyn SpeechSynthesizer, SpeechChunk> = Box::new(move |door| Some(door.speak(request.clone())));
        flow(walk, Question { is_own_voice, ..self.question(FIRST_AUDIO, ask, |chunk| chunk.last) })
    }

    fn voices(&self) -> Vec<VoiceInfo> {
        let mut all: Vec<VoiceInfo> = Vec::new();
        for voice in self.doors().flat_map(|door| door.voices()) {
            if !all.iter().any(|known| known.name == voice.name) {
                all.push(voice);
            }
        }
        all
    }

    /// Of the first that has one.
    fn studio(&self) -> Option<Arc<dyn VoiceStudio>> {
        self.doors().find_map(|door| door.studio())
    }
}

impl SpeechToText for Fallback<dyn SpeechToText> {
    fn transcribe(&self, audio: BoxStream<'static, Mic>, options: SttOptions) -> Flow<Transcript> {
        let walk = self.walk(&options.caller);
        let is_last = |item: &Transcript| matches!(item, Transcript::Final(_));
        if self.links.iter().filter(|link| link.is_for(&options.caller)).count() < 2 {
            let mut audio = Some(audio);
            let ask: Ask<dyn SpeechToText, Transcript> =
                Box::new(move |door| Some(door.transcribe(audio.take()?, options.clone())));
            let question = Question { last_deadline: None, ..self.question(TRANSCRIPT, ask, is_last) };
            return flow(walk, question);
        }
        let (tape, recording) = Tape::record(audio);
        let (player, clock, settled) = (Arc::clone(&tape), Arc::clone(&tape), tape);
        let ask: Ask<dyn SpeechToText, Transcript> =
            Box::new(move |door| Some(door.transcribe(player.play()?, options.clone())));
        let overdue: Overdue = Box::new(move |deadline| Arc::clone(&clock).overdue(deadline).boxed());
        let settled = Box::new(move || settled.forget());
        let question = Question { overdue, settled, last_deadline: None, ..self.question(TRANSCRIPT, ask, is_last) };
        // The recording lives as long as whoever listens for the transcript.
        let recorded = flow(walk, question).map(move |item| (item, &recording).0);
        recorded.boxed()
    }

    fn languages(&self) -> Vec<String> {
        self.doors().map(|door| door.languages()).find(|known| !known.is_empty()).unwrap_or_default()
    }
}

impl TextEmbedder for Fallback<dyn TextEmbedder> {
    fn embed(&self, request: EmbedRequest) -> BoxFuture<'static, Result<Embeddings, ProviderError>> {
        let walk = self.walk(&request.caller);
        let ask: Ask<dyn TextEmbedder, Embeddings> =
            Box::new(move |door| Some(stream::once(door.embed(request.clone())).boxed()));
        let what = self.what;
        let mut answer = flow(walk, self.question(EMBEDDINGS, ask, |_| true));
        async move {
            let nothing = || Err(ProviderError::Failed { what: what.to_owned() });
            answer.next().await.unwrap_or_else(nothing)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
