//! What the benches share: the models of the profile in force, or a word on why there is nothing to measure.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a bench that fails says why and stops")]
#![allow(dead_code, reason = "each bench uses its part")]

use std::sync::Arc;
use std::time::Duration;

use aichat::app::App;
use aichat::audio::{Mic, SPEECH_HZ, Speech, resample};
use aichat::config::{Config, Flags};
use aichat::provider::{SpeakRequest, SpeechSynthesizer, Urgency};
use criterion::Criterion;
use futures::StreamExt;
use tokio::runtime::Runtime;

/// The app of the settings in the environment. None, with a word, where its models are not on disk.
pub(crate) fn app() -> Option<App> {
    let app = App::new(Config::load(&Flags::from_environment()).ok()?).ok()?;
    match app.missing_models() {
        missing if missing.is_empty() => Some(app),
        missing => {
            for (name, reason) in missing {
                eprintln!("skipped: {name}: {reason}");
            }
            None
        }
    }
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

/// Few samples: each takes seconds on a small CPU.
pub(crate) fn criterion() -> Criterion {
    Criterion::default().sample_size(10).measurement_time(Duration::from_secs(15)).configure_from_args()
}

/// Speech to listen to: a sentence said by the speech model itself, repeated up to `seconds`.
pub(crate) async fn spoken(speaker: &Arc<dyn SpeechSynthesizer>, seconds: f64) -> Mic {
    let mut said = Speech::default();
    let mut chunks = speaker.speak(request("The quick brown fox jumps over the lazy dog by the river.", 7));
    while let Some(chunk) = chunks.next().await {
        said.extend(&chunk.unwrap().audio);
    }
    let heard: Mic = resample(said.as_slice(), SPEECH_HZ).unwrap();
    let wanted = (seconds * f64::from(aichat::audio::MIC_HZ)) as usize;
    Mic::new(heard.as_slice().iter().copied().cycle().take(wanted).collect())
}

pub(crate) fn request(text: &str, seed: u64) -> SpeakRequest {
    SpeakRequest { text: text.into(), urgency: Urgency::First, seed: Some(seed), ..SpeakRequest::default() }
}
