//! Makes a chunk of a reply speakable: what is written for the eye goes, what is meant for the ear stays.
//!
//! For every language: Markdown, emoji, emoticons, stage directions, addresses, repeated punctuation and blanks. For
//! English also units, clock times, signs and abbreviations. The result is one line; it is empty where there is nothing
//! to say. It is applied to whole chunks (`text::chunk` keeps code and stage directions in one).

mod english;
mod markdown;
mod quantity;

/// Addresses that are not longer are read with their path.
const SPOKEN_ADDRESS: usize = 40;

const EMOTICONS: &[&str] = &[
    ":)", ":-)", ";)", ";-)", ":D", ":-D", ":(", ":-(", ":P", ":-P", ":p", "xD", "XD", ":o", ":O", ":/", ":-/", ":'(",
    "<3", "</3", ":3", "^^", "^_^", "-_-", ":*", ";D", "=)", ":|", "o_o", "O_O", "T_T", "(:", "\\o/", ">_<", "uwu",
];

/// The text to speak for `text` in `language` (ISO 639-1, with or without a region; empty: not known).
pub fn speakable(text: &str, language: &str) -> String {
    let is_english = language.get(..2).is_some_and(|code| code.eq_ignore_ascii_case("en"));
    let text = drop_pictures(&drop_emoticons(text));
    let text = markdown::plain(&text);
    let words: Vec<String> = text.split_whitespace().map(|word| address(word, is_english)).collect();
    let text = words.join(" ");
    let text = if is_english { english::spell_out(&text) } else { text };
    let text = tidy(&text);
    if text.chars().any(char::is_alphanumeric) { text } else { String::new() }
}

/// Lines stay, words that are emoticons go.
fn drop_emoticons(text: &str) -> String {
    let is_emoticon = |word: &str| {
        let bare = word.trim_end_matches(['.', ',', '!', '?']);
        EMOTICONS.contains(&word) || EMOTICONS.contains(&bare)
    };
    text.split_inclusive(char::is_whitespace)
        .map(|word| if is_emoticon(word.trim_end()) { &word[word.trim_end().len()..] } else { word })
        .collect()
}

/// Drops emoji, symbols that nobody says and what cannot be seen.
fn drop_pictures(text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            // Joins letters in some scripts, and pictures elsewhere.
            '\u{200D}' if !output.ends_with(|last: char| !last.is_ascii() && !last.is_whitespace()) => {}
            '→' | '⇒' | '➔' | '➜' => output.push_str(", "),
            _ if is_picture(character) => {}
            '\u{2028}' | '\u{2029}' | '\u{85}' | '\r' => output.push('\n'),
            _ if character.is_control() && character != '\n' => output.push(' '),
            _ => output.push(character),
        }
    }
    output
}

fn is_picture(character: char) -> bool {
    matches!(character,
        '\u{1F000}'..='\u{1FAFF}' | '\u{2190}'..='\u{21FF}' | '\u{2300}'..='\u{23FF}' | '\u{2500}'..='\u{27BF}'
        | '\u{2900}'..='\u{297F}' | '\u{2B00}'..='\u{2BFF}' | '\u{3030}' | '\u{303D}' | '\u{3297}' | '\u{3299}'
        | '\u{20E3}' | '\u{FE00}'..='\u{FE0F}' | '\u{E0000}'..='\u{E007F}' | '\u{E000}'..='\u{F8FF}'
        | '\u{200B}' | '\u{2060}' | '\u{FEFF}' | '\u{FFFD}' | '\u{00AD}' | '\u{200E}' | '\u{200F}'
        | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '©' | '®' | '™')
}

/// A web or mail address as somebody would say it; any other word as it is.
fn address(word: &str, is_english: bool) -> String {
    let start = word.len() - word.trim_start_matches(['(', '"', '\'', '<', '[', '“']).len();
    let inner = &word[start..];
    let core = inner.trim_end_matches([',', ';', ':', '!', '?', '.', ')', '"', '\'', '>', ']', '”', '…']);
    let spoken = if let Some(rest) = core.split_once("://").map(|(_, rest)| rest) {
        web(rest, is_english)
    } else if core.starts_with("www.") {
        web(core, is_english)
    } else if core.split_once('@').is_some_and(|(name, host)| !name.is_empty() && host.contains('.')) {
        if is_english { dotted(&core.replace('@', " at ")) } else { core.to_owned() }
    } else {
        return word.to_owned();
    };
    format!("{}{spoken}{}", &word[..start], &inner[core.len()..])
}

/// Its host, and its path where that is short.
fn web(address: &str, is_english: bool) -> String {
    let address = address.trim_start_matches("www.");
    let plain = address.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    let host = plain.split(['/', ':']).next().unwrap_or_default();
    let short = if plain.len() <= SPOKEN_ADDRESS { plain } else { host };
    if is_english { dotted(&short.replace('/', " slash ").replace(':', " port ")) } else { host.to_owned() }
}

fn dotted(address: &str) -> String {
    address.replace('.', " dot ").replace(['_', '-', '+', '%'], " ")
}

/// One blank between words, one mark where several stand, no marks that have no sound.
fn tidy(text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '.' if characters.peek() == Some(&'.') => {
                while characters.next_if_eq(&'.').is_some() {}
                mark(&mut output, '…');
            }
            '-' if characters.peek() == Some(&'-') => {
                while characters.next_if_eq(&'-').is_some() {}
                blank(&mut output);
                output.push_str("— ");
            }
            // A dash between blanks is a pause.
            '-' | '–' | '−' if output.ends_with(' ') && characters.peek() == Some(&' ') => output.push('—'),
            '.' if output.ends_with(' ') && characters.peek().is_some_and(char::is_ascii_digit) => output.push('.'),
            '.' | '!' | '?' | '…' | ',' | ';' | ':' | '。' | '！' | '？' | '、' | '，' => {
                mark(&mut output, character);
            }
            '[' | ']' | '{' | '}' | '<' | '>' | '*' | '_' | '`' | '~' | '^' | '\\' | '|' | '#' | '•' | '·' => {
                blank(&mut output);
            }
            _ if character.is_whitespace() => blank(&mut output),
            _ => output.push(character),
        }
    }
    // Some voices hear a pause in three full stops and nothing in an ellipsis.
    output.trim().trim_start_matches([',', ';', ':', '.', '!', '?', '…', ' ']).replace('…', "...")
}

fn blank(output: &mut String) {
    if !output.is_empty() && !output.ends_with(' ') {
        output.push(' ');
    }
}

/// Punctuation stands at a word; of several in a row the strongest stays.
fn mark(output: &mut String, next: char) {
    const STRENGTH: &str = ",、，;:….。!！?？";
    let strength = |character: char| STRENGTH.find(character);
    let kept = output.trim_end().len();
    match output[..kept].chars().next_back() {
        Some(last) if strength(last).is_some() => {
            output.truncate(kept);
            if strength(next) > strength(last) {
                output.pop();
                output.push(next);
            }
        }
        Some(_) => {
            output.truncate(kept);
            output.push(next);
        }
        None => {}
    }
}

#[cfg(test)]
mod tests;
