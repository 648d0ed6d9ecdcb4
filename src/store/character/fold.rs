//! Names and texts as they are compared: without diacritics and in lower case.
//!
//! Rust folds them, so that both databases find the same; what is folded is stored beside the text.

use unicode_normalization::UnicodeNormalization;

/// No slug is longer: an id is part of addresses.
const LONGEST_SLUG: usize = 80;
/// Of names without a letter or digit that ASCII has.
const FALLBACK: &str = "character";

/// A text in lower case without diacritics, in which runs of space are one blank. Letters that only look like another
/// with a mark (`ø`, `ß`, `æ`) become what stands for them in ASCII.
pub(super) fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in text.nfkd().filter(|c| !('\u{300}'..='\u{36f}').contains(c)).flat_map(char::to_lowercase) {
        match plain(c) {
            Some(letters) => folded.push_str(letters),
            // `İ` in lower case has a mark of its own.
            None if ('\u{300}'..='\u{36f}').contains(&c) => {}
            None => folded.push(c),
        }
    }
    folded.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The words of a name in ASCII, joined by `-`: the beginning of an id.
pub(super) fn slug(name: &str) -> String {
    slug_or(name, FALLBACK)
}

/// The same; `fallback` where there are none.
pub(in crate::store) fn slug_or(name: &str, fallback: &str) -> String {
    let folded = fold(name);
    // `O'Brien` is one word.
    let kept = folded.chars().filter(|c| !matches!(c, '\'' | '’'));
    let text: String = kept.map(|c| if c.is_ascii_alphanumeric() { c } else { ' ' }).collect();
    let mut slug = text.split_whitespace().collect::<Vec<_>>().join("-");
    slug.truncate(LONGEST_SLUG);
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() { fallback.to_owned() } else { slug.to_owned() }
}

/// What stands for a letter that has no decomposition.
fn plain(c: char) -> Option<&'static str> {
    Some(match c {
        'ß' => "ss",
        'æ' => "ae",
        'œ' => "oe",
        'ø' => "o",
        'đ' | 'ð' => "d",
        'þ' => "th",
        'ł' => "l",
        'ħ' => "h",
        'ı' => "i",
        'ŋ' => "n",
        'ŧ' => "t",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_slugs() {
        for (name, wanted) in [
            ("Olivia Barns", "olivia-barns"),
            ("  Zoë   Müller-Łuk ", "zoe-muller-luk"),
            ("Søren Þórr Groß", "soren-thorr-gross"),
            ("O'Brien", "obrien"),
            ("İpek Işık", "ipek-isik"),
            ("ﬁ ①", "fi-1"),
            ("../../etc/passwd", "etc-passwd"),
            ("小明", "character"),
            ("🦀", "character"),
            ("R2-D2", "r2-d2"),
        ] {
            assert_eq!(slug(name), wanted, "{name}");
        }
        let long = slug(&"ab ".repeat(100));
        assert!(long.len() <= LONGEST_SLUG && !long.ends_with('-'), "{long}");
    }

    #[test]
    fn texts_are_compared_without_case_and_marks() {
        for (one, other) in [
            ("ÉLODIE", "elodie"),
            ("Straße", "STRASSE"),
            ("Ёлка", "елка"),
            ("ΆΛΦΑ", "αλφα"),
            ("a\u{301}  b\n", "á b"),
            ("ﬂuss", "FLUSS"),
        ] {
            assert_eq!(fold(one), fold(other), "{one}");
        }
        assert_ne!(fold("小明"), fold("小红"));
    }
}
