//! Speech recognition: a short and a long utterance, from the last sample to the final transcript.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a bench that fails says why and stops")]

mod starter;

use std::sync::Arc;

use aichat::audio::Mic;
use aichat::provider::{SpeechToText, SttOptions, Transcript};
use criterion::Criterion;
use futures::{StreamExt, stream};

fn main() {
    let Some(app) = starter::app() else { return };
    let runtime = starter::runtime();
    let (listener, speaker) =
        runtime.block_on(async { (app.speech_to_text().await.unwrap(), app.speech_synthesizer().await.unwrap()) });
    let mut criterion = starter::criterion();
    for seconds in [3.0, 30.0] {
        let audio = runtime.block_on(starter::spoken(&speaker, seconds));
        bench(&mut criterion, &runtime, &listener, &audio, &format!("stt/{}/{seconds} s", app.stt_model()));
    }
    criterion.final_summary();
}

fn bench(
    criterion: &mut Criterion,
    runtime: &tokio::runtime::Runtime,
    listener: &Arc<dyn SpeechToText>,
    audio: &Mic,
    name: &str,
) {
    criterion.bench_function(name, |bencher| {
        bencher.to_async(runtime).iter(|| async {
            let options = SttOptions { languages: vec!["en".into()], ..SttOptions::default() };
            let mut items = listener.transcribe(stream::iter([audio.clone()]).boxed(), options);
            while let Some(item) = items.next().await {
                if let Transcript::Final(heard) = item.unwrap() {
                    assert!(!heard.text.is_empty());
                }
            }
        });
    });
}
