//! The key of a service stands in no error, no debug output and no line of the log, whatever the service does with it.

use std::fmt::Write;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::fake::{FakeProvider, KEY, Play};
use super::{RemoteChat, RemoteSpeech, Service, ServiceSettings};
use crate::provider::{ChatMessage, ChatModel, ChatRequest, Role, SpeakRequest, SpeechSynthesizer};

/// What a user said.
const PRIVATE: &str = "my-diary-says-4711";

/// Everything that is logged, at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        writeln!(self.0.lock().unwrap(), "{field}={value:?}").unwrap();
    }
}

impl<S: tracing::Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        event.record(&mut self.clone());
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        attributes.record(&mut self.clone());
    }

    fn on_record(&self, _: &Id, values: &Record<'_>, _: Context<'_, S>) {
        values.record(&mut self.clone());
    }
}

#[tokio::test]
async fn a_planted_key_is_nowhere() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(log.clone()));
    let echo = format!("You sent Bearer {KEY} and {PRIVATE}");
    let error = json!({ "error": { "message": echo, "type": KEY, "code": KEY, "param": KEY } });
    let mut plays: Vec<_> =
        [400, 401, 402, 403, 404, 408, 409, 422, 429, 500, 503].map(|status| Play::json(status, &error)).into();
    let hostile = format!("http://{KEY}@127.0.0.1:1/");
    plays.push(Play::json(200, &error));
    plays.push(Play::events().event(&error).end());
    plays.push(Play::events().send(format!("data: {{\"choices\": {KEY:?} {PRIVATE}\n\n")).end());
    plays.push(Play::answer(200, &[("content-type", KEY)], echo.as_bytes()));
    plays.push(Play::answer(302, &[("location", &hostile)], b""));
    plays.push(Play::broken());
    plays.push(Play::chat(&["fine"]));
    let mut told = String::new();
    for play in plays {
        let fake = FakeProvider::start([play]).await;
        let service = fake.service();
        writeln!(told, "{service:?}").unwrap();
        let messages = vec![ChatMessage::new(Role::User, PRIVATE)];
        let chat = RemoteChat::new(service.clone(), "model");
        let reply = chat.reply(ChatRequest { messages, ..ChatRequest::default() });
        let say = SpeakRequest { text: PRIVATE.to_owned(), ..SpeakRequest::default() };
        let speech = RemoteSpeech::new(service, "model").speak(say);
        for item in reply.collect::<Vec<_>>().await {
            let _ = item.map_err(|error| writeln!(told, "{error} {error:?}").unwrap());
        }
        for item in speech.collect::<Vec<_>>().await {
            let _ = item.map_err(|error| writeln!(told, "{error} {error:?}").unwrap());
        }
        assert!(fake.received().iter().all(|request| request.header("authorization").unwrap().ends_with(KEY)));
    }
    let log = log.0.lock().unwrap();
    assert!(log.contains("the service complains") && told.contains("[key]"), "the test sees what it should");
    assert!(!told.contains(KEY), "{told}");
    assert!(!log.contains(KEY), "the key is in the log");
    assert!(!log.contains(PRIVATE), "what a user said is in the log");
}

#[test]
fn a_key_that_is_none_is_not_repeated() {
    for key in ["sk planted", "sk-planted\n", ""] {
        let settings = ServiceSettings::new("fake", "http://localhost/v1", Some(key.into()));
        let error = Service::new(settings).unwrap_err();
        let told = format!("{error} {error:?}");
        assert!(told.contains("the API key of fake") && !told.contains("planted"), "{told}");
    }
    let settings = ServiceSettings::new("fake", "https://user:planted@host/v1", None);
    let error = Service::new(settings).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("planted"));
}
