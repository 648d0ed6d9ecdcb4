use std::sync::Mutex;

use futures::StreamExt;
use futures::future::FutureExt;
use futures::stream;
use tokio::time::sleep;

use super::*;
use crate::provider::fake::{FakeChat, FakeSpeech};
use crate::provider::{ChatMessage, ChatRequest, Role, SpeakRequest, SttOptions};

#[derive(Default)]
struct Paper {
    reserved: Mutex<Vec<Usd>>,
    entries: Mutex<Vec<(Option<Reservation>, Entry)>>,
    refuse: bool,
}

impl UsageLedger for Paper {
    fn reserve(&self, most: Usd, _of: Arc<Entry>) -> BoxFuture<'static, Result<Reservation, ProviderError>> {
        self.reserved.lock().unwrap().push(most);
        let answer = if self.refuse {
            Err(ProviderError::OverBudget { budget: "daily", limit_usd: "1".into() })
        } else {
            Ok(Reservation("r".into()))
        };
        async { answer }.boxed()
    }

    fn settle(&self, reservation: Option<Reservation>, entry: Entry) -> BoxFuture<'static, ()> {
        self.entries.lock().unwrap().push((reservation, entry));
        async {}.boxed()
    }
}

fn prices() -> PriceList {
    serde_json::from_str(r#"{"openai/*": {"input": 1, "output": 2, "characters": 10, "minute": 0.06}}"#).unwrap()
}

fn books(paper: &Arc<Paper>, per_request: Option<Usd>) -> Books {
    Books::new(Arc::clone(paper) as _, prices(), per_request)
}

fn request() -> ChatRequest {
    ChatRequest { messages: vec![ChatMessage::new(Role::User, "Hello there")], ..ChatRequest::default() }
}

fn talker() -> Arc<FakeChat> {
    let chat = Arc::new(FakeChat::default());
    chat.say("One two three.", Duration::from_millis(100), Duration::from_millis(50));
    chat
}

async fn entry(paper: &Paper) -> (Option<Reservation>, Entry) {
    for _ in 0..1000 {
        if let Some(entry) = paper.entries.lock().unwrap().pop() {
            return entry;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("nothing was entered");
}

#[tokio::test(start_paused = true)]
async fn a_paid_reply_sets_aside_its_worst_case_and_settles_its_usage() {
    let paper = Arc::new(Paper::default());
    let counted = books(&paper, None).chat("openai/x", true, talker());
    let deltas: Vec<_> = counted.reply(request()).collect().await;
    assert!(deltas.last().unwrap().is_ok());
    // 11 bytes and a message's frame at 1, 512 tokens at 2 dollars a million.
    assert_eq!(*paper.reserved.lock().unwrap(), [Usd::billionths((11 + 16 + 64) * 1000 + 512 * 2000)]);
    let (reservation, entry) = entry(&paper).await;
    assert_eq!(reservation, Some(Reservation("r".into())));
    assert_eq!((entry.outcome, entry.estimated), (Outcome::Completed, false));
    assert_eq!(entry.cost, Usd::billionths(i64::try_from(entry.used.completion_tokens).unwrap() * 2000));
    assert_eq!(entry.used.first_item, Some(Duration::from_millis(100)));
}

#[tokio::test(start_paused = true)]
async fn a_local_reply_is_counted_and_free() {
    let paper = Arc::new(Paper::default());
    let counted = books(&paper, Some(Usd::ZERO)).chat("smollm2", false, talker());
    let _: Vec<_> = counted.reply(request()).collect().await;
    let (reservation, entry) = entry(&paper).await;
    assert_eq!((reservation, entry.cost, entry.remote), (None, Usd::ZERO, false));
    assert!(paper.reserved.lock().unwrap().is_empty());
    assert!(entry.used.total >= Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn who_leaves_early_pays_for_what_can_have_been_written() {
    let paper = Arc::new(Paper::default());
    let counted = books(&paper, None).chat("openai/x", true, talker());
    let mut reply = counted.reply(request());
    reply.next().await.unwrap().unwrap();
    reply.next().await.unwrap().unwrap();
    drop(reply);
    let (_, entry) = entry(&paper).await;
    assert_eq!((entry.outcome, entry.estimated), (Outcome::Cancelled, true));
    // As much as it can have been: a token a byte, and some that were on their way.
    assert_eq!((entry.used.prompt_tokens, entry.used.completion_tokens), (11 + 16 + 64, "One ".len() + 64));
}

#[tokio::test(start_paused = true)]
async fn a_failure_before_the_first_item_costs_nothing_and_a_refused_budget_asks_nobody() {
    let paper = Arc::new(Paper::default());
    let chat = Arc::new(FakeChat::default());
    chat.fail(ProviderError::Failed { what: "it".into() });
    let counted = books(&paper, None).chat("openai/x", true, Arc::clone(&chat) as _);
    let deltas: Vec<_> = counted.reply(request()).collect().await;
    assert!(deltas[0].is_err());
    let (reservation, entry) = entry(&paper).await;
    assert_eq!((reservation.is_some(), entry.outcome, entry.cost), (true, Outcome::Failed, Usd::ZERO));

    let paper = Arc::new(Paper { refuse: true, ..Paper::default() });
    let speech = Arc::new(FakeSpeech::default());
    let counted = books(&paper, None).speech("openai/tts-1", true, Arc::clone(&speech) as _);
    let chunks: Vec<_> = counted.speak(SpeakRequest { text: "Hi".into(), ..SpeakRequest::default() }).collect().await;
    assert!(matches!(chunks[..], [Err(ProviderError::OverBudget { .. })]));
    assert!(speech.asked.lock().unwrap().is_empty() && paper.entries.lock().unwrap().is_empty());
    let counted = books(&paper, Some(Usd::billionths(1))).chat("openai/x", true, talker());
    let error = counted.reply(request()).next().await.unwrap().unwrap_err();
    assert!(matches!(error, ProviderError::OverBudget { budget: "per-request", .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn speech_costs_by_character_and_minute() {
    let paper = Arc::new(Paper::default());
    let counted = books(&paper, None).speech("openai/tts-1", true, Arc::new(FakeSpeech::default()));
    let text = "x".repeat(50);
    let _: Vec<_> = counted.speak(SpeakRequest { text, ..SpeakRequest::default() }).collect().await;
    let (_, entry) = entry(&paper).await;
    // The fake speaks 60 ms a character: 3 s.
    assert_eq!(entry.used.audio, Duration::from_secs(3));
    assert_eq!(entry.cost, Usd::billionths(50 * 10_000 + 3_000_000));
}

#[tokio::test(start_paused = true)]
async fn heard_audio_is_counted_as_it_passes() {
    let paper = Arc::new(Paper::default());
    let hearing = Arc::new(crate::provider::fake::FakeHearing::new(&["hello"]));
    let counted = books(&paper, None).hearing("openai/whisper-1", true, hearing);
    let second = crate::audio::Mic::silence(crate::audio::Samples::from_millis(1000));
    let audio = stream::iter([second.clone(), second]).boxed();
    let _: Vec<_> = counted.transcribe(audio, SttOptions::default()).collect().await;
    let (_, entry) = entry(&paper).await;
    assert_eq!((entry.used.audio, entry.cost), (Duration::from_secs(2), Usd::billionths(2_000_000)));
}

#[test]
fn prices_are_found_by_model_then_by_service() {
    let list: PriceList = toml::from_str(include_str!("../../../models/prices.toml")).unwrap();
    let used = Used { prompt_tokens: 1_000_000, cached_tokens: 500_000, ..Used::default() };
    assert_eq!(list.price("openai/gpt-4o").unwrap().of(&used), Usd::dollars(1.875));
    assert!((list.price("openrouter/some/model").unwrap().input - 15.0).abs() < 1e-9);
    assert_eq!(list.price("other/model"), None);
    let own: PriceList = toml::from_str("\"openai/*\" = {}").unwrap();
    assert_eq!(list.with(own).price("openai/qwen"), Some(Price::default()));
}
