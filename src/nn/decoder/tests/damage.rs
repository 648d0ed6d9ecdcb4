//! Files cut short and damaged: an error that says so, never a panic, never memory by a damaged number.

use std::fs;
use std::path::Path;

use candle_core::Device;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{alone, folder};
use crate::nn::decoder::{Decoder, GgufFile};

fn gguf_error(path: &Path, bytes: &[u8]) -> Option<String> {
    fs::write(path, bytes).unwrap();
    Decoder::from_gguf(path, &Device::Cpu).err().map(|error| error.to_string())
}

fn header_length(bytes: &[u8]) -> usize {
    // The last entry of the header is followed by padding and the first tensor's data.
    let names = [&b"output_norm.weight"[..], b"ffn_down.weight"];
    let last = names.iter().filter_map(|name| bytes.windows(name.len()).rposition(|window| window == *name)).max();
    last.unwrap() + 64
}

#[test]
fn a_gguf_file_cut_anywhere_is_refused() {
    let at = tempfile::tempdir().unwrap();
    let path = at.path().join("model.gguf");
    let bytes = fs::read(folder("llama3").join("model.gguf")).unwrap();
    let header = header_length(&bytes);
    let lengths = (0..header).step_by(37).chain((header..bytes.len()).step_by(4999)).chain([bytes.len() - 33]);
    for length in lengths {
        let error = gguf_error(&path, &bytes[..length]).expect("it should not load");
        assert!(error.contains("model.gguf") && error.contains("pull the model again"), "{length} bytes: {error}");
    }
}

#[test]
fn a_damaged_header_is_an_error_or_another_model() {
    let at = tempfile::tempdir().unwrap();
    let path = at.path().join("model.gguf");
    let mut random = StdRng::seed_from_u64(1);
    for family in ["llama3", "gemma3"] {
        let bytes = fs::read(folder(family).join("model.gguf")).unwrap();
        let header = header_length(&bytes);
        let mut refused = 0;
        for _ in 0..300 {
            let mut damaged = bytes.clone();
            for _ in 0..random.random_range(1..4) {
                damaged[random.random_range(0..header)] = random.random();
            }
            fs::write(&path, damaged).unwrap();
            match Decoder::from_gguf(&path, &Device::Cpu) {
                // What loads runs: no damaged number is left to divide or to allocate by.
                Ok(mut decoder) => drop(alone(&mut decoder, &[1, 2, 3])),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 100, "{family}: {refused} of 300 refused");
    }
}

#[test]
fn sizes_out_of_range_are_named() {
    let at = tempfile::tempdir().unwrap();
    let path = at.path().join("model.gguf");
    let bytes = fs::read(folder("llama3").join("model.gguf")).unwrap();
    let cases = [
        ("llama.block_count", 0u32, "block_count is 0"),
        ("llama.block_count", u32::MAX, "expected 1 to 512"),
        ("llama.block_count", 3, "it has no tensor blk.2"),
        ("llama.block_count", 1, "it has the tensor blk.1"),
        ("llama.attention.head_count", 0, "head_count is 0"),
        ("llama.attention.head_count", 8, "expected [128, 64]"),
        ("llama.attention.head_count_kv", 0, "expected 1 to 1024"),
        ("llama.attention.head_count_kv", 3, "do not fit"),
        ("llama.embedding_length", 65, "its embedding has the shape"),
        ("llama.feed_forward_length", u32::MAX, "feed_forward_length"),
        ("llama.attention.key_length", 3, "heads of unequal width"),
    ];
    for (key, value, reason) in cases {
        let mut damaged = bytes.clone();
        // Behind the key stand its type (4: u32) and the value.
        let begin = damaged
            .windows(key.len() + 1)
            .position(|window| window[..key.len()] == *key.as_bytes() && window[key.len()] == 4);
        let begin = begin.unwrap() + key.len() + 4;
        damaged[begin..begin + 4].copy_from_slice(&value.to_le_bytes());
        let error = gguf_error(&path, &damaged).expect("it should not load");
        assert!(error.contains(reason), "{key} = {value}: {error}");
    }
}

#[test]
fn rotary_factors_must_divide() {
    let at = tempfile::tempdir().unwrap();
    let path = at.path().join("model.gguf");
    let mut bytes = fs::read(folder("llama3").join("model.gguf")).unwrap();
    // Long waves are divided by 8.
    let factors = [8f32, 8.0].map(f32::to_le_bytes).concat();
    let begin = bytes.windows(8).position(|window| window == factors).unwrap();
    bytes[begin..begin + 4].copy_from_slice(&0f32.to_le_bytes());
    let error = gguf_error(&path, &bytes).expect("it should not load");
    assert!(error.contains("rope_freqs.weight"), "{error}");
}

#[test]
fn other_architectures_are_named() {
    let at = tempfile::tempdir().unwrap();
    let path = at.path().join("model.gguf");
    let bytes = fs::read(folder("llama3").join("model.gguf")).unwrap();
    let begin = bytes.windows(5).position(|window| window == b"llama").unwrap();
    let mut other = bytes;
    other[begin..begin + 5].copy_from_slice(b"mamba");
    let error = gguf_error(&path, &other).unwrap();
    assert!(error.contains("the architecture mamba is not supported"), "{error}");
}

#[test]
fn the_header_alone_tells_the_size() {
    let file = GgufFile::open(&folder("gemma3").join("model.gguf")).unwrap();
    assert_eq!(file.bytes(), fs::metadata(folder("gemma3").join("model.gguf")).unwrap().len());
    assert_eq!(file.tensor_shape("token_embd.weight").unwrap().0, [256, 48]);
    // Vectors are f32 already, matrices f16.
    assert!(file.weight_bytes(false) < file.bytes() && file.weight_bytes(true) > file.weight_bytes(false) * 19 / 10);
    assert!(file.weight_bytes(true) < file.weight_bytes(false) * 2);
    assert!(GgufFile::open(Path::new("no such file")).is_err());
}

#[test]
fn safetensors_cut_or_damaged_are_refused() {
    let at = tempfile::tempdir().unwrap();
    fs::copy(folder("qwen3").join("config.json"), at.path().join("config.json")).unwrap();
    let bytes = fs::read(folder("qwen3").join("model.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let load = |bytes: &[u8]| {
        fs::write(at.path().join("model.safetensors"), bytes).unwrap();
        Decoder::from_safetensors(at.path(), &Device::Cpu).err().map(|error| error.to_string())
    };
    for length in [0, 3, 7, 8, 9, header / 2, header - 1, header, header + 1, bytes.len() - 1] {
        let error = load(&bytes[..length]).expect("it should not load");
        assert!(error.contains("pull the model again"), "{length} bytes: {error}");
    }
    let mut huge = bytes.clone();
    huge[..8].copy_from_slice(&(u64::MAX / 2).to_le_bytes());
    assert!(load(&huge).is_some());
    let mut random = StdRng::seed_from_u64(2);
    let mut refused = 0;
    for _ in 0..200 {
        let mut damaged = bytes.clone();
        damaged[random.random_range(0..header)] = random.random();
        refused += usize::from(load(&damaged).is_some());
    }
    assert!(refused > 100, "{refused} of 200 refused");
}
