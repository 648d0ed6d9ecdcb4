//! Speech synthesis: the first audio of a short clause, and a whole sentence (its real-time factor is time over audio).

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a bench that fails says why and stops")]

mod starter;

use criterion::Criterion;
use futures::StreamExt;

const CLAUSE: &str = "Well, let me think about that,";
const SENTENCE: &str = "The river runs past the old mill, and every evening the light turns the water into gold.";

fn main() {
    let Some(app) = starter::app() else { return };
    let runtime = starter::runtime();
    let speaker = runtime.block_on(app.speech_synthesizer()).unwrap();
    let mut criterion: Criterion = starter::criterion();
    criterion.bench_function(&format!("speech/{}/first audio of a clause", app.tts_model()), |bencher| {
        bencher
            .to_async(&runtime)
            .iter(|| async { speaker.speak(starter::request(CLAUSE, 1)).next().await.unwrap().unwrap() });
    });
    let whole = || async {
        let mut seconds = 0.0;
        let mut chunks = speaker.speak(starter::request(SENTENCE, 1));
        while let Some(chunk) = chunks.next().await {
            seconds += chunk.unwrap().audio.len().seconds();
        }
        seconds
    };
    let seconds = runtime.block_on(whole());
    let name = format!("speech/{}/a sentence of {seconds:.1} s", app.tts_model());
    criterion.bench_function(&name, |bencher| bencher.to_async(&runtime).iter(whole));
    criterion.final_summary();
}
