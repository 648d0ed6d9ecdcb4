//! Scripted doors for tests: what they answer, when, in tokio's time, and what they were asked.
//!
//! Built for tests only. Speech is a loud constant, 60 ms a character; voice activity is loudness.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, future};
use tokio::time::sleep;

use super::{
    ChatModel, ChatRequest, Delta, EmbedRequest, Embeddings, FinalTranscript, FinishReason, Flow, ProviderError,
    SpeakRequest, SpeechChunk, SpeechSynthesizer, SpeechToText, SttOptions, TextEmbedder, Transcript, Usage, VAD_FRAME,
    VadStream, VoiceActivity, VoiceEngine, VoiceInfo, WordMark,
};
use crate::audio::{Mic, Samples, Speech};

/// One step of a script: wait, then give this.
pub type Step<T> = (Duration, Result<T, ProviderError>);

fn play<T: Send + 'static>(script: Vec<Step<T>>, busy: Option<Busy>) -> Flow<T> {
    stream::unfold((script.into_iter(), busy), |(mut script, busy)| async move {
        let (delay, item) = script.next()?;
        sleep(delay).await;
        Some((item, (script, busy)))
    })
    .boxed()
}

/// The model that no fake serves.
pub const UNKNOWN: &str = "nobody";

fn check_model(name: &str) -> Result<(), ProviderError> {
    let remedy = "here are somebody, somebody-else".to_owned();
    if name == UNKNOWN { Err(ProviderError::UnknownModel { model: name.to_owned(), remedy }) } else { Ok(()) }
}

/// Counts what is at work, and the most that ever was.
#[derive(Clone, Default)]
pub struct Load {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Load {
    pub fn now(&self) -> usize {
        self.now.load(Ordering::SeqCst)
    }

    pub fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    fn enter(&self) -> Busy {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        Busy(self.clone())
    }
}

struct Busy(Load);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Speaks 60 ms a character, in chunks of half a second, each after `chunk_delay`.
pub struct FakeSpeech {
    pub first_delay: Duration,
    pub chunk_delay: Duration,
    /// Texts that contain one of these fail so; a text that contains "panic!" panics.
    pub failures: Vec<(&'static str, ProviderError)>,
    pub load: Load,
    /// The requests, in the order of their calls.
    pub asked: Mutex<Vec<SpeakRequest>>,
    /// What it passes for.
    pub engine: VoiceEngine,
}

pub const MILLIS_PER_CHAR: u64 = 60;

impl Default for FakeSpeech {
    fn default() -> Self {
        Self {
            first_delay: Duration::from_millis(80),
            chunk_delay: Duration::from_millis(20),
            failures: Vec::new(),
            load: Load::default(),
            asked: Mutex::new(Vec::new()),
            engine: VoiceEngine::Kokoro,
        }
    }
}

impl SpeechSynthesizer for FakeSpeech {
    fn speak(&self, request: SpeakRequest) -> Flow<SpeechChunk> {
        self.asked.lock().unwrap().push(request.clone());
        let busy = self.load.enter();
        assert!(!request.text.contains("panic!"), "as the script says");
        if let Some((_, error)) = self.failures.iter().find(|(part, _)| request.text.contains(part)) {
            return play(vec![(self.first_delay, Err(error.clone()))], Some(busy));
        }
        let mut words = marks(&request.text);
        let mut left = MILLIS_PER_CHAR * request.text.chars().count() as u64;
        let mut script = Vec::new();
        while left > 0 {
            let length = left.min(500);
            left -= length;
            let chunk = SpeechChunk {
                audio: Speech::new(vec![0.5; Samples::<24_000>::from_millis(length).as_usize()]),
                words: std::mem::take(&mut words),
                last: left == 0,
                served_by: "fake-voice".into(),
            };
            let delay = if script.is_empty() { self.first_delay } else { self.chunk_delay };
            script.push((delay, Ok(chunk)));
        }
        play(script, Some(busy))
    }

    fn voices(&self) -> Vec<VoiceInfo> {
        vec![VoiceInfo {
            name: "fake".to_owned(),
            language: "en".to_owned(),
            engine: self.engine,
            gender: None,
            aliases: vec!["alloy".to_owned()],
        }]
    }

    fn check_model(&self, name: &str) -> Result<(), ProviderError> {
        check_model(name)
    }
}

/// The words of `text` at their times, the space before a word being its pause.
pub fn marks(text: &str) -> Vec<WordMark> {
    let time = |chars: usize| Duration::from_millis(chars as u64 * MILLIS_PER_CHAR);
    let mut words = Vec::new();
    let mut at = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        words.push(WordMark { text: word.to_owned(), start: time(at), end: time(at + length) });
        at += length + 1;
    }
    words
}

/// Answers each request with the next script, or with what it usually says; without either it panics.
#[derive(Default)]
pub struct FakeChat {
    pub scripts: Mutex<VecDeque<Vec<Step<Delta>>>>,
    /// What it says without a script.
    pub usual: Option<&'static str>,
    pub asked: Mutex<Vec<ChatRequest>>,
    pub prepared: Mutex<Vec<ChatRequest>>,
    pub window: Option<usize>,
    pub load: Load,
}

impl FakeChat {
    /// Adds a reply that comes word by word.
    ///
    /// # Panics
    /// A test has panicked while it held the scripts.
    pub fn say(&self, text: &str, first_delay: Duration, word_delay: Duration) {
        self.scripts.lock().unwrap().push_back(word_by_word(text, first_delay, word_delay));
    }

    /// Adds a failure.
    ///
    /// # Panics
    /// A test has panicked while it held the scripts.
    pub fn fail(&self, error: ProviderError) {
        self.scripts.lock().unwrap().push_back(vec![(Duration::from_millis(5), Err(error))]);
    }
}

fn word_by_word(text: &str, first_delay: Duration, word_delay: Duration) -> Vec<Step<Delta>> {
    let mut script = vec![(first_delay, Ok(Delta::Begin { served_by: "fake-mind".into() }))];
    for word in text.split_inclusive(' ') {
        script.push((word_delay, Ok(Delta::Text(word.to_owned()))));
    }
    let usage = Usage { completion_tokens: script.len() - 1, first_token: first_delay, ..Usage::default() };
    script.push((Duration::ZERO, Ok(Delta::Done { reason: FinishReason::Stop, usage })));
    script
}

impl ChatModel for FakeChat {
    fn reply(&self, request: ChatRequest) -> Flow<Delta> {
        self.asked.lock().unwrap().push(request);
        let script = self.scripts.lock().unwrap().pop_front();
        let moment = Duration::from_millis(1);
        let script = script.or_else(|| self.usual.map(|text| word_by_word(text, moment, moment)));
        play(script.expect("a scripted reply"), Some(self.load.enter()))
    }

    fn prepare(&self, request: ChatRequest) {
        self.prepared.lock().unwrap().push(request);
    }

    fn window(&self) -> Option<usize> {
        self.window
    }

    fn check_model(&self, name: &str) -> Result<(), ProviderError> {
        check_model(name)
    }
}

/// Hears each utterance as the next of its texts, or as what it usually hears, `delay` after the audio has ended. Every half second of audio
/// gives a partial with one more word.
pub struct FakeHearing {
    pub texts: Mutex<VecDeque<Result<String, ProviderError>>>,
    /// What it hears when the texts have run out.
    pub usual: Option<&'static str>,
    pub delay: Duration,
    /// The audio of each utterance.
    pub heard: Arc<Mutex<Vec<Mic>>>,
    pub asked: Mutex<Vec<SttOptions>>,
}

impl FakeHearing {
    pub fn new(texts: &[&str]) -> Self {
        Self {
            texts: Mutex::new(texts.iter().map(|text| Ok((*text).to_owned())).collect()),
            usual: None,
            delay: Duration::from_millis(50),
            heard: Arc::default(),
            asked: Mutex::default(),
        }
    }
}

impl SpeechToText for FakeHearing {
    fn transcribe(&self, audio: BoxStream<'static, Mic>, options: SttOptions) -> Flow<Transcript> {
        self.asked.lock().unwrap().push(options);
        let text = self.texts.lock().unwrap().pop_front().or_else(|| self.usual.map(|text| Ok(text.to_owned())));
        let text = text.expect("a scripted transcript");
        let heard = Arc::clone(&self.heard);
        let delay = self.delay;
        let words = text.clone().unwrap_or_default();
        let whole = Arc::new(Mutex::new(Mic::default()));
        let kept = Arc::clone(&whole);
        let mut told = 0;
        let partials = audio.filter_map(move |more| {
            let mut all = kept.lock().unwrap();
            all.extend(&more);
            let due = all.duration().as_millis() as usize / 500;
            let partial = (due > told).then(|| {
                told = due;
                let text = words.split(' ').take(due).collect::<Vec<_>>().join(" ");
                Ok(Transcript::Partial { stable_chars: 0, text, served_by: "fake-ear".into() })
            });
            future::ready(partial)
        });
        let last = stream::once(async move {
            sleep(delay).await;
            let audio = whole.lock().unwrap().clone();
            let duration = audio.duration();
            heard.lock().unwrap().push(audio);
            Ok(Transcript::Final(FinalTranscript {
                text: text?,
                language: "en".to_owned(),
                segments: Vec::new(),
                audio: duration,
                latency: delay,
                ending: None,
                served_by: "fake-ear".into(),
            }))
        });
        partials.chain(last).boxed()
    }

    fn languages(&self) -> Vec<String> {
        ["de", "en"].map(str::to_owned).to_vec()
    }

    fn check_model(&self, name: &str) -> Result<(), ProviderError> {
        check_model(name)
    }
}

/// Embeds a text as its length, 3 and 4, made one long. It does not know text-embedding-3-small.
pub struct FakeEmbedder;

impl TextEmbedder for FakeEmbedder {
    fn embed(&self, request: EmbedRequest) -> BoxFuture<'static, Result<Embeddings, ProviderError>> {
        if request.model.as_deref() == Some("text-embedding-3-small") {
            let error = ProviderError::UnknownModel { model: "text-embedding-3-small".into(), remedy: "none".into() };
            return future::ready(Err(error)).boxed();
        }
        let vector = |text: &String| {
            let (a, b, c) = (text.len() as f32, 3.0, 4.0);
            let length = (a * a + b * b + c * c).sqrt();
            vec![a / length, b / length, c / length]
        };
        let vectors = request.texts.iter().map(vector).collect();
        future::ready(Ok(Embeddings { vectors, tokens: 7, served_by: "lengths".into() })).boxed()
    }
}

/// Takes what is loud for speech.
pub struct FakeActivity;

impl VoiceActivity for FakeActivity {
    fn open(&self) -> Box<dyn VadStream> {
        Box::new(Self)
    }
}

impl VadStream for FakeActivity {
    fn score(&mut self, frame: &[f32; VAD_FRAME]) -> f32 {
        let loudness = frame.iter().map(|sample| sample.abs()).sum::<f32>() / VAD_FRAME as f32;
        if loudness > 0.1 { 0.95 } else { 0.01 }
    }
}

/// As [`FakeActivity`], but panics at each of these frames, counted over all its streams.
pub struct FaultyActivity {
    faults: Range<usize>,
    frames: Arc<AtomicUsize>,
}

impl FaultyActivity {
    pub fn new(faults: Range<usize>) -> Self {
        Self { faults, frames: Arc::default() }
    }

    /// Frames it was asked about.
    pub fn asked(&self) -> usize {
        self.frames.load(Ordering::SeqCst)
    }
}

impl VoiceActivity for FaultyActivity {
    fn open(&self) -> Box<dyn VadStream> {
        Box::new(Self { faults: self.faults.clone(), frames: Arc::clone(&self.frames) })
    }
}

impl VadStream for FaultyActivity {
    fn score(&mut self, frame: &[f32; VAD_FRAME]) -> f32 {
        let number = self.frames.fetch_add(1, Ordering::SeqCst);
        assert!(!self.faults.contains(&number), "as the test wants");
        FakeActivity.score(frame)
    }
}
