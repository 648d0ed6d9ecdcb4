use proptest::prelude::*;

use super::*;

fn company() -> Company {
    Company { name: "Olivia Barns".to_owned(), others: vec!["Max".to_owned(), "Zoë Li".to_owned()] }
}

/// What passes of a text that comes in pieces of so many characters, and whether it was cut.
fn passed(text: &str, size: usize) -> (String, bool) {
    let mut own = OwnLines::new(&company());
    let mut passed = String::new();
    let chars: Vec<char> = text.chars().collect();
    for piece in chars.chunks(size) {
        passed.push_str(&own.push(&piece.iter().collect::<String>()));
        if own.is_over() {
            return (passed, true);
        }
    }
    let rest = own.finish();
    (passed + &rest, false)
}

#[test]
fn a_reply_ends_where_somebody_else_would_speak() {
    for (text, own) in [
        ("I think so.\nMax: I do not.", "I think so."),
        ("I think so. Max: I do not.", "I think so."),
        ("I think so!\n\n**Zoë:** No.", "I think so!"),
        ("Yes. User: why?", "Yes."),
        ("Max: hello", ""),
    ] {
        for size in [1, 2, 3, 7, 100] {
            let (passed, cut) = passed(text, size);
            assert_eq!((passed.trim_end(), cut), (own, true), "{text} in pieces of {size}");
        }
    }
}

#[test]
fn the_own_name_is_taken_away_and_talk_about_others_is_not() {
    for (text, own) in [
        ("Olivia: Hello there.", "Hello there."),
        ("Olivia Barns: Hello. Olivia: Again.", "Hello. Again."),
        ("**Olivia:** Hello.", "Hello."),
        ("Max is right. Maximum: ten.", "Max is right. Maximum: ten."),
        ("The list: Max, Zoë. You see?", "The list: Max, Zoë. You see?"),
        ("I told Max: no.", "I told Max: no."),
        ("Max", "Max"),
    ] {
        for size in [1, 2, 3, 7, 100] {
            assert_eq!(passed(text, size), (own.to_owned(), false), "{text} in pieces of {size}");
        }
    }
}

proptest! {
    #[test]
    fn a_text_without_colons_passes_to_the_letter(text in "[^:]{0,120}", size in 1_usize..9) {
        prop_assert_eq!(passed(&text, size), (text, false));
    }
}
