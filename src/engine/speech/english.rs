//! English phonemes, American and British, by loqui-g2p: misaki's lexicons and rules, which Kokoro was trained on.

use loqui_g2p::{G2p, OovFallback};

use super::phonemes::Phonemes;
use crate::nn::kokoro::Vocabulary;

/// Which English.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    American,
    British,
}

/// Both dialects' lexicons, loaded.
pub(super) struct English {
    american: G2p,
    british: G2p,
}

impl English {
    /// Parses the lexicons: a quarter of a second for each dialect, at once.
    pub(super) fn load() -> Result<Self, String> {
        let load = |dialect| G2p::new(dialect, OovFallback::Neural).map_err(|error| error.to_string());
        let (american, british) =
            rayon::join(|| load(loqui_g2p::Dialect::American), || load(loqui_g2p::Dialect::British));
        Ok(Self { american: american?, british: british? })
    }

    /// Appends the phonemes of `text`, in which words are apart by single spaces.
    pub(super) fn write(&self, text: &str, dialect: Dialect, vocabulary: &Vocabulary, phonemes: &mut Phonemes) {
        let g2p = match dialect {
            Dialect::American => &self.american,
            Dialect::British => &self.british,
        };
        let mut word = String::new();
        let mut start = phonemes.symbols.len();
        for token in g2p.tokens(text) {
            phonemes.push(&token.phonemes, vocabulary);
            word.push_str(&token.text);
            if token.whitespace {
                phonemes.close_word(&word, start);
                phonemes.push_space(vocabulary);
                word.clear();
                start = phonemes.symbols.len();
            }
        }
        if !word.is_empty() {
            phonemes.close_word(&word, start);
        }
    }
}
