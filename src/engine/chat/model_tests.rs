use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;

use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{Device, Tensor};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use candle_core::quantized::gguf_file::Value;

use super::*;
use crate::testing;

/// A whole model file with random weights and a byte vocabulary: 256 bytes, one merge, five markers.
pub(crate) fn tiny(architecture: &str) -> Vec<u8> {
    let metadata = metadata(architecture);
    let tensors = tensors(architecture);
    let metadata: Vec<_> = metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut file = Cursor::new(Vec::new());
    gguf_file::write(&mut file, &metadata, &tensors).unwrap();
    file.into_inner()
}

fn metadata(architecture: &str) -> BTreeMap<String, Value> {
    let alphabet = (0..=255u32).map(|byte| {
        // GPT-2's alphabet, from its definition.
        let shown = |byte: &u32| (0x21..=0x7E).contains(byte) || (0xA1..=0xAC).contains(byte) || *byte >= 0xAE;
        let letter = if shown(&byte) { byte } else { 0x100 + (0..byte).filter(|byte| !shown(byte)).count() as u32 };
        char::from_u32(letter).unwrap().to_string()
    });
    let added = ["he", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "</think>"];
    let tokens: Vec<String> = alphabet.chain(added.map(str::to_owned)).collect();
    let kinds = tokens.iter().map(|token| match token.as_str() {
        "<think>" | "</think>" => 4,
        token if token.starts_with("<|") => 3,
        _ => 1,
    });
    let array = |values: Vec<Value>| Value::Array(values);
    let size = |value: u32| Value::U32(value);
    let mut metadata = BTreeMap::from([
        ("general.architecture".to_owned(), Value::String(architecture.to_owned())),
        ("tokenizer.ggml.model".to_owned(), Value::String("gpt2".to_owned())),
        ("tokenizer.ggml.pre".to_owned(), Value::String("smollm".to_owned())),
        ("tokenizer.ggml.token_type".to_owned(), array(kinds.map(Value::I32).collect())),
        ("tokenizer.ggml.tokens".to_owned(), array(tokens.iter().cloned().map(Value::String).collect())),
        ("tokenizer.ggml.merges".to_owned(), array(vec![Value::String("h e".to_owned())])),
        ("tokenizer.ggml.eos_token_id".to_owned(), size(258)),
    ]);
    for (key, value) in [
        ("block_count", size(2)),
        ("context_length", size(256)),
        ("embedding_length", size(32)),
        ("feed_forward_length", size(64)),
        ("attention.head_count", size(2)),
        ("attention.head_count_kv", size(1)),
        ("attention.key_length", size(16)),
        ("attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("rope.dimension_count", size(16)),
        ("rope.freq_base", Value::F32(10_000.0)),
    ] {
        metadata.insert(format!("{architecture}.{key}"), value);
    }
    metadata
}

fn tensors(architecture: &str) -> Vec<(String, QTensor)> {
    let mut random = StdRng::seed_from_u64(5);
    let mut tensor = |name: String, shape: &[usize]| {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| random.random_range(-0.5..0.5)).collect();
        let ones = name.ends_with("norm.weight");
        let values = if ones { vec![1.0; values.len()] } else { values };
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
        let format = if shape.len() == 2 { GgmlDType::Q8_0 } else { GgmlDType::F32 };
        (name, QTensor::quantize(&tensor, format).unwrap())
    };
    let mut tensors =
        vec![tensor("token_embd.weight".to_owned(), &[262, 32]), tensor("output_norm.weight".to_owned(), &[32])];
    for layer in 0..2 {
        let mut add = |name: &str, shape: &[usize]| tensors.push(tensor(format!("blk.{layer}.{name}"), shape));
        for (name, rows, columns) in [
            ("attn_q", 32, 32),
            ("attn_k", 16, 32),
            ("attn_v", 16, 32),
            ("attn_output", 32, 32),
            ("ffn_gate", 64, 32),
            ("ffn_up", 64, 32),
            ("ffn_down", 32, 64),
        ] {
            add(&format!("{name}.weight"), &[rows, columns]);
            if architecture == "qwen2" && rows + columns < 96 && name != "attn_output" {
                add(&format!("{name}.bias"), &[rows]);
            }
        }
        add("attn_norm.weight", &[32]);
        add("ffn_norm.weight", &[32]);
        if architecture == "qwen3" {
            add("attn_q_norm.weight", &[16]);
            add("attn_k_norm.weight", &[16]);
        }
    }
    tensors
}

fn load(bytes: &[u8], path: &Path) -> Result<Model, EngineError> {
    fs::write(path, bytes).unwrap();
    Model::load("tiny", path, &Device::Cpu)
}

#[test]
fn whole_files_of_every_architecture_load() {
    let folder = tempfile::tempdir().unwrap();
    for architecture in ["llama", "qwen2", "qwen3"] {
        let path = folder.path().join(architecture);
        let model = load(&tiny(architecture), &path).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((model.cache.positions(), model.decoder.config().vocabulary), (256, 262));
        assert!(Model::memory_estimate(&path, true).unwrap() > fs::metadata(&path).unwrap().len());
    }
}

#[test]
fn a_file_that_is_none_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    for bytes in [&b""[..], b"GGUF", b"not a model at all, just text", &[0; 4096]] {
        let error = load(bytes, &path).err().unwrap().to_string();
        assert!(error.contains("model.gguf: it is not a whole GGUF file"), "{error}");
    }
    let absent = Model::load("tiny", &folder.path().join("absent.gguf"), &Device::Cpu).err().unwrap().to_string();
    assert!(absent.contains("absent.gguf"), "{absent}");
}

#[test]
fn a_file_that_is_cut_short_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let bytes = tiny("llama");
    for kept in [bytes.len() / 100, bytes.len() / 10, bytes.len() / 2, bytes.len() * 9 / 10] {
        let error = load(&bytes[..kept], &path).err().unwrap().to_string();
        assert!(error.contains("it is cut short: it has ") || error.contains("it ends too early"), "{kept}: {error}");
    }
}

#[test]
fn an_unknown_architecture_or_tokenizer_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let replaced = |from: &str, to: &str| {
        let mut bytes = tiny("llama");
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        load(&bytes, &path).err().unwrap().to_string()
    };
    let error = replaced("smollm", "sm0llm");
    assert!(error.contains("sm0llm") && error.contains("not known"), "{error}");
    let error = replaced("gpt2", "gpt3");
    assert!(error.contains("gpt3"), "{error}");
    let mamba = load(&tiny("mamba"), &path).err().unwrap().to_string();
    assert!(mamba.contains("mamba") && mamba.contains("llama, qwen2, qwen3 or gemma3"), "{mamba}");
}

/// Changes bytes in the first `within`, or cuts the file.
fn damaged(whole: &[u8], within: usize, round: usize, random: &mut StdRng) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    if round.is_multiple_of(8) {
        bytes.truncate(random.random_range(0..bytes.len()));
        return bytes;
    }
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..within);
        bytes[at] = match random.random_range(0..4) {
            0 => 0xFF,
            1 => 0,
            2 => random.random(),
            _ => bytes[at] ^ (1 << random.random_range(0..8)),
        };
    }
    bytes
}

#[test]
fn a_thousand_damaged_headers_are_errors_or_harmless() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut random = StdRng::seed_from_u64(11);
    let whole = tiny("llama");
    let header = whole.windows(13).rposition(|window| window == b"blk.1.ffn_nor").unwrap() + 64;
    for round in 0..1000usize {
        // Half of the rounds hit the part that is not the vocabulary.
        let within = if round.is_multiple_of(2) { 800 } else { header };
        if let Err(error) = load(&damaged(&whole, within, round, &mut random), &path) {
            let text = error.to_string();
            assert!(text.contains("model.gguf") || matches!(error, EngineError::Canary { .. }), "{round}: {text}");
        }
    }
}

#[test]
fn a_damaged_header_of_a_real_file_never_passes_the_parser_with_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let real = fs::read(testing::model("smollm2-135m-instruct").join("model.gguf")).unwrap();
    let head = &real[..4 << 20];
    let mut random = StdRng::seed_from_u64(12);
    for round in 0..100 {
        fs::write(&path, damaged(head, 2_000, round, &mut random)).unwrap();
        if let Err(error) = GgufFile::open(&path) {
            assert!(error.to_string().contains("model.gguf"), "{error}");
        }
    }
}
