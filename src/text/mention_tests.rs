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
        ("Jose\u{301}, José, JOSÉ!", vec![3]),
        ("ZOË! zoe? Zoe\u{308}.", vec![2]),
        ("Max & Zoe, hello", vec![1, 2]),
        ("Max/Zoe: hello", vec![1, 2]),
        ("@max@zoe", vec![1]),
        ("(@Max)", vec![1]),
        ("Bob and Max, hello", vec![1]),
        ("Max and Bob, hello", vec![1]),
        ("Hello Max, Bob & Zoe!", vec![1, 2]),
        ("Thanks, Max and Bob!", vec![1]),
        ("@Bob @Zoe @nobody", vec![2]),
        ("Max, Max! @Max, are you there, Max?", vec![1]),
        ("Hello. And you, Max? And you, Zoë?", vec![1, 2]),
        ("Zoë、元気？ マイク", vec![2]),
        ("  \n\tMax,\n", vec![1]),
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
        "max@example.com and zoe@max.example",
        "Olivia's dog is here.",
        "Maxi, Zo, Jos: hello",
        "@Bob, @ Max is a word",
        "It is the max.",
        "Bob and Alice, hello",
        "I like Max and Bob.",
        "",
        "?!",
    ] {
        assert_eq!(who(text), Vec::<usize>::new(), "{text}");
    }
}

#[test]
fn strokes_and_ligatures_are_as_plain_letters() {
    let names = ["Øyvind", "Łukasz", "Weiß", "Æsa", "Işık", "D’Arcy"];
    for (who, text) in (0..).zip(["Oyvind, hi", "lukasz, hi", "WEISS, hi", "Aesa, hi", "ISIK, hi", "Hi, d'arcy!"]) {
        assert_eq!(mentioned(text, &names), [who], "{text}");
    }
    assert_eq!(mentioned("ØYVIND und ŁUKASZ, hallo", &names), [0, 1]);
}

#[test]
fn of_two_with_one_first_name_the_full_name_decides() {
    let names = ["Max Born", "Max Planck", "Max"];
    for (text, expected) in [
        ("Max Planck, hello", vec![1]),
        ("Max Born and Max Planck, hello", vec![0, 1]),
        ("Max, hello", vec![2]),
        ("@Max Planck: hello", vec![1]),
    ] {
        assert_eq!(mentioned(text, &names), expected, "{text}");
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
