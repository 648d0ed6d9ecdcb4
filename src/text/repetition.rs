//! How much a text repeats itself, by how small it becomes when it is compressed.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;

/// Bytes of the text over bytes of it compressed, as OpenAI's `whisper/utils.py`. Above about 2.4 it goes in circles.
pub fn compression_ratio(text: &str) -> f32 {
    let mut compressor = ZlibEncoder::new(Vec::new(), Compression::default());
    // Writing into memory does not fail.
    let compressed = compressor.write_all(text.as_bytes()).and_then(|()| compressor.finish());
    compressed.map_or(1.0, |compressed| text.len() as f32 / compressed.len() as f32)
}

#[cfg(test)]
#[path = "repetition_tests.rs"]
mod tests;
