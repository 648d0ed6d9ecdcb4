use proptest::prelude::*;

use super::*;

#[test]
fn a_text_is_told_in_a_line() {
    for (text, line) in [
        ("Hello", "Hello"),
        ("  Hello,\n\tworld.  ", "Hello, world"),
        ("How do I bake bread? I have only flour.", "How do I bake bread?"),
        ("Hi. Dr. Who? Nice.", "Hi. Dr. Who? Nice"),
        ("你好。面包怎么做？我有面粉。", "你好。面包怎么做？我有面粉"),
        ("Is\u{0}this readable?", "Is this readable?"),
        ("?!", ""),
        ("", ""),
    ] {
        assert_eq!(headline(text, 60), line, "{text:?}");
    }
    let long = "What would you cook for eleven people who like neither fish nor meat nor beans?";
    assert_eq!(headline(long, 60), "What would you cook for eleven people who like neither fish…");
    assert_eq!(headline(&"a".repeat(100), 60), format!("{}…", "a".repeat(59)));
}

proptest! {
    #[test]
    fn it_is_never_longer_than_asked(text in "\\PC{0,200}", most in 1_usize..80) {
        let line = headline(&text, most);
        prop_assert!(line.chars().count() <= most, "{line:?}");
        prop_assert!(!line.contains('\n'));
    }
}
