use super::*;

#[test]
fn answers_are_known_by_their_words() {
    for (text, language) in
        [("Yes.", "en"), ("No, thanks!", "en"), ("I don’t know…", "en"), ("Ja, gerne.", "de"), ("Sí, por favor.", "es")]
    {
        assert!(is_answer(text, language), "{text}");
    }
    for (text, language) in [("Yes, but", "en"), ("Actually.", "en"), ("", "en"), ("Ja.", "en"), ("Yes.", "xx")] {
        assert!(!is_answer(text, language), "{text}");
    }
}

#[test]
fn every_answer_is_written_as_it_is_compared() {
    for (language, answers) in ANSWERS {
        for (number, answer) in answers.iter().enumerate() {
            assert!(is_answer(answer, language), "{answer}");
            assert!(!answers[..number].contains(answer), "{answer} stands twice");
        }
    }
}
