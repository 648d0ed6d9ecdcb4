use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::super::message::tests::{first, said};
use super::super::tests::{rows, titled};
use super::super::{ConversationChange, ConversationStatus};
use super::*;
use crate::store::fixture::{TestStore, on_both_databases};

on_both_databases!(
    words_are_found_however_they_are_written,
    titles_come_first_then_the_latest_messages,
    what_is_in_the_bin_or_somebody_elses_is_not_found,
    no_query_does_harm,
);

async fn found(rows: &Owned, query: &str) -> Vec<String> {
    let page = rows.search(query, &first(200)).await.unwrap();
    assert_eq!(page.total, page.items.len());
    page.items.into_iter().map(|hit| hit.snippet.text).collect()
}

async fn words_are_found_however_they_are_written(store: TestStore) {
    let rows = rows(&store);
    let talk = titled(&rows, "").await.id;
    said(
        &rows,
        &talk,
        &["Grüße aus Zürich", "visit https://example.com/tea-house now", "don't snake_case v1.5", "世界 tea"],
    )
    .await;
    for (query, hits) in [
        ("grusse", vec![]),
        ("GRÜSSE", vec![]),
        ("grüße", vec!["Grüße aus Zürich"]),
        ("gruße ZURICH", vec!["Grüße aus Zürich"]),
        ("zürich grüße", vec!["Grüße aus Zürich"]),
        ("zu", vec!["Grüße aus Zürich"]),
        ("zu grüße", vec![]),
        ("example", vec!["visit https://example.com/tea-house now"]),
        ("tea", vec!["世界 tea", "visit https://example.com/tea-house now"]),
        ("house tea", vec!["visit https://example.com/tea-house now"]),
        ("case", vec!["don't snake_case v1.5"]),
        ("v1 5", vec!["don't snake_case v1.5"]),
        ("don", vec!["don't snake_case v1.5"]),
        ("世界", vec!["世界 tea"]),
        ("世", vec!["世界 tea"]),
        ("house NOT tea", vec![]),
        ("\"tea\" OR", vec![]),
        ("te*", vec!["世界 tea", "visit https://example.com/tea-house now"]),
    ] {
        assert_eq!(found(&rows, query).await, hits, "{query}");
    }
    assert!(rows.search("...", &first(5)).await.unwrap().items.is_empty());
}

async fn titles_come_first_then_the_latest_messages(store: TestStore) {
    let rows = rows(&store);
    let (one, two) = (titled(&rows, "about tea").await, titled(&rows, "more tea").await);
    let messages = said(&rows, &one.id, &["tea one", "tea two"]).await;
    said(&rows, &two.id, &["tea three"]).await;
    let mut hits = Vec::new();
    let mut ask = first(1);
    loop {
        let page = rows.search("tea", &ask).await.unwrap();
        assert_eq!(page.total, 5);
        hits.extend(page.items);
        match page.next {
            Some(place) => ask.after = Some(place),
            None => break,
        }
    }
    let told: Vec<_> = hits.iter().map(|hit| (hit.snippet.text.as_str(), hit.title.as_str())).collect();
    let mut expected = vec![
        ("more tea", "more tea"),
        ("about tea", "about tea"),
        ("tea three", "more tea"),
        ("tea two", "about tea"),
        ("tea one", "about tea"),
    ];
    if one.created_at == two.created_at && one.id > two.id {
        expected.swap(0, 1);
    }
    assert_eq!(told, expected);
    assert_eq!(hits[4].message.as_ref().unwrap().id, messages[0].id);
    assert_eq!(hits[4].snippet.marks, std::slice::from_ref(&(0..3)));
    assert_eq!(rows.search("tea", &first(50)).await.unwrap().items, hits, "pages tell the same");
    let retitled = ConversationChange { title: Some("coffee".into()), ..ConversationChange::default() };
    rows.change_conversation(&one.id, None, retitled).await.unwrap();
    assert_eq!(found(&rows, "about").await, Vec::<String>::new());
    assert_eq!(found(&rows, "coffee").await, ["coffee"]);
}

async fn what_is_in_the_bin_or_somebody_elses_is_not_found(store: TestStore) {
    let rows = rows(&store);
    let talk = titled(&rows, "secret").await;
    said(&rows, &talk.id, &["a secret"]).await;
    assert!(found(&store.of("somebody"), "secret").await.is_empty());
    assert_eq!(found(&rows, "secret").await.len(), 2);
    let binned = ConversationChange { status: Some(ConversationStatus::Deleted), ..ConversationChange::default() };
    rows.change_conversation(&talk.id, None, binned).await.unwrap();
    assert!(found(&rows, "secret").await.is_empty());
}

/// A text is found by any of its words and by the beginning of its last, and no sign makes a database fail.
async fn no_query_does_harm(store: TestStore) {
    let rows = rows(&store);
    let talk = titled(&rows, "").await.id;
    let hostile = [
        "\"",
        "'",
        "\"\"\"",
        "a\" OR \"b",
        "') --",
        "*",
        "a*b",
        "^a",
        "a:b",
        "content:a",
        "NEAR(a b)",
        "a NEAR/2 b",
        "- a",
        "+a",
        "{a b}:c",
        "a AND",
        "NOT",
        "(((",
        "a & | ! b",
        "a <-> b",
        ":*",
        "a:*",
        "\\",
        "\\'",
        "%",
        "_",
        ";",
        "$1",
        "é\u{301}",
        "\u{FFFD}",
        "🏳️‍🌈",
        "ﷺ",
        "\u{202E}abc",
        "ß",
        "İ",
        "1e5",
        "0x1F",
        "a.b@c.d",
        "-1.5",
        "/etc/passwd",
        "<b>x</b>",
        "&amp;",
    ];
    for query in hostile {
        rows.search(query, &first(5)).await.unwrap();
    }
    let mut runner = TestRunner::deterministic();
    let odd = proptest::string::string_regex("[ -~]{1,30}|\\PC{1,20}").unwrap();
    for _ in 0..60 {
        let text = odd.new_tree(&mut runner).unwrap().current();
        if text.contains('\0') {
            continue;
        }
        let message = said(&rows, &talk, &[text.as_str()]).await.remove(0);
        let hits = rows.search(&text, &first(200)).await.unwrap();
        let is_ascii_word = text.chars().any(|c| c.is_ascii_alphanumeric()) && text.is_ascii();
        let is_found = hits.items.iter().any(|hit| hit.message.as_ref().is_some_and(|hit| hit.id == message.id));
        assert!(is_found || !is_ascii_word, "{text:?} does not find itself");
    }
}
