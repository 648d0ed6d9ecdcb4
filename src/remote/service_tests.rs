use serde_json::json;

use super::*;
use crate::remote::fake::{FakeProvider, KEY, Play};

fn service(base_url: &str) -> Result<Service, ServiceError> {
    Service::new(ServiceSettings::new("it", base_url, None))
}

#[test]
fn the_host_tells_the_dialect() {
    let dialect = |base_url| service(base_url).unwrap().dialect();
    assert_eq!(dialect(OPENAI_BASE_URL), Dialect::OpenAi);
    assert_eq!(dialect("https://eu.api.openai.com/v1/"), Dialect::OpenAi);
    assert_eq!(dialect(OPENROUTER_BASE_URL), Dialect::OpenRouter);
    assert_eq!(dialect("http://localhost:8001/v1"), Dialect::Vllm);
    assert_eq!(dialect("https://notopenai.com/v1"), Dialect::Vllm);
}

#[test]
fn a_base_url_is_only_a_place() {
    for wrong in ["", "localhost:8000", "ftp://host/v1", "https://me:word@host/v1", "https://host/v1?key=1", "http://"]
    {
        assert!(matches!(service(wrong), Err(ServiceError::BaseUrl { .. })), "{wrong}");
    }
}

#[test]
fn only_this_machine_is_loopback() {
    for (url, loopback) in [
        ("http://127.0.0.1:1/v1", true),
        ("http://[::1]/", true),
        ("http://localhost/", true),
        ("http://10.0.0.1/", false),
    ] {
        assert_eq!(is_loopback(&Url::parse(url).unwrap()), loopback, "{url}");
    }
}

#[tokio::test]
async fn openrouter_lists_models_with_prices() {
    let listing = json!({ "data": [
        { "id": "anthropic/claude-3.5-sonnet", "pricing": { "prompt": "0.000003", "completion": "0.000015" } },
        { "id": "openrouter/auto", "pricing": { "prompt": "-1", "completion": "-1" } },
        { "object": "no model" },
    ] });
    let fake = FakeProvider::start([Play::json(200, &listing)]).await;
    let key = Some(KEY.into());
    let service = Service::openrouter(key, Some(&fake.base_url()), Some("https://example.org")).unwrap();
    let models = service.models().await.unwrap();
    assert_eq!(models[0], RemoteModel { id: "anthropic/claude-3.5-sonnet".to_owned(), price: Some((3e-6, 15e-6)) });
    assert_eq!((models[1].price, models.len()), (None, 2));
    let request = &fake.received()[0];
    assert!(request.head.starts_with("GET /v1/models HTTP/1.1"));
    assert_eq!(request.header("x-title"), Some("aichat"));
    assert_eq!(request.header("http-referer"), Some("https://example.org"));
    assert_eq!(request.header("authorization"), Some(format!("Bearer {KEY}").as_str()));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = FakeProvider::start([Play::json(200, &json!({ "data": [] }))]).await;
    let location = elsewhere.base_url();
    let fake = FakeProvider::start([Play::answer(307, &[("location", &location)], b"")]).await;
    assert!(matches!(fake.service().models().await, Err(ProviderError::Failed { .. })));
    assert_eq!((fake.connections(), elsewhere.connections()), (1, 0));
}
