//! Who is spoken to: names in a text that address somebody, in writing (`@Olivia`) or in speech (`Olivia, …`).
//!
//! A name counts where it addresses: after `@`, or beside a comma or the end of a sentence at its beginning or end
//! ("Olivia, are you there?", "Hey Max and Olivia!", "What do you think, Max?"). A name that is only talked about does
//! not. Case and diacritics do not matter. Of a name with several words its first one is enough.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// What may stand before a name at the beginning of a sentence.
const OPENERS: [&str; 14] =
    ["hey", "hi", "hello", "ok", "okay", "so", "and", "but", "well", "now", "then", "dear", "yes", "no"];
/// What may stand between two names.
const LINKS: [&str; 4] = ["and", "und", "et", "y"];

/// Places in `names` of those whom the text addresses, in the order in which it does, each once.
pub fn mentioned(text: &str, names: &[&str]) -> Vec<usize> {
    let names: Vec<Vec<String>> = names.iter().map(|name| words(name).map(|word| word.text).collect()).collect();
    let tokens: Vec<Word> = words(text).collect();
    let mut found = Vec::new();
    for sentence in sentences(&tokens) {
        for who in addressed(sentence, &names) {
            if !found.contains(&who) {
                found.push(who);
            }
        }
    }
    found
}

/// A word, folded, and what stands around it.
struct Word {
    text: String,
    is_capital: bool,
    /// Right after an `@`.
    is_tagged: bool,
    /// The punctuation between it and the next word.
    after: String,
}

impl Word {
    fn ends_sentence(&self) -> bool {
        self.after.contains(['.', '!', '?', '。', '！', '？', '\n', ';'])
    }

    /// A pause such as sets a name apart.
    fn pauses(&self) -> bool {
        self.after.contains([',', ':', '，', '、', '：', '–', '—']) || self.ends_sentence()
    }

    /// Such a sign stands between two names.
    fn links(&self) -> bool {
        self.after.contains(['&', '+', '/'])
    }
}

fn words(text: &str) -> impl Iterator<Item = Word> + '_ {
    let is_part = |c: char| c.is_alphanumeric() || c == '\'' || c == '’' || c == '-' || is_combining_mark(c);
    let mut rest = text;
    let mut is_first = true;
    std::iter::from_fn(move || {
        let start = rest.find(is_part)?;
        // Right after another word it is an address of mail.
        let is_tagged = rest[..start].ends_with('@') && (std::mem::take(&mut is_first) || start > 1);
        is_first = false;
        let from = &rest[start..];
        let length = from.find(|c| !is_part(c)).unwrap_or(from.len());
        let gap = &from[length..];
        let next = gap.find(is_part).unwrap_or(gap.len());
        rest = gap;
        Some(Word {
            text: folded(&from[..length]),
            is_capital: from.starts_with(char::is_uppercase),
            is_tagged,
            after: gap[..next].to_owned(),
        })
    })
}

/// Lower case without diacritics, strokes among them: a recogniser writes Øyvind as Oyvind.
fn folded(word: &str) -> String {
    let mut folded = String::with_capacity(word.len());
    for c in word.nfd().filter(|c| !is_combining_mark(*c)).flat_map(char::to_lowercase) {
        match c {
            'ø' => folded.push('o'),
            'ł' => folded.push('l'),
            'đ' | 'ð' => folded.push('d'),
            'ı' => folded.push('i'),
            'ß' => folded.push_str("ss"),
            'æ' => folded.push_str("ae"),
            'œ' => folded.push_str("oe"),
            '’' => folded.push('\''),
            c => folded.push(c),
        }
    }
    folded
}

fn sentences(words: &[Word]) -> impl Iterator<Item = &[Word]> {
    words.split_inclusive(Word::ends_sentence)
}

fn addressed(sentence: &[Word], names: &[Vec<String>]) -> Vec<usize> {
    let mut found = Vec::new();
    let opening = sentence.iter().take_while(|word| OPENERS.contains(&word.text.as_str())).count();
    if let Some((who, _)) = vocatives(&sentence[opening..], names) {
        found.extend(who);
    }
    for at in 0..sentence.len() {
        let rest = &sentence[at..];
        if sentence[at].is_tagged {
            found.extend(name_at(rest, names).map(|(who, _)| who));
        }
        // "…, Olivia?"
        let is_set_apart = at > 0 && sentence[at - 1].pauses();
        if is_set_apart
            && let Some((who, length)) = vocatives(rest, names)
            && length == rest.len()
        {
            found.extend(who);
        }
    }
    found
}

/// Names in a row that a pause follows, and how many words they take.
fn vocatives(words: &[Word], names: &[Vec<String>]) -> Option<(Vec<usize>, usize)> {
    let one = |at: usize| {
        let known = name_at(words.get(at..)?, names).map(|(who, length)| (Some(who), length));
        known.or_else(|| is_stranger(words, at).then_some((None, 1)))
    };
    let mut found = Vec::new();
    let mut at = 0;
    while let Some((who, length)) = one(at) {
        found.extend(who);
        at += length;
        if is_link(words, at) && one(at + 1).is_some() {
            at += 1;
        } else if !(words[at - 1].pauses() || words[at - 1].links()) || one(at).is_none() {
            break;
        }
    }
    let last = at.checked_sub(1)?;
    let is_addressed = !found.is_empty() && (words[last].pauses() || at == words.len());
    is_addressed.then_some((found, at))
}

fn is_link(words: &[Word], at: usize) -> bool {
    words.get(at).is_some_and(|word| LINKS.contains(&word.text.as_str()))
}

/// Whether a name may stand here that nobody has: "Bob" in "Bob and Olivia, hello".
fn is_stranger(words: &[Word], at: usize) -> bool {
    let Some(word) = words.get(at).filter(|word| word.is_capital && word.text.chars().count() > 1) else {
        return false;
    };
    let follows = at > 0 && (is_link(words, at - 1) || words[at - 1].links());
    !is_link(words, at) && (follows || is_link(words, at + 1) || word.links())
}

/// The name that the words begin with, and how many of them it takes: the longest.
fn name_at(words: &[Word], names: &[Vec<String>]) -> Option<(usize, usize)> {
    let matches = |name: &Vec<String>| {
        let same = name.iter().zip(words).take_while(|(part, word)| **part == word.text).count();
        (same > 0).then_some((same, same == name.len()))
    };
    let found = names.iter().enumerate().filter_map(|(who, name)| Some((who, matches(name)?)));
    // Of two with one first name, the first that is named in full, else the first.
    let best = found.reduce(|best, other| if other.1 > best.1 { other } else { best });
    best.map(|(who, (length, _))| (who, length))
}

#[cfg(test)]
#[path = "mention_tests.rs"]
mod tests;
