//! A door that is built when it is first asked, and given up when nobody has asked it for long.
//!
//! Building goes on when whoever asked has left, is done once, and after a failure is tried again by the next who asks.
//! A door is in use from the call until its stream is dropped; one that was in use by nobody for the time that is set is
//! dropped, with the model behind it, and built again by the next who asks, who waits for it. What a door says of itself
//! is known meanwhile.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::future::{self, BoxFuture};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

use super::refuse;
use crate::audio::Mic;
use crate::provider::{
    ChatModel, ChatRequest, Delta, EmbedRequest, Embeddings, Flow, ModelState, ProviderError, SpeakRequest,
    SpeechChunk, SpeechSynthesizer, SpeechToText, SttOptions, TextEmbedder, Transcript, VoiceInfo, VoiceStudio,
};

/// A door, and whoever is at it.
type Opened<D> = Result<(Arc<D>, Use<D>), ProviderError>;
type Build<D> = dyn Fn() -> BoxFuture<'static, Result<Arc<D>, ProviderError>> + Send + Sync;

/// What a door says of itself without working.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    window: Option<usize>,
    languages: Vec<String>,
    voices: Vec<VoiceInfo>,
    studio: Option<Arc<dyn VoiceStudio>>,
}

/// A door whose facts can be kept while it is not there.
pub trait Known {
    fn facts(&self) -> Facts;
}

impl Known for dyn ChatModel {
    fn facts(&self) -> Facts {
        Facts { window: self.window(), ..Facts::default() }
    }
}

impl Known for dyn SpeechToText {
    fn facts(&self) -> Facts {
        Facts { languages: self.languages(), ..Facts::default() }
    }
}

impl Known for dyn SpeechSynthesizer {
    fn facts(&self) -> Facts {
        Facts { voices: self.voices(), studio: self.studio(), ..Facts::default() }
    }
}

impl Known for dyn TextEmbedder {
    fn facts(&self) -> Facts {
        Facts::default()
    }
}

/// In the place of a door that is not needed yet, or no longer. Clones are the same door.
pub struct Lazy<D: ?Sized>(Arc<Shared<D>>);

impl<D: ?Sized> Clone for Lazy<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Shared<D: ?Sized> {
    /// For errors.
    name: Arc<str>,
    /// Given up when nobody has used it for so long. None: never.
    idle: Option<Duration>,
    build: Box<Build<D>>,
    state: Mutex<State<D>>,
}

type Cell<D> = Arc<OnceCell<Arc<D>>>;

struct State<D: ?Sized> {
    /// Where the door is or comes; another one after it was given up.
    cell: Cell<D>,
    users: usize,
    /// When the last of them left.
    left: Instant,
    /// How building the door came out.
    phase: ModelState,
    facts: Facts,
}

impl<D: Known + ?Sized> State<D> {
    fn give_up(&mut self) {
        let door = std::mem::take(&mut self.cell);
        if let Some(door) = door.get() {
            self.facts = door.facts();
        }
        self.phase = ModelState::Unloaded;
    }
}

impl<D: ?Sized> Shared<D> {
    fn state(&self) -> MutexGuard<'_, State<D>> {
        // Every change is whole: a panic elsewhere leaves nothing half written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Known + Send + Sync + ?Sized + 'static> Shared<D> {
    /// Has the door given up when its time has come.
    fn watch(self: &Arc<Self>) {
        if let Some(idle) = self.idle {
            tokio::spawn(give_up(Arc::downgrade(self), idle));
        }
    }
}

/// Keeps the door from being given up.
struct Use<D: ?Sized> {
    shared: Arc<Shared<D>>,
    cell: Cell<D>,
}

impl<D: ?Sized> Use<D> {
    fn new(shared: &Arc<Shared<D>>) -> Self {
        let mut state = shared.state();
        state.users += 1;
        let cell = Arc::clone(&state.cell);
        drop(state);
        Self { shared: Arc::clone(shared), cell }
    }
}

impl<D: ?Sized> Drop for Use<D> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.users -= 1;
        state.left = Instant::now();
    }
}

impl<D: Known + Send + Sync + ?Sized + 'static> Lazy<D> {
    /// `name` is for errors. The door is given up when nobody has used it for `idle`, or never.
    pub fn new(
        name: impl Into<Arc<str>>,
        idle: Option<Duration>,
        build: impl Fn() -> BoxFuture<'static, Result<Arc<D>, ProviderError>> + Send + Sync + 'static,
    ) -> Self {
        let state = State {
            cell: Cell::default(),
            users: 0,
            left: Instant::now(),
            phase: ModelState::Unloaded,
            facts: Facts::default(),
        };
        Self(Arc::new(Shared { name: name.into(), idle, build: Box::new(build), state: Mutex::new(state) }))
    }

    /// The same with the door built already.
    #[must_use]
    pub fn holding(self, door: Arc<D>) -> Self {
        let mut state = self.0.state();
        state.cell = Arc::new(OnceCell::new_with(Some(door)));
        state.phase = ModelState::Ready;
        state.left = Instant::now();
        drop(state);
        self.0.watch();
        self
    }

    pub fn phase(&self) -> ModelState {
        self.0.state().phase.clone()
    }

    /// Builds the door, where it is not there.
    ///
    /// # Errors
    /// Why it cannot be built.
    pub fn load(&self) -> BoxFuture<'static, Result<(), ProviderError>> {
        let door = self.door(Use::new(&self.0));
        async move { door.await.map(|_| ()) }.boxed()
    }

    /// Gives the door up. Whoever uses it still does; the next who asks builds another.
    pub fn unload(&self) {
        let mut state = self.0.state();
        state.give_up();
        drop(state);
        tracing::info!(model = &*self.0.name, "unloaded");
    }

    /// The door. It is being built from the call on.
    fn door(&self, user: Use<D>) -> BoxFuture<'static, Opened<D>> {
        if let Some(door) = user.cell.get() {
            return future::ready(Ok((Arc::clone(door), user))).boxed();
        }
        let what = self.0.name.to_string();
        // Whoever asked may leave: the task uses the door until it is there.
        let building = tokio::spawn(build(Use::new(&self.0)));
        async move {
            let built = building.await.unwrap_or(Err(ProviderError::Failed { what }));
            built.map(|door| (door, user))
        }
        .boxed()
    }

    fn flow<T: Send + 'static>(&self, ask: impl FnOnce(&D) -> Flow<T> + Send + 'static) -> Flow<T> {
        let user = Use::new(&self.0);
        if let Some(door) = user.cell.get() {
            let flow = ask(door);
            return held(flow, user);
        }
        let door = self.door(user);
        let asked = async move { door.await.map_or_else(refuse, |(door, user)| held(ask(&door), user)) };
        stream::once(asked).flatten().boxed()
    }

    /// Of the door if it is there, else what it said last.
    fn facts(&self) -> Facts {
        let state = self.0.state();
        match state.cell.get().cloned() {
            Some(door) => {
                drop(state);
                door.facts()
            }
            None => state.facts.clone(),
        }
    }
}

/// The stream, which uses the door until it is dropped.
fn held<D: Send + Sync + ?Sized + 'static, T: Send + 'static>(flow: Flow<T>, user: Use<D>) -> Flow<T> {
    flow.inspect(move |_| {
        let _ = &user;
    })
    .boxed()
}

async fn build<D: Known + Send + Sync + ?Sized + 'static>(user: Use<D>) -> Result<Arc<D>, ProviderError> {
    let Use { shared, cell } = &user;
    let mut is_new = false;
    let enter = |phase: ModelState| {
        let mut state = shared.state();
        // The door may have been given up meanwhile.
        if Arc::ptr_eq(&state.cell, cell) {
            state.phase = phase;
        }
    };
    let door = cell.get_or_try_init(|| {
        is_new = true;
        enter(ModelState::Loading);
        (shared.build)()
    });
    let door = door.await.cloned();
    if is_new {
        enter(match &door {
            Ok(_) => ModelState::Ready,
            Err(error) => ModelState::Failed { reason: error.to_string() },
        });
    }
    let door = door?;
    if is_new {
        shared.watch();
    }
    Ok(door)
}

/// Waits until nobody has used the door for `idle`, and drops it.
async fn give_up<D: Known + Send + Sync + ?Sized + 'static>(shared: Weak<Shared<D>>, idle: Duration) {
    let mut wait = idle;
    loop {
        sleep(wait).await;
        let Some(shared) = shared.upgrade() else { return };
        let mut state = shared.state();
        let unused = if state.users > 0 { Duration::ZERO } else { state.left.elapsed() };
        if unused < idle {
            wait = idle.saturating_sub(unused);
            continue;
        }
        state.give_up();
        drop(state);
        tracing::info!(model = &*shared.name, seconds = idle.as_secs(), "unloaded: nobody has used it for so long");
        return;
    }
}

impl ChatModel for Lazy<dyn ChatModel> {
    fn reply(&self, request: ChatRequest) -> Flow<Delta> {
        self.flow(move |door| door.reply(request))
    }

    fn prepare(&self, request: ChatRequest) {
        let door = self.door(Use::new(&self.0));
        tokio::spawn(async move {
            if let Ok((door, _used)) = door.await {
                door.prepare(request);
            }
        });
    }

    fn window(&self) -> Option<usize> {
        self.facts().window
    }
}

impl SpeechToText for Lazy<dyn SpeechToText> {
    fn transcribe(&self, audio: BoxStream<'static, Mic>, options: SttOptions) -> Flow<Transcript> {
        self.flow(move |door| door.transcribe(audio, options))
    }

    fn languages(&self) -> Vec<String> {
        self.facts().languages
    }
}

impl SpeechSynthesizer for Lazy<dyn SpeechSynthesizer> {
    fn speak(&self, request: SpeakRequest) -> Flow<SpeechChunk> {
        self.flow(move |door| door.speak(request))
    }

    fn voices(&self) -> Vec<VoiceInfo> {
        self.facts().voices
    }

    fn studio(&self) -> Option<Arc<dyn VoiceStudio>> {
        self.facts().studio
    }
}

impl TextEmbedder for Lazy<dyn TextEmbedder> {
    fn embed(&self, request: EmbedRequest) -> BoxFuture<'static, Result<Embeddings, ProviderError>> {
        let door = self.door(Use::new(&self.0));
        async move {
            let (door, _used) = door.await?;
            door.embed(request).await
        }
        .boxed()
    }
}

#[cfg(test)]
#[path = "lazy_tests.rs"]
mod tests;
