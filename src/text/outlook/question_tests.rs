use super::*;

#[test]
fn questions_for_one_thing_are_known_by_their_first_word_and_their_mark() {
    for (text, language) in [
        ("What time is it?", "en"),
        ("Who’s your favourite singer?", "en"),
        ("Wo wohnst du?", "de"),
        ("Qu'est-ce que c'est ?", "fr"),
        ("¿Dónde está la estación?", "es"),
    ] {
        assert!(is_plain_question(text, language), "{text}");
    }
    for (text, language) in [
        ("What time is it", "en"),
        ("Who is?", "en"),
        ("How far is it?", "en"),
        ("Is it late already?", "en"),
        ("What time is it?", "xx"),
        ("?", "en"),
        ("", "en"),
    ] {
        assert!(!is_plain_question(text, language), "{text}");
    }
}
