//! Keys, logins and pages, over HTTP.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::api::ApiKey;
use crate::api::fixture::{PATIENCE, Server, server, server_on, server_with};
use crate::store::fixture::{TestStore, on_both_databases};
use crate::store::{LOCAL_OWNER, NewKey, Scope, Store};

on_both_databases!(
    a_key_of_the_database_closes_the_doors_to_all_others,
    a_revoked_key_is_shut_out_within_five_seconds,
    a_browser_logs_in_and_out,
    each_key_sees_its_own_usage,
);

pub(super) async fn key(store: &Store, name: &str, scope: Scope) -> String {
    store.create_key(NewKey { name: name.into(), scope, owner: None, days: None }).await.unwrap().1
}

pub(super) fn bearer(key: &str) -> String {
    format!("Authorization: Bearer {key}\r\n")
}

/// A request with a JSON body.
async fn post(server: &Server, path: &str, headers: &str, body: &Value) -> (u16, String) {
    let body = body.to_string();
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n{headers}\r\n"
    );
    server.request(&format!("{head}{body}")).await
}

fn body(answer: &str) -> Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap_or_default()
}

fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next().unwrap();
    head.lines()
        .find_map(|line| line.split_once(": ").filter(|(found, _)| found.eq_ignore_ascii_case(name)))
        .map(|it| it.1)
}

async fn a_key_of_the_database_closes_the_doors_to_all_others(database: TestStore) {
    let server = server_on(database, |_| {}).await;
    assert_eq!(server.get("/api/providers", "").await.0, 200, "no key is needed yet");
    let admin = key(&server.store, "admin", Scope::Admin).await;
    let begun = Instant::now();
    while server.get("/api/providers", "").await.0 == 200 {
        assert!(begun.elapsed() < Duration::from_secs(5), "still open");
        sleep(Duration::from_millis(100)).await;
    }
    for open in ["/healthz", "/readyz", "/openapi.json", "/metrics"] {
        assert_eq!(server.get(open, "").await.0, 200, "{open}");
    }
    let (status, page) = server.get("/docs/", "").await;
    assert!(status == 200 && page.contains("swagger"), "{page}");
    let user = key(&server.store, "user", Scope::User).await;
    for right in [&admin, &user] {
        assert_eq!(server.get("/api/providers", &bearer(right)).await.0, 200);
    }
    let other = if admin.ends_with('x') { 'y' } else { 'x' };
    let mistyped = format!("{}{other}", &admin[..admin.len() - 1]);
    let stranger = "aichat_0000000000000000000000000000000000000000000abcdef";
    for wrong in [mistyped.as_str(), stranger, "x", LOCAL_OWNER, &crate::store::digest(&admin)] {
        let (status, answer) = server.get("/api/providers", &bearer(wrong)).await;
        assert_eq!((status, &body(&answer)["code"]), (401, &json!("unauthorized")), "{answer}");
        assert!(wrong.len() < 10 || !answer.contains(wrong), "{answer}");
    }
    let noted = async || server.store.keys().await.unwrap().iter().all(|key| key.last_used_at.is_some());
    let begun = Instant::now();
    while !noted().await {
        assert!(begun.elapsed() < PATIENCE, "their use is noted");
        sleep(Duration::from_millis(50)).await;
    }
    server.store.revoke_key("admin").await.unwrap();
    server.store.revoke_key("user").await.unwrap();
    sleep(Duration::from_millis(2100)).await;
    assert_eq!(server.get("/api/providers", "").await.0, 401, "with the last key gone nothing opens by itself");
}

async fn a_revoked_key_is_shut_out_within_five_seconds(database: TestStore) {
    let server = server_on(database, |_| {}).await;
    let key = key(&server.store, "laptop", Scope::Admin).await;
    assert_eq!(server.get("/api/providers", &bearer(&key)).await.0, 200);
    server.store.revoke_key("laptop").await.unwrap();
    let begun = Instant::now();
    while server.get("/api/providers", &bearer(&key)).await.0 == 200 {
        assert!(begun.elapsed() < Duration::from_secs(5));
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(server.get("/api/providers", &bearer(&key)).await.0, 401);
}

async fn a_browser_logs_in_and_out(database: TestStore) {
    let server = server_on(database, |_| {}).await;
    let key = key(&server.store, "laptop", Scope::User).await;
    let (status, answer) = post(&server, "/api/login", "", &json!({"key": key})).await;
    assert_eq!((status, &body(&answer)["key"], &body(&answer)["scope"]), (200, &json!("laptop"), &json!("user")));
    let cookie = header(&answer, "set-cookie").unwrap();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=2592000"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Secure") && !answer.contains(&key), "{answer}");
    let sent = format!("Cookie: theme=dark; {}\r\n", cookie.split(';').next().unwrap());
    assert_eq!(server.get("/api/providers", &sent).await.0, 200);

    // Only our own page may change anything with it.
    let ticket = async |headers: &str| post(&server, "/api/ws-ticket", &format!("{sent}{headers}"), &json!({})).await;
    let (status, answer) = ticket("Origin: http://x\r\n").await;
    assert_eq!((status, &body(&answer)["expires_in"]), (200, &json!(30)), "{answer}");
    assert_eq!(ticket("Sec-Fetch-Site: same-origin\r\n").await.0, 200);
    for foreign in ["Origin: https://evil.example\r\n", "Sec-Fetch-Site: cross-site\r\n", "Origin: null\r\n"] {
        let (status, answer) = ticket(foreign).await;
        assert_eq!((status, &body(&answer)["code"]), (403, &json!("csrf")), "{foreign}");
        let (status, _) = post(&server, "/api/login", foreign, &json!({"key": key})).await;
        assert_eq!(status, 403, "{foreign}: nobody is logged in as somebody else");
    }
    // Who sends a key means that, whatever else a browser adds.
    assert_eq!(server.get("/api/providers", &format!("{sent}{}", bearer("wrong"))).await.0, 401);

    let https = post(&server, "/api/login", "X-Forwarded-Proto: https\r\n", &json!({"key": key})).await.1;
    assert!(header(&https, "set-cookie").unwrap().contains("Secure"), "{https}");
    let (status, answer) = post(&server, "/api/logout", &sent, &json!({})).await;
    assert!(status == 204 && header(&answer, "set-cookie").unwrap().contains("Max-Age=0"), "{answer}");
    assert_eq!(server.get("/api/providers", &sent).await.0, 401, "at once");

    // A login ends with its key.
    let other = header(&https, "set-cookie").unwrap().split(';').next().unwrap();
    let other = format!("Cookie: {other}\r\n");
    assert_eq!(server.get("/api/providers", &other).await.0, 200);
    server.store.revoke_key("laptop").await.unwrap();
    sleep(Duration::from_millis(2100)).await;
    assert_eq!(server.get("/api/providers", &other).await.0, 401);
}

async fn each_key_sees_its_own_usage(database: TestStore) {
    let server = server_on(database, |_| {}).await;
    server.will_say("Hello.");
    let admin = key(&server.store, "admin", Scope::Admin).await;
    let user = key(&server.store, "user", Scope::User).await;
    let reader = key(&server.store, "reader", Scope::Read).await;
    let owners: Vec<_> = server.store.keys().await.unwrap().into_iter().map(|key| key.owner).collect();
    for (owner, name) in [(&owners[0], "admin"), (&owners[1], "user"), (&owners[1], "user")] {
        let caller = crate::provider::Caller {
            owner: Some(owner.as_str().into()),
            key: Some(name.into()),
            ..Default::default()
        };
        let entry = crate::provider::account::Entry {
            capability: crate::provider::Capability::Chat,
            model: "fake".into(),
            remote: false,
            caller,
            used: crate::provider::account::Used::default(),
            cost: crate::provider::account::Usd::ZERO,
            estimated: false,
            outcome: crate::provider::account::Outcome::Completed,
        };
        let ledger = crate::store::StoredLedger::new(server.store.clone(), crate::store::Budgets::default());
        crate::provider::account::UsageLedger::settle(&ledger, None, entry).await;
    }
    let seen = async |key: &str| {
        let (status, answer) = server.get("/api/usage?group_by=key", &bearer(key)).await;
        assert_eq!(status, 200, "{answer}");
        let report = body(&answer);
        let sums = report["items"].as_array().unwrap().iter();
        let mut sums: Vec<_> = sums.map(|it| (it["group"].clone(), it["requests"].as_i64().unwrap())).collect();
        sums.sort_by_key(|(_, requests)| *requests);
        (sums, report["budgets"].as_array().unwrap().len())
    };
    assert_eq!(seen(&admin).await, (vec![(json!("admin"), 1), (json!("user"), 2)], 2));
    assert_eq!(seen(&user).await, (vec![(json!("user"), 2)], 0));
    assert_eq!(seen(&reader).await, (vec![], 0));
}

#[tokio::test]
async fn a_key_that_reads_changes_nothing() {
    let server = server().await;
    let reader = bearer(&key(&server.store, "reader", Scope::Read).await);
    assert_eq!(server.get("/api/providers", &reader).await.0, 200);
    assert_eq!(
        server
            .request(&format!("HEAD /api/providers HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{reader}\r\n"))
            .await
            .0,
        200
    );
    for path in ["/api/ws-ticket", "/api/speech", "/v1/chat/completions", "/api/nothing"] {
        let (status, answer) = post(&server, path, &reader, &json!({})).await;
        assert_eq!(status, 403, "{path}: {answer}");
        assert!(answer.contains("\"code\":\"forbidden\""), "{answer}");
    }
    let (status, answer) = server.get("/ws", &reader).await;
    assert!(status == 403 && answer.contains("forbidden"), "to talk is more than to read: {answer}");
    assert_eq!(post(&server, "/api/logout", &reader, &json!({})).await.0, 204);
}

#[tokio::test]
async fn without_a_key_foreign_pages_change_nothing() {
    let server = server_with(|state| state.access.allowed_origins = vec!["https://ours.example".into()]).await;
    for (headers, status) in [
        ("", 200),
        ("Origin: http://x\r\n", 200),
        ("Origin: https://ours.example\r\nSec-Fetch-Site: cross-site\r\n", 200),
        ("Origin: https://evil.example\r\n", 403),
        ("Sec-Fetch-Site: cross-site\r\n", 403),
    ] {
        let (found, answer) = post(&server, "/api/ws-ticket", headers, &json!({})).await;
        assert_eq!(found, status, "{headers}: {answer}");
    }
    let evil = server.get("/api/providers", "Origin: https://evil.example\r\n").await.1;
    assert!(header(&evil, "access-control-allow-origin").is_none(), "{evil}");
}

#[tokio::test]
async fn pages_of_listed_origins_may_read_with_a_key_of_their_own() {
    let server = server_with(|state| {
        state.access.api_key = Some(ApiKey::new("sesame"));
        state.access.allowed_origins = vec!["https://ours.example".into()];
    })
    .await;
    let preflight = async |origin: &str, path: &str| {
        let ask =
            "Access-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: authorization,x-stainless-os\r\n";
        let text = format!("OPTIONS {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nOrigin: {origin}\r\n{ask}\r\n");
        server.request(&text).await
    };
    let with = |origin: &str| format!("Origin: {origin}\r\n{}", bearer("sesame"));
    for path in ["/api/providers", "/v1/models"] {
        let (status, answer) = preflight("https://ours.example", path).await;
        assert_eq!((status, header(&answer, "access-control-allow-origin")), (200, Some("https://ours.example")));
        assert_eq!(header(&answer, "access-control-allow-headers"), Some("authorization,x-stainless-os"));
        assert!(header(&answer, "access-control-allow-methods").unwrap().contains("PUT"));
        let (_, answer) = preflight("https://evil.example", path).await;
        assert!(header(&answer, "access-control-allow-origin").is_none(), "{answer}");
        let (status, answer) = server.get(path, &with("https://ours.example")).await;
        assert_eq!((status, header(&answer, "access-control-allow-origin")), (200, Some("https://ours.example")));
        assert!(header(&answer, "access-control-allow-credentials").is_none(), "cookies are for our own page");
        assert!(header(&answer, "vary").unwrap().contains("origin"), "{answer}");
        let (_, answer) = server.get(path, &with("https://evil.example")).await;
        assert!(header(&answer, "access-control-allow-origin").is_none(), "{answer}");
        let (status, answer) = server.get(path, "Origin: https://ours.example\r\n").await;
        assert_eq!((status, header(&answer, "access-control-allow-origin")), (401, Some("https://ours.example")));
    }
    let (status, answer) = server.get("/api/characters/%ff", &with("https://ours.example")).await;
    assert_eq!((status, header(&answer, "access-control-allow-origin")), (400, Some("https://ours.example")));
}

#[tokio::test]
async fn a_name_that_points_here_is_refused() {
    let server = server_with(|state| state.access.allowed_hosts = vec!["chat.example.org".into()]).await;
    for (host, expected) in
        [("evil.example", 421), ("chat.example.org", 200), ("localhost:1", 200), (&*server.address, 200)]
    {
        let text = format!("GET /api/providers HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let (status, answer) = server.request(&text).await;
        assert_eq!(status, expected, "{host}: {answer}");
        assert_eq!(answer.contains("\"code\":\"wrong_host\""), expected == 421, "{answer}");
    }
}

#[tokio::test]
async fn guesses_at_a_login_are_slow_and_few() {
    let server = server_with(|state| state.access.api_key = Some(ApiKey::new("sesame"))).await;
    let begun = Instant::now();
    let (status, answer) = post(&server, "/api/login", "", &json!({"key": "sesam"})).await;
    assert!(status == 401 && begun.elapsed() >= Duration::from_millis(500), "{answer}");
    assert!(header(&answer, "set-cookie").is_none());
    for _ in 0..9 {
        assert_eq!(post(&server, "/api/login", "", &json!({"key": "sesame"})).await.0, 200);
    }
    let (status, answer) = post(&server, "/api/login", "", &json!({"key": "sesame"})).await;
    assert_eq!((status, &body(&answer)["code"]), (429, &json!("rate_limited")), "{answer}");
    assert!(header(&answer, "retry-after").unwrap().parse::<u64>().unwrap() <= 7, "{answer}");
    let elsewhere = "X-Forwarded-For: 192.0.2.1\r\n";
    assert_eq!(post(&server, "/api/login", elsewhere, &json!({"key": "sesame"})).await.0, 200, "another address");
    assert_eq!(post(&server, "/api/login", elsewhere, &json!({})).await.0, 400);
}

#[tokio::test]
async fn a_key_that_asks_too_often_waits() {
    let server = server_with(|state| {
        state.access.api_key = Some(ApiKey::new("sesame"));
        state.access.rate_limit_per_minute = 25;
    })
    .await;
    let other = bearer(&key(&server.store, "other", Scope::User).await);
    let mine = bearer("sesame");
    let mut refused = None;
    for _ in 0..25 {
        let (status, answer) = server.get("/v1/models", &mine).await;
        if status == 429 {
            refused = Some(answer);
            break;
        }
        assert_eq!(status, 200);
    }
    let refused = refused.expect("a limit");
    assert!(refused.contains("\"code\":\"rate_limited\"") && refused.contains("rate_limit_error"), "{refused}");
    assert!(header(&refused, "retry-after").is_some_and(|wait| wait.parse::<u64>().unwrap() <= 3), "{refused}");
    assert!(header(&refused, "x-request-id").is_some(), "{refused}");
    assert_eq!(server.get("/v1/models", &other).await.0, 200, "others go on");
    let elsewhere = "X-Forwarded-For: 192.0.2.1\r\n";
    let statuses: Vec<u16> = {
        let mut statuses = Vec::new();
        for _ in 0..30 {
            statuses.push(server.get("/healthz", elsewhere).await.0);
        }
        statuses
    };
    assert!(statuses.contains(&429) && statuses[0] == 200, "an address elsewhere, too: {statuses:?}");
    assert_eq!(server.get("/healthz", "").await.0, 200);
}

#[tokio::test]
async fn every_answer_has_an_id_that_no_client_can_stretch() {
    let server = server_with(|state| state.access.api_key = Some(ApiKey::new("sesame"))).await;
    let long = "x".repeat(129);
    let fits = "x".repeat(128);
    for (path, headers) in
        [("/healthz", ""), ("/api/nothing", ""), ("/v1/models", "X: y\r\n"), ("/ws", "Host: evil\r\n")]
    {
        for (sent, kept) in [(fits.as_str(), true), (&long, false), ("a b", false), ("é", false), ("", false)] {
            let (_, answer) = server.get(path, &format!("X-Request-Id: {sent}\r\n{headers}")).await;
            let id = header(&answer, "x-request-id").unwrap_or_default();
            assert_eq!(id == sent, kept, "{path} {sent}: {answer}");
            assert!(!id.is_empty() && id.len() <= 128, "{answer}");
        }
    }
}

#[tokio::test]
async fn a_body_that_never_ends_is_cut_off() {
    let server = server_with(|state| state.limits.body_timeout = Duration::from_millis(300)).await;
    let head = "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1000\r\n\
                Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n";
    let begun = Instant::now();
    let (status, answer) = server.request(head).await;
    assert!((400..500).contains(&status), "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn every_route_of_the_description_is_closed_without_a_key() {
    let server = server_with(|state| state.access.api_key = Some(ApiKey::new("sesame"))).await;
    let description = body(&server.get("/openapi.json", "").await.1);
    let mut closed = 0;
    let described = description["paths"].as_object().unwrap().iter();
    for (path, methods) in described.filter(|(path, _)| !["/healthz", "/readyz", "/metrics"].contains(&path.as_str())) {
        for method in
            methods.as_object().unwrap().keys().filter(|it| ["get", "post", "put", "delete"].contains(&it.as_str()))
        {
            // A parameter is a name in braces.
            let place: String = path
                .split('/')
                .map(|part| if part.starts_with('{') { "/x" } else { part })
                .collect::<Vec<_>>()
                .join("/")
                .replace("//", "/");
            let method = method.to_uppercase();
            let text =
                format!("{method} {place} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            let (status, answer) = server.request(&text).await;
            let expected = if path == "/api/login" { 415 } else { 401 };
            assert_eq!(status, expected, "{method} {path}: {answer}");
            closed += usize::from(status == 401);
        }
    }
    assert!(closed >= 5, "{closed} routes are described");
    for path in [
        "/v1/models",
        "/ws",
        "/v1/nothing",
        "/",
        "/api",
        "/docs.evil",
        "/API/login",
        "/api/login/",
        "//healthz",
        "/healthz/",
    ] {
        assert_eq!(server.get(path, "").await.0, 401, "{path}");
    }
}
