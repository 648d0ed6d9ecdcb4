//! Greedy tokens and logits of each family against transformers'.

use super::{FAMILIES, best, cases, folder, largest_difference, last, oracle_of_folder, oracle_of_gguf};
use crate::nn::decoder::{Activation, Decoder, Family, RopeScaling};

fn assert_parity(family: &str, mut decoder: Decoder) {
    for case in cases(family) {
        let length = case.prompt.len();
        let mut cache = decoder.cache(1, length + case.greedy.len()).unwrap();
        let mut logits = last(&mut decoder, &mut cache, 0, 0, &case.prompt);
        let difference = largest_difference(&logits, &case.logits);
        assert!(difference < 1e-3, "{family}, a prompt of {length}: logits differ by {difference}");
        for (index, expected) in case.greedy.iter().enumerate() {
            let token = best(&logits);
            assert_eq!(token, *expected, "{family}, a prompt of {length}, token {index}");
            logits = last(&mut decoder, &mut cache, 0, length + index, &[token]);
        }
    }
}

#[test]
fn safetensors_give_the_tokens_of_transformers() {
    for family in FAMILIES {
        assert_parity(family, oracle_of_folder(&folder(family)));
    }
}

#[test]
fn gguf_gives_the_tokens_of_transformers() {
    for family in FAMILIES {
        assert_parity(family, oracle_of_gguf(&folder(family).join("model.gguf")));
    }
}

/// The fixtures hold what they are meant to hold, and both files say the same of it.
#[test]
fn both_files_give_the_same_config() {
    for family in FAMILIES {
        let from_gguf = oracle_of_gguf(&folder(family).join("model.gguf")).config().clone();
        let mut from_folder = oracle_of_folder(&folder(family)).config().clone();
        if family == "llama3" {
            // GGUF says it in a tensor.
            assert!(matches!(from_folder.rope.scaling, RopeScaling::Llama3 { .. }));
            from_folder.rope.scaling = RopeScaling::None;
            assert!(!from_folder.tied);
        }
        assert_eq!(from_gguf, from_folder, "{family}");
        assert_eq!(from_gguf.ends, [2]);
        assert!(from_gguf.kv_heads < from_gguf.heads, "{family} has grouped heads");
    }
    let gemma = oracle_of_folder(&folder("gemma3")).config().clone();
    assert_eq!((gemma.family, gemma.activation), (Family::Gemma3, Activation::GeluTanh));
    let windows: Vec<_> = (0..gemma.layers).map(|layer| gemma.window(layer)).collect();
    assert_eq!(windows, [Some(8), Some(8), Some(8), Some(8), Some(8), None, Some(8)]);
    assert_eq!(gemma.rope.scaling, RopeScaling::Linear { factor: 8.0 });
    assert!(gemma.turns_locally(0) && !gemma.turns_locally(5));
    let mistral = oracle_of_folder(&folder("mistral")).config().clone();
    assert!((0..mistral.layers).all(|layer| mistral.window(layer) == Some(8)));
}
