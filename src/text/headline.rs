//! A text in one line: its beginning, as long as there is room for it.

use unicode_segmentation::UnicodeSegmentation;

/// A first sentence shorter than this says little: the next one goes with it.
const SHORT: usize = 20;
/// Ends a line that says not all.
const MORE: char = '…';

/// The first sentence of a text, with the next ones where it is tiny, in at most `most` characters. What is longer is cut
/// after a word. Empty where nothing in the text can be read.
///
/// ```
/// # use aichat::text::headline;
/// assert_eq!(headline("Hi. How do I bake bread?\nI have flour.", 60), "Hi. How do I bake bread?");
/// assert_eq!(headline("How do I bake a good bread?", 15), "How do I bake…");
/// ```
pub fn headline(text: &str, most: usize) -> String {
    let readable: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = readable.split_whitespace().collect::<Vec<_>>().join(" ");
    if !line.chars().any(char::is_alphanumeric) {
        return String::new();
    }
    let mut end = 0;
    for (at, sentence) in line.split_sentence_bound_indices() {
        let so_far = line[..end].chars().count();
        let with = line[..at + sentence.len()].trim_end().chars().count();
        if so_far >= SHORT || so_far > 0 && with > most {
            break;
        }
        end = at + sentence.len();
    }
    let line = line[..end].trim_end();
    if line.chars().count() <= most {
        return line.trim_end_matches(['.', '。', ',', ':', ';']).to_owned();
    }
    let room = most.saturating_sub(1);
    let fits = |end: &usize| line[..*end].chars().count() <= room;
    let words = line.split_word_bound_indices().map(|(at, word)| at + word.len()).take_while(fits).last();
    // One word without an end is cut where a character ends.
    let cut = words.or_else(|| line.grapheme_indices(true).map(|(at, it)| at + it.len()).take_while(fits).last());
    let cut = line[..cut.unwrap_or(0)].trim_end_matches(|c: char| !c.is_alphanumeric());
    format!("{cut}{MORE}")
}

#[cfg(test)]
#[path = "headline_tests.rs"]
mod tests;
