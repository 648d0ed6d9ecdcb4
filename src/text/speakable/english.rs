//! What English text leaves to its reader: units, clock times, "p.m.", signs and the usual abbreviations as words.
//!
//! Whole numbers, decimals, money, per cent, years and ordinals are left to the grapheme-to-phoneme step, which reads
//! them right; fractions, ranges and ISO dates it does not.

use super::quantity::{clock, date, is_number, money, noon, number_character, number_words, prefixed, quantity};

/// Words that stand for others, without their last full stop.
const WORDS: &[(&str, &str)] = &[
    ("e.g", "for example"),
    ("i.e", "that is"),
    ("vs", "versus"),
    ("etc", "et cetera"),
    ("approx", "approximately"),
    ("w/", "with"),
    ("w/o", "without"),
    ("&", "and"),
    ("+", "plus"),
    ("=", "equals"),
    ("@", "at"),
    ("×", "times"),
    ("*", "times"),
    ("÷", "divided by"),
    ("≈", "approximately"),
    ("±", "plus or minus"),
    ("<", "less than"),
    (">", "greater than"),
    ("≤", "at most"),
    ("≥", "at least"),
    ("≠", "is not equal to"),
];

/// What English lexicons write without their marks.
const FOLDED: &[(&str, &str)] = &[
    ("àáâãäåāă", "a"),
    ("çćč", "c"),
    ("èéêëēėę", "e"),
    ("ìíîïī", "i"),
    ("ñńň", "n"),
    ("òóôõöøō", "o"),
    ("ùúûüū", "u"),
    ("ýÿ", "y"),
    ("šśş", "s"),
    ("žźż", "z"),
    ("æ", "ae"),
    ("œ", "oe"),
    ("ß", "ss"),
    ("ł", "l"),
];

/// Spells out what an English reader would.
pub(super) fn spell_out(text: &str) -> String {
    let text = fold(text);
    let tokens: Vec<Token> = text.split_whitespace().map(Token::new).collect();
    let mut words: Vec<String> = Vec::with_capacity(tokens.len());
    let mut skip = false;
    for (index, token) in tokens.iter().enumerate() {
        if std::mem::take(&mut skip) {
            continue;
        }
        let previous = index.checked_sub(1).map(|index| &tokens[index]);
        let next = tokens.get(index + 1);
        if let Some(next) = next
            && token.trail.is_empty()
            && next.lead.is_empty()
            && let Some(unit) = quantity(token.core, next.core)
        {
            words.push(format!("{}{unit}{}", token.lead, next.trail));
            skip = true;
            continue;
        }
        words.push(token.spelled(previous, next));
    }
    words.join(" ")
}

/// A word with the punctuation around it.
struct Token<'a> {
    lead: &'a str,
    core: &'a str,
    trail: &'a str,
}

impl<'a> Token<'a> {
    fn new(word: &'a str) -> Self {
        let start = word.len() - word.trim_start_matches(['(', '[', '{', '"', '\'', '“', '‘', '«']).len();
        let inner = &word[start..];
        let core =
            inner.trim_end_matches([',', ';', ':', '!', '?', '.', '…', ')', ']', '}', '"', '\'', '”', '’', '»', '—']);
        if core.is_empty() {
            return Self { lead: "", core: word, trail: "" };
        }
        Self { lead: &word[..start], core, trail: &inner[core.len()..] }
    }

    fn spelled(&self, previous: Option<&Self>, next: Option<&Self>) -> String {
        let Self { lead, core, trail } = self;
        let lower = core.to_lowercase();
        if let Some(noon) = noon(&lower)
            && previous.is_some_and(|previous| previous.core.ends_with(|last: char| last.is_ascii_digit()))
        {
            return format!("{lead}{noon}{}", self.trail_after_abbreviation(next));
        }
        if lower == "no" && trail.starts_with('.') && next.is_some_and(|next| is_number(next.core)) {
            return format!("{lead}number");
        }
        if let Some((_, word)) = WORDS.iter().find(|(short, _)| *short == lower) {
            return format!("{lead}{word}{}", self.trail_after_abbreviation(next));
        }
        if matches!(*core, "-" | "–" | "−")
            && previous.zip(next).is_some_and(|(from, to)| is_number(from.core) && is_number(to.core))
        {
            return format!("{lead}minus{trail}");
        }
        let before_noon = next.is_some_and(|next| noon(&next.core.to_lowercase()).is_some());
        if let Some(time) = clock(core, before_noon) {
            return format!("{lead}{time}{trail}");
        }
        if let Some((from, to)) = core.split_once(['-', '–'])
            && let Some((from, to)) = clock(from, before_noon).zip(clock(to, before_noon))
        {
            return format!("{lead}{from} to {to}{trail}");
        }
        let end = core.len() - core.trim_start_matches(number_character).len();
        if end > 0
            && let Some(amount) = quantity(&core[..end], &core[end..])
        {
            return format!("{lead}{amount}{trail}");
        }
        if let Some(other) = money(core).or_else(|| prefixed(core)).or_else(|| date(core)) {
            return format!("{lead}{other}{trail}");
        }
        if is_number(core) {
            return format!("{lead}{}{trail}", number_words(core));
        }
        format!("{lead}{}{trail}", core.replace('&', " and ").replace('=', " equals "))
    }

    /// The full stop of an abbreviation goes with it, unless it also ends the sentence.
    fn trail_after_abbreviation(&self, next: Option<&Self>) -> &'a str {
        let ends = next.is_none_or(|next| next.core.starts_with(char::is_uppercase));
        match self.trail.strip_prefix('.') {
            Some(rest) if !ends || !rest.is_empty() => rest,
            _ => self.trail,
        }
    }
}

fn fold(text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    for character in text.chars() {
        let lower = character.to_lowercase().next().unwrap_or(character);
        match FOLDED.iter().find(|(marked, _)| !character.is_ascii() && marked.contains(lower)) {
            Some((_, plain)) if character == lower => output.push_str(plain),
            Some((_, plain)) => {
                let mut letters = plain.chars();
                output.extend(letters.next().map(|first| first.to_ascii_uppercase()));
                output.push_str(letters.as_str());
            }
            None => output.push(character),
        }
    }
    output
}
