//! Weights of a real file against candle-transformers' definition of the same family.

use std::fs::File;

use candle_core::quantized::gguf_file::Content;
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use candle_transformers::models::quantized_llama::ModelWeights;

use super::{best, largest_difference, last, oracle_of_gguf, rewritten, text};
use crate::nn::decoder::Family;
use crate::testing;

/// The first layers, in f16: products of quantized weights round their activations to 8 bits, where the order of a sum
/// decides what is rounded up.
#[test]
fn smollm2_gives_what_candle_transformers_gives() {
    let at = tempfile::tempdir().unwrap();
    let path = at.path().join("model.gguf");
    let format = |tensor: &Tensor| if tensor.rank() == 2 { GgmlDType::F16 } else { GgmlDType::F32 };
    let convert = |tensor: &Tensor| QTensor::quantize(tensor, format(tensor)).unwrap();
    rewritten(&testing::model("smollm2-135m-instruct").join("model.gguf"), &path, Some(6), convert);

    let mut decoder = oracle_of_gguf(&path);
    let config = decoder.config().clone();
    assert_eq!((config.family, config.hidden, config.heads, config.kv_heads), (Family::Llama, 576, 9, 3));
    assert!(config.tied && config.window.is_none() && config.layers == 6);
    let mut file = File::open(&path).unwrap();
    let content = Content::read(&mut file).unwrap();
    let mut reference = ModelWeights::from_gguf(content, &mut file, &Device::Cpu).unwrap();
    let mut expected = |tokens: &[u32], position: usize| -> Vec<f32> {
        let tokens = Tensor::new(tokens, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        reference.forward(&tokens, position).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    };
    let prompt: Vec<u32> = text(9, 40).iter().map(|id| id * 150).collect();
    let mut cache = decoder.cache(1, 64).unwrap();
    let (mut logits, mut wanted) = (last(&mut decoder, &mut cache, 0, 0, &prompt), expected(&prompt, 0));
    for position in prompt.len()..64 {
        let spread = wanted.iter().fold(0f32, |most, logit| most.max(logit.abs()));
        let difference = largest_difference(&logits, &wanted);
        assert!(difference < 1e-4 * spread, "position {position}: {difference} of {spread}");
        let token = best(&wanted);
        (logits, wanted) = (last(&mut decoder, &mut cache, 0, position, &[token]), expected(&[token], position));
    }
}

/// The whole file, with its weights as stored, continues a text that its model knows.
#[test]
fn smollm2_writes_what_it_has_learned() {
    let mut decoder = oracle_of_gguf(&testing::model("smollm2-135m-instruct").join("model.gguf"));
    // "The capital of France is" in its vocabulary, and " Paris".
    let prompt = [504, 3575, 282, 4649, 314];
    let mut cache = decoder.cache(1, 8).unwrap();
    assert_eq!(best(&last(&mut decoder, &mut cache, 0, 0, &prompt)), 7042);
}
