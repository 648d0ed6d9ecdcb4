//! The families against transformers, calls against each other, files against damage.
//!
//! `tests/fixtures/make_decoder.py` made the models: tiny, random, one of each family, as safetensors and as GGUF.

mod configs;
mod damage;
mod families;
mod files;
mod real;
mod spans;

use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::quantized::{QTensor, gguf_file};
use candle_core::{DType, Device, Tensor};
use serde::Deserialize;

use super::weights::{DecoderWeights, Matrix};
use super::{Backend, Decoder, DecoderConfig, GgufFile, KvCache, Span, Store, Wants, gguf_model, hub_model};
use crate::testing;

pub(super) const FAMILIES: [&str; 6] = ["llama3", "smollm2", "mistral", "qwen2", "qwen3", "gemma3"];

/// What transformers made of a prompt.
#[derive(Deserialize)]
pub(super) struct Case {
    pub(super) prompt: Vec<u32>,
    pub(super) greedy: Vec<u32>,
    pub(super) logits: Vec<f32>,
}

pub(super) fn folder(family: &str) -> PathBuf {
    testing::fixture("decoder").join(family)
}

pub(super) fn cases(family: &str) -> Vec<Case> {
    serde_json::from_slice(&std::fs::read(folder(family).join("expected.json")).unwrap()).unwrap()
}

/// In candle's tensors.
pub(super) fn oracle_of_gguf(path: &Path) -> Decoder {
    let (config, weights) = gguf_model::load(GgufFile::open(path).unwrap(), &Device::Cpu).unwrap();
    Decoder::on_tensors(config, weights, &Device::Cpu).unwrap()
}

/// Sizes and weights of a file, quantized ones as the floats that they stand for.
pub(super) fn in_floats(path: &Path) -> (DecoderConfig, DecoderWeights) {
    let (config, mut weights) = gguf_model::load(GgufFile::open(path).unwrap(), &Device::Cpu).unwrap();
    let DecoderWeights { embedding, layers, head, .. } = &mut weights;
    let products = layers.iter_mut().flat_map(|layer| {
        let heads = [&mut layer.query, &mut layer.key, &mut layer.value, &mut layer.output];
        heads.into_iter().chain([&mut layer.gate, &mut layer.up, &mut layer.down])
    });
    for matrix in products.chain([embedding]).chain(head) {
        if let Matrix::Quantized(stored) = matrix {
            let dense = stored.dequantize(&Device::Cpu).unwrap();
            *matrix = Matrix::Dense(dense);
        }
    }
    (config, weights)
}

/// In candle's tensors.
pub(super) fn oracle_of_folder(path: &Path) -> Decoder {
    let (config, weights) = hub_model::open(path, &Device::Cpu).unwrap();
    Decoder::on_tensors(config, weights, &Device::Cpu).unwrap()
}

pub(super) fn oracle(family: &str) -> Decoder {
    oracle_of_gguf(&folder(family).join("model.gguf"))
}

/// A slot for an oracle that rounds keys and values to half precision, as the CPU's kernels do.
pub(super) fn halved_cache(oracle: &Decoder, positions: usize) -> KvCache {
    let Backend::Tensor(decoder) = &oracle.backend else { panic!("not an oracle") };
    let store = decoder.store(1, positions).unwrap().rounded_to(DType::F16);
    KvCache::new(Store::Tensor(store), 1, positions, oracle.config.cache_elements_per_position())
}

/// Writes a GGUF file again, without its vocabulary, only the first `layers`, each tensor as `convert` gives it.
pub(super) fn rewritten(from: &Path, to: &Path, layers: Option<u32>, convert: impl Fn(&Tensor) -> QTensor) {
    let mut file = File::open(from).unwrap();
    let mut content = gguf_file::Content::read(&mut file).unwrap();
    if let Some(layers) = layers {
        content.metadata.insert("llama.block_count".to_owned(), gguf_file::Value::U32(layers));
    }
    let layer = |name: &str| name.strip_prefix("blk.").map(|rest| rest.split('.').next().unwrap().parse().unwrap());
    let kept = |name: &str| layers.is_none_or(|layers| layer(name).is_none_or(|layer: u32| layer < layers));
    let names = content.tensor_infos.keys().filter(|name| kept(name));
    let tensors: Vec<(&str, QTensor)> = names
        .map(|name| {
            let tensor = content.tensor(&mut file, name, &Device::Cpu).unwrap().dequantize(&Device::Cpu).unwrap();
            (name.as_str(), convert(&tensor))
        })
        .collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let sizes = content.metadata.iter().filter(|(_, value)| !matches!(value, gguf_file::Value::Array(_)));
    let metadata: Vec<_> = sizes.map(|(key, value)| (key.as_str(), value)).collect();
    gguf_file::write(&mut File::create(to).unwrap(), &metadata, &tensors).unwrap();
}

#[test]
fn a_decoder_goes_to_its_thread() {
    fn goes<T: Send>() {}
    goes::<Decoder>();
    goes::<KvCache>();
}

/// The logits after the last of `tokens`.
pub(super) fn last(decoder: &mut Decoder, cache: &mut KvCache, slot: usize, start: usize, tokens: &[u32]) -> Vec<f32> {
    let logits = decoder.forward(cache, &[Span { slot, start, tokens, wants: Wants::Last }]).unwrap();
    assert_eq!(logits.rows(), 1);
    logits.row(0).to_vec()
}

/// The same by reading everything anew.
pub(super) fn alone(decoder: &mut Decoder, tokens: &[u32]) -> Vec<f32> {
    let mut cache = decoder.cache(1, tokens.len()).unwrap();
    last(decoder, &mut cache, 0, 0, tokens)
}

pub(super) fn best(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|one, other| one.1.total_cmp(other.1));
    best.map(|(id, _)| id as u32).unwrap()
}

pub(super) fn largest_difference(one: &[f32], other: &[f32]) -> f32 {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max)
}

/// Token ids that look like nothing in particular.
pub(super) fn text(seed: u32, length: usize) -> Vec<u32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        3 + (state >> 8) % 250
    };
    (0..length).map(|_| next()).collect()
}
