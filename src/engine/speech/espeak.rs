//! Phonemes of other languages by the program espeak-ng (GPL, so a child process and never linked), where installed.
//!
//! Its IPA is rewritten to Kokoro's alphabet by misaki's table. Marks of punctuation, which espeak-ng swallows, are
//! kept: the text is cut at them, each part is read alone, and the marks go back between.

use std::io::{ErrorKind, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::phonemes::Phonemes;
use crate::nn::kokoro::Vocabulary;
use crate::provider::ProviderError;

const PROGRAM: &str = "espeak-ng";
/// It answers within milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes in one call: what comes back then fits a pipe, so that nobody waits for a reader.
const LONGEST_PART: usize = 4000;

/// misaki's table (espeak.py, `EspeakG2P`): what ties (^) bind becomes one symbol.
const SYMBOLS: [(&str, &str); 11] = [
    ("a^ɪ", "I"),
    ("a^ʊ", "W"),
    ("d^z", "ʣ"),
    ("d^ʒ", "ʤ"),
    ("e^ɪ", "A"),
    ("o^ʊ", "O"),
    ("ə^ʊ", "Q"),
    ("s^s", "S"),
    ("t^s", "ʦ"),
    ("t^ʃ", "ʧ"),
    ("ɔ^ɪ", "Y"),
];

#[derive(Debug, thiserror::Error)]
pub(super) enum EspeakError {
    #[error("espeak-ng is not installed")]
    Missing,
    #[error("espeak-ng took longer than {} s", PATIENCE.as_secs())]
    TookTooLong,
    #[error("espeak-ng failed: {0}")]
    Failed(String),
}

impl EspeakError {
    pub(super) fn for_client(&self, model: &str) -> ProviderError {
        tracing::warn!(error = %self, "no phonemes");
        match self {
            Self::Missing => ProviderError::Unavailable {
                what: format!("speech in other languages than English by {model}"),
                remedy: "install the package espeak-ng (on Debian: apt install espeak-ng)".to_owned(),
            },
            Self::TookTooLong => ProviderError::TimedOut { what: PROGRAM.to_owned(), after: PATIENCE },
            Self::Failed(_) => ProviderError::Failed { what: PROGRAM.to_owned() },
        }
    }
}

/// Appends the phonemes of `text` as espeak-ng's `voice` reads it.
pub(super) fn write(
    text: &str,
    voice: &str,
    vocabulary: &Vocabulary,
    phonemes: &mut Phonemes,
) -> Result<(), EspeakError> {
    for part in parts(text) {
        match part {
            Part::Mark(mark) if mark != ' ' => phonemes.push(mark.encode_utf8(&mut [0; 4]), vocabulary),
            Part::Mark(_) | Part::Space => phonemes.push_space(vocabulary),
            Part::Words(words) => {
                let ipa = symbols(&ask(PROGRAM, voice, words)?);
                push_words(words, &ipa, vocabulary, phonemes);
            }
        }
    }
    Ok(())
}

/// espeak-ng joins and splits words ("tout le monde" is two): where the counts differ, words share by position.
fn push_words(words: &str, ipa: &str, vocabulary: &Vocabulary, phonemes: &mut Phonemes) {
    let words: Vec<&str> = words.split_whitespace().collect();
    let said: Vec<&str> = ipa.split_whitespace().collect();
    let mut next = 0;
    for (index, said_word) in said.iter().enumerate() {
        if index > 0 {
            phonemes.push_space(vocabulary);
        }
        let start = phonemes.symbols.len();
        phonemes.push(said_word, vocabulary);
        let upto = (index + 1) * words.len() / said.len();
        if upto > next {
            phonemes.close_word(&words[next..upto].join(" "), start);
            next = upto;
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Part<'a> {
    Words(&'a str),
    Mark(char),
    Space,
}

/// Cuts at punctuation, but not within a number or an abbreviation ("3.5", "U.S.A").
fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        let after = at + character.len_utf8();
        let inside = characters.peek().is_some_and(|(_, next)| next.is_alphanumeric());
        let mark = mark_of(character).filter(|mark| !(inside && matches!(mark, '.' | ',' | ':')));
        let full = character == ' ' && at - start > LONGEST_PART;
        if mark.is_none() && !full {
            continue;
        }
        push_part(&text[start..at], &mut parts);
        parts.push(mark.map_or(Part::Space, Part::Mark));
        start = after;
    }
    push_part(&text[start..], &mut parts);
    parts
}

fn push_part<'a>(part: &'a str, parts: &mut Vec<Part<'a>>) {
    if part.starts_with(' ') {
        parts.push(Part::Space);
    }
    if !part.trim().is_empty() {
        parts.push(Part::Words(part.trim()));
    }
    if part.trim_start().ends_with(' ') {
        parts.push(Part::Space);
    }
}

/// The alphabet's mark for a character of punctuation. Spanish's opening marks have none, but must not be read.
fn mark_of(character: char) -> Option<char> {
    match character {
        '.' | ',' | ';' | ':' | '!' | '?' | '—' | '…' | '"' | '(' | ')' | '“' | '”' => Some(character),
        '।' => Some('.'),
        '«' => Some('“'),
        '»' => Some('”'),
        '¡' | '¿' | '[' | ']' | '{' | '}' => Some(' '),
        _ => None,
    }
}

/// espeak-ng's IPA in Kokoro's alphabet.
fn symbols(ipa: &str) -> String {
    let plain = without_language_flags(ipa);
    let tied = SYMBOLS.iter().fold(plain, |ipa, (from, to)| ipa.replace(from, to));
    tied.replace(['^', '-'], "")
}

/// It marks a foreign word as (en)…(fr), with ties between the letters.
fn without_language_flags(ipa: &str) -> String {
    let mut plain = String::new();
    let mut rest = ipa;
    while let Some((before, flag)) = rest.split_once('(') {
        plain.push_str(before);
        rest = flag.split_once(')').map_or("", |(_, after)| after);
    }
    plain + rest
}

/// Runs `program` on `words`.
fn ask(program: &str, voice: &str, words: &str) -> Result<String, EspeakError> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => EspeakError::Missing,
        _ => EspeakError::Failed(error.to_string()),
    };
    let mut child = Command::new(program)
        .args(["-q", "--ipa", "--tie=^", "--stdin", "-v", voice])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    // Closing its input is what makes it begin.
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(words.as_bytes()).map_err(failed)?;
    }
    wait(&mut child)?;
    let mut ipa = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut ipa).map_err(failed)?;
    }
    Ok(ipa)
}

fn wait(child: &mut Child) -> Result<(), EspeakError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(EspeakError::Failed(status.to_string())),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            Ok(None) => {
                // It may have ended by now, which is as good.
                let _ = child.kill();
                let _ = child.wait();
                return Err(EspeakError::TookTooLong);
            }
            Err(error) => return Err(EspeakError::Failed(error.to_string())),
        }
    }
}
