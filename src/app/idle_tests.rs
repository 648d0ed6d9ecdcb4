//! A model that nobody uses gives its memory back, and comes again when it is asked.

use std::time::{Duration, Instant};

use futures::StreamExt;

use super::*;
use crate::config::Flags;
use crate::engine::speech::higgs::HiggsChoice;
use crate::provider::{SpeakRequest, SpeechChunk};
use crate::testing::fixture;

const IDLE: Duration = Duration::from_millis(300);

/// The tiny Higgs, for as long as somebody uses it.
fn app(idle: Option<Duration>) -> App {
    let flags = Flags { profile: Some("starter".to_owned()), device: Some("cpu".to_owned()), ..Flags::default() };
    let (mut config, _) = Config::read(&flags);
    config.tts.first = Some(HIGGS.to_owned());
    config.higgs.model = Some(fixture("higgs_lm/wide"));
    config.higgs.tokenizer = Some(fixture("higgs_codec/transformers"));
    config.model_idle = idle;
    App::new(config).unwrap()
}

fn booked(app: &App) -> u64 {
    app.loader.ledger.snapshot().iter().map(|line| line.reserved).sum()
}

async fn samples(speech: &dyn SpeechSynthesizer, text: &str) -> Vec<f32> {
    let request = SpeakRequest { text: text.to_owned(), seed: Some(7), ..SpeakRequest::default() };
    let chunks: Vec<SpeechChunk> = speech.speak(request).map(|chunk| chunk.unwrap()).collect().await;
    chunks.iter().flat_map(|chunk| chunk.audio.as_slice().to_vec()).collect()
}

/// The books are at their beginning within a moment.
async fn given_back(app: &App) -> bool {
    let begin = Instant::now();
    while booked(app) > 0 && begin.elapsed() < 20 * IDLE {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    booked(app) == 0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_model_gives_its_memory_back_and_says_the_same_again() {
    let app = app(Some(IDLE));
    assert_eq!(booked(&app), 0);
    let speech = app.speech_synthesizer().await.unwrap();
    let whole = booked(&app);
    assert!(whole > 0);
    let voices = speech.voices();
    let first = samples(&*speech, "Good morning.").await;
    assert!(given_back(&app).await, "{} bytes stay booked", booked(&app));
    assert_eq!(speech.voices(), voices);
    // Five who ask while nothing is loaded, of whom one leaves at once.
    drop(speech.speak(SpeakRequest { text: "Left.".to_owned(), ..SpeakRequest::default() }));
    let again = futures::future::join_all((0..4).map(|_| samples(&*speech, "Good morning."))).await;
    assert!(again.iter().all(|samples| *samples == first));
    assert_eq!(booked(&app), whole, "it is booked once");
    assert!(given_back(&app).await);
    // Thrice, so that nothing adds up.
    assert!(samples(&*speech, "Good morning.").await == first);
    assert!(given_back(&app).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_default_a_model_stays() {
    let app = app(None);
    let speech = app.speech_synthesizer().await.unwrap();
    samples(&*speech, "Good morning.").await;
    tokio::time::sleep(2 * IDLE).await;
    assert!(booked(&app) > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_memory_is_short_fewer_speak_at_once_and_the_model_comes_again_as_it_was() {
    let app = app(Some(IDLE));
    let (model, codec) = (fixture("higgs_lm/wide"), fixture("higgs_codec/transformers"));
    let choices = HiggsChoice::all(&model, &codec, app.device, app.config.max_concurrent_tts).unwrap();
    let (best, smallest) = (choices[0].bytes, choices.last().unwrap().bytes);
    let set_budget = |bytes| app.loader.ledger.set_budget(&app.device.to_string(), bytes);
    set_budget(smallest - 1);
    let error = app.speech_synthesizer().await.err().unwrap().to_string();
    assert!(error.contains("higgs-audio-v2 needs about"), "{error}");
    set_budget(smallest);
    let speech = app.speech_synthesizer().await.unwrap();
    assert_eq!(booked(&app), smallest);
    // Two at once, one after the other.
    let first = samples(&*speech, "Good morning.").await;
    let both = futures::future::join_all((0..2).map(|_| samples(&*speech, "Good morning."))).await;
    assert!(both.iter().all(|samples| *samples == first));
    assert!(given_back(&app).await);
    // What is free now is what others have given back for a while.
    set_budget(10 * best);
    assert!(samples(&*speech, "Good morning.").await == first);
    assert_eq!(booked(&app), smallest);
}
