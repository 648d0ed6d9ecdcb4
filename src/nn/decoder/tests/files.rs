//! Weights on disk: shards, quantized blocks, types, what does not belong.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor, safetensors};

use super::{alone, cases, folder, largest_difference, oracle, oracle_of_folder, oracle_of_gguf, rewritten, text};
use crate::nn::decoder::weights::{DecoderWeights, Matrix};
use crate::nn::decoder::{Decoder, GgufFile, gguf_model};

fn tensors(family: &str) -> HashMap<String, Tensor> {
    safetensors::load(folder(family).join("model.safetensors"), &Device::Cpu).unwrap()
}

fn folder_with(family: &str, files: &[(&str, &HashMap<String, Tensor>)], index: Option<&str>) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    fs::copy(folder(family).join("config.json"), to.path().join("config.json")).unwrap();
    for (name, tensors) in files {
        safetensors::save(tensors, to.path().join(name)).unwrap();
    }
    if let Some(index) = index {
        fs::write(to.path().join("model.safetensors.index.json"), index).unwrap();
    }
    to
}

fn error_of(folder: &Path) -> String {
    Decoder::from_safetensors(folder, &Device::Cpu).err().expect("it should not load").to_string()
}

#[test]
fn shards_with_and_without_an_index() {
    let (one, two): (HashMap<_, _>, HashMap<_, _>) =
        tensors("qwen2").into_iter().partition(|(name, _)| name.contains("mlp"));
    let tokens = text(1, 12);
    let whole = alone(&mut oracle_of_folder(&folder("qwen2")), &tokens);
    let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let files = [(names[0], &one), (names[1], &two)];
    let entry = |(name, _): (&String, _), file: &str| format!("\"{name}\": \"{file}\"");
    let entries: Vec<_> = one
        .iter()
        .map(|tensor| entry(tensor, names[0]))
        .chain(two.iter().map(|tensor| entry(tensor, names[1])))
        .collect();
    let index = format!("{{\"metadata\": {{}}, \"weight_map\": {{{}}}}}", entries.join(", "));
    for index in [None, Some(index.as_str())] {
        let folder = folder_with("qwen2", &files, index);
        assert_eq!(alone(&mut oracle_of_folder(folder.path()), &tokens), whole);
    }
    let missing = folder_with("qwen2", &files[..1], Some(&index));
    assert!(error_of(missing.path()).contains(names[1]), "{}", error_of(missing.path()));
    let outside = folder_with("qwen2", &files, Some(&index.replace(names[1], "../model-00002-of-00002.safetensors")));
    assert!(error_of(outside.path()).contains("is not the name of a file beside it"));
    let nothing = folder_with("qwen2", &[], None);
    assert!(error_of(nothing.path()).contains("no safetensors file"));
}

#[test]
fn every_dense_type_loads() {
    let tokens = text(1, 12);
    let whole = alone(&mut oracle_of_folder(&folder("qwen3")), &tokens);
    for kind in [DType::BF16, DType::F16, DType::F32] {
        let tensors =
            tensors("qwen3").into_iter().map(|(name, tensor)| (name, tensor.to_dtype(kind).unwrap())).collect();
        let folder = folder_with("qwen3", &[("model.safetensors", &tensors)], None);
        assert_eq!(alone(&mut oracle_of_folder(folder.path()), &tokens), whole, "{kind:?}");
    }
    let tensors =
        tensors("qwen3").into_iter().map(|(name, tensor)| (name, tensor.to_dtype(DType::F64).unwrap())).collect();
    let folder = folder_with("qwen3", &[("model.safetensors", &tensors)], None);
    assert!(error_of(folder.path()).contains("expected BF16, F16 or F32"));
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let with = |change: &dyn Fn(&mut HashMap<String, Tensor>)| {
        let mut tensors = tensors("qwen3");
        change(&mut tensors);
        let folder = folder_with("qwen3", &[("model.safetensors", &tensors)], None);
        error_of(folder.path())
    };
    let name = "model.layers.1.self_attn.q_norm.weight";
    let error = with(&|tensors| drop(tensors.remove(name)));
    assert!(error.contains(&format!("no file has the tensor {name}")), "{error}");
    let short = Tensor::zeros(31, DType::F32, &Device::Cpu).unwrap();
    let error = with(&|tensors| drop(tensors.insert(name.to_owned(), short.clone())));
    assert!(error.contains(name) && error.contains("expected [32]"), "{error}");
    let stranger = "model.layers.0.self_attn.q_proj.bias";
    let error = with(&|tensors| drop(tensors.insert(stranger.to_owned(), short.clone())));
    assert!(error.contains(stranger), "{error}");
}

/// Writes the family's GGUF file again with its matrices in `format`, or in f32 with what `format` makes of them.
fn requantized(family: &str, format: GgmlDType, quantized: bool, to: &Path) {
    rewritten(&folder(family).join("model.gguf"), to, None, |tensor| {
        if tensor.rank() != 2 {
            return QTensor::quantize(tensor, GgmlDType::F32).unwrap();
        }
        let blocks = QTensor::quantize(tensor, format).unwrap();
        let plain = || QTensor::quantize(&blocks.dequantize(&Device::Cpu).unwrap(), GgmlDType::F32).unwrap();
        if quantized { blocks } else { plain() }
    });
}

fn values(matrix: &Matrix) -> Vec<f32> {
    let tensor = match matrix {
        Matrix::Dense(tensor) => tensor.clone(),
        Matrix::Quantized(tensor) => tensor.dequantize(&Device::Cpu).unwrap(),
    };
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Putting Llama's rows back in order does not touch what a block says.
#[test]
fn quantized_weights_stay_as_stored() {
    let at = tempfile::tempdir().unwrap();
    let (one, other) = (at.path().join("blocks.gguf"), at.path().join("plain.gguf"));
    for format in [GgmlDType::Q4_0, GgmlDType::Q4_1, GgmlDType::Q5_0, GgmlDType::Q5_1, GgmlDType::Q8_0] {
        for family in ["llama3", "qwen2"] {
            requantized(family, format, true, &one);
            requantized(family, format, false, &other);
            let [blocks, plain]: [DecoderWeights; 2] =
                [&one, &other].map(|path| gguf_model::load(GgufFile::open(path).unwrap(), &Device::Cpu).unwrap().1);
            assert!(matches!(&blocks.layers[0].query, Matrix::Quantized(tensor) if tensor.dtype() == format));
            for (blocks, plain) in blocks.layers.iter().zip(&plain.layers) {
                assert_eq!(values(&blocks.query), values(&plain.query), "{format:?}");
                assert_eq!(values(&blocks.key), values(&plain.key));
                assert_eq!(values(&blocks.down), values(&plain.down));
            }
            let tokens = text(1, 20);
            let [blocks, plain] = [&one, &other].map(|path| alone(&mut oracle_of_gguf(path), &tokens));
            // Candle quantizes activations to 8 bits.
            let spread = plain.iter().fold(0f32, |most, logit| most.max(logit.abs()));
            let difference = largest_difference(&blocks, &plain);
            assert!(difference < 0.05 * spread, "{family} {format:?}: {difference} of {spread}");
        }
    }
}

/// K-quants have blocks of 256: wider than the fixtures.
#[test]
fn rows_that_are_no_whole_blocks_are_refused() {
    let error = |path: &Path| Decoder::from_gguf(path, &Device::Cpu).err().expect("it should not load").to_string();
    let at = tempfile::tempdir().unwrap();
    let path = at.path().join("model.gguf");
    let mut bytes = fs::read(folder("qwen3").join("model.gguf")).unwrap();
    // A tensor's entry: its name, the number of dimensions, these, and its type (1 is f16, 12 is Q4_K).
    let name = b"blk.0.attn_q.weight";
    let begin = bytes.windows(name.len()).position(|window| window == name).unwrap() + name.len() + 4 + 16;
    assert_eq!(bytes[begin], 1);
    bytes[begin] = 12;
    fs::write(&path, &bytes).unwrap();
    let error = error(&path);
    assert!(error.contains("blk.0.attn_q.weight") && error.contains("does not fit Q4K"), "{error}");
}

/// The GGUF fixture is what its script says: the same model as the safetensors beside it.
#[test]
fn both_files_give_the_same_logits() {
    for family in super::FAMILIES {
        let prompt = &cases(family)[2].prompt;
        let [one, other] =
            [oracle(family), oracle_of_folder(&folder(family))].map(|mut decoder| alone(&mut decoder, prompt));
        assert!(largest_difference(&one, &other) < 1e-4, "{family}");
    }
}
