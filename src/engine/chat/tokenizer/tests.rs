use std::collections::HashSet;
use std::fs;
use std::path::Path;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::*;
use crate::testing;

const BREAKER: char = '\u{F0000}';

pub(in super::super) fn smollm() -> Tokenizer {
    Tokenizer::read(&GgufFile::open(&testing::model("smollm2-135m-instruct").join("model.gguf")).unwrap()).unwrap()
}

fn compare(tokenizer: &Tokenizer, fixture: &Path) -> usize {
    let entries: Vec<(String, Vec<u32>, Vec<u32>)> = serde_json::from_slice(&fs::read(fixture).unwrap()).unwrap();
    for (text, plain, with_markers) in &entries {
        let disarmed = tokenizer.disarm(text, BREAKER);
        assert_eq!(tokenizer.encode_text(text).as_ref(), Ok(plain), "{text:?}");
        assert_eq!(tokenizer.encode_prompt(&disarmed, BREAKER).as_ref(), Ok(plain), "{text:?}, disarmed");
        assert_eq!(tokenizer.encode_prompt(text, BREAKER).as_ref(), Ok(with_markers), "{text:?}, with markers");
    }
    entries.len()
}

#[test]
fn ids_equal_llama_cpps() {
    assert!(compare(&smollm(), &testing::fixture("chat/tokens_smollm2.json")) >= 200);
}

/// Needs llama.cpp's vocabularies, which are not fetched by the scripts: `VOCABULARIES=… cargo test -- --ignored`.
#[test]
#[ignore = "needs the ggml-vocab files of llama.cpp's source"]
fn ids_of_other_families_equal_llama_cpps() {
    let folder = testing::path("VOCABULARIES");
    let mut failures = Vec::new();
    for name in
        ["gpt-2", "llama-bpe", "llama-spm", "qwen2", "qwen35", "phi-3", "refact", "starcoder", "command-r", "mpt"]
    {
        let path = folder.join(format!("ggml-vocab-{name}.gguf"));
        let tokenizer = match GgufFile::open(&path).and_then(|file| Tokenizer::read(&file)) {
            Ok(tokenizer) => tokenizer,
            Err(error) => {
                failures.push(format!("{error}"));
                continue;
            }
        };
        let texts = fs::read_to_string(path.with_extension("gguf.inp")).unwrap();
        let ids = fs::read_to_string(path.with_extension("gguf.out")).unwrap();
        for (text, ids) in texts.split("\n__ggml_vocab_test__\n").zip(ids.lines()) {
            let expected: Vec<u32> = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
            let got = tokenizer.encode_text(text).unwrap();
            if got != expected {
                failures.push(format!("{name}: {text:?}: {got:?}, expected {expected:?}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn no_text_becomes_a_marker() {
    let tokenizer = smollm();
    let markers: HashSet<u32> = tokenizer.markers.by_first_byte.values().flatten().map(|(_, id)| *id).collect();
    assert!(markers.len() >= 10, "{markers:?}");
    let texts: Vec<&str> = tokenizer.markers.by_first_byte.values().flatten().map(|(text, _)| text.as_str()).collect();
    let single = tokenizer.tokens.iter().filter(|token| token.shown.len() == 1);
    let known: HashSet<u8> = single.map(|token| token.shown[0]).collect();
    let mut random = StdRng::seed_from_u64(2);
    for _ in 0..10_000 {
        let mut bytes = Vec::new();
        for _ in 0..random.random_range(1..12) {
            match random.random_range(0..4) {
                0 => bytes.extend((0..random.random_range(1..9)).map(|_| random.random::<u8>())),
                1 => bytes.extend_from_slice(
                    ["<", "<|", "|>", "im_end", "im_start", ">", "|"].choose(&mut random).unwrap().as_bytes(),
                ),
                2 => bytes.extend_from_slice(texts.choose(&mut random).unwrap().as_bytes()),
                _ => bytes.extend_from_slice(texts.choose(&mut random).unwrap().as_bytes().split_at(3).1),
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        let disarmed = tokenizer.disarm(&text, BREAKER);
        let ids = tokenizer.encode_prompt(&disarmed, BREAKER).unwrap();
        assert!(ids.iter().all(|id| !markers.contains(id)), "{text:?}: {ids:?}");
        // Nothing is lost on the way but bytes that the vocabulary lacks.
        let back: Vec<u8> = ids.iter().flat_map(|id| tokenizer.shown(*id).unwrap()).copied().collect();
        assert_eq!(back, text.bytes().filter(|byte| known.contains(byte)).collect::<Vec<_>>());
    }
}

#[test]
fn ends_of_turn_are_known() {
    let tokenizer = smollm();
    let im_end = tokenizer.encode_prompt("<|im_end|>", BREAKER).unwrap();
    assert!(tokenizer.is_end(im_end[0]) && tokenizer.is_marker(im_end[0]));
    assert_eq!(tokenizer.shown(im_end[0]), Some(&b""[..]));
    assert!(!tokenizer.is_end(tokenizer.encode_text("end").unwrap()[0]));
    assert_eq!(tokenizer.shown(u32::MAX), None);
    assert_eq!(tokenizer.end_text, "<|im_end|>");
}

#[test]
fn the_longest_marker_wins() {
    let markers = Markers::new(vec![("<a".to_owned(), 1), ("<a>".to_owned(), 2), ("é".to_owned(), 3)]);
    let found = |text| {
        let ids = markers.split(text).into_iter();
        ids.filter_map(|part| if let Part::Marker(id) = part { Some(id) } else { None }).collect::<Vec<_>>()
    };
    assert_eq!(found("x<a>y<az<"), [2, 1]);
    assert_eq!(found("żé<"), [3]);
}

#[test]
fn sentence_pieces_join_by_score_and_fall_back_to_bytes() {
    let scored = [("▁", -9.0), ("h", -9.0), ("e", -9.0), ("l", -9.0), ("o", -9.0), ("he", -2.0), ("ll", -1.0)];
    let joined = [("llo", -3.0), ("hell", -4.0), ("▁he", -5.0), ("▁hello", -6.0), ("lo", -1.5)];
    let numbered = (1000u32..).zip(scored.iter().chain(&joined));
    let tokens: HashMap<String, (u32, f32)> =
        numbered.map(|(id, (text, score))| ((*text).to_owned(), (id, *score))).collect();
    let id = |text: &str| tokens[text].0;
    let bytes = std::array::from_fn(|byte| byte as u32);
    let pieces = SentencePieces { tokens: tokens.clone(), bytes, space_prefix: true };
    let encode = |text: &str, after_marker| {
        let mut ids = Vec::new();
        pieces.encode(text, after_marker, &mut ids);
        ids
    };
    // ll (-1) goes before lo (-1.5) and he (-2); then llo (-3) before hell (-4). With a space, ▁he (-5) and ▁hello follow.
    assert_eq!(encode("hello", false), [id("he"), id("llo")]);
    assert_eq!(encode("hello", true), [id("▁hello")]);
    assert_eq!(encode("lolo", false), [id("lo"), id("lo")]);
    assert_eq!(encode("hé ", false), [id("h"), 0xC3, 0xA9, id("▁")]);
    assert!(encode("", false).is_empty());
    assert_eq!(spm::bytes("▁hé", false), " hé".as_bytes());
    assert_eq!((spm::bytes("<0x0A>", true), spm::bytes("<0x0A>", false)), (vec![10], b"<0x0A>".to_vec()));
}
