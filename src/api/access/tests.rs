use std::str::FromStr;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::{Access, ApiKey, Peer, is_local};

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
fn only_a_peer_on_this_machine_that_is_no_proxy_is_local() {
    let request = |peer: Option<&str>, header: Option<&str>| {
        let mut request = axum::extract::Request::default();
        if let Some(peer) = peer {
            request.extensions_mut().insert(Peer(peer.parse().unwrap()));
        }
        if let Some(name) = header {
            request.headers_mut().insert(HeaderName::from_str(name).unwrap(), HeaderValue::from_static("x"));
        }
        request
    };
    for here in ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"] {
        assert!(is_local(&request(Some(here), None)), "{here}");
        for header in ["forwarded", "x-forwarded-for"] {
            assert!(!is_local(&request(Some(here), Some(header))), "{here} {header}");
        }
    }
    for elsewhere in ["192.168.1.2", "10.0.0.1", "0.0.0.0", "::", "::ffff:10.0.0.1", "fe80::1", "2001:db8::1"] {
        assert!(!is_local(&request(Some(elsewhere), None)), "{elsewhere}");
    }
    assert!(!is_local(&request(None, None)));
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
