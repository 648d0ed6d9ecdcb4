//! Every fault that a service can have, twenty times: what a caller sees and how often the service is asked.

use std::time::Duration;

use futures::future::join_all;
use futures::{StreamExt, stream};
use serde_json::json;

use super::fake::{FakeProvider, Play};
use super::{Bounds, RemoteChat, RemoteEmbedder, RemoteSpeech, RemoteTranscriber, Service};
use crate::audio::{Mic, Samples};
use crate::provider::{
    ChatMessage, ChatModel, ChatRequest, Delta, EmbedRequest, FinishReason, Flow, ProviderError, Role, SpeakRequest,
    SpeechSynthesizer, SpeechToText, SttOptions, TextEmbedder,
};

const TIMES: usize = 20;

fn question() -> ChatRequest {
    ChatRequest { messages: vec![ChatMessage::new(Role::User, "Hello?")], ..ChatRequest::default() }
}

/// All items of a flow that must end with exactly one terminal item.
async fn items<T>(flow: Flow<T>) -> (Vec<T>, Option<ProviderError>) {
    let all: Vec<_> = flow.collect().await;
    let errors = all.iter().filter(|item| item.is_err()).count();
    assert!(errors == 0 || (errors == 1 && all.last().unwrap().is_err()), "an error is the last item");
    let mut error = None;
    let items = all.into_iter().filter_map(|item| item.map_err(|it| error = Some(it)).ok()).collect();
    (items, error)
}

async fn reply(service: &Service) -> (Vec<Delta>, Option<ProviderError>) {
    items(RemoteChat::new(service.clone(), "model").reply(question())).await
}

/// Plays a fault for twenty chats at once. `requests` is how often each of them asked.
async fn twenty(play: Play, requests: usize, expect: impl Fn(&[Delta], &ProviderError) -> bool) {
    let fake = FakeProvider::start([play]).await;
    let service = fake.impatient();
    for (deltas, error) in join_all((0..TIMES).map(|_| reply(&service))).await {
        let error = error.expect("it fails");
        assert!(expect(&deltas, &error), "{deltas:?} {error:?}");
    }
    assert_eq!(fake.received().len(), requests * TIMES, "requests");
}

fn failed(error: &ProviderError) -> bool {
    *error == ProviderError::Failed { what: "fake/model".to_owned() }
}

fn timed_out(error: &ProviderError) -> bool {
    *error == ProviderError::TimedOut { what: "fake/model".to_owned(), after: Duration::from_secs(1) }
}

fn overloaded(error: &ProviderError, after: u64) -> bool {
    let retry_after = Duration::from_secs(after);
    *error == ProviderError::Overloaded { what: "fake/model".to_owned(), retry_after }
}

/// Whether the reply began, with this text, before it failed.
fn after_text(deltas: &[Delta], text: &str) -> bool {
    matches!(deltas, [Delta::Begin { served_by }, Delta::Text(said)] if &**served_by == "fake/model" && said == text)
}

#[tokio::test]
async fn too_many_requests() {
    let busy = Play::error(429, "rate_limit_exceeded", "slow down");
    twenty(busy, 3, |deltas, error| deltas.is_empty() && overloaded(error, 5)).await;
}

#[tokio::test]
async fn a_long_retry_after_is_not_waited_for() {
    let busy = Play::answer(429, &[("retry-after", "40")], b"");
    twenty(busy, 1, |deltas, error| deltas.is_empty() && overloaded(error, 40)).await;
    let away = Play::answer(503, &[("retry-after", "7")], b"maintenance");
    twenty(away, 1, |_, error| overloaded(error, 7)).await;
    let long_past = Play::answer(429, &[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")], b"");
    twenty(long_past, 3, |_, error| overloaded(error, 0)).await;
}

#[tokio::test]
async fn an_internal_error() {
    twenty(Play::error(500, "server_error", "oh no"), 3, |deltas, error| deltas.is_empty() && failed(error)).await;
    twenty(Play::answer(502, &[("content-type", "text/html")], b"<html>Bad gateway"), 3, |_, error| failed(error))
        .await;
}

#[tokio::test]
async fn silence_before_the_first_byte() {
    twenty(Play::silence(), 1, |deltas, error| deltas.is_empty() && timed_out(error)).await;
}

#[tokio::test]
async fn silence_after_the_first_byte() {
    twenty(Play::events().hang(), 1, |deltas, error| deltas.is_empty() && timed_out(error)).await;
    twenty(Play::events().text("Hel").hang(), 1, |deltas, error| after_text(deltas, "Hel") && timed_out(error)).await;
}

#[tokio::test]
async fn half_an_event() {
    let half = Play::events().text("Hel").send("data: {\"choices\": [{\"del");
    twenty(half.clone(), 1, |deltas, error| after_text(deltas, "Hel") && failed(error)).await;
    twenty(half.end(), 1, |deltas, error| after_text(deltas, "Hel") && failed(error)).await;
}

#[tokio::test]
async fn an_end_before_the_end_of_the_reply() {
    let early = Play::events().text("Hel").send("data: [DONE]\n\n").end();
    twenty(early, 1, |deltas, error| after_text(deltas, "Hel") && failed(error)).await;
    twenty(Play::events().end(), 1, |deltas, error| deltas.is_empty() && failed(error)).await;
}

#[tokio::test]
async fn wrong_json() {
    twenty(Play::events().send("data: {\"choices\": [}\n\n").end(), 1, |_, error| failed(error)).await;
    twenty(Play::events().event(&json!({ "choices": 5 })).end(), 1, |_, error| failed(error)).await;
    twenty(Play::events().send(b"data: \xff\xfe\n\n").end(), 1, |_, error| failed(error)).await;
    twenty(Play::json(200, &json!({ "choices": [] })), 1, |_, error| failed(error)).await;
}

#[tokio::test]
async fn a_reset() {
    twenty(Play::broken(), 3, |deltas, error| deltas.is_empty() && failed(error)).await;
    let midway = Play::events().text("Hel").wait(Duration::from_millis(100)).reset();
    twenty(midway, 1, |deltas, error| after_text(deltas, "Hel") && failed(error)).await;
}

#[tokio::test]
async fn a_reset_during_the_tls_handshake() {
    let fake = FakeProvider::start([Play::deaf()]).await;
    let service = fake.service_with(|settings| settings.base_url = fake.base_url().replace("http:", "https:"));
    for (deltas, error) in join_all((0..TIMES).map(|_| reply(&service))).await {
        assert!(deltas.is_empty() && matches!(error, Some(ProviderError::Unavailable { .. })), "{error:?}");
    }
    assert_eq!(fake.connections(), 3 * TIMES);
    assert!(fake.received().is_empty());
}

#[tokio::test]
async fn success_with_an_error_in_it() {
    let credit = json!({ "error": { "code": 402, "message": "insufficient credits" } });
    let refused = |error: &ProviderError| matches!(error, ProviderError::Refused { .. });
    twenty(Play::json(200, &credit), 1, |deltas, error| deltas.is_empty() && refused(error)).await;
    let event = Play::events().send(": OPENROUTER PROCESSING\n\n").event(&credit).end();
    twenty(event, 1, |deltas, error| deltas.is_empty() && refused(error)).await;
    let late = json!({ "error": { "code": 502, "message": "the provider went away" }, "choices": [] });
    let late = Play::events().text("Hel").event(&late).end();
    twenty(late, 1, |deltas, error| after_text(deltas, "Hel") && failed(error)).await;
}

#[tokio::test]
async fn a_stream_without_end() {
    let event = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n";
    let endless = [
        Play::events().forever(event.repeat(100)),
        Play::events().forever(": PROCESSING\n\n".repeat(100)),
        Play::events().forever("data: one event that never ends ".repeat(100)),
        Play::events().forever("data: one line of many\n".repeat(100)),
        Play::stream("application/json").forever("[[[[".repeat(100)),
    ];
    for play in endless {
        let fake = FakeProvider::start([play]).await;
        let service = fake.service_with(|settings| {
            settings.bounds = Bounds { event_bytes: 64 * 1024, body_bytes: 256 * 1024, ..settings.bounds };
        });
        for (deltas, error) in join_all((0..TIMES).map(|_| reply(&service))).await {
            assert!(error.is_some_and(|error| failed(&error)));
            assert!(deltas.len() < 6000);
        }
        fake.left(TIMES).await;
        assert_eq!(fake.received().len(), TIMES);
    }
}

#[tokio::test]
async fn a_stream_that_trickles_for_ever_is_left() {
    let trickle = (0..100).fold(Play::events(), |play, _| play.send(": on\n\n").wait(Duration::from_millis(50)));
    let fake = FakeProvider::start([trickle]).await;
    let whole = Duration::from_millis(500);
    let service = fake.service_with(|settings| settings.bounds.whole = whole);
    let (_, error) = reply(&service).await;
    assert_eq!(error, Some(ProviderError::TimedOut { what: "fake/model".to_owned(), after: whole }));
}

#[tokio::test]
async fn what_is_wrong_with_the_request_is_not_asked_again() {
    let cases = [
        (401, "invalid_api_key", "Refused"),
        (403, "forbidden", "Refused"),
        (402, "", "Refused"),
        (429, "insufficient_quota", "Refused"),
        (400, "context_length_exceeded", "InvalidRequest"),
        (422, "", "InvalidRequest"),
        (413, "", "InvalidRequest"),
        (404, "model_not_found", "UnknownModel"),
        (302, "", "Failed"),
    ];
    for (status, code, kind) in cases {
        twenty(Play::error(status, code, "no"), 1, |_, error| format!("{error:?}").starts_with(kind)).await;
    }
    twenty(Play::answer(404, &[], b"not found"), 1, |_, error| matches!(error, ProviderError::Unavailable { .. }))
        .await;
}

#[tokio::test]
async fn a_service_that_recovers_is_asked_until_it_answers() {
    let busy = Play::answer(429, &[("retry-after", "1")], b"");
    let fake = FakeProvider::start([Play::error(500, "", ""), busy, Play::chat(&["Hel", "lo"])]).await;
    let began = tokio::time::Instant::now();
    let (deltas, error) = reply(&fake.service()).await;
    assert_eq!(error, None);
    assert!(began.elapsed() >= Duration::from_secs(1), "Retry-After is obeyed");
    assert!(matches!(deltas.last(), Some(Delta::Done { reason: FinishReason::Stop, .. })));
    let keys: Vec<_> = fake.received().iter().map(|it| it.header("idempotency-key").unwrap().to_owned()).collect();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| *key == keys[0]), "one call has one key: {keys:?}");
}

#[tokio::test]
async fn work_starts_at_the_call_and_ends_with_its_stream() {
    let fake = FakeProvider::start([Play::silence(), Play::events().text("Hel").hang()]).await;
    let chat = RemoteChat::new(fake.service(), "model");
    let unheard = chat.reply(question());
    fake.heard(1).await;
    drop(unheard);
    fake.left(1).await;
    let mut heard = chat.reply(question());
    assert!(matches!(heard.next().await, Some(Ok(Delta::Begin { .. }))));
    drop(heard);
    fake.left(2).await;
}

#[tokio::test]
async fn nothing_listens_there() {
    let fake = FakeProvider::start([Play::silence()]).await;
    let service = fake.service();
    drop(fake);
    tokio::task::yield_now().await;
    let (_, error) = reply(&service).await;
    let told = error.unwrap().to_string();
    assert!(
        told.contains("fake/model is not available") && told.contains("check the network and its base URL"),
        "{told}"
    );
}

fn utterance() -> stream::BoxStream<'static, Mic> {
    stream::iter([Mic::silence(Samples::from_millis(500))]).boxed()
}

/// One call of each of the other doors.
async fn others(service: &Service) -> Vec<(usize, Option<ProviderError>)> {
    let say = SpeakRequest { text: "Hello.".to_owned(), ..SpeakRequest::default() };
    let (spoken, speech) = items(RemoteSpeech::new(service.clone(), "model").speak(say)).await;
    let transcriber = RemoteTranscriber::new(service.clone(), "model");
    let (_, hearing) = items(transcriber.transcribe(utterance(), SttOptions::default())).await;
    let texts = EmbedRequest { texts: vec!["one".to_owned()], ..EmbedRequest::default() };
    let embedding = RemoteEmbedder::new(service.clone(), "model").embed(texts).await;
    vec![(spoken.len(), speech), (0, hearing), (0, embedding.err())]
}

#[tokio::test]
async fn the_other_doors_have_the_same_faults() {
    let credit = json!({ "error": { "code": 402, "message": "insufficient credits" } });
    let cases = [
        (Play::error(429, "", ""), 9, "Overloaded"),
        (Play::error(500, "", ""), 9, "Failed"),
        (Play::silence(), 3, "TimedOut"),
        (Play::stream("audio/pcm").hang(), 3, "TimedOut"),
        (Play::stream("audio/pcm").send(vec![0; 30_001]), 3, "Failed"),
        (Play::broken(), 9, "Failed"),
        (Play::json(200, &credit), 3, "Refused"),
        (Play::answer(200, &[("content-type", "application/json")], b"{\"text\": "), 3, "Failed"),
        (Play::stream("audio/pcm").forever([b'['; 10_000]), 3, "Failed"),
        (Play::answer(200, &[("content-type", "audio/mpeg")], b"ID3 and so on"), 3, "Failed"),
        (Play::answer(200, &[], b""), 3, "Failed"),
    ];
    for (play, requests, kind) in cases {
        let fake = FakeProvider::start([play]).await;
        let service = fake.service_with(|settings| {
            let second = Duration::from_secs(1);
            let bounds = Bounds { first_byte: second, connect: second, idle: second, ..settings.bounds };
            settings.bounds = Bounds { body_bytes: 1 << 20, audio_bytes: 1 << 20, ..bounds };
        });
        let calls = join_all((0..TIMES).map(|_| others(&service))).await;
        for (spoken, error) in calls.into_iter().flatten() {
            let error = error.unwrap_or_else(|| panic!("{kind}: it fails"));
            assert!(format!("{error:?}").starts_with(kind), "{kind}: {error:?}");
            assert!(spoken <= (1 << 20) / 4800);
        }
        assert_eq!(fake.received().len(), requests * TIMES, "{kind}");
    }
}
