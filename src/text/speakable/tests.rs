use proptest::prelude::*;

use super::*;

fn english(text: &str) -> String {
    speakable(text, "en-us")
}

#[track_caller]
fn check(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        assert_eq!(english(text), *expected, "from {text:?}");
    }
}

#[test]
fn markdown_goes() {
    check(&[
        ("This is **very** important, and *really* so.", "This is very important, and really so."),
        ("***Both*** and __bold__ and _it_ and ~~gone~~.", "Both and bold and it and gone."),
        ("# The plan\n\nWe go there.", "The plan. We go there."),
        ("See [the manual](https://example.com/a(b) or ![a cat](cat.png).", "See the manual or a cat."),
        ("Call `read_file()` first.", "Call read file first."),
        ("A snake_case name.", "A snake case name."),
        ("You need:\n- milk\n- eggs\n- bread\n", "You need: milk, eggs, bread."),
        ("You need these\n* milk\n* eggs", "You need these: milk, eggs."),
        ("1. Open it\n2. Close it", "1, Open it, 2, Close it."),
        ("> To be or not to be", "To be or not to be"),
        ("One.\n\n---\n\nTwo.", "One. Two."),
        ("Here it is:\n```rust\nfn main() {}\n```\nDone.", "Here it is: Done."),
        ("```\nlet x = 1;\n", ""),
        ("| Name | Age |\n|---|---|\n| Ann | 30 |", "Name, Age, Ann, 30."),
        ("It is so.[1] And so.[^2]", "It is so. And so."),
        ("A <b>bold</b> word<br>and 1 &lt; 2 &amp; 3.", "A bold word and 1 less than 2 and 3."),
        ("Use \\*stars\\* here.", "Use stars here."),
        ("The result is **bold", "The result is bold"),
        ("and it ends** here.", "and it ends here."),
        ("Multiply 3 * 4 now.", "Multiply 3 times 4 now."),
    ]);
}

#[test]
fn stage_directions_go_and_stress_stays() {
    check(&[
        ("*smiles warmly* Hello, my friend.", "Hello, my friend."),
        ("*She leans back. She looks at you.* Hello there.", "Hello there."),
        ("Well *sighs* I do not know.", "Well I do not know."),
        ("I don't know. *shrugs* Maybe.", "I don't know. Maybe."),
        ("*clears throat* so, where were we?", "so, where were we?"),
        ("*Never* do that.", "Never do that."),
        ("You *must* come, it *is* fun.", "You must come, it is fun."),
        ("I like *this song* a lot.", "I like this song a lot."),
        ("*waves*", ""),
    ]);
}

#[test]
fn pictures_go() {
    check(&[
        ("Great! 🎉🎉 Let's go 👩‍👩‍👧‍👦 now 🇩🇪.", "Great! Let's go now."),
        ("Sure :) See you ;-) <3", "Sure See you"),
        ("I ❤️ it ✅", "I it"),
        ("🙂", ""),
        ("Press 1️⃣ or 2️⃣.", "Press 1 or 2."),
        ("A \u{200B}zero\u{FEFF} width", "A zero width"),
        ("Home → Settings", "Home, Settings"),
    ]);
    assert_eq!(speakable("क्\u{200D}ष", "hi"), "क्\u{200D}ष");
}

#[test]
fn addresses_are_said() {
    check(&[
        ("Go to https://www.example.com.", "Go to example dot com."),
        ("Go to (http://example.com/docs/api), please.", "Go to (example dot com slash docs slash api), please."),
        ("It is https://example.com/a/very/long/path/that/nobody/reads/aloud?x=1#y here", "It is example dot com here"),
        ("Mail john.doe@example.com!", "Mail john dot doe at example dot com!"),
        ("See <https://a_b.org/x_y>", "See a b dot org slash x y"),
    ]);
    assert_eq!(speakable("Siehe https://www.beispiel.de/hilfe.", "de"), "Siehe beispiel.de.");
}

#[test]
fn units_are_words() {
    check(&[
        ("It weighs 25 kg, or 55.1 lbs.", "It weighs 25 kilograms, or 55.1 pounds."),
        ("Take 1 kg and 0.5kg.", "Take 1 kilogram and 0.5 kilograms."),
        (
            "At 100 km/h it is 20 °C or 20°C outside.",
            "At 100 kilometers per hour it is 20 degrees Celsius or 20 degrees Celsius outside.",
        ),
        ("It has 16 GB (or 32GB).", "It has 16 gigabytes (or 32 gigabytes)."),
        ("I have 5 in my hand, in the 90s, on 5G.", "I have 5 in my hand, in the 90s, on 5G."),
        ("From 10-15 km away, in 1990–2000", "From 10 to 15 kilometers away, in 1990 to 2000"),
        ("Call 555-1234 or 9-1-1.", "Call 555-1234 or 9-1-1."),
        ("A 1/2 cup, ¾ of it, and 2½ kg.", "A one half cup, three quarters of it, and 2 and one half kilograms."),
        ("The m and the kg alone", "The m and the kg alone"),
        ("It costs $5M or €20k.", "It costs 5 million dollars or 20 thousand euros."),
        ("It costs ¥500.", "It costs 500 yen."),
        ("It costs $5.99, about 20% off.", "It costs $5.99, about 20% off."),
    ]);
    assert_eq!(speakable("Es wiegt 25 kg.", "de"), "Es wiegt 25 kg.");
}

#[test]
fn times_are_words() {
    check(&[
        ("Come at 7:30.", "Come at seven thirty."),
        (
            "Come at 7:05 or 7:00, or 19:45, or 13:00.",
            "Come at seven oh five or seven o'clock, or nineteen forty five, or thirteen hundred.",
        ),
        ("Come at 7:00 p.m. on Monday.", "Come at seven PM on Monday."),
        ("It opens at 7:30pm.", "It opens at seven thirty PM."),
        ("It is 5 p.m. The shop is shut.", "It is 5 PM. The shop is shut."),
        ("It is 5 p.m.", "It is 5 PM."),
        ("It is at 5 a.m., I think.", "It is at 5 AM, I think."),
        ("Open 9:00-17:30.", "Open nine o'clock to seventeen thirty."),
        ("The ratio 16:9 and I am 5.", "The ratio 16:9 and I am 5."),
    ]);
    assert_eq!(speakable("Um 7:30 Uhr.", "de"), "Um 7:30 Uhr.");
}

#[test]
fn dates_are_words() {
    check(&[
        ("It was on 2024-05-17.", "It was on May 17, 2024."),
        ("Not 2024-13-17, nor 2024-05.", "Not 2024-13-17, nor 2024-05."),
    ]);
}

#[test]
fn letters_that_english_does_not_have_are_plain() {
    check(&[("A naïve café in São Paulo, El Niño.", "A naive cafe in Sao Paulo, El Nino.")]);
    assert_eq!(speakable("Un café, señor.", "es"), "Un café, señor.");
}

#[test]
fn signs_and_abbreviations_are_words() {
    check(&[
        ("Salt & pepper, R&D, 2 + 2 = 4, x=5.", "Salt and pepper, R and D, 2 plus 2 equals 4, x equals 5."),
        ("Fruit, e.g. apples, i.e. sweet, etc.", "Fruit, for example apples, that is sweet, et cetera."),
        ("Cats vs. dogs", "Cats versus dogs"),
        ("See No. 5 and #7, ~20 of them.", "See number 5 and number 7, about 20 of them."),
        ("No. I will not.", "No. I will not."),
    ]);
}

#[test]
fn punctuation_is_single() {
    check(&[
        ("What?!! Really....", "What? Really..."),
        ("Wait ... what , now ?", "Wait... what, now?"),
        ("One -- two --- three", "One — two — three"),
        ("One - two – three, well-known", "One — two — three, well-known"),
        ("So 5 - 3 is 2.", "So 5 minus 3 is 2."),
        ("  So   much\n space  ", "So much space"),
        ("...", ""),
        ("?!", ""),
        ("", ""),
        ("- ", ""),
        (", and then", "and then"),
        ("It is .5 or 3.14 or 1,000.", "It is .5 or 3.14 or 1,000."),
    ]);
    assert_eq!(speakable("本当？！ すごい。", "ja"), "本当？ すごい。");
}

proptest! {
    #[test]
    fn anything_becomes_one_tidy_line(text in "(\\PC|[\n*_`#<>\\[\\]():.0-9 -]){0,80}", english in any::<bool>()) {
        let spoken = speakable(&text, if english { "en" } else { "fr" });
        prop_assert!(!spoken.contains(['\n', '*', '`', '_', '#', '[', ']']), "{spoken:?}");
        prop_assert!(!spoken.contains("  "), "{spoken:?}");
        prop_assert!(spoken.is_empty() || spoken.chars().any(char::is_alphanumeric));
        prop_assert_eq!(spoken.trim(), spoken.as_str());
    }
}
