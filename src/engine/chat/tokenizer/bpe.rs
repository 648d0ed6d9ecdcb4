//! Byte-level byte-pair encoding, GPT-2's kind: the table of pre-tokenizers, and the encoder on the crate `tokenizers`.
//!
//! Patterns are those of the models' own `tokenizer.json`, by the name that GGUF gives them in `tokenizer.ggml.pre`.

use std::collections::HashMap;

use candle_core::quantized::gguf_file::Value;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{SplitDelimiterBehavior, Tokenizer};

use crate::nn::decoder::{DecoderError, GgufFile};

const DIGIT: &str = r"\p{N}";
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// One row of the table.
#[derive(Clone, Copy)]
struct PreTokenizer {
    /// Applied one after another; what a pattern does not match stays a piece of its own.
    patterns: &'static [&'static str],
    /// A piece that is a token as it stands is taken whole.
    ignore_merges: bool,
}

fn pre_tokenizer(name: &str) -> Option<PreTokenizer> {
    let row = |patterns, ignore_merges| Some(PreTokenizer { patterns, ignore_merges });
    match name {
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" | "minerva-7b" | "mellum2" => {
            row(&[DIGIT, GPT2], false)
        }
        "gpt-2" | "mpt" | "olmo" | "phi-2" | "exaone4" | "mellum" | "gigachat" => row(&[GPT2], false),
        "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "pixtral" | "lfm2" | "midm-2.0" | "glm4" | "glm5" => {
            row(&[LLAMA3], true)
        }
        "smaug-bpe" | "dbrx" | "chatglm-bpe" => row(&[LLAMA3], false),
        "qwen2" | "deepseek-r1-qwen" | "stablelm2" | "megrez" => row(&[QWEN2], false),
        "qwen35" => row(&[QWEN35], false),
        "tekken" => row(&[TEKKEN], true),
        "gpt-4o" | "llama4" => row(&[GPT4O], false),
        _ => None,
    }
}

/// llama.cpp puts the begin token before these where the file does not say.
pub(super) fn begins_by_default(pre: &str) -> bool {
    matches!(pre, "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "pixtral" | "lfm2" | "midm-2.0" | "tekken")
}

pub(super) struct BytePairs(Tokenizer);

impl BytePairs {
    /// `plain`: the tokens that plain text may become.
    pub(super) fn read(file: &GgufFile, plain: &[(String, u32)]) -> Result<Self, DecoderError> {
        let name = file.text("tokenizer.ggml.pre").ok_or_else(|| file.error("it names no pre-tokenizer"))?;
        let Some(row) = pre_tokenizer(name) else {
            return Err(file.error(format!("its pre-tokenizer \"{name}\" is not known")));
        };
        let merges = file.array("tokenizer.ggml.merges").ok_or_else(|| file.error("it has no merges"))?;
        let vocabulary: HashMap<String, u32> = plain.iter().cloned().collect();
        let merges = merges.iter().filter_map(|merge| pair(merge, &vocabulary)).collect();
        let model = BPE::builder()
            .vocab_and_merges(vocabulary.into_iter().collect::<tokenizers::models::bpe::Vocab>(), merges)
            .ignore_merges(row.ignore_merges)
            .build()
            .map_err(|error| file.error(format!("its merges cannot be used: {error}")))?;
        let mut tokenizer = Tokenizer::new(model);
        let mut steps: Vec<PreTokenizerWrapper> = Vec::new();
        for pattern in row.patterns {
            let pattern = SplitPattern::Regex((*pattern).to_owned());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
            steps.push(split.map_err(|error| file.error(error.to_string()))?.into());
        }
        steps.push(ByteLevel::new(false, false, false).into());
        tokenizer.with_pre_tokenizer(Some(Sequence::new(steps)));
        Ok(Self(tokenizer))
    }

    /// A byte that the vocabulary lacks, as SmolLM's does some control characters, is left out.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<(), String> {
        let encoding = self.0.encode_fast(text, false).map_err(|error| error.to_string())?;
        ids.extend_from_slice(encoding.get_ids());
        Ok(())
    }
}

/// Both halves of a merge, where they and their join are tokens. A half may begin with a space, never hold one.
fn pair(merge: &Value, vocabulary: &HashMap<String, u32>) -> Option<(String, String)> {
    let text = merge.to_string().ok()?;
    let first = text.chars().next()?.len_utf8();
    let space = first + text[first..].find(' ')?;
    let (left, right) = (&text[..space], &text[space + 1..]);
    let known = |text: &str| vocabulary.contains_key(text);
    (known(left) && known(right) && known(&format!("{left}{right}"))).then(|| (left.to_owned(), right.to_owned()))
}

/// Bytes that stand for themselves in GPT-2's alphabet.
fn is_itself(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// The bytes that a token's letters stand for. A letter outside the alphabet, as in an added token, is itself.
pub(super) fn bytes(token: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(token.len());
    for letter in token.chars() {
        let byte = match u32::from(letter) {
            code @ 0..=0xFF if is_itself(code as u8) => Some(code as u8),
            code @ 0x100..=0x143 => (0..=u8::MAX).filter(|byte| !is_itself(*byte)).nth((code - 0x100) as usize),
            _ => None,
        };
        match byte {
            Some(byte) => out.push(byte),
            None => out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out
}
