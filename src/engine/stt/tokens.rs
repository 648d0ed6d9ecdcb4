//! A checkpoint's tokens: text both ways, and the special ones by what they mean.
//!
//! The ids differ between English-only and multilingual models and again from large-v3 on (100 languages), so every
//! id is looked up by its name in `tokenizer.json`; timestamps, which some files do not list, follow the last of them.

use tokenizers::Tokenizer;

use crate::nn::whisper::Config;

/// Steps of 20 ms from 0 to 30 s, both included.
pub(super) const TIMESTAMPS: u32 = 1_501;
/// Names that older checkpoints use for a language, and today's ISO 639-1 code.
const RENAMED: [(&str, &str); 2] = [("iw", "he"), ("jw", "jv")];

pub(super) struct Tokens {
    tokenizer: Tokenizer,
    pub(super) end: u32,
    pub(super) start: u32,
    pub(super) translate: u32,
    pub(super) transcribe: u32,
    /// Begins text that came before.
    pub(super) previous: u32,
    pub(super) no_speech: u32,
    pub(super) no_timestamps: u32,
    /// The timestamp 0.00.
    pub(super) first_timestamp: u32,
    /// ISO 639-1 code and token. Empty for an English-only model.
    pub(super) languages: Vec<(String, u32)>,
    /// Tokens that are punctuation and nothing else, in ascending order.
    pub(super) marks: Vec<(u32, Mark)>,
    /// Never written.
    pub(super) suppressed: Vec<u32>,
    /// Never written first.
    pub(super) suppressed_first: Vec<u32>,
}

impl Tokens {
    /// Reads `tokenizer.json`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(json: &[u8], config: &Config) -> Result<Self, String> {
        let mut tokenizer = read(json)?;
        // Special tokens inside a prompt are plain text.
        tokenizer.set_encode_special_tokens(true);
        let find = |name: &str| tokenizer.token_to_id(name).ok_or_else(|| format!("the token {name} is missing"));
        let (start, translate, no_timestamps) =
            (find("<|startoftranscript|>")?, find("<|translate|>")?, find("<|notimestamps|>")?);
        let no_speech = find("<|nospeech|>").or_else(|_| find("<|nocaptions|>"))?;
        let first_timestamp = no_timestamps.saturating_add(1);
        if first_timestamp.saturating_add(TIMESTAMPS) as usize > config.vocab_size {
            return Err(format!("its tokens do not fit the model's vocabulary of {}", config.vocab_size));
        }
        let multilingual = start > find("<|endoftext|>")? && config.vocab_size >= 51_865;
        let between = if multilingual { start.saturating_add(1)..translate } else { 0..0 };
        let language = |id: u32| {
            let name = tokenizer.id_to_token(id)?;
            let code = name.strip_prefix("<|")?.strip_suffix("|>")?;
            let code = RENAMED.iter().find(|(old, _)| *old == code).map_or(code, |(_, new)| new);
            Some((code.to_owned(), id))
        };
        let languages: Vec<_> = between.filter_map(language).collect();
        if multilingual && languages.is_empty() {
            return Err("it names no language".to_owned());
        }
        let (end, transcribe, previous) = (find("<|endoftext|>")?, find("<|transcribe|>")?, find("<|startofprev|>")?);
        let highest = [end, start, translate, transcribe, previous, no_speech, no_timestamps].into_iter().max();
        if highest != Some(no_timestamps) {
            return Err("its special tokens are not in Whisper's order".to_owned());
        }
        let listed = |list: &Option<Vec<i64>>| -> Vec<u32> {
            let within = |&id: &i64| u32::try_from(id).ok().filter(|&id| (id as usize) < config.vocab_size);
            list.iter().flatten().filter_map(within).collect()
        };
        let mut suppressed = listed(&config.suppress_tokens);
        // A list may let through what is no text at all.
        suppressed.extend(end + 1..first_timestamp);
        let mut suppressed_first = listed(&config.begin_suppress_tokens);
        suppressed_first.push(end);
        let marks = (0..end).filter_map(|id| Some((id, Mark::of(&tokenizer.decode(&[id], true).ok()?)?))).collect();
        Ok(Self {
            tokenizer,
            end,
            start,
            translate,
            transcribe,
            previous,
            no_speech,
            no_timestamps,
            first_timestamp,
            languages,
            marks,
            suppressed,
            suppressed_first,
        })
    }

    pub(super) fn is_multilingual(&self) -> bool {
        !self.languages.is_empty()
    }

    pub(super) fn language(&self, code: &str) -> Option<u32> {
        let code = RENAMED.iter().find(|(old, _)| *old == code).map_or(code, |(_, new)| new);
        self.languages.iter().find(|(known, _)| known == code).map(|(_, id)| *id)
    }

    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        self.tokenizer.encode_fast(text, false).map(|encoding| encoding.get_ids().to_vec()).unwrap_or_default()
    }

    /// The text of `ids`; special tokens and timestamps have none.
    pub(super) fn decode(&self, ids: &[u32]) -> String {
        let text: Vec<u32> = ids.iter().copied().filter(|&id| id < self.end).collect();
        self.tokenizer.decode(&text, true).unwrap_or_default()
    }

    pub(super) fn mark(&self, id: u32) -> Option<Mark> {
        let place = self.marks.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.marks.get(place).map(|(_, mark)| *mark)
    }

    pub(super) fn is_timestamp(&self, id: u32) -> bool {
        id >= self.first_timestamp
    }
}

/// What a mark between or after words means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Stop,
    Question,
    Comma,
    BreakOff,
}

impl Mark {
    /// None: the text is no such mark, or not only.
    pub(super) fn of(text: &str) -> Option<Self> {
        let text = text.trim();
        let last = text.chars().next_back()?;
        if !text.chars().all(|c| ".。．।?？؟!！,，、;；:：-–—…".contains(c)) {
            return None;
        }
        Some(match last {
            '?' | '？' | '؟' | '!' | '！' => Self::Question,
            '.' | '。' | '．' | '।' if text.chars().count() == 1 => Self::Stop,
            '.' | '。' | '．' | '।' | '-' | '–' | '—' | '…' => Self::BreakOff,
            _ => Self::Comma,
        })
    }
}

/// Reads the file. The library panics on some broken ones, which is an error here like any other.
fn read(json: &[u8]) -> Result<Tokenizer, String> {
    match std::panic::catch_unwind(|| Tokenizer::from_bytes(json)) {
        Ok(read) => read.map_err(|error| format!("it is not a tokenizer: {error}")),
        Err(_) => Err("it is not a tokenizer that can be read".to_owned()),
    }
}

#[cfg(test)]
#[path = "tokens_tests.rs"]
mod tests;
