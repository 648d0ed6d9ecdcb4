//! Given up after its time, not before, and nobody who asks is lost by it.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::provider::fake::FakeSpeech;

const IDLE: Duration = Duration::from_mins(5);
const LOADING: Duration = Duration::from_secs(3);

type Built = Arc<Mutex<Vec<Weak<FakeSpeech>>>>;

/// A voice that takes a while to load, and everything that was ever loaded.
fn lazy(idle: Option<Duration>) -> (Lazy<dyn SpeechSynthesizer>, Built) {
    let built = Built::default();
    let all = Arc::clone(&built);
    let build = move || {
        let all = Arc::clone(&all);
        async move {
            sleep(LOADING).await;
            let door = Arc::new(FakeSpeech::default());
            all.lock().unwrap().push(Arc::downgrade(&door));
            Ok(door as Arc<dyn SpeechSynthesizer>)
        }
        .boxed()
    };
    (Lazy::new("voice", idle, build), built)
}

fn request(text: &str) -> SpeakRequest {
    SpeakRequest { text: text.to_owned(), ..SpeakRequest::default() }
}

/// How much audio a text becomes.
async fn heard(lazy: &Lazy<dyn SpeechSynthesizer>, text: &str) -> Duration {
    lazy.speak(request(text)).map(|chunk| chunk.unwrap().audio.duration()).collect::<Vec<_>>().await.into_iter().sum()
}

fn loaded(built: &Built) -> (usize, usize) {
    let built = built.lock().unwrap();
    (built.len(), built.iter().filter(|door| door.strong_count() > 0).count())
}

#[tokio::test(start_paused = true)]
async fn it_is_given_up_when_its_time_has_come_and_built_again_for_who_asks() {
    let (lazy, built) = lazy(Some(IDLE));
    assert_eq!((lazy.voices().len(), loaded(&built)), (0, (0, 0)));
    let length = heard(&lazy, "Hello.").await;
    sleep(IDLE.saturating_sub(Duration::from_secs(1))).await;
    // Asked again just before: the time begins anew.
    assert_eq!(heard(&lazy, "Hello.").await, length);
    sleep(IDLE.saturating_sub(Duration::from_secs(1))).await;
    assert_eq!(loaded(&built), (1, 1));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(loaded(&built), (1, 0), "the door is dropped");
    assert_eq!(lazy.voices().len(), 1, "what it said of itself is known");
    sleep(10 * IDLE).await;
    assert_eq!(loaded(&built), (1, 0));
    let begin = Instant::now();
    assert_eq!(heard(&lazy, "Hello.").await, length);
    assert!(begin.elapsed() >= LOADING);
    assert_eq!(loaded(&built), (2, 1));
    sleep(IDLE * 2).await;
    assert_eq!(loaded(&built), (2, 0), "and again");
}

#[tokio::test(start_paused = true)]
async fn whoever_still_listens_keeps_it() {
    let (lazy, built) = lazy(Some(IDLE));
    let mut flow = lazy.speak(request("A long text that is listened to slowly."));
    flow.next().await.unwrap().unwrap();
    sleep(3 * IDLE).await;
    assert_eq!(loaded(&built), (1, 1));
    assert!(flow.all(|chunk| async move { chunk.is_ok() }).await);
    sleep(2 * IDLE).await;
    assert_eq!(loaded(&built), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn all_who_ask_while_it_is_built_wait_and_are_served() {
    let (lazy, built) = lazy(Some(IDLE));
    let lazy = Arc::new(lazy);
    heard(&lazy, "Hello.").await;
    sleep(2 * IDLE).await;
    // Some leave before it is there; the others are served, by one.
    let served = Arc::new(AtomicUsize::new(0));
    let listeners = (0..20_u64).map(|number| {
        let (lazy, served) = (Arc::clone(&lazy), Arc::clone(&served));
        tokio::spawn(async move {
            sleep(Duration::from_millis(number * 100)).await;
            let listening = heard(&lazy, "Hello.");
            let patience = if number % 2 == 0 { Duration::from_millis(50) } else { Duration::from_mins(1) };
            if tokio::time::timeout(patience, listening).await.is_ok() {
                served.fetch_add(1, Ordering::SeqCst);
            }
        })
    });
    for listener in listeners.collect::<Vec<_>>() {
        listener.await.unwrap();
    }
    assert_eq!((served.load(Ordering::SeqCst), loaded(&built)), (10, (2, 1)));
    // All left: it goes again, although somebody left while it was built.
    sleep(2 * IDLE).await;
    assert_eq!(loaded(&built), (2, 0));
    drop(lazy.speak(request("Never heard.")));
    sleep(LOADING * 2).await;
    assert_eq!(loaded(&built), (3, 1));
    sleep(2 * IDLE).await;
    assert_eq!(loaded(&built), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn without_a_time_it_stays() {
    let (lazy, built) = lazy(None);
    heard(&lazy, "Hello.").await;
    sleep(1000 * IDLE).await;
    assert_eq!(loaded(&built), (1, 1));
    drop(lazy);
    assert_eq!(loaded(&built), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_there_already_goes_too() {
    let (lazy, built) = lazy(Some(IDLE));
    let door = Arc::new(FakeSpeech::default());
    let first = Arc::downgrade(&door);
    let lazy = lazy.holding(door);
    let begin = Instant::now();
    heard(&lazy, "Hello.").await;
    assert!(begin.elapsed() < LOADING && loaded(&built) == (0, 0));
    sleep(2 * IDLE).await;
    assert_eq!(first.strong_count(), 0);
    heard(&lazy, "Hello.").await;
    assert_eq!(loaded(&built), (1, 1));
}
