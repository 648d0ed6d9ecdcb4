use super::super::tools::Dialect;
use super::*;
use crate::provider::ToolSpec;

/// All that is shown of `text` when it comes in pieces of `size` bytes, and whether a stop string came.
fn shown(text: &str, size: usize, thinks_first: bool, stop: &[&str]) -> (String, bool) {
    let stop = stop.iter().map(|stop| (*stop).to_owned()).collect();
    let mut filter = ReplyText::new(thinks_first, false, stop);
    let mut all = String::new();
    for piece in text.as_bytes().chunks(size) {
        let shown = filter.push(piece);
        all.push_str(&shown.text);
        if shown.stopped {
            return (all, true);
        }
    }
    let last = filter.finish();
    (all + &last.text, last.stopped)
}

#[test]
fn characters_come_whole() {
    let text = "Zażółć 你好 😀👩‍👩‍👧 ok";
    for size in 1..8 {
        assert_eq!(shown(text, size, false, &[]), (text.to_owned(), false));
    }
    let mut characters = Characters { pending: Vec::new(), drop_space: false };
    assert_eq!(characters.push(b"a\xF0\x9F"), "a");
    assert_eq!(characters.push(b"\x98\x80b"), "😀b");
    assert_eq!(characters.push(b"\xFFc\xE4\xBD"), "\u{FFFD}c");
    assert_eq!(characters.push(b"d"), "\u{FFFD}d");
    assert_eq!(characters.push(b"\xC3"), "");
    assert_eq!(characters.finish(), "\u{FFFD}");
    // A lead byte that cannot go on so is not waited for.
    assert_eq!(characters.push(b"\xE0\x80"), "\u{FFFD}\u{FFFD}");
}

#[test]
fn a_continuation_is_shown_as_it_is() {
    let text = " <think>no thought</think> after";
    let mut filter = ReplyText::new(false, false, vec!["after".to_owned()]).keeping_thoughts();
    let pieces = text.as_bytes().chunks(3).map(|piece| filter.push(piece));
    let shown: Vec<_> = pieces.collect();
    assert_eq!(shown.iter().map(|shown| shown.text.as_str()).collect::<String>(), " <think>no thought</think> ");
    assert!(shown.last().unwrap().stopped && shown.iter().all(|shown| shown.thought.is_empty()));
}

#[test]
fn thoughts_are_never_shown() {
    let cases = [
        ("<think>secret</think>\n\nHello.", "Hello."),
        ("One <think>secret</think> two", "One two"),
        ("<think>\n\n</think>\n\n  Hi", "Hi"),
        ("<think>never closed", ""),
        ("a < b <thin> <think", "a < b <thin> <think"),
        ("<think>a<think>b</think>c", "c"),
        ("x</think> y", "xy"),
        ("<think>1</think>a<think>2</think>b", "ab"),
        ("<<think>s</think>>", "<>"),
    ];
    for (text, expected) in cases {
        for size in 1..=text.len() {
            assert_eq!(shown(text, size, false, &[]).0, expected, "{text} in pieces of {size}");
        }
    }
    for size in 1..30 {
        assert_eq!(shown("secret\n</think>\n\nHello <b>.", size, true, &[]).0, "Hello <b>.");
    }
}

#[test]
fn a_stop_string_ends_the_text_before_it() {
    let cases = [
        ("Hello\nUser: no", &["\nUser:"][..], "Hello", true),
        ("aabaab", &["ab"], "a", true),
        ("one two three", &["three", "two"], "one ", true),
        ("almost sto", &["stop"], "almost sto", false),
        ("ends with stop", &["stop"], "ends with ", true),
        ("nothing", &[""], "nothing", false),
        ("żółw ż", &["żó"], "", true),
    ];
    for (text, stop, expected, stopped) in cases {
        for size in 1..=text.len() {
            assert_eq!(shown(text, size, false, stop), (expected.to_owned(), stopped), "{text} in pieces of {size}");
        }
    }
}

#[test]
fn no_part_of_a_stop_string_leaves_early() {
    let mut filter = ReplyText::new(false, false, vec!["<END>".to_owned()]);
    for piece in ["Hi", "<", "E", "N"] {
        assert!(!filter.push(piece.as_bytes()).text.contains('<'));
    }
    assert_eq!(filter.push(b"O>"), Shown { text: "<ENO>".to_owned(), ..Shown::default() });
}

#[test]
fn the_pad_before_the_first_word_goes() {
    let mut filter = ReplyText::new(false, true, Vec::new());
    assert_eq!(filter.push(b" Hello").text, "Hello");
    assert_eq!(filter.push(b" world").text, " world");
}

/// Everything that comes of `text` in pieces of `size` bytes: text, thought, and the names of what was called.
fn apart(text: &str, size: usize, thinks_first: bool, told: bool) -> (String, String, Vec<String>) {
    let parameters = serde_json::json!({"type": "object"});
    let tool = ToolSpec { name: "look".to_owned(), description: String::new(), parameters };
    let parser = ToolParser::new(Dialect::Hermes, &[&tool]);
    let mut filter = ReplyText::new(thinks_first, false, Vec::new()).telling_thoughts(told).with_tools(Some(parser));
    let mut all: Vec<Shown> = text.as_bytes().chunks(size).map(|piece| filter.push(piece)).collect();
    all.push(filter.finish());
    let join = |part: fn(&Shown) -> &str| all.iter().map(part).collect::<String>();
    let calls = all.iter().flat_map(|shown| &shown.calls).map(|call| call.name.clone()).collect();
    (join(|shown| &shown.text), join(|shown| &shown.thought), calls)
}

#[test]
fn thoughts_and_calls_are_told_apart() {
    let call = "<tool_call>\n{\"name\": \"look\", \"arguments\": {}}\n</tool_call>";
    let text = format!("<think>\nShall I? {call}\n</think>\n\nYes: {call}");
    for size in 1..=text.len() {
        let (shown, thought, calls) = apart(&text, size, false, true);
        assert_eq!((shown.as_str(), calls), ("Yes: ", vec!["look".to_owned()]), "in pieces of {size}");
        assert_eq!(thought, format!("Shall I? {call}\n"), "what is thought is never called");
        let (shown, thought, calls) = apart(&text, size, false, false);
        assert_eq!((shown.as_str(), thought.as_str(), calls.len()), ("Yes: ", "", 1));
    }
    let (shown, thought, calls) = apart("\nnever closed", 3, true, true);
    assert_eq!((shown.as_str(), thought.as_str(), calls.len()), ("", "never closed", 0));
}
