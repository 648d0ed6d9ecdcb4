use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;

/// Says when it is dropped.
struct Model(Arc<AtomicBool>);

impl Drop for Model {
    fn drop(&mut self) {
        thread::sleep(Duration::from_millis(50));
        self.0.store(true, Ordering::SeqCst);
    }
}

fn worker(run: impl FnOnce(Model, mpsc::Receiver<()>) + Send + 'static) -> (Worker<()>, Arc<AtomicBool>) {
    let gone = Arc::new(AtomicBool::new(false));
    let model = Arc::clone(&gone);
    (Worker::spawn("worker", 1, move || Ok(Model(model)), run).unwrap(), gone)
}

#[tokio::test]
async fn a_thread_has_ended_when_its_model_is_gone() {
    let serve = |model: Model, mut inbox: mpsc::Receiver<()>| {
        while inbox.blocking_recv().is_some() {}
        drop(model);
    };
    let (one, first) = worker(serve);
    let (two, second) = worker(serve);
    let ended = one.ended().and(two.ended());
    let also = one.clone();
    drop(one);
    drop(two);
    assert!(!ended.is_now());
    drop(also);
    ended.clone().wait().await;
    assert!(first.load(Ordering::SeqCst) && second.load(Ordering::SeqCst) && ended.is_now());
}

#[tokio::test]
async fn a_thread_that_panics_has_ended() {
    let (worker, gone) = worker(|_model, _inbox| panic!("scripted"));
    worker.ended().wait().await;
    assert!(gone.load(Ordering::SeqCst));
}
