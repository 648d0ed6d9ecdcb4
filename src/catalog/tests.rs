use std::{sync::Mutex, time::Instant};

use super::*;

#[tokio::test]
async fn scratch_pull() {
    let dir = std::path::PathBuf::from("/work/build/cat-models");
    let catalog = Catalog::new(&dir).unwrap();
    let last = Arc::new(Mutex::new(Instant::now()));
    let sink: ProgressSink = Arc::new(move |p: Progress| {
        let mut last = last.lock().unwrap();
        println!("{:6.2} {} {} {} {}/{:?}", last.elapsed().as_secs_f32(), p.model, p.stage, p.file, p.done_bytes, p.total_bytes);
        *last = Instant::now();
    });
    for m in ["silero-vad", "smollm2-135m-instruct", "whisper-base", "whisper-tiny.en", "kokoro-82m"] {
        let t = Instant::now();
        println!("== {m} {:?} {:.2} s", catalog.pull(m, sink.clone()).await.map_err(|e| e.to_string()), t.elapsed().as_secs_f32());
    }
}
