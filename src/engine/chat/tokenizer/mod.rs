//! Text to token ids and back, from the tables in a GGUF file.
//!
//! candle's own reader knows two pre-tokenizers and takes GPT-2's for the rest, which gives wrong ids without a word;
//! here a pre-tokenizer that the table does not know is an error. Ids equal llama.cpp's.
//!
//! A *marker* is a token with a meaning beyond its text, as `<|im_end|>`. Only [`Tokenizer::encode_prompt`] yields
//! markers, and only where the prompt's own template wrote them: whoever renders breaks the markers in a speaker's
//! text with [`Tokenizer::disarm`]. Plain text cannot become a marker, because the tables for plain text lack them.

mod bpe;
mod spm;

use std::cmp::Reverse;
use std::collections::HashMap;

use candle_core::quantized::gguf_file::Value;

use self::bpe::BytePairs;
use self::spm::SentencePieces;
use crate::nn::decoder::{DecoderError, GgufFile};

/// Tokens that end a turn, by their text, in the families that run here. A file's `eos_token_id` alone is often the
/// end of a document.
const TURN_ENDS: [&str; 10] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|end_of_turn|>",
    "<｜end▁of▁sentence｜>",
    "</s>",
];

/// Other markers that some files declare as ordinary tokens.
const TURN_STARTS: [&str; 3] = ["<|im_start|>", "<|start_header_id|>", "<start_of_turn>"];

/// Between these a model thinks. They are shown, so that whoever filters the reply sees them.
pub(super) const THINK: (&str, &str) = ("<think>", "</think>");
/// Between or after these a model calls tools. They are shown for the same reason.
const TOOL_CALLS: [&str; 6] = ["<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]", "<|python_tag|>"];

pub(super) struct Tokenizer {
    algorithm: Algorithm,
    tokens: Vec<Token>,
    markers: Markers,
    /// User-defined tokens that are ordinary text, as runs of line ends: found in any text, before the algorithm.
    pieces: Markers,
    ends: Vec<u32>,
    pub(super) begin: Option<Begin>,
    pub(super) end_text: String,
}

/// The token before every prompt.
#[derive(Clone, Debug)]
pub(super) struct Begin {
    pub(super) id: u32,
    pub(super) text: String,
    /// The prompt begins with it even where the template does not say so.
    pub(super) always: bool,
}

enum Algorithm {
    BytePairs(Box<BytePairs>),
    SentencePieces(Box<SentencePieces>),
}

/// GGUF's `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Byte,
}

struct Token {
    /// What it adds to a reply. Empty for most markers.
    shown: Box<[u8]>,
    /// Plain text may become it.
    plain: bool,
}

/// The raw table of a file.
struct Entry {
    text: String,
    kind: Kind,
}

impl Tokenizer {
    /// # Errors
    /// [`DecoderError::BadFile`]: a table is missing or of unequal length, or the kind is not known.
    pub(super) fn read(file: &GgufFile) -> Result<Self, DecoderError> {
        let entries = entries(file)?;
        let is_marker = |entry: &Entry| {
            entry.text.chars().nth(1).is_some()
                && (entry.kind == Kind::Control || (entry.kind == Kind::UserDefined && looks_like_tag(&entry.text)))
        };
        let ids = |wanted: &dyn Fn(&Entry) -> bool| -> Vec<(String, u32)> {
            let numbered = (0u32..).zip(&entries).filter(|(_, entry)| wanted(entry));
            numbered.map(|(id, entry)| (entry.text.clone(), id)).collect()
        };
        let markers = Markers::new(ids(&is_marker));
        let pieces = Markers::new(ids(&|entry| entry.kind == Kind::UserDefined && !looks_like_tag(&entry.text)));
        let plain = ids(&|entry| matches!(entry.kind, Kind::Normal | Kind::Byte));
        let algorithm = match file.text("tokenizer.ggml.model") {
            Some("gpt2") => Algorithm::BytePairs(Box::new(BytePairs::read(file, &plain)?)),
            Some("llama") => Algorithm::SentencePieces(Box::new(SentencePieces::read(file, &plain)?)),
            other => {
                let name = other.unwrap_or("no tokenizer");
                return Err(file.error(format!("its tokenizer kind ({name}) is not supported")));
            }
        };
        let tokens = entries
            .iter()
            .map(|entry| {
                let hidden = is_marker(entry) && entry.kind == Kind::Control || entry.kind == Kind::Unknown;
                let known = [THINK.0, THINK.1].into_iter().chain(TOOL_CALLS);
                let shown = match &algorithm {
                    _ if known.clone().any(|known| entry.text == known) => entry.text.clone().into_bytes(),
                    _ if hidden => Vec::new(),
                    Algorithm::BytePairs(_) => bpe::bytes(&entry.text),
                    Algorithm::SentencePieces(_) => spm::bytes(&entry.text, entry.kind == Kind::Byte),
                };
                Token { shown: shown.into_boxed_slice(), plain: !is_marker(entry) && !hidden }
            })
            .collect();
        let (ends, end_text) = ends(file, &entries, &markers);
        let begin = begin(file, &entries);
        Ok(Self { algorithm, tokens, markers, pieces, ends, begin, end_text })
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Ids of a rendered prompt, in which `breaker` is no text: see [`Tokenizer::disarm`].
    ///
    /// # Errors
    /// The text that could not be encoded, as a reason.
    pub(super) fn encode_prompt(&self, prompt: &str, breaker: char) -> Result<Vec<u32>, String> {
        let mut ids = Vec::new();
        if let Some(begin) = self.begin.as_ref().filter(|begin| begin.always && !prompt.starts_with(&begin.text)) {
            ids.push(begin.id);
        }
        let mut after_marker = true;
        for part in self.markers.split(prompt) {
            match part {
                Part::Marker(id) => {
                    ids.push(id);
                    after_marker = true;
                }
                Part::Text(text) => {
                    let whole: String = text.chars().filter(|letter| *letter != breaker).collect();
                    self.encode_run(&whole, after_marker, &mut ids)?;
                    after_marker = false;
                }
            }
        }
        Ok(ids)
    }

    /// Ids of text with no marker in it.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_prompt`].
    pub(super) fn encode_text(&self, text: &str) -> Result<Vec<u32>, String> {
        let mut ids = Vec::new();
        self.encode_run(text, true, &mut ids)?;
        Ok(ids)
    }

    /// Puts `breaker` behind the first character of every marker in `text`. `encode_prompt` takes it out again.
    pub(super) fn disarm(&self, text: &str, breaker: char) -> String {
        let mut out = String::with_capacity(text.len());
        for (at, letter) in text.char_indices() {
            out.push(letter);
            if self.markers.at(&text[at..]).is_some() {
                out.push(breaker);
            }
        }
        out
    }

    /// What the token adds to a reply, in UTF-8 that may be part of a character. None: no such token.
    pub(super) fn shown(&self, id: u32) -> Option<&[u8]> {
        self.tokens.get(id as usize).map(|token| &*token.shown)
    }

    /// The bytes of a token that plain text may become. None: a marker, or no such token.
    pub(super) fn plain(&self, id: u32) -> Option<&[u8]> {
        self.tokens.get(id as usize).filter(|token| token.plain).map(|token| &*token.shown)
    }

    /// The marker with exactly this text.
    pub(super) fn marker(&self, text: &str) -> Option<u32> {
        self.markers.at(text).filter(|(length, _)| *length == text.len()).map(|(_, id)| id)
    }

    /// The tokens that end the model's turn, ascending.
    pub(super) fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The token ends the model's turn.
    pub(super) fn is_end(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// The first word of a reply comes with a space that was never there.
    pub(super) fn pads_first_word(&self) -> bool {
        matches!(&self.algorithm, Algorithm::SentencePieces(pieces) if pieces.space_prefix)
    }

    #[cfg(test)]
    pub(super) fn is_marker(&self, id: u32) -> bool {
        self.markers.by_first_byte.values().flatten().any(|(_, marker)| *marker == id)
    }

    fn encode_run(&self, text: &str, after_marker: bool, ids: &mut Vec<u32>) -> Result<(), String> {
        let mut first = after_marker;
        for part in self.pieces.split(text) {
            match (part, &self.algorithm) {
                (Part::Marker(id), _) => ids.push(id),
                (Part::Text(text), Algorithm::BytePairs(pairs)) => pairs.encode(text, ids)?,
                (Part::Text(text), Algorithm::SentencePieces(pieces)) => pieces.encode(text, first, ids),
            }
            first = false;
        }
        Ok(())
    }
}

/// A tag rather than text that happens to have its own token.
fn looks_like_tag(text: &str) -> bool {
    matches!((text.chars().next(), text.chars().last()), (Some('<'), Some('>')) | (Some('['), Some(']')))
}

fn entries(file: &GgufFile) -> Result<Vec<Entry>, DecoderError> {
    let tokens =
        file.array("tokenizer.ggml.tokens").ok_or_else(|| file.error("its metadata has no tokenizer.ggml.tokens"))?;
    let kinds = file.array("tokenizer.ggml.token_type").unwrap_or_default();
    if tokens.is_empty() || (!kinds.is_empty() && kinds.len() != tokens.len()) {
        return Err(file.error(format!("it has {} tokens and {} token types", tokens.len(), kinds.len())));
    }
    let known_markers = |text: &str| TURN_ENDS.contains(&text) || TURN_STARTS.contains(&text);
    let entry = |(place, token): (usize, &Value)| {
        let text = token.to_string().map_err(|_| file.error("a token is not text"))?.clone();
        let kind = match kinds.get(place).and_then(kind_number) {
            _ if known_markers(&text) => Kind::Control,
            Some(2) => Kind::Unknown,
            Some(3 | 5) => Kind::Control,
            Some(4) => Kind::UserDefined,
            Some(6) => Kind::Byte,
            _ => Kind::Normal,
        };
        Ok(Entry { text, kind })
    };
    tokens.iter().enumerate().map(entry).collect()
}

/// The format says signed; some writers say unsigned.
fn kind_number(kind: &Value) -> Option<u32> {
    kind.to_u32().ok().or_else(|| u32::try_from(kind.to_i32().ok()?).ok())
}

/// Ids that end a turn, and the text of the file's own end token.
fn ends(file: &GgufFile, entries: &[Entry], markers: &Markers) -> (Vec<u32>, String) {
    let keys = ["eos_token_id", "eot_token_id", "eom_token_id"];
    let declared = keys.iter().filter_map(|key| token_id(file, key, entries));
    let named = TURN_ENDS.iter().filter_map(|text| markers.at(text)).map(|(_, id)| id);
    let mut ends: Vec<u32> = declared.chain(named).collect();
    ends.sort_unstable();
    ends.dedup();
    let end_text = token_id(file, "eos_token_id", entries).map(|id| entries[id as usize].text.clone());
    (ends, end_text.unwrap_or_default())
}

fn begin(file: &GgufFile, entries: &[Entry]) -> Option<Begin> {
    let id = token_id(file, "bos_token_id", entries)?;
    let by_kind = match file.text("tokenizer.ggml.model") {
        Some("llama") => true,
        _ => file.text("tokenizer.ggml.pre").is_some_and(bpe::begins_by_default),
    };
    let always = file.flag("tokenizer.ggml.add_bos_token").unwrap_or(by_kind);
    Some(Begin { id, text: entries[id as usize].text.clone(), always })
}

fn token_id(file: &GgufFile, key: &str, entries: &[Entry]) -> Option<u32> {
    let id = file.number(&format!("tokenizer.ggml.{key}"))?;
    u32::try_from(id).ok().filter(|id| (*id as usize) < entries.len())
}

/// Finds given texts in a text: at each place the longest.
#[derive(Default)]
struct Markers {
    /// Longest first.
    by_first_byte: HashMap<u8, Vec<(String, u32)>>,
}

enum Part<'a> {
    Text(&'a str),
    Marker(u32),
}

impl Markers {
    fn new(texts: Vec<(String, u32)>) -> Self {
        let mut by_first_byte: HashMap<u8, Vec<(String, u32)>> = HashMap::new();
        for (text, id) in texts {
            if let Some(first) = text.bytes().next() {
                by_first_byte.entry(first).or_default().push((text, id));
            }
        }
        for bucket in by_first_byte.values_mut() {
            bucket.sort_by_key(|(text, _)| Reverse(text.len()));
        }
        Self { by_first_byte }
    }

    /// The longest that `text` begins with: its length in bytes and its id.
    fn at(&self, text: &str) -> Option<(usize, u32)> {
        let bucket = self.by_first_byte.get(text.as_bytes().first()?)?;
        bucket.iter().find(|(marker, _)| text.starts_with(marker.as_str())).map(|(marker, id)| (marker.len(), *id))
    }

    /// Cuts `text` at every marker, in order, without empty texts.
    fn split<'a>(&self, text: &'a str) -> Vec<Part<'a>> {
        let (mut parts, mut from, mut at) = (Vec::new(), 0, 0);
        while at < text.len() {
            match text.get(at..).and_then(|rest| self.at(rest)) {
                Some((length, id)) => {
                    if from < at {
                        parts.push(Part::Text(&text[from..at]));
                    }
                    parts.push(Part::Marker(id));
                    at += length;
                    from = at;
                }
                None => at += 1,
            }
        }
        if from < text.len() {
            parts.push(Part::Text(&text[from..]));
        }
        parts
    }
}

#[cfg(test)]
pub(super) mod tests;
