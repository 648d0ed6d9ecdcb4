//! SentencePiece's greedy pair encoding, as Llama 2, Mistral and Gemma use it: of all neighbours whose join is a token,
//! the pair with the best score is joined first.
//!
//! Source: the algorithm of llama.cpp's `llm_tokenizer_spm` (after SentencePiece's BPE model). What no token covers
//! becomes byte tokens.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use candle_core::quantized::gguf_file::Value;

use crate::nn::decoder::{DecoderError, GgufFile};

/// Stands for a space inside tokens.
const SPACE: char = '▁';

pub(super) struct SentencePieces {
    /// Text to id and score.
    pub(super) tokens: HashMap<String, (u32, f32)>,
    pub(super) bytes: [u32; 256],
    /// A text that follows a marker is read as if it began with a space.
    pub(super) space_prefix: bool,
}

/// A run of bytes of the text in a doubly linked list; empty once joined to its left neighbour.
struct Symbol {
    start: usize,
    length: usize,
    left: Option<usize>,
    right: Option<usize>,
}

struct Join {
    left: usize,
    right: usize,
    score: f32,
    /// Bytes of both: a join whose symbols have grown since is stale.
    length: usize,
}

impl SentencePieces {
    /// `plain`: the tokens that plain text may become.
    pub(super) fn read(file: &GgufFile, plain: &[(String, u32)]) -> Result<Self, DecoderError> {
        let scores = file.array("tokenizer.ggml.scores").ok_or_else(|| file.error("it has no token scores"))?;
        let tokens: HashMap<String, (u32, f32)> = plain
            .iter()
            .map(|(text, id)| {
                let score = scores.get(*id as usize).and_then(|score: &Value| score.to_f32().ok());
                score.map(|score| (text.clone(), (*id, score)))
            })
            .collect::<Option<_>>()
            .ok_or_else(|| file.error("it has fewer scores than tokens"))?;
        let mut bytes = [0; 256];
        for (byte, id) in bytes.iter_mut().enumerate() {
            let token = tokens.get(&format!("<0x{byte:02X}>"));
            *id = token.ok_or_else(|| file.error(format!("its vocabulary lacks the byte {byte}")))?.0;
        }
        let space_prefix = file.flag("tokenizer.ggml.add_space_prefix").unwrap_or(true);
        Ok(Self { tokens, bytes, space_prefix })
    }

    pub(super) fn encode(&self, text: &str, after_marker: bool, ids: &mut Vec<u32>) {
        let prefix = if after_marker && self.space_prefix { " " } else { "" };
        let text = format!("{prefix}{text}").replace(' ', SPACE.encode_utf8(&mut [0; 4]));
        let mut symbols = symbols(&text);
        let mut queue = BinaryHeap::new();
        for right in 1..symbols.len() {
            queue.extend(self.join(&text, &symbols, right - 1, right));
        }
        while let Some(join) = queue.pop() {
            let (left, right) = (&symbols[join.left], &symbols[join.right]);
            if left.length == 0 || right.length == 0 || left.length + right.length != join.length {
                continue;
            }
            let (before, after) = (left.left, right.right);
            symbols[join.left].length = join.length;
            symbols[join.left].right = after;
            symbols[join.right].length = 0;
            if let Some(after) = after {
                symbols[after].left = Some(join.left);
                queue.extend(self.join(&text, &symbols, join.left, after));
            }
            if let Some(before) = before {
                queue.extend(self.join(&text, &symbols, before, join.left));
            }
        }
        for symbol in symbols.iter().filter(|symbol| symbol.length > 0) {
            let piece = &text[symbol.start..symbol.start + symbol.length];
            match self.tokens.get(piece) {
                Some((id, _)) => ids.push(*id),
                None => ids.extend(piece.bytes().map(|byte| self.bytes[usize::from(byte)])),
            }
        }
    }

    fn join(&self, text: &str, symbols: &[Symbol], left: usize, right: usize) -> Option<Join> {
        let start = symbols[left].start;
        let length = symbols[left].length + symbols[right].length;
        let (_, score) = self.tokens.get(&text[start..start + length])?;
        Some(Join { left, right, score: *score, length })
    }
}

/// One per character.
fn symbols(text: &str) -> Vec<Symbol> {
    let count = text.chars().count();
    let symbol = |(place, (start, letter)): (usize, (usize, char))| Symbol {
        start,
        length: letter.len_utf8(),
        left: place.checked_sub(1),
        right: Some(place + 1).filter(|right| *right < count),
    };
    text.char_indices().enumerate().map(symbol).collect()
}

impl Ord for Join {
    /// The best score is greatest; of equals the leftmost.
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Join {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Join {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Join {}

/// The bytes that a token stands for.
pub(super) fn bytes(token: &str, is_byte: bool) -> Vec<u8> {
    let hex = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>')).filter(|_| is_byte);
    match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
        Some(byte) => vec![byte],
        None => token.replace(SPACE, " ").into_bytes(),
    }
}
