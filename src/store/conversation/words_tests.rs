use proptest::prelude::*;

use super::*;

fn marked(query: &str, text: &str) -> String {
    let snippet = Words::of(query).unwrap().snippet(text);
    let chars: Vec<char> = snippet.text.chars().collect();
    let mut shown = String::new();
    let mut at = 0;
    for mark in snippet.marks {
        shown.extend(&chars[at..mark.start]);
        shown.push('[');
        shown.extend(&chars[mark.clone()]);
        shown.push(']');
        at = mark.end;
    }
    shown.extend(&chars[at..]);
    shown
}

#[test]
fn a_query_is_its_words() {
    for (query, sqlite, postgres) in [
        ("Hello", "\"hello\"*", "'hello':*"),
        ("  the   CAFÉ ", "\"the\" \"cafe\"*", "'the' & 'cafe':*"),
        ("\"a\" OR b*", "\"a\" \"or\" \"b\"*", "'a' & 'or' & 'b':*"),
        ("e-mail@host.org", "\"e\" \"mail\" \"host\" \"org\"*", "'e' & 'mail' & 'host' & 'org':*"),
        ("世界", "\"世界\"*", "'世界':*"),
    ] {
        let words = Words::of(query).unwrap();
        assert_eq!((words.for_sqlite().as_str(), words.for_postgres().as_str()), (sqlite, postgres), "{query}");
    }
    for nothing in ["", "  ", "\"'*:&|!()", "\u{301}"] {
        assert_eq!(Words::of(nothing), None, "{nothing}");
    }
    assert_eq!(Words::of(&"a ".repeat(100)).unwrap().0.len(), MOST_WORDS);
}

#[test]
fn a_snippet_marks_every_word_that_is_looked_for() {
    assert_eq!(marked("tea", "Tea, please: green TEA or teapot?"), "[Tea], please: green [TEA] or [teapot]?");
    assert_eq!(marked("green tea", "green teas are greener"), "[green] [teas] are greener");
    assert_eq!(marked("uber", "Über allen, u\u{308}ber uns"), "[Über] allen, [u\u{308}ber] uns");
    assert_eq!(marked("nothing", "as it is"), "as it is");
}

#[test]
fn a_snippet_of_a_long_text_is_what_is_around_the_first_match() {
    let text = format!("{}needle {}", "before ".repeat(100), "after ".repeat(100));
    let shown = marked("needle", &text);
    assert!(shown.starts_with("…before ") && shown.ends_with('…'), "{shown}");
    assert!(shown.contains("[needle] after"), "{shown}");
    assert!(shown.chars().count() <= SNIPPET + 4, "{shown}");
    let word = "x".repeat(500);
    assert_eq!(marked("x", &word), format!("[{}]…", "x".repeat(SNIPPET)));
}

proptest! {
    #[test]
    fn any_text_has_a_snippet_with_marks_inside(query in "\\PC{1,20}", text in "\\PC{0,600}") {
        if let Some(words) = Words::of(&query) {
            let snippet = words.snippet(&text);
            let length = snippet.text.chars().count();
            prop_assert!(length <= SNIPPET + 2);
            let mut last = 0;
            for mark in snippet.marks {
                prop_assert!(mark.start >= last && mark.start < mark.end && mark.end <= length);
                last = mark.end;
            }
            let quotes = |text: &str, quote| text.matches(quote).count();
            prop_assert_eq!(quotes(&words.for_sqlite(), '"') % 2, 0);
            prop_assert_eq!(quotes(&words.for_postgres(), '\''), words.0.len() * 2);
        }
    }
}
