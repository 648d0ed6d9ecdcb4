//! Who comes in, over real sockets and on both databases.

mod doors;
mod sockets;

use std::str::FromStr;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::*;

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())).collect()
}

#[test]
fn only_a_bearer_is_a_key() {
    for right in ["Bearer sesame", "bearer sesame", "Bearer  sesame "] {
        assert_eq!(bearer(&headers(&[("authorization", right)])), Some("sesame"), "{right}");
    }
    for wrong in ["Bearer ", "Bearer", "Basic sesame", "sesame", ""] {
        assert_eq!(bearer(&headers(&[("authorization", wrong)])), None, "{wrong}");
    }
    assert_eq!(bearer(&HeaderMap::new()), None);
    let key = ApiKey::new("sesame");
    assert!(!format!("{key:?}").contains("sesame"));
}

fn from(peer: Option<&str>, pairs: &[(&str, &str)]) -> Parts {
    let mut request: Request = Request::default();
    if let Some(peer) = peer {
        request.extensions_mut().insert(Peer(peer.parse().unwrap()));
    }
    for (name, value) in pairs {
        request.headers_mut().append(HeaderName::from_str(name).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    request.into_parts().0
}

#[test]
fn only_a_peer_on_this_machine_that_is_no_proxy_is_local() {
    for here in ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"] {
        assert!(is_local(&from(Some(here), &[])), "{here}");
        for header in ["forwarded", "x-forwarded-for"] {
            assert!(!is_local(&from(Some(here), &[(header, "x")])), "{here} {header}");
        }
    }
    for elsewhere in ["192.168.1.2", "10.0.0.1", "0.0.0.0", "::", "::ffff:10.0.0.1", "fe80::1", "2001:db8::1"] {
        assert!(!is_local(&from(Some(elsewhere), &[])), "{elsewhere}");
    }
    assert!(!is_local(&from(None, &[])));
}

#[test]
fn a_proxy_here_is_believed_in_what_it_added_last_and_nobody_elsewhere() {
    let client = |peer, pairs: &[_]| client_of(&from(Some(peer), pairs)).unwrap().to_string();
    let forwarded = |list| ("x-forwarded-for", list);
    assert_eq!(client("127.0.0.1", &[]), "127.0.0.1");
    assert_eq!(client("127.0.0.1", &[forwarded("1.2.3.4, 192.0.2.1")]), "192.0.2.1");
    assert_eq!(client("::1", &[forwarded("1.2.3.4"), forwarded("2001:db8::1")]), "2001:db8::1");
    assert_eq!(client("127.0.0.1", &[forwarded("nonsense")]), "127.0.0.1");
    assert_eq!(client("198.51.100.7", &[forwarded("192.0.2.1")]), "198.51.100.7");
    assert_eq!(client("::ffff:198.51.100.7", &[]), "198.51.100.7");
    assert_eq!(client_of(&from(None, &[])), None);
}

#[test]
fn foreign_pages_stay_outside() {
    let listed = Origins::new(&["https://chat.example.org".into()]);
    let host = ("host", "127.0.0.1:8000");
    let knows = |pairs: &[(&'static str, &str)]| listed.check(&headers(pairs), false).is_ok();
    assert!(knows(&[host]), "no browser");
    assert!(knows(&[host, ("origin", "http://127.0.0.1:8000")]));
    assert!(knows(&[host, ("origin", "https://chat.example.org")]));
    assert!(knows(&[host, ("origin", "https://behind.a.proxy"), ("sec-fetch-site", "same-origin")]));
    assert!(knows(&[host, ("sec-fetch-site", "none")]), "typed by hand");
    let foreign = [
        "http://127.0.0.1:9000",
        "http://localhost:8000",
        "https://chat.example.org.evil.net",
        "null",
        "",
        "127.0.0.1:8000",
    ];
    for origin in foreign {
        assert!(!knows(&[host, ("origin", origin)]), "{origin}");
        assert!(!knows(&[host, ("origin", origin), ("sec-fetch-site", "same-site")]), "{origin}");
    }
    assert!(!knows(&[host, ("sec-fetch-site", "cross-site")]), "a picture or a form of another page");
    assert!(!knows(&[("origin", "null")]));
    let anyone = Origins::new(&["*".into()]);
    let anywhere = headers(&[host, ("origin", "https://evil.example")]);
    anyone.check(&anywhere, false).unwrap();
    assert_eq!(anyone.check(&anywhere, true).unwrap_err().code, "csrf", "cookies are for pages that are named");
    assert_eq!(listed.check_socket(&anywhere, true).unwrap_err().code, "origin_not_allowed");
}

#[test]
fn a_name_that_points_here_is_not_ours() {
    let knows = |listens_on: &str, allowed: &[&str], host: &str| {
        let allowed: Vec<String> = allowed.iter().map(|&name| name.to_owned()).collect();
        let hosts = Hosts::new(listens_on.parse().unwrap(), &allowed);
        hosts.check(&headers(&[("host", host)])).is_ok()
    };
    let ours = ["localhost", "LocalHost:8000", "localhost.:8000", "127.0.0.1", "127.0.0.1:8000", "[::1]:8000", "[::1]"];
    for host in ours {
        assert!(knows("127.0.0.1", &[], host) && knows("::1", &["other"], host), "{host}");
    }
    for host in
        ["evil.example", "evil.example:8000", "localhost.evil.example", "10.0.0.1", "[2001:db8::1]:80", "", ":80"]
    {
        assert!(!knows("127.0.0.1", &[], host), "{host}");
        assert!(knows("0.0.0.0", &[], host), "{host}: where everybody can connect, there is nothing to rebind");
        assert!(!knows("0.0.0.0", &["chat.example.org"], host), "{host}");
    }
    assert!(knows("127.0.0.1", &["Chat.example.org"], "chat.example.org:443"));
    assert!(knows("192.168.1.5", &["chat"], "192.168.1.5:8000"));
    let two = headers(&[("host", "localhost"), ("host", "evil.example")]);
    assert_eq!(two.get_all("host").iter().count(), 2);
    let hosts = Hosts::new("127.0.0.1".parse().unwrap(), &[]);
    assert_eq!(hosts.check(&two).unwrap_err().code, "wrong_host");
    hosts.check(&HeaderMap::new()).unwrap();
}

#[test]
fn shares_end_with_whoever_has_them() {
    let shares = Arc::new(Shares::default());
    let first = shares.take("a", 2).unwrap();
    let _second = shares.take("a", 2).unwrap();
    assert!(shares.take("a", 2).is_none());
    let other = shares.take("b", 1);
    assert!(other.is_some());
    drop(first);
    assert!(shares.take("a", 2).is_some(), "and ends at once");
    assert!(shares.take("a", 2).is_some());
}
