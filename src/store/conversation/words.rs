//! What is looked for, as words, and the piece of a text that shows where they are.
//!
//! Both databases index texts by words: in lower case, without diacritics, cut at whatever is no letter or digit. A
//! query is cut the same way here, so none of its signs means anything to a database. Pure.

use std::ops::Range;

use unicode_normalization::UnicodeNormalization;

/// More words narrow nothing down further.
const MOST_WORDS: usize = 16;
/// Characters of a snippet before its first match.
const BEFORE: usize = 60;
/// Characters of a snippet.
const SNIPPET: usize = 200;

/// The words that are looked for. The last may be the beginning of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Words(Vec<String>);

/// A piece of a text and where in it the words are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snippet {
    pub text: String,
    /// In characters of `text`, in order.
    pub marks: Vec<Range<usize>>,
}

impl Words {
    /// None: the query has no word.
    pub(super) fn of(query: &str) -> Option<Self> {
        let chars: Vec<char> = query.chars().collect();
        let words: Vec<String> = cut(&chars).into_iter().map(|(word, _)| word).take(MOST_WORDS).collect();
        (!words.is_empty()).then_some(Self(words))
    }

    /// As SQLite's FTS5 asks: every word as a string of its own, which holds letters and digits only.
    pub(super) fn for_sqlite(&self) -> String {
        self.joined('"', " ", "*")
    }

    /// As PostgreSQL's `to_tsquery` asks.
    pub(super) fn for_postgres(&self) -> String {
        self.joined('\'', " & ", ":*")
    }

    fn joined(&self, quote: char, and: &str, prefix: &str) -> String {
        let quoted: Vec<String> = self.0.iter().map(|word| format!("{quote}{word}{quote}")).collect();
        quoted.join(and) + prefix
    }

    fn has(&self, word: &str) -> bool {
        let (last, whole) = self.0.split_last().map_or((None, &[][..]), |(last, whole)| (Some(last), whole));
        whole.iter().any(|known| known == word) || last.is_some_and(|last| word.starts_with(last.as_str()))
    }

    /// The piece of `text` around the first of these words.
    pub(super) fn snippet(&self, text: &str) -> Snippet {
        let chars: Vec<char> = text.chars().collect();
        let found: Vec<Range<usize>> =
            cut(&chars).into_iter().filter(|(word, _)| self.has(word)).map(|(_, place)| place).collect();
        let first = found.first().map_or(0, |place| place.start);
        let mut start = first.saturating_sub(BEFORE);
        // From the beginning of a word, where there is one before the match.
        if start > 0
            && let Some(space) = chars[start..first].iter().position(|c| c.is_whitespace())
        {
            start += space + 1;
        }
        let end = (start + SNIPPET).min(chars.len());
        let (lead, tail) = (if start > 0 { "…" } else { "" }, if end < chars.len() { "…" } else { "" });
        let shift = lead.chars().count();
        let place = |found: &Range<usize>| found.start - start + shift..found.end.min(end) - start + shift;
        let marks = found.iter().filter(|found| found.start >= start && found.start < end).map(place).collect();
        Snippet { text: format!("{lead}{}{tail}", chars[start..end].iter().collect::<String>()), marks }
    }
}

/// The words of a text, folded, and their places in it.
fn cut(chars: &[char]) -> Vec<(String, Range<usize>)> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut start = 0;
    for (at, &c) in chars.iter().enumerate() {
        // A mark belongs to the letter before it.
        if !c.is_alphanumeric() && !is_diacritic(c) {
            if !word.is_empty() {
                words.push((std::mem::take(&mut word), start..at));
            }
            continue;
        }
        if word.is_empty() {
            start = at;
        }
        word.extend(std::iter::once(c).nfd().filter(|c| !is_diacritic(*c)).flat_map(char::to_lowercase));
    }
    if !word.is_empty() {
        words.push((word, start..chars.len()));
    }
    words
}

fn is_diacritic(c: char) -> bool {
    ('\u{300}'..='\u{36F}').contains(&c)
}

#[cfg(test)]
#[path = "words_tests.rs"]
mod tests;
