use metrics_exporter_prometheus::PrometheusBuilder;

use super::super::fake::FakeSpeech;
use super::*;

fn request(text: &str, urgency: Urgency) -> SpeakRequest {
    SpeakRequest { text: text.to_owned(), urgency, ..SpeakRequest::default() }
}

fn later(text: &str) -> SpeakRequest {
    request(text, Urgency::Later)
}

fn limited(permits: usize) -> (LimitedSpeech, Arc<FakeSpeech>) {
    let fake = Arc::new(FakeSpeech::default());
    (LimitedSpeech::new(Arc::<FakeSpeech>::clone(&fake), "speech", permits), fake)
}

async fn whole(mut flow: Flow<SpeechChunk>) -> Result<Duration, ProviderError> {
    let mut length = Duration::ZERO;
    while let Some(chunk) = flow.next().await {
        length += chunk?.audio.duration();
    }
    Ok(length)
}

fn asked(fake: &FakeSpeech) -> Vec<String> {
    fake.asked.lock().unwrap().iter().map(|request| request.text.clone()).collect()
}

/// Lets every task that can run do so.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn one_permit_and_three_clients_are_never_two_at_once() {
    let (speech, fake) = limited(1);
    let flows = ["One sentence.", "Another sentence.", "The third."].map(|text| whole(speech.speak(later(text))));
    for (length, text) in futures::future::join_all(flows).await.into_iter().zip(asked(&fake)) {
        assert_eq!(length.unwrap().as_millis() as usize, text.len() * 60);
    }
    assert_eq!(fake.load.most(), 1);
    assert_eq!(asked(&fake), ["One sentence.", "Another sentence.", "The third."]);
}

#[tokio::test(start_paused = true)]
async fn a_permit_is_free_when_generated_not_when_heard() {
    let (speech, fake) = limited(1);
    let unheard = speech.speak(later("Nobody listens to this one yet."));
    let heard = whole(speech.speak(later("But to this one.")));
    tokio::time::timeout(Duration::from_secs(2), heard).await.expect("the permit came free").unwrap();
    assert_eq!(fake.load.now(), 0);
    assert_eq!(whole(unheard).await.unwrap(), Duration::from_millis(31 * 60));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_listener_frees_its_permit() {
    let (speech, fake) = limited(1);
    let dropped = speech.speak(later(&"a very long sentence ".repeat(20)));
    let waiting = speech.speak(later("gone before its turn"));
    let next = speech.speak(later("next"));
    settle().await;
    assert_eq!(asked(&fake).len(), 1);
    drop(waiting);
    drop(dropped);
    settle().await;
    assert_eq!(asked(&fake)[1..], ["next"]);
    assert_eq!(fake.load.now(), 1);
    whole(next).await.unwrap();
    settle().await;
    assert_eq!(fake.load.now(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_urgent_go_first_and_the_others_as_they_came() {
    let (speech, fake) = limited(1);
    let flows = [
        speech.speak(later("running")),
        speech.speak(later("later a")),
        speech.speak(later("later b")),
        speech.speak(request("urgent", Urgency::First)),
    ];
    futures::future::join_all(flows.map(whole)).await;
    assert_eq!(asked(&fake), ["running", "urgent", "later a", "later b"]);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_and_says_when_to_come_back() {
    let (speech, fake) = limited(1);
    let mut flows: Vec<_> = (0..=WAITING_PER_PERMIT).map(|_| speech.speak(later("waiting"))).collect();
    let refused = whole(speech.speak(later("one too many"))).await;
    let Err(ProviderError::Overloaded { what, retry_after }) = refused else { panic!("{refused:?}") };
    assert_eq!(what, "speech");
    assert_eq!(retry_after, Duration::from_secs(9));
    // Whoever leaves the queue makes room in it.
    flows.pop();
    settle().await;
    let admitted = whole(speech.speak(later("now there is room")));
    let (admitted, _) = tokio::join!(admitted, futures::future::join_all(flows.into_iter().map(whole)));
    admitted.unwrap();
    assert!(!asked(&fake).contains(&"one too many".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_wait_has_an_end() {
    let fake = Arc::new(FakeSpeech { first_delay: Duration::from_mins(1), ..FakeSpeech::default() });
    let speech = LimitedSpeech::new(Arc::<FakeSpeech>::clone(&fake), "speech", 1);
    let _slow = speech.speak(later("slow"));
    let before = Instant::now();
    let refused = whole(speech.speak(later("tired"))).await;
    assert!(matches!(refused, Err(ProviderError::Overloaded { .. })), "{refused:?}");
    assert_eq!(before.elapsed().as_secs(), LONGEST_WAIT.as_secs());
}

#[tokio::test(start_paused = true)]
async fn errors_and_panics_end_the_stream_once_and_free_the_permit() {
    let failed = ProviderError::Failed { what: "voice".to_owned() };
    let fake = Arc::new(FakeSpeech { failures: vec![("bad", failed.clone())], ..FakeSpeech::default() });
    let speech = LimitedSpeech::new(Arc::<FakeSpeech>::clone(&fake), "speech", 1);
    let items: Vec<_> = speech.speak(later("a bad one")).collect().await;
    assert_eq!(items.into_iter().map(Result::err).collect::<Vec<_>>(), [Some(failed)]);
    let items: Vec<_> = speech.speak(later("panic!")).collect().await;
    assert_eq!(items.len(), 1);
    assert!(matches!(items[0], Err(ProviderError::Failed { .. })));
    whole(speech.speak(later("fine"))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_does_not_listen_bounds_the_buffer() {
    let (speech, fake) = limited(1);
    let mut flow = speech.speak(later(&"x".repeat(1000)));
    tokio::time::sleep(Duration::from_secs(100)).await;
    // 60 s of audio, of which 30 s wait in the buffer, and the generation waits with them.
    assert_eq!(fake.load.now(), 1);
    let mut length = flow.next().await.unwrap().unwrap().audio.duration();
    while let Some(chunk) = flow.next().await {
        length += chunk.unwrap().audio.duration();
    }
    assert_eq!(length, Duration::from_mins(1));
}

#[test]
fn what_is_generated_at_once_and_what_waits_is_measured() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let figure = |name: &str| -> f64 {
        let text = handle.render();
        let line = text.lines().find(|line| line.starts_with(&format!("{name}{{model=\"speech\"}}")));
        line.and_then(|line| line.split(' ').next_back()?.parse().ok()).unwrap_or_else(|| panic!("{name} in\n{text}"))
    };
    let figures =
        || ["permits", "generating", "generating_peak", "waiting"].map(|name| figure(&format!("aichat_speech_{name}")));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let (speech, _) = limited(2);
            assert_eq!(figures().map(|figure| figure as u32), [2, 0, 0, 0]);
            let mut flows: Vec<_> = (0..4).map(|_| speech.speak(later("a sentence"))).collect();
            settle().await;
            assert_eq!(figures().map(|figure| figure as u32), [2, 2, 2, 2]);
            // One who leaves frees its place, one who is refused or dies too.
            drop(flows.remove(0));
            settle().await;
            assert_eq!(figures().map(|figure| figure as u32), [2, 2, 2, 1]);
            flows.push(speech.speak(later("panic!")));
            futures::future::join_all(flows.into_iter().map(whole)).await;
            settle().await;
            assert_eq!(figures().map(|figure| figure as u32), [2, 0, 2, 0]);
        });
    });
}

/// The names of the spans that were opened on this thread.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<Vec<String>>>);

impl tracing::field::Visit for Names {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        if field.name() == "name" {
            self.0.lock().unwrap().push(format!("{value:?}"));
        }
    }
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Names {
    fn on_new_span(
        &self,
        attributes: &tracing::span::Attributes<'_>,
        _: &tracing::Id,
        _: tracing_subscriber::layer::Context<'_, S>,
    ) {
        attributes.record(&mut self.clone());
    }
}

#[tokio::test(start_paused = true)]
async fn a_generation_is_a_task_with_a_name() {
    use tracing_subscriber::layer::SubscriberExt;
    let names = Names::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(names.clone()));
    let (speech, _) = limited(1);
    whole(speech.speak(later("a sentence"))).await.unwrap();
    assert_eq!(*names.0.lock().unwrap(), ["\"speech generation\""]);
}
