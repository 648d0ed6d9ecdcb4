//! Which voice speaks, and who is told that it cannot.

use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::provider::fake::FakeSpeech;
use crate::provider::fallback::{Fallback, Link};
use crate::provider::{ProviderState, VoiceEngine};

pub(crate) fn own(name: &str, language: &str, speaker: &str) -> OwnVoice {
    OwnVoice {
        name: name.into(),
        language: language.to_owned(),
        speaker: speaker.to_owned(),
        scene: None,
        reference: None,
    }
}

/// Knows the voice "nora" of "ann".
#[derive(Default)]
struct Book {
    asked: Mutex<Vec<String>>,
}

impl VoiceBook for Book {
    fn find(&self, caller: &Caller, name: &str) -> BoxFuture<'static, Result<Option<OwnVoice>, ProviderError>> {
        self.asked.lock().unwrap().push(name.to_owned());
        let found = match (caller.owner.as_deref(), name) {
            (Some("ann"), "nora") => Ok(Some(own("nora", "de", "calm"))),
            (_, "broken") => Err(ProviderError::Failed { what: "the voices".to_owned() }),
            _ => Ok(None),
        };
        Box::pin(async { found })
    }
}

fn request(voice: Option<&str>, owner: &str) -> SpeakRequest {
    let caller = Caller { owner: Some(owner.into()), ..Caller::default() };
    SpeakRequest { text: "Hello.".to_owned(), voice: voice.map(str::to_owned), caller, ..SpeakRequest::default() }
}

#[tokio::test(start_paused = true)]
async fn a_voice_is_looked_up_by_its_owner_and_its_name() {
    let (speech, book) = (Arc::new(FakeSpeech::default()), Arc::new(Book::default()));
    let voiced = Voiced::new(Arc::clone(&speech) as _, Arc::clone(&book) as _);
    for (voice, owner, found) in [
        (None, "ann", None),
        (Some("fake"), "ann", None),
        (Some("alloy"), "ann", None),
        (Some("nora"), "ann", Some("nora")),
        (Some("nora"), "bob", None),
        (Some("nobody"), "ann", None),
    ] {
        let items: Vec<_> = voiced.speak(request(voice, owner)).collect().await;
        assert!(items.iter().all(Result::is_ok), "{voice:?}");
        let asked = speech.asked.lock().unwrap().pop().unwrap();
        assert_eq!(asked.voice.as_deref(), voice);
        assert_eq!(asked.own_voice.as_deref().map(|own| &*own.name), found, "{voice:?} of {owner}");
    }
    // The engine's own names are nobody else's: the book is not even asked.
    assert_eq!(*book.asked.lock().unwrap(), ["nora", "nora", "nobody"]);
    let failed: Vec<_> = voiced.speak(request(Some("broken"), "ann")).collect().await;
    assert!(matches!(failed.as_slice(), [Err(ProviderError::Failed { .. })]), "{failed:?}");
}

fn engine_voice(name: &str, language: &str, gender: Option<Gender>) -> VoiceInfo {
    VoiceInfo {
        name: name.to_owned(),
        language: language.to_owned(),
        engine: VoiceEngine::Kokoro,
        gender,
        aliases: Vec::new(),
    }
}

#[test]
fn the_nearest_speaks_the_language_then_sounds_alike() {
    let voices = [
        engine_voice("af_heart", "en-us", Some(Gender::Female)),
        engine_voice("am_adam", "en-us", Some(Gender::Male)),
        engine_voice("bm_lewis", "en-gb", Some(Gender::Male)),
        engine_voice("ff_siwis", "fr", Some(Gender::Female)),
    ];
    for (language, speaker, nearest) in [
        ("en", "calm", "af_heart"),
        ("", "An old man, slow", "am_adam"),
        ("en-gb", "masculine;slow", "bm_lewis"),
        ("en-gb", "a woman", "af_heart"),
        ("fr", "male", "ff_siwis"),
        ("tlh", "Female", "af_heart"),
    ] {
        let told = unavailable(&own("nora", language, speaker), &voices);
        let expected = ProviderError::VoiceUnavailable { voice: "nora".into(), nearest: nearest.into() };
        assert_eq!(told, expected, "{language} {speaker}");
    }
}

/// An engine that does one thing with every request.
struct Engine(Result<(), ProviderError>);

impl SpeechSynthesizer for Engine {
    fn speak(&self, _: SpeakRequest) -> Flow<SpeechChunk> {
        let chunk = |()| SpeechChunk { audio: Speech::default(), words: vec![], last: true, served_by: "it".into() };
        let item = self.0.clone().map(chunk);
        stream::once(async { item }).boxed()
    }

    fn voices(&self) -> Vec<VoiceInfo> {
        Vec::new()
    }
}

#[tokio::test(start_paused = true)]
async fn in_a_chain_who_has_not_the_voice_passes_it_on_and_says_least() {
    let voiceless = |nearest: &str| ProviderError::VoiceUnavailable { voice: "nora".into(), nearest: nearest.into() };
    let full = ProviderError::Overloaded { what: "higgs".into(), retry_after: Duration::from_secs(2) };
    let link = |name: &str, outcome: &Result<(), ProviderError>| {
        Link::<dyn SpeechSynthesizer>::new(name.to_owned(), false, Arc::new(Engine(outcome.clone())) as _)
    };
    let missing = || Link::missing("higgs", false, "fetch it");
    let ask = |chain: &Fallback<dyn SpeechSynthesizer>| {
        let own_voice = Some(Arc::new(own("nora", "en", "")));
        let asked = chain.speak(SpeakRequest { own_voice, ..request(Some("nora"), "ann") });
        asked.map(|item| item.map(drop)).collect::<Vec<_>>()
    };
    for (links, outcome) in [
        (vec![link("kokoro", &Err(voiceless("a"))), link("higgs", &Ok(()))], Ok(())),
        (vec![link("higgs", &Err(full.clone())), link("openai", &Err(voiceless("b")))], Err(full.clone())),
        (vec![link("kokoro", &Err(voiceless("a"))), link("openai", &Err(voiceless("b")))], Err(voiceless("a"))),
        (vec![missing(), link("kokoro", &Err(voiceless("a")))], Err(voiceless("a"))),
    ] {
        let chain = Fallback::new("speech", links);
        for _ in 0..12 {
            assert_eq!(ask(&chain).await, std::slice::from_ref(&outcome));
        }
        // Not to have a voice is no failure.
        let open = |link: &Link<dyn SpeechSynthesizer>| {
            link.report(crate::provider::Capability::Speech).state == ProviderState::Open
        };
        assert!(!chain.links().iter().any(open));
    }
}
