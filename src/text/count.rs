/// How many words, by their spaces; where there are none, two characters are one.
pub fn word_count(text: &str) -> usize {
    let is_wide = |c: &char| *c >= '\u{2e80}' && c.is_alphabetic();
    text.split_whitespace().count().max(text.chars().filter(is_wide).count() / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_words_have_no_spaces_characters_are_counted() {
        assert_eq!((word_count("今日は天気がいいですね。"), word_count("It is fine."), word_count("")), (5, 3, 0));
    }
}
