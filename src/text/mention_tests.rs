use proptest::prelude::*;

use super::*;

const NAMES: [&str; 4] = ["Olivia Barns", "Max", "Zoë", "José"];

fn who(text: &str) -> Vec<usize> {
    mentioned(text, &NAMES)
}

#[test]
fn those_who_are_addressed_are_found_in_order() {
    for (text, expected) in [
        ("Olivia, what time is it?", vec![0]),
        ("olivia barns, what time is it?", vec![0]),
        ("Hey Max! How are you?", vec![1]),
        ("What do you think, Max?", vec![1]),
        ("So, ask @zoe about it", vec![2]),
        ("@Max and @Olivia: hello", vec![1, 0]),
        ("Max and Olivia, are you both there?", vec![1, 0]),
        ("Max, Zoe, and JOSE: listen.", vec![1, 2, 3]),
        ("I agree. Olivia, and you?", vec![0]),
        ("Max?", vec![1]),
        ("Max", vec![1]),
        ("Well, thank you, Zoë.", vec![2]),
        ("JOSE\u{301}, hola", vec![3]),
    ] {
        assert_eq!(who(text), expected, "{text}");
    }
}

#[test]
fn those_who_are_only_talked_about_are_not() {
    for text in [
        "I met Olivia yesterday.",
        "Olivia is nice.",
        "Max said that Zoe is late.",
        "Maximilian, come here.",
        "Bob, what time is it?",
        "mail me at someone@example.com",
        "",
        "?!",
    ] {
        assert_eq!(who(text), Vec::<usize>::new(), "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_gives_known_places_each_once(text in ".{0,200}") {
        let found = who(&text);
        let mut once = found.clone();
        once.sort_unstable();
        once.dedup();
        prop_assert_eq!(once.len(), found.len());
        prop_assert!(found.iter().all(|who| *who < NAMES.len()));
    }
}
