use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::provider::fake::FakeChat;
use crate::provider::filter::{Filtered, WordList};

/// Serves every name that begins with `m`.
#[derive(Default)]
struct Shelf {
    asked: AtomicUsize,
    doors: Mutex<Vec<(String, Arc<FakeChat>)>>,
}

impl Models<dyn ChatModel> for Shelf {
    fn link(&self, name: &str) -> Result<Link<dyn ChatModel>, ProviderError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if !name.starts_with('m') {
            return Err(ProviderError::UnknownModel { model: name.to_owned(), remedy: "there are m1, m2".into() });
        }
        let door = Arc::new(FakeChat::default());
        self.doors.lock().unwrap().push((name.to_owned(), Arc::clone(&door)));
        Ok(Link::new(name, true, door as Arc<dyn ChatModel>))
    }
}

fn routed() -> (Routed<dyn ChatModel>, Arc<FakeChat>, Arc<Shelf>) {
    let (own, shelf) = (Arc::new(FakeChat::default()), Arc::new(Shelf::default()));
    let links = [Link::new("own", false, Arc::clone(&own) as Arc<dyn ChatModel>)];
    (Routed::new(Fallback::new("a language model", links), Arc::clone(&shelf) as _), own, shelf)
}

fn request(model: Option<&str>) -> ChatRequest {
    ChatRequest { model: model.map(str::to_owned), ..ChatRequest::default() }
}

async fn text(routed: &Routed<dyn ChatModel>, model: Option<&str>) -> Result<String, ProviderError> {
    let mut flow = routed.reply(request(model));
    let mut text = String::new();
    while let Some(delta) = flow.next().await {
        if let Delta::Text(more) = delta? {
            text += &more;
        }
    }
    Ok(text)
}

#[tokio::test(start_paused = true)]
async fn each_request_goes_to_the_model_that_it_names() {
    let (routed, own, shelf) = routed();
    // Two characters on two models, and one on the server's own.
    for model in ["m1", "m2"] {
        routed.prepare(request(Some(model)));
    }
    let doors = shelf.doors.lock().unwrap().clone();
    doors[0].1.say("I am one.", Duration::ZERO, Duration::ZERO);
    doors[1].1.say("I am two.", Duration::ZERO, Duration::ZERO);
    own.say("I am here.", Duration::ZERO, Duration::ZERO);
    own.say("Again.", Duration::ZERO, Duration::ZERO);
    assert_eq!(text(&routed, Some("m2")).await.unwrap(), "I am two.");
    assert_eq!(text(&routed, Some("m1")).await.unwrap(), "I am one.");
    assert_eq!(text(&routed, None).await.unwrap(), "I am here.");
    assert_eq!(text(&routed, Some("own")).await.unwrap(), "Again.");
    assert_eq!(shelf.asked.load(Ordering::SeqCst), 2, "a name is looked up once");
    assert_eq!(doors[0].1.prepared.lock().unwrap().len(), 1);
}

#[test]
fn a_name_that_nobody_serves_is_known_before_it_is_asked() {
    let (routed, own, shelf) = routed();
    let filtered = Filtered::new(Arc::new(routed) as Arc<dyn ChatModel>, Arc::new(WordList::new("")));
    assert_eq!([filtered.check_model("own"), filtered.check_model("m2")], [Ok(()), Ok(())]);
    let unknown = filtered.check_model("banana").unwrap_err().to_string();
    assert_eq!(unknown, "there is no model \"banana\": there are m1, m2");
    assert!(own.asked.lock().unwrap().is_empty() && shelf.doors.lock().unwrap()[0].1.asked.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_named_model_that_fails_is_stood_in_for_by_the_servers_own() {
    let (routed, own, shelf) = routed();
    routed.prepare(request(Some("m1")));
    let door = Arc::clone(&shelf.doors.lock().unwrap()[0].1);
    door.fail(ProviderError::Failed { what: "m1".into() });
    own.say("I stand in.", Duration::ZERO, Duration::ZERO);
    assert_eq!(text(&routed, Some("m1")).await.unwrap(), "I stand in.");
}

#[tokio::test(start_paused = true)]
async fn a_model_that_is_preferred_goes_before_the_servers_own() {
    let (routed, own, shelf) = routed();
    assert!(routed.prefer("banana").is_err());
    routed.prefer("m1").unwrap();
    let door = Arc::clone(&shelf.doors.lock().unwrap()[0].1);
    door.say("I am one.", Duration::ZERO, Duration::ZERO);
    assert_eq!(text(&routed, None).await.unwrap(), "I am one.");
    door.fail(ProviderError::Failed { what: "m1".into() });
    own.say("I stand in.", Duration::ZERO, Duration::ZERO);
    assert_eq!(text(&routed, None).await.unwrap(), "I stand in.");
    routed.prefer("own").unwrap();
    own.say("I am here.", Duration::ZERO, Duration::ZERO);
    assert_eq!(text(&routed, None).await.unwrap(), "I am here.");
}

#[tokio::test(start_paused = true)]
async fn names_of_voices_mean_what_was_said_of_them() {
    struct Nobody;
    impl Models<dyn SpeechSynthesizer> for Nobody {
        fn link(&self, name: &str) -> Result<Link<dyn SpeechSynthesizer>, ProviderError> {
            Err(ProviderError::UnknownModel { model: name.to_owned(), remedy: String::new() })
        }
    }
    let speech = Arc::new(crate::provider::fake::FakeSpeech::default());
    let links = [Link::new("own", false, Arc::clone(&speech) as Arc<dyn SpeechSynthesizer>)];
    let routed = Routed::new(Fallback::new("speech", links), Arc::new(Nobody));
    let meant = |voice: Option<&str>, language: Option<&str>| {
        let voice = voice.map(str::to_owned);
        routed.voice(&SpeakRequest { voice, language: language.map(str::to_owned), ..SpeakRequest::default() })
    };
    assert_eq!(meant(None, None), None);
    let names = |default: &str, echo: &str| VoiceNames {
        default: Some(default.to_owned()),
        openai: [("echo".to_owned(), echo.to_owned())].into(),
    };
    routed.name_voices(names("fake", "fake"));
    assert_eq!(meant(None, None).as_deref(), Some("fake"));
    assert_eq!(meant(None, Some("en-gb")).as_deref(), Some("fake"));
    assert_eq!(meant(None, Some("fr")), None, "it does not speak French");
    assert_eq!(meant(Some("echo"), Some("fr")).as_deref(), Some("fake"));
    assert_eq!(meant(Some("alloy"), None).as_deref(), Some("alloy"));
    // A voice that is gone with its model.
    routed.name_voices(names("gone", "gone"));
    assert_eq!(meant(None, None), None);
    assert_eq!(meant(Some("echo"), None).as_deref(), Some("echo"));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_name_is_an_error_with_the_known_ones() {
    let (routed, own, _) = routed();
    let error = text(&routed, Some("banana")).await.unwrap_err().to_string();
    assert_eq!(error, "there is no model \"banana\": there are m1, m2");
    let (long, odd) = ("m".repeat(201), "m1\r\nx-evil: 1");
    for name in ["", &long, odd, "m 1", "mödel"] {
        let error = text(&routed, Some(name)).await.unwrap_err();
        assert!(matches!(error, ProviderError::UnknownModel { .. }) && !error.to_string().contains('\n'), "{error}");
    }
    assert!(own.asked.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn names_are_kept_up_to_a_bound() {
    let (routed, _, shelf) = routed();
    for number in 0..200 {
        routed.prepare(request(Some(&format!("m{number}"))));
        routed.prepare(request(Some("m0")));
    }
    assert_eq!(shelf.asked.load(Ordering::SeqCst), 200, "one that is in use stays");
    assert_eq!(routed.named.lock().unwrap().len(), NAMES);
}

#[tokio::test(start_paused = true)]
async fn a_lazy_door_is_built_once_and_after_its_first_caller_has_left() {
    let built = Arc::new(AtomicUsize::new(0));
    let door = Arc::new(FakeChat::default());
    let build = {
        let (built, door) = (Arc::clone(&built), Arc::clone(&door));
        move || {
            let (built, door) = (Arc::clone(&built), Arc::clone(&door) as Arc<dyn ChatModel>);
            async move {
                tokio::time::sleep(Duration::from_secs(5)).await;
                match built.fetch_add(1, Ordering::SeqCst) {
                    0 => Err(ProviderError::Unavailable { what: "m".into(), remedy: "free some memory".into() }),
                    _ => Ok(door),
                }
            }
            .boxed()
        }
    };
    let lazy = Lazy::<dyn ChatModel>::new("m", None, build);
    assert!(lazy.reply(ChatRequest::default()).next().await.unwrap().is_err());
    drop(lazy.reply(ChatRequest::default()));
    let (one, two) = (lazy.reply(ChatRequest::default()), lazy.reply(ChatRequest::default()));
    door.say("Here.", Duration::ZERO, Duration::ZERO);
    door.say("And here.", Duration::ZERO, Duration::ZERO);
    let (one, two) = tokio::join!(one.collect::<Vec<_>>(), two.collect::<Vec<_>>());
    assert!(one.iter().chain(&two).all(Result::is_ok));
    assert_eq!(built.load(Ordering::SeqCst), 2, "once in vain, once for all");
}
