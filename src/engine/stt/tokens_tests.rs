use super::*;

#[test]
fn marks_are_told_apart_and_words_are_none() {
    for (text, mark) in [
        (".", Some(Mark::Stop)),
        ("。", Some(Mark::Stop)),
        ("?", Some(Mark::Question)),
        (" ?!", Some(Mark::Question)),
        (",", Some(Mark::Comma)),
        ("、", Some(Mark::Comma)),
        ("...", Some(Mark::BreakOff)),
        (" -", Some(Mark::BreakOff)),
        ("…", Some(Mark::BreakOff)),
        (" a.", None),
        ("", None),
        (" ", None),
        ("\"", None),
    ] {
        assert_eq!(Mark::of(text), mark, "{text:?}");
    }
}
