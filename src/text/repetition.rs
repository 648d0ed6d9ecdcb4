//! How much a text repeats itself.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;

/// Fewer words are often said twice.
const FEWEST: usize = 4;

/// How small a text becomes when it is compressed: bytes of the text over bytes of it compressed, as OpenAI's `whisper/utils.py`. Above about 2.4 it goes in circles.
pub fn compression_ratio(text: &str) -> f32 {
    let mut compressor = ZlibEncoder::new(Vec::new(), Compression::default());
    // Writing into memory does not fail.
    let compressed = compressor.write_all(text.as_bytes()).and_then(|()| compressor.finish());
    compressed.map_or(1.0, |compressed| text.len() as f32 / compressed.len() as f32)
}

/// Whether the whole text is the same words twice, whatever the marks between them.
pub fn is_said_twice(text: &str) -> bool {
    let letters =
        |word: &str| word.chars().filter(|char| char.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    let words: Vec<String> = text.split_whitespace().map(letters).collect();
    let (first, second) = words.split_at(words.len() / 2);
    first.len() >= FEWEST && first == second
}

#[cfg(test)]
#[path = "repetition_tests.rs"]
mod tests;
