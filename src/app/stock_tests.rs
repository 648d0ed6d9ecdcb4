//! The list of models on a tiny Higgs: loaded, put away, and loaded again.

use std::time::{Duration, Instant};

use super::*;
use crate::config::Flags;
use crate::provider::{ModelState, ProviderError, SpeakRequest};
use crate::testing::fixture;

fn app() -> App {
    let flags = Flags { profile: Some("starter".to_owned()), device: Some("cpu".to_owned()), ..Flags::default() };
    let (mut config, _) = Config::read(&flags);
    config.tts.first = Some(HIGGS.to_owned());
    config.higgs.model = Some(fixture("higgs_lm/wide"));
    config.higgs.tokenizer = Some(fixture("higgs_codec/transformers"));
    App::new(config).unwrap()
}

fn booked(app: &App) -> u64 {
    app.loader.ledger.snapshot().iter().map(|line| line.reserved).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_is_put_away_and_its_memory_with_it() {
    let app = app();
    let speech = app.speech_synthesizer().await.unwrap();
    let shelf = app.model_shelf().unwrap();
    let state = || shelf.local().into_iter().find(|model| model.name == HIGGS).unwrap().state;
    let whole = booked(&app);
    assert_eq!((state(), whole > 0), (ModelState::Ready, true));
    shelf.unload(HIGGS).unwrap();
    assert_eq!(state(), ModelState::Unloaded);
    let begin = Instant::now();
    while booked(&app) > 0 && begin.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(booked(&app), 0);
    assert!(!speech.voices().is_empty(), "what it said of itself is known");
    shelf.load(HIGGS).await.unwrap();
    assert_eq!((state(), booked(&app)), (ModelState::Ready, whole));
    // Whoever asks loads it, too.
    shelf.unload(HIGGS).unwrap();
    let request = SpeakRequest { text: "Hello.".to_owned(), ..SpeakRequest::default() };
    let mut flow = speech.speak(request);
    // Put away while it speaks: it finishes.
    assert!(futures::StreamExt::next(&mut flow).await.unwrap().is_ok());
    shelf.unload(HIGGS).unwrap();
    let rest: Vec<_> = futures::StreamExt::collect(flow).await;
    assert!(rest.iter().all(Result::is_ok));
}

#[tokio::test]
async fn models_that_cannot_be_asked_are_told_from_those_that_stay() {
    let app = app();
    let shelf = app.model_shelf().unwrap();
    let unknown = shelf.load("nonsense").await.unwrap_err();
    assert!(matches!(unknown, ProviderError::UnknownModel { .. }), "{unknown}");
    assert!(matches!(shelf.pull("nonsense"), Err(ProviderError::UnknownModel { .. })));
    for name in ["silero-vad", "higgs-audio-v2-tokenizer"] {
        assert!(matches!(shelf.unload(name), Err(ProviderError::InvalidRequest { .. })), "{name}");
    }
    assert!(shelf.prefer(Capability::Embedding, "nonsense").is_err());
    assert_eq!(shelf.first(Capability::Embedding), EMBEDDING);
    let names: Vec<String> = shelf.local().into_iter().map(|model| model.name).collect();
    assert_eq!(names.len(), app.catalog.manifests().len());
}
