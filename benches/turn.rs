//! The whole turn: from the end of an utterance to the first audio of the reply, without the wait for silence.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a bench that fails says why and stops")]

mod starter;

use std::time::{Duration, Instant};

use aichat::audio::{MIC_HZ, Mic, Samples};
use aichat::provider::Caller;
use aichat::session::event::{Input, Output};
use aichat::session::settings::Settings;
use aichat::session::{self, Bounds, Opening, Parts};
use tokio::runtime::Runtime;

fn main() {
    let Some(app) = starter::app() else { return };
    let runtime = starter::runtime();
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/bench.db", folder.path().display());
    let (parts, audio) = runtime.block_on(async {
        let store = aichat::store::Store::open(&url).await.unwrap();
        let parts = app.parts(&store).await.unwrap();
        let audio = starter::spoken(&parts.speech, 3.0).await;
        (parts, audio)
    });
    let mut criterion = starter::criterion();
    let name = format!("turn/{}+{}+{}/end of speech to first audio", app.stt_model(), app.llm_model(), app.tts_model());
    criterion.bench_function(&name, |bencher| {
        bencher.iter_custom(|rounds| (0..rounds).map(|_| turn(&runtime, &parts, &audio)).sum());
    });
    criterion.final_summary();
}

fn turn(runtime: &Runtime, parts: &Parts, audio: &Mic) -> Duration {
    runtime.block_on(async {
        let settings = Settings { vad: None, seed: Some(1), max_tokens: 40, ..Settings::default() };
        let opening = Opening {
            conversation_id: None,
            character_ids: Vec::new(),
            guests: Vec::new(),
            settings,
            paced: false,
            bounds: Bounds::default(),
            caller: Caller::default(),
        };
        let mut session = session::start(parts.clone(), opening).await.unwrap();
        let step = Samples::<MIC_HZ>::from_millis(100);
        for start in (0..audio.len().0).step_by(step.as_usize()).map(Samples) {
            session.inbox.send(Input::Audio(audio.slice(start, start + step)).into()).await.unwrap();
        }
        // What is measured is a listener that kept up.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let ended = Instant::now();
        session.inbox.send(Input::Commit.into()).await.unwrap();
        let mut first = None;
        while let Some(told) = session.outbox.recv().await {
            match told.output {
                Output::Audio(_) => drop(first.get_or_insert_with(|| ended.elapsed())),
                Output::TurnComplete(_) => break,
                Output::Error(complaint) => panic!("{}", complaint.message),
                _ => {}
            }
        }
        first.unwrap()
    })
}
