//! Each rule of a chain, with scripted doors in paused time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use tokio::time::{Instant, advance};

use super::*;
use crate::audio::Samples;
use crate::provider::fake::{FakeHearing, FakeSpeech};
use crate::provider::{Capability, FinalTranscript, FinishReason, ProviderState, Usage};

/// What a scripted model does with every request.
#[derive(Clone)]
enum Habit {
    /// Answers after so long.
    Answers(Duration),
    Fails(ProviderError),
    /// Says one word, then fails.
    Breaks,
    /// Never says anything.
    Hangs,
    /// Ends without a word.
    EndsShort,
}

struct Model {
    name: &'static str,
    habit: Mutex<Habit>,
    asked: AtomicUsize,
    /// Requests that it works on.
    busy: Arc<()>,
}

impl Model {
    fn new(name: &'static str, habit: Habit) -> Arc<Self> {
        Arc::new(Self { name, habit: Mutex::new(habit), asked: AtomicUsize::new(0), busy: Arc::default() })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn set(&self, habit: Habit) {
        *self.habit.lock().unwrap() = habit;
    }

    fn link(self: &Arc<Self>, remote: bool) -> Link<dyn ChatModel> {
        Link::new(self.name, remote, Arc::clone(self) as Arc<dyn ChatModel>)
    }

    fn failed(&self) -> ProviderError {
        ProviderError::Failed { what: self.name.to_owned() }
    }
}

fn done() -> Delta {
    Delta::Done { reason: FinishReason::Stop, usage: Usage::default() }
}

impl ChatModel for Model {
    fn reply(&self, _: ChatRequest) -> Flow<Delta> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let busy = Arc::clone(&self.busy);
        let begin = Ok(Delta::Begin { served_by: self.name.into() });
        let word = Ok(Delta::Text("hello".into()));
        let items = match self.habit.lock().unwrap().clone() {
            Habit::Answers(delay) => {
                let wait = stream::once(sleep(delay)).filter_map(|()| async { None });
                wait.chain(stream::iter([begin, word, Ok(done())])).boxed()
            }
            Habit::Fails(error) => stream::iter([Err(error)]).boxed(),
            Habit::Breaks => stream::iter([begin, word, Err(self.failed())]).boxed(),
            Habit::Hangs => stream::pending().boxed(),
            Habit::EndsShort => stream::empty().boxed(),
        };
        items.map(move |item| (item, &busy).0).boxed()
    }
}

const SOON: Habit = Habit::Answers(Duration::from_millis(100));

fn chain(links: impl IntoIterator<Item = Link<dyn ChatModel>>) -> Fallback<dyn ChatModel> {
    Fallback::new("a language model", links)
}

/// Who answered, or why nobody did.
async fn answer(chain: &Fallback<dyn ChatModel>, request: ChatRequest) -> Result<String, ProviderError> {
    let mut flow = chain.reply(request);
    let mut by = None;
    while let Some(item) = flow.next().await {
        match item? {
            Delta::Begin { served_by } => by = Some(served_by.to_string()),
            Delta::Done { .. } => return Ok(by.unwrap()),
            _ => {}
        }
    }
    panic!("no terminal item")
}

async fn ask(chain: &Fallback<dyn ChatModel>) -> Result<String, ProviderError> {
    answer(chain, ChatRequest::default()).await
}

fn private() -> ChatRequest {
    ChatRequest { caller: Caller { private: true, ..Caller::default() }, ..ChatRequest::default() }
}

fn faults() -> Vec<ProviderError> {
    let what = || "local".to_owned();
    vec![
        ProviderError::Overloaded { what: what(), retry_after: Duration::from_secs(3) },
        ProviderError::Unavailable { what: what(), remedy: "wait".into() },
        ProviderError::TimedOut { what: what(), after: Duration::from_secs(1) },
        ProviderError::OutOfMemory { what: what() },
        ProviderError::Refused { what: what(), reason: "the key is not valid".into() },
        ProviderError::Failed { what: what() },
    ]
}

#[tokio::test(start_paused = true)]
async fn the_first_that_answers_answers() {
    let (local, remote) = (Model::new("local", SOON), Model::new("openai/x", SOON));
    let chain = chain([local.link(false), remote.link(true)]);
    assert_eq!(ask(&chain).await.unwrap(), "local");
    assert_eq!((local.asked(), remote.asked()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn every_fault_before_the_first_item_goes_to_the_next_twenty_times() {
    for error in faults() {
        for round in 0..20 {
            let (local, remote) = (Model::new("local", Habit::Fails(error.clone())), Model::new("openai/x", SOON));
            let chain = chain([local.link(false), remote.link(true)]);
            assert_eq!(ask(&chain).await.unwrap(), "openai/x", "{error}, round {round}");
            assert_eq!((local.asked(), remote.asked()), (1, 1), "each is asked once");
        }
    }
    let (local, remote) = (Model::new("local", Habit::EndsShort), Model::new("openai/x", SOON));
    assert_eq!(ask(&chain([local.link(false), remote.link(true)])).await.unwrap(), "openai/x");
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_the_request_goes_to_nobody_else() {
    for error in [
        ProviderError::InvalidRequest { field: "max_tokens", message: "must be at least 1".into() },
        ProviderError::Filtered { reason: "words".into() },
        ProviderError::OverBudget { budget: "day", limit_usd: "1".into() },
        ProviderError::VoiceUnavailable { voice: "a".into(), nearest: "b".into() },
    ] {
        let (local, remote) = (Model::new("local", Habit::Fails(error.clone())), Model::new("openai/x", SOON));
        assert_eq!(ask(&chain([local.link(false), remote.link(true)])).await, Err(error));
        assert_eq!(remote.asked(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_restarts_after_its_first_item() {
    let (local, remote) = (Model::new("local", Habit::Breaks), Model::new("openai/x", SOON));
    let mut flow = chain([local.link(false), remote.link(true)]).reply(ChatRequest::default());
    assert_eq!(flow.next().await.unwrap(), Ok(Delta::Begin { served_by: "local".into() }));
    assert!(matches!(flow.next().await, Some(Ok(Delta::Text(_)))));
    assert_eq!(flow.next().await.unwrap(), Err(local.failed()));
    assert!(flow.next().await.is_none() && remote.asked() == 0);
}

#[tokio::test(start_paused = true)]
async fn a_hang_ends_at_the_deadline_and_the_next_answers_within_300_ms_of_it() {
    for _ in 0..20 {
        let (local, remote) = (Model::new("local", Habit::Hangs), Model::new("openai/x", SOON));
        let began = Instant::now();
        assert_eq!(ask(&chain([local.link(false), remote.link(true)])).await.unwrap(), "openai/x");
        let took = began.elapsed();
        assert!(took >= FIRST_TOKEN && took < FIRST_TOKEN + Duration::from_millis(300), "{took:?}");
        assert_eq!(Arc::strong_count(&local.busy), 1, "what hangs was cancelled");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_hurried_where_nobody_else_could_be_asked() {
    let slow = Habit::Answers(FIRST_TOKEN * 2);
    let alone = Model::new("local", slow.clone());
    assert_eq!(ask(&chain([alone.link(false)])).await.unwrap(), "local");
    let remote = Model::new("openai/x", SOON);
    let (local, chain) =
        (Model::new("local", slow), |local: &Arc<Model>| chain([local.link(false), remote.link(true)]));
    assert_eq!(answer(&chain(&local), private()).await.unwrap(), "local", "the other is not for this caller");
    assert_eq!(ask(&chain(&local)).await.unwrap(), "openai/x");
    let hung = Model::new("local", Habit::Hangs);
    let timed_out = ask(&super::Fallback::new("a language model", [hung.link(false)])).await.unwrap_err();
    assert_eq!(timed_out, ProviderError::TimedOut { what: "local".into(), after: LAST });
}

#[tokio::test(start_paused = true)]
async fn a_private_caller_reaches_nobody_elsewhere_and_is_told_so() {
    let (local, remote) = (Model::new("local", SOON), Model::new("openai/x", SOON));
    let chain = chain([remote.link(true), local.link(false)]);
    assert_eq!(answer(&chain, private()).await.unwrap(), "local");
    local.set(Habit::Fails(local.failed()));
    let error = answer(&chain, private()).await.unwrap_err().to_string();
    assert!(error.contains("openai/x") && error.contains("private") && error.contains("local failed"), "{error}");
    let prepared = chain.first_for(&private().caller).unwrap();
    assert!(Arc::ptr_eq(prepared, &(Arc::clone(&local) as Arc<dyn ChatModel>)));
    assert_eq!(remote.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn where_nobody_is_left_one_error_says_what_is_missing_and_how_to_get_it() {
    let down = Model::new(
        "openai/x",
        Habit::Fails(ProviderError::TimedOut { what: "openai/x".into(), after: Duration::from_secs(20) }),
    );
    let missing = Link::missing("qwen3-4b", false, "fetch it with `aichat pull qwen3-4b`");
    let chain = chain([missing, down.link(true)]);
    let error = ask(&chain).await.unwrap_err();
    let ProviderError::Unavailable { what, remedy } = &error else { panic!("{error}") };
    assert_eq!(what, "a language model");
    assert!(remedy.contains("qwen3-4b is not available: fetch it with `aichat pull qwen3-4b`"), "{remedy}");
    assert!(remedy.contains("openai/x did not answer within 20 s"), "{remedy}");
    let states: Vec<_> = chain.links().iter().map(|link| link.report(Capability::Chat).state).collect();
    assert!(matches!(&states[0], ProviderState::Missing { remedy } if remedy.contains("aichat pull")));
    assert_eq!(states[1], ProviderState::Ready, "one failure is no pattern");
}

#[tokio::test(start_paused = true)]
async fn where_all_are_full_the_shortest_wait_is_told() {
    let full = |name, seconds| {
        let retry_after = Duration::from_secs(seconds);
        Model::new(name, Habit::Fails(ProviderError::Overloaded { what: name.to_owned(), retry_after }))
    };
    let (one, two) = (full("local", 9), full("openai/x", 4));
    let error = ask(&chain([one.link(false), two.link(true)])).await.unwrap_err();
    let retry_after = Duration::from_secs(4);
    assert_eq!(error, ProviderError::Overloaded { what: "a language model".into(), retry_after });
    for _ in 0..20 {
        assert!(ask(&chain([one.link(false)])).await.is_err());
    }
    assert_eq!(one.asked(), 21, "a full house of our own opens no breaker");
}

#[tokio::test(start_paused = true)]
async fn the_breaker_spares_who_fails_and_asks_again_after_half_a_minute() {
    let (local, remote) = (Model::new("local", Habit::Breaks), Model::new("openai/x", SOON));
    local.set(Habit::Fails(local.failed()));
    let chain = chain([local.link(false), remote.link(true)]);
    for _ in 0..20 {
        assert_eq!(ask(&chain).await.unwrap(), "openai/x");
    }
    assert_eq!(local.asked(), 5);
    assert_eq!(chain.links()[0].report(Capability::Chat).state, ProviderState::Open);
    advance(Duration::from_secs(30)).await;
    assert_eq!(chain.links()[0].report(Capability::Chat).state, ProviderState::HalfOpen);
    local.set(Habit::Answers(Duration::from_secs(1)));
    let (probe, beside) = tokio::join!(ask(&chain), ask(&chain));
    assert_eq!((probe.unwrap().as_str(), beside.unwrap().as_str()), ("local", "openai/x"));
    assert_eq!(ask(&chain).await.unwrap(), "local");
    remote.set(Habit::Fails(remote.failed()));
    local.set(Habit::Fails(local.failed()));
    for _ in 0..5 {
        assert!(ask(&chain).await.is_err());
    }
    let error = ask(&chain).await.unwrap_err().to_string();
    assert!(error.contains("failed too often lately; it is asked again in 30 s"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves_counts_for_nothing() {
    let local = Model::new("local", Habit::Hangs);
    let chain = chain([local.link(false)]);
    for _ in 0..20 {
        assert!(chain.reply(ChatRequest::default()).next().now_or_never().is_none());
    }
    assert_eq!((local.asked(), Arc::strong_count(&local.busy)), (20, 1));
    assert_eq!(chain.links()[0].report(Capability::Chat).state, ProviderState::Ready);
}

#[tokio::test(start_paused = true)]
async fn work_begins_at_the_call() {
    let local = Model::new("local", SOON);
    let _unpolled = chain([local.link(false)]).reply(ChatRequest::default());
    assert_eq!(local.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_a_link_does_not_know_is_the_answer_only_where_the_request_names_it() {
    let unknown = ProviderError::UnknownModel { model: "x".into(), remedy: "ask for another".into() };
    let (remote, local) = (Model::new("openai/x", Habit::Fails(unknown.clone())), Model::new("local", SOON));
    let own = chain([remote.link(true), local.link(false)]);
    assert_eq!(ask(&own).await.unwrap(), "local", "a mistake in the settings costs the link");
    let named = chain([local.link(false)]).led_by(remote.link(true));
    assert_eq!(ask(&named).await, Err(unknown));
}

fn hearing(text: Result<&str, ProviderError>, delay: Duration) -> Arc<FakeHearing> {
    let fake = FakeHearing { delay, ..FakeHearing::new(&[]) };
    fake.texts.lock().unwrap().push_back(text.map(str::to_owned));
    Arc::new(fake)
}

fn listeners(fakes: [&Arc<FakeHearing>; 2]) -> Fallback<dyn SpeechToText> {
    let link = |name, fake: &Arc<FakeHearing>| Link::new(name, false, Arc::clone(fake) as Arc<dyn SpeechToText>);
    Fallback::new("speech recognition", [link("one", fakes[0]), link("two", fakes[1])])
}

/// Three seconds, as a microphone gives them.
fn microphone() -> BoxStream<'static, Mic> {
    stream::iter(0..6)
        .then(|number| async move {
            sleep(Duration::from_millis(500)).await;
            Mic::new(vec![number as f32 / 10.0; Samples::<16_000>::from_millis(500).as_usize()])
        })
        .boxed()
}

async fn transcript(chain: &Fallback<dyn SpeechToText>) -> Result<FinalTranscript, ProviderError> {
    let mut flow = chain.transcribe(microphone(), SttOptions::default());
    loop {
        if let Transcript::Final(transcript) = flow.next().await.expect("a terminal item")? {
            return Ok(transcript);
        }
    }
}

/// Fails at once, or after having heard everything, and never says anything before.
struct Deaf {
    error: ProviderError,
    listens: bool,
}

impl SpeechToText for Deaf {
    fn transcribe(&self, audio: BoxStream<'static, Mic>, _: SttOptions) -> Flow<Transcript> {
        let (error, listens) = (self.error.clone(), self.listens);
        stream::once(async move {
            if listens {
                audio.for_each(|_| async {}).await;
            }
            Err(error)
        })
        .boxed()
    }

    fn languages(&self) -> Vec<String> {
        Vec::new()
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_hears_the_utterance_from_its_beginning() {
    for listens in [false, true] {
        let two = hearing(Ok("go forward"), Duration::ZERO);
        let error = ProviderError::OutOfMemory { what: "one".into() };
        let deaf: Arc<dyn SpeechToText> = Arc::new(Deaf { error, listens });
        let links = [Link::new("one", false, deaf), Link::new("two", false, Arc::clone(&two) as _)];
        let chain = Fallback::new("speech recognition", links);
        assert_eq!(transcript(&chain).await.unwrap().text, "go forward");
        let heard = two.heard.lock().unwrap();
        let expected: Vec<f32> = (0..6).flat_map(|number| vec![number as f32 / 10.0; 8000]).collect();
        assert_eq!(heard[0].as_slice(), expected, "listens: {listens}");
        assert_eq!(chain.languages(), ["de", "en"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_partial_transcript_counts_as_an_answer() {
    let broken = ProviderError::Failed { what: "one".into() };
    let (one, two) = (hearing(Err(broken.clone()), Duration::ZERO), hearing(Ok("never"), Duration::ZERO));
    // The first says a partial after half a second of audio.
    one.texts.lock().unwrap().clear();
    one.texts.lock().unwrap().push_back(Ok("go forward".into()));
    let mut flow = listeners([&one, &two]).transcribe(microphone(), SttOptions::default());
    assert!(matches!(flow.next().await, Some(Ok(Transcript::Partial { .. }))));
    while let Some(item) = flow.next().await {
        assert!(item.is_ok());
    }
    assert!(two.asked.lock().unwrap().is_empty());
    assert_eq!(one.heard.lock().unwrap()[0].duration(), Duration::from_secs(3), "it went on to hear all");
}

#[tokio::test(start_paused = true)]
async fn a_transcript_is_overdue_by_the_audios_end_and_length() {
    struct Asleep;
    impl SpeechToText for Asleep {
        fn transcribe(&self, audio: BoxStream<'static, Mic>, _: SttOptions) -> Flow<Transcript> {
            stream::once(async move {
                let _held = audio;
                std::future::pending().await
            })
            .boxed()
        }
        fn languages(&self) -> Vec<String> {
            Vec::new()
        }
    }
    let two = hearing(Ok("go forward"), Duration::from_millis(200));
    let asleep: Arc<dyn SpeechToText> = Arc::new(Asleep);
    let links = [Link::new("one", false, asleep), Link::new("two", false, Arc::clone(&two) as _)];
    let began = Instant::now();
    let text = transcript(&Fallback::new("speech recognition", links)).await.unwrap().text;
    let took = began.elapsed().saturating_sub(Duration::from_secs(3));
    assert_eq!(text, "go forward");
    let due = TRANSCRIPT + Duration::from_secs(3);
    assert!(took >= due && took < due + Duration::from_millis(300), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_sentence_is_spoken_by_the_next_from_its_beginning() {
    let failed = ProviderError::Failed { what: "kokoro".into() };
    let broken = Arc::new(FakeSpeech { failures: vec![("Hello", failed)], ..FakeSpeech::default() });
    let whole = Arc::new(FakeSpeech::default());
    let link = |name, fake: &Arc<FakeSpeech>| Link::new(name, false, Arc::clone(fake) as Arc<dyn SpeechSynthesizer>);
    let chain = Fallback::new("speech", [link("kokoro", &broken), link("openai/tts-1", &whole)]);
    let request = SpeakRequest { text: "Hello there, whoever you are.".into(), ..SpeakRequest::default() };
    let length =
        chain.speak(request).fold(Duration::ZERO, |sum, chunk| async move { sum + chunk.unwrap().audio.duration() });
    assert_eq!(length.await, Duration::from_millis(60 * 29));
    assert_eq!((broken.load.now(), whole.load.now()), (0, 0));
    assert_eq!(chain.voices().len(), 1, "a voice that both have is one");
}

struct Embedder(Result<(), ProviderError>);

impl TextEmbedder for Embedder {
    fn embed(&self, request: EmbedRequest) -> BoxFuture<'static, Result<Embeddings, ProviderError>> {
        let outcome = self.0.clone();
        async move {
            outcome?;
            Ok(Embeddings { vectors: vec![vec![1.0]; request.texts.len()], tokens: 3, served_by: "two".into() })
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn embeddings_fall_back_too() {
    let failed = ProviderError::Failed { what: "one".into() };
    let link = |name, outcome| Link::new(name, false, Arc::new(Embedder(outcome)) as Arc<dyn TextEmbedder>);
    let chain = Fallback::new("an embedding model", [link("one", Err(failed.clone())), link("two", Ok(()))]);
    let request = EmbedRequest { texts: vec!["a".into(), "b".into()], ..EmbedRequest::default() };
    assert_eq!(chain.embed(request.clone()).await.unwrap().vectors.len(), 2);
    let alone = Fallback::new("an embedding model", [link("one", Err(failed.clone()))]);
    assert_eq!(alone.embed(request).await, Err(failed));
}
