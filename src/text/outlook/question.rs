//! Questions for one thing: whoever has put one is seldom about to say more, however few words it took.

/// By language, in lower case, the words that begin them. How far and how long are not among them: from where to where,
/// or what it is that takes so long, often comes only then.
const OPENINGS: [(&str, &[&str]); 4] = [
    ("en", &["what", "what's", "when", "when's", "where", "where's", "which", "who", "who's", "whose", "why", "why's"]),
    (
        "de",
        &[
            "wann", "warum", "was", "welche", "welcher", "welches", "wem", "wen", "wer", "weshalb", "wessen", "wieso",
            "wo", "woher", "wohin",
        ],
    ),
    ("fr", &["où", "pourquoi", "qu'est-ce", "quand", "quel", "quelle", "quelles", "quels", "qui", "quoi"]),
    ("es", &["cuál", "cuáles", "cuándo", "dónde", "por", "qué", "quién", "quiénes"]),
];
/// "Who is" has only begun.
const SHORTEST: usize = 3;

/// Whether `text` is such a question by its first word and its mark. `language` is an ISO 639-1 code; of one without a
/// list nothing is.
pub fn is_plain_question(text: &str, language: &str) -> bool {
    let Some((_, openings)) = OPENINGS.iter().find(|(known, _)| *known == language) else { return false };
    let words = super::words(text);
    let is_opened = words.first().is_some_and(|first| openings.contains(&first.as_str()));
    text.trim_end().ends_with('?') && is_opened && words.len() >= SHORTEST
}

#[cfg(test)]
#[path = "question_tests.rs"]
mod tests;
