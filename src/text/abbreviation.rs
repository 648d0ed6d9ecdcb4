//! Full stops that end no sentence: "Dr. Who", "z. B.", "J. S. Bach", "No. 5", "1. First".
//!
//! Where it is unclear, the answer is that the sentence goes on: two sentences in one breath do less harm than a pause
//! in the middle of a name.

/// What a full stop with a blank after it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dot {
    EndsSentence,
    GoesOn,
}

/// Before a name or a continuation, never at the end of a sentence. In lower case.
const BEFORE_WORDS: &[&str] = &[
    // English
    "mr", "mrs", "ms", "mx", "dr", "prof", "rev", "fr", "st", "mt", "ft", "gen", "col", "maj", "capt", "cpt", "cmdr",
    "lt", "sgt", "adm", "gov", "sen", "rep", "hon", "pres", "messrs", "vs", "e.g", "i.e", "cf", "viz", "approx",
    "resp", "incl", "esp", "ca", "al", // German
    "hr", "hrn", "fr", "frl", "bzw", "z.b", "d.h", "u.a", "o.ä", "s.o", "s.u", "v.a", "ggf", "evtl", "inkl", "exkl",
    "zzgl", "sog", "str", "nr", "tel", "vgl", "ing", "dipl", "st", "mio", "mrd", // French
    "mme", "mlle", "mm", "mgr", "p.ex", "c.-à-d", "env", "av", "boul", // Spanish, Portuguese, Italian
    "sr", "sra", "srta", "dra", "dña", "ud", "uds", "vd", "vds", "p.ej", "pág", "págs", "avda", "p.ex", "exmo", "exma",
    "sig", "sig.ra", "dott", "dott.ssa", "avv", "arch", "on", "p.es", "ecc", // Dutch, Polish, Turkish
    "dhr", "mevr", "mw", "bijv", "d.w.z", "ul", "np", "tzn", "m.in", "dz", "sn", "örn", // Russian
    "г", "ул", "им", "т.е", "т.н", "напр", "см", "руб", "тыс", "млн", "млрд",
];

/// Abbreviations only before a number.
const BEFORE_NUMBERS: &[&str] = &[
    "no", "nos", "art", "pp", "vol", "sec", "fig", "figs", "ch", "eq", "núm", "nº", "n", "abs", "bd", "kap", "abb",
    "vol", "cap", "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec", "p",
];

/// Abbreviations that may end a sentence; what follows tells.
const ANYWHERE: &[&str] = &[
    "a.m", "p.m", "etc", "inc", "ltd", "co", "corp", "jr", "bros", "usw", "usf", "gmbh", "dept", "est", "min", "max",
    "avg", "misc", "ext", "a.d", "b.c", "ee.uu", "s.a", "lda", "ltda",
];

/// What the full stop at the end of `text` is when a blank and then `next` follow.
pub(super) fn after_dot(text: &str, next: char) -> Dot {
    let before = text.strip_suffix('.').unwrap_or(text);
    // An ellipsis ends a sentence where a new one begins.
    if before.ends_with('.') {
        return if next.is_lowercase() { Dot::GoesOn } else { Dot::EndsSentence };
    }
    let word = last_word(before);
    let lower = word.to_lowercase();
    let known = |list: &[&str]| list.contains(&lower.as_str());
    let single = word.chars().count() == 1 && word.chars().all(char::is_alphabetic);
    // "U.S.", "J.R.R.", but not "a.m.".
    let acronym = word.contains('.') && word.split('.').all(|part| part.chars().count() == 1 && part != lower_of(part));
    // "1. First", "am 3. Oktober".
    let ordinal = word.len() <= 2 && word.bytes().all(|byte| byte.is_ascii_digit());
    if word.is_empty() {
        return Dot::EndsSentence;
    }
    if next.is_lowercase() || single || acronym || ordinal || known(BEFORE_WORDS) {
        return Dot::GoesOn;
    }
    if known(BEFORE_NUMBERS) && next.is_numeric() {
        return Dot::GoesOn;
    }
    if known(ANYWHERE) && !next.is_uppercase() && next.is_alphanumeric() {
        return Dot::GoesOn;
    }
    Dot::EndsSentence
}

fn lower_of(part: &str) -> String {
    part.to_lowercase()
}

/// Letters, digits, full stops and hyphens at the end of `text`.
fn last_word(text: &str) -> &str {
    let start = text
        .char_indices()
        .rev()
        .find(|(_, character)| !character.is_alphanumeric() && !matches!(character, '.' | '-' | 'º'))
        .map_or(0, |(at, character)| at + character.len_utf8());
    &text[start..]
}
