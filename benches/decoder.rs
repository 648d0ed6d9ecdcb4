//! The decoder without the engine around it, for scripts/compare-llm: `decoder GGUF`, then lines on standard input,
//! `prefill LENGTH` or `decode CONTEXT STREAMS STEPS`, each answered with tokens per second. Without a file it does
//! nothing, so that `cargo bench` passes by.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench that fails says why and stops")]

use std::path::Path;
use std::time::Instant;

use aichat::nn::decoder::{Decoder, KvCache, Span, Wants};
use candle_core::Device;

const STREAMS: usize = 4;
const POSITIONS: usize = 4096;

fn main() {
    let Some(path) = std::env::args().nth(1).filter(|argument| !argument.starts_with('-')) else { return };
    let mut decoder = Decoder::from_gguf(Path::new(&path), &Device::Cpu).unwrap();
    let mut cache = decoder.cache(STREAMS, POSITIONS).unwrap();
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |index: usize| words[index].parse::<usize>().unwrap();
        let rate = match words[0] {
            "prefill" => prefill(&mut decoder, &mut cache, number(1)),
            _ => decode(&mut decoder, &mut cache, number(1), number(2), number(3)),
        };
        println!("{rate}");
    }
}

fn prefill(decoder: &mut Decoder, cache: &mut KvCache, length: usize) -> f64 {
    let begin = Instant::now();
    read(decoder, cache, 0, length, 0..1);
    length as f64 / begin.elapsed().as_secs_f64()
}

fn decode(decoder: &mut Decoder, cache: &mut KvCache, context: usize, streams: usize, steps: usize) -> f64 {
    read(decoder, cache, 0, context, 0..streams);
    let begin = Instant::now();
    for step in 0..steps {
        read(decoder, cache, context + step, 1, 0..streams);
    }
    (streams * steps) as f64 / begin.elapsed().as_secs_f64()
}

/// Reads `count` tokens from `start` on into each of the streams; logits after the last of each.
fn read(decoder: &mut Decoder, cache: &mut KvCache, start: usize, count: usize, streams: std::ops::Range<usize>) {
    // The script's ids.
    let tokens: Vec<u32> =
        (start..start + count).map(|position| ((position * 7919 + 13) % 40_000 + 100) as u32).collect();
    let spans: Vec<Span<'_>> = streams.map(|slot| Span { slot, start, tokens: &tokens, wants: Wants::Last }).collect();
    assert_eq!(decoder.forward(cache, &spans).unwrap().rows(), spans.len());
}
