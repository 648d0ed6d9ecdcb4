//! The whole backend: against candle's tensors, against transformers, and calls against each other.

use candle_core::Device;

use super::super::tests::{FAMILIES, best, cases, folder, largest_difference, last, oracle, oracle_of_gguf, text};
use super::super::{Decoder, GgufFile, KvCache, Span, Wants, gguf_model};
use super::simd::Instructions;
use super::{CpuDecoder, CpuStore};
use crate::testing;

fn ours(family: &str) -> Decoder {
    Decoder::from_gguf(&folder(family).join("model.gguf"), &Device::Cpu).unwrap()
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

fn all(decoder: &mut Decoder, cache: &mut KvCache, spans: &[Span<'_>]) -> Vec<Vec<u32>> {
    let logits = decoder.forward(cache, spans).unwrap();
    (0..logits.rows()).map(|row| bits(logits.row(row))).collect()
}

/// How far half-precision keys and values may move a logit, of the largest one.
const HALF: f32 = 1e-2;

fn largest(logits: &[f32]) -> f32 {
    logits.iter().fold(0.0, |largest, logit| largest.max(logit.abs()))
}

/// Two logits nearer than their rounding may change places: such a case ends there, is shown and counted.
#[test]
fn families_give_the_tokens_of_transformers() {
    let mut near_ties = 0;
    for family in FAMILIES {
        for mut decoder in [ours(family), Decoder::from_safetensors(&folder(family), &Device::Cpu).unwrap()] {
            for case in cases(family) {
                let (length, rounding) = (case.prompt.len(), HALF * largest(&case.logits));
                let mut cache = decoder.cache(1, length + case.greedy.len()).unwrap();
                let mut logits = last(&mut decoder, &mut cache, 0, 0, &case.prompt);
                let difference = largest_difference(&logits, &case.logits);
                assert!(difference < rounding, "{family}, a prompt of {length}: logits differ by {difference}");
                for (index, expected) in case.greedy.iter().enumerate() {
                    let token = best(&logits);
                    if token != *expected {
                        let margin = logits[token as usize] - logits[*expected as usize];
                        println!("{family}, a prompt of {length}, token {index}: {token}, not {expected}, by {margin}");
                        assert!(margin < 2.0 * rounding);
                        near_ties += 1;
                        break;
                    }
                    logits = last(&mut decoder, &mut cache, 0, length + index, &[token]);
                }
            }
        }
    }
    assert!(near_ties <= 2, "{near_ties} near ties");
}

/// Half-precision keys and values are all that differs from the tensors on floats.
#[test]
fn long_texts_come_out_as_in_tensors() {
    for family in FAMILIES {
        let tokens = text(3, 300);
        let span = Span { slot: 0, start: 0, tokens: &tokens, wants: Wants::All };
        let (mut decoder, mut reference) = (ours(family), oracle(family));
        let (mut cache, mut other) = (decoder.cache(1, 300).unwrap(), reference.cache(1, 300).unwrap());
        let (logits, expected) =
            (decoder.forward(&mut cache, &[span]).unwrap(), reference.forward(&mut other, &[span]).unwrap());
        for row in 0..300 {
            let difference = largest_difference(logits.row(row), expected.row(row));
            assert!(difference < HALF * largest(expected.row(row)), "{family}, position {row}: {difference}");
        }
    }
}

#[test]
fn rows_are_the_same_bits_alone_in_chunks_and_in_crowds() {
    let real =
        || Decoder::from_gguf(&testing::model("smollm2-135m-instruct").join("model.gguf"), &Device::Cpu).unwrap();
    let decoders = FAMILIES.iter().map(|family| ours(family)).chain([real()]);
    for mut decoder in decoders {
        let tokens = text(1, 290);
        let mut cache = decoder.cache(4, 300).unwrap();
        let span = Span { slot: 0, start: 0, tokens: &tokens, wants: Wants::All };
        let whole = all(&mut decoder, &mut cache, &[span]);
        for (slot, borders) in [vec![0, 1, 5, 6, 130, 258, 259, 290], vec![0, 127, 128, 129, 290]].iter().enumerate() {
            for cut in borders.windows(2) {
                let spans = [
                    Span { slot: 2, start: 0, tokens: &tokens[..7], wants: Wants::Last },
                    Span { slot, start: cut[0], tokens: &tokens[cut[0]..cut[1]], wants: Wants::All },
                    Span { slot: 3, start: 0, tokens: &tokens[..1], wants: Wants::Nothing },
                ];
                let rows = all(&mut decoder, &mut cache, &spans);
                assert!(rows[0] == whole[6], "a span of seven beside {cut:?}");
                assert!(rows[1..] == whole[cut[0]..cut[1]], "{cut:?}");
            }
        }
        cache.copy(1, 3, 200).unwrap();
        let span = Span { slot: 3, start: 200, tokens: &tokens[200..], wants: Wants::Last };
        assert!(all(&mut decoder, &mut cache, &[span])[0] == whole[289], "a copy");
    }
}

#[test]
fn instruction_sets_and_numbers_of_threads_agree() {
    for family in ["smollm2", "qwen3", "gemma3"] {
        let (config, weights) =
            gguf_model::load(GgufFile::open(&folder(family).join("model.gguf")).unwrap(), &Device::Cpu).unwrap();
        let tokens = text(4, 140);
        let mut results: Vec<Vec<u32>> = Vec::new();
        for (instructions, threads) in Instructions::all().into_iter().zip([1, 2, 3]) {
            let mut decoder = CpuDecoder::with(instructions, threads, &config, &weights).unwrap();
            let store: CpuStore = decoder.store(2, 150);
            let mut logits = Vec::new();
            let long = Span { slot: 1, start: 0, tokens: &tokens[..139], wants: Wants::Last };
            let short = Span { slot: 1, start: 139, tokens: &tokens[139..], wants: Wants::Last };
            decoder.forward(&store, &[long], &mut logits);
            decoder.forward(&store, &[short], &mut logits);
            results.push(bits(&logits));
        }
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{family}");
    }
}

/// The real file as stored, on what it writes itself. Candle's products round activations to 8 bits as these do, with
/// scales in half precision; rounding up or down then differs here and there.
#[test]
fn the_real_file_gives_what_tensors_give() {
    let path = testing::model("smollm2-135m-instruct").join("model.gguf");
    let (mut decoder, mut reference) = (Decoder::from_gguf(&path, &Device::Cpu).unwrap(), oracle_of_gguf(&path));
    let (mut cache, mut other) = (decoder.cache(1, 80).unwrap(), reference.cache(1, 80).unwrap());
    let (mut rows, mut agree, mut divergence) = (0, 0, 0.0);
    // "The capital of France is", and beginnings of a tale and of a function.
    for prompt in [
        &[504, 3575, 282, 4649, 314][..],
        &[6403, 1980, 253, 655, 665, 436, 253, 1165, 16438, 617][..],
        &[1604, 3987, 46477, 24, 94, 727][..],
    ] {
        let mut tokens = prompt.to_vec();
        let mut logits = last(&mut decoder, &mut cache, 0, 0, &tokens);
        while tokens.len() < 70 {
            tokens.push(best(&logits));
            logits = last(&mut decoder, &mut cache, 0, tokens.len() - 1, &tokens[tokens.len() - 1..]);
        }
        let span = Span { slot: 0, start: 0, tokens: &tokens, wants: Wants::All };
        let logits = decoder.forward(&mut cache, &[span]).unwrap();
        let expected = reference.forward(&mut other, &[span]).unwrap();
        for row in prompt.len()..tokens.len() {
            rows += 1;
            agree += usize::from(best(logits.row(row)) == best(expected.row(row)));
            divergence += kullback_leibler(expected.row(row), logits.row(row));
        }
    }
    assert!(agree * 100 >= rows * 95, "{agree} of {rows} best tokens agree");
    assert!(divergence / f64::from(rows as u32) < 0.01, "the distributions diverge by {divergence} over {rows} rows");
}

fn kullback_leibler(expected: &[f32], logits: &[f32]) -> f64 {
    let normalizer = |logits: &[f32]| {
        let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        f64::from(highest) + logits.iter().map(|logit| f64::from(logit - highest).exp()).sum::<f64>().ln()
    };
    let (one, other) = (normalizer(expected), normalizer(logits));
    let terms = expected.iter().zip(logits).map(|(expected, logit)| {
        let expected = f64::from(*expected) - one;
        expected.exp() * (expected - (f64::from(*logit) - other))
    });
    terms.sum()
}
