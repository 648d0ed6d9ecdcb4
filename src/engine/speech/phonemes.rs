//! Text to Kokoro's phoneme symbols, with the words that they belong to.
//!
//! `[[…]]` in a text is phonemes already, in Kokoro's own alphabet, for names that no rule knows.

use std::ops::Range;
use std::sync::Arc;

use super::english::{Dialect, English};
use super::espeak;
use crate::nn::kokoro::Vocabulary;
use crate::provider::ProviderError;

/// How a text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tongue {
    English(Dialect),
    /// By the program espeak-ng, with the voice of that name.
    Espeak(&'static str),
}

impl Tongue {
    /// None where nothing here reads `language`, a tag in lower case.
    pub(super) fn of(language: &str) -> Option<Self> {
        let mut parts = language.split(['-', '_']);
        let british = ["gb", "uk", "au", "ie", "nz", "in", "za"];
        match (parts.next()?, parts.next()) {
            ("en", Some(region)) if british.contains(&region) => Some(Self::English(Dialect::British)),
            ("en", _) => Some(Self::English(Dialect::American)),
            ("es", _) => Some(Self::Espeak("es")),
            ("fr", _) => Some(Self::Espeak("fr-fr")),
            ("hi", _) => Some(Self::Espeak("hi")),
            ("it", _) => Some(Self::Espeak("it")),
            ("pt", _) => Some(Self::Espeak("pt-br")),
            _ => None,
        }
    }
}

/// One symbol of the model's alphabet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Symbol {
    pub(super) character: char,
    pub(super) id: u32,
}

/// A word of the text and the symbols that say it, which are at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SpokenWord {
    pub(super) text: String,
    pub(super) symbols: Range<usize>,
}

/// What is to be said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Phonemes {
    pub(super) symbols: Vec<Symbol>,
    /// In order, not overlapping.
    pub(super) words: Vec<SpokenWord>,
}

/// Marks that end a sentence, a clause, or a breath; they are part of the alphabet and shape the melody.
pub(super) const MARKS: [char; 18] =
    [';', ':', ',', '.', '!', '?', '—', '…', '"', '(', ')', '“', '”', '↓', '→', '↗', '↘', ' '];

impl Phonemes {
    /// Appends what the alphabet has of `phonemes`; what it has not is dropped, as upstream does.
    pub(super) fn push(&mut self, phonemes: &str, vocabulary: &Vocabulary) {
        let known = |character: char| vocabulary.id(character).map(|id| Symbol { character, id });
        self.symbols.extend(phonemes.chars().filter_map(known));
    }

    /// Appends a space, unless there is one or nothing is said yet.
    pub(super) fn push_space(&mut self, vocabulary: &Vocabulary) {
        if self.symbols.last().is_some_and(|symbol| symbol.character != ' ') {
            self.push(" ", vocabulary);
        }
    }

    /// Makes a word of the sounds from `start` on. Without any (a lone mark), its text joins the word before.
    pub(super) fn close_word(&mut self, text: &str, start: usize) {
        let sounds = |index: &usize| !MARKS.contains(&self.symbols[*index].character);
        let first = (start..self.symbols.len()).find(sounds);
        let last = (start..self.symbols.len()).rfind(sounds);
        if let (Some(first), Some(last)) = (first, last) {
            self.words.push(SpokenWord { text: text.to_owned(), symbols: first..last + 1 });
        } else if let Some(word) = self.words.last_mut() {
            let apart = start.checked_sub(1).is_some_and(|before| self.symbols[before].character == ' ');
            word.text.push_str(if apart { " " } else { "" });
            word.text.push_str(text);
        }
    }
}

/// Writes phonemes.
pub(super) struct Writer {
    pub(super) english: English,
    pub(super) vocabulary: Vocabulary,
    /// The model's, for errors.
    pub(super) name: Arc<str>,
}

impl Writer {
    /// # Errors
    /// [`ProviderError::Unavailable`] where the language needs espeak-ng and it is not installed.
    pub(super) fn write(&self, text: &str, tongue: Tongue) -> Result<Phonemes, ProviderError> {
        let mut phonemes = Phonemes::default();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("[[") {
            let Some((raw, after)) = after.split_once("]]") else { break };
            self.write_plain(before, tongue, &mut phonemes)?;
            phonemes.push_space(&self.vocabulary);
            let start = phonemes.symbols.len();
            phonemes.push(raw, &self.vocabulary);
            phonemes.close_word(raw.trim(), start);
            // What follows a name may be its full stop.
            if after.starts_with(char::is_whitespace) {
                phonemes.push_space(&self.vocabulary);
            }
            rest = after;
        }
        self.write_plain(rest, tongue, &mut phonemes)?;
        while phonemes.symbols.last().is_some_and(|symbol| symbol.character == ' ') {
            phonemes.symbols.pop();
        }
        Ok(phonemes)
    }

    fn write_plain(&self, text: &str, tongue: Tongue, phonemes: &mut Phonemes) -> Result<(), ProviderError> {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if text.is_empty() {
            return Ok(());
        }
        match tongue {
            Tongue::English(dialect) => self.english.write(&text, dialect, &self.vocabulary, phonemes),
            Tongue::Espeak(voice) => {
                espeak::write(&text, voice, &self.vocabulary, phonemes)
                    .map_err(|error| error.for_client(&self.name))?;
            }
        }
        Ok(())
    }
}
