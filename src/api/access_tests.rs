use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::{Access, ApiKey};

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())).collect()
}

#[test]
fn only_the_key_opens() {
    let access = Access { api_key: Some(ApiKey::new("sesame")), ..Access::default() };
    for right in ["Bearer sesame", "bearer sesame", "Bearer  sesame "] {
        assert!(access.knows(&headers(&[("authorization", right)])), "{right}");
    }
    for wrong in ["Bearer sesam", "Bearer sesamee", "Bearer ", "Bearer", "Basic sesame", "sesame", ""] {
        assert!(!access.knows(&headers(&[("authorization", wrong)])), "{wrong}");
    }
    assert!(!access.knows(&HeaderMap::new()));
    let empty = Access { api_key: Some(ApiKey::new("")), ..Access::default() };
    assert!(!empty.knows(&headers(&[("authorization", "Bearer ")])), "an empty key opens nothing");
    assert!(Access::default().knows(&HeaderMap::new()), "without a key the door is open");
    assert!(!format!("{access:?}").contains("sesame"));
}

#[test]
fn foreign_pages_stay_outside() {
    let access = Access { allowed_origins: vec!["https://chat.example.org".into()], ..Access::default() };
    let host = ("host", "127.0.0.1:8000");
    assert!(access.welcomes(&headers(&[host])), "no browser");
    assert!(access.welcomes(&headers(&[host, ("origin", "http://127.0.0.1:8000")])));
    assert!(access.welcomes(&headers(&[host, ("origin", "https://chat.example.org")])));
    let foreign = [
        "http://127.0.0.1:9000",
        "http://localhost:8000",
        "https://chat.example.org.evil.net",
        "null",
        "",
        "127.0.0.1:8000",
    ];
    for origin in foreign {
        assert!(!access.welcomes(&headers(&[host, ("origin", origin)])), "{origin}");
    }
    assert!(!access.welcomes(&headers(&[("origin", "null")])));
    let anyone = Access { allowed_origins: vec!["*".into()], ..Access::default() };
    assert!(anyone.welcomes(&headers(&[host, ("origin", "null")])));
}
