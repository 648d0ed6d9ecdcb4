//! A real file against candle-transformers' definition of the same family.

use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Tensor};
use candle_transformers::models::quantized_llama::ModelWeights;

use super::{best, last, oracle_of_gguf, text};
use crate::nn::decoder::Family;
use crate::testing;

#[test]
fn smollm2_gives_what_candle_transformers_gives() {
    let path = testing::model("smollm2-135m-instruct").join("model.gguf");
    let mut decoder = oracle_of_gguf(&path);
    let config = decoder.config().clone();
    assert_eq!((config.family, config.hidden, config.heads, config.kv_heads), (Family::Llama, 576, 9, 3));
    assert!(config.tied && config.window.is_none());
    let mut file = std::fs::File::open(&path).unwrap();
    let content = Content::read(&mut file).unwrap();
    let mut reference = ModelWeights::from_gguf(content, &mut file, &Device::Cpu).unwrap();
    let mut expected = |tokens: &[u32], position: usize| -> Vec<f32> {
        let tokens = Tensor::new(tokens, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        reference.forward(&tokens, position).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    };
    let prompt: Vec<u32> = text(9, 24).iter().map(|id| id * 150).collect();
    let mut cache = decoder.cache(1, 64).unwrap();
    let (mut logits, mut reference) = (last(&mut decoder, &mut cache, 0, 0, &prompt), expected(&prompt, 0));
    for position in prompt.len()..prompt.len() + 16 {
        // Activations are rounded to 8 bits; sums in another order round some of them another way.
        let likeness = correlation(&logits, &reference);
        assert!(likeness > 0.999, "position {position}: {likeness}");
        let token = best(&reference);
        (logits, reference) = (last(&mut decoder, &mut cache, 0, position, &[token]), expected(&[token], position));
    }
}

/// Pearson's.
fn correlation(one: &[f32], other: &[f32]) -> f64 {
    assert_eq!(one.len(), other.len());
    let centred = |row: &[f32]| -> Vec<f64> {
        let mean = row.iter().map(|value| f64::from(*value)).sum::<f64>() / row.len() as f64;
        row.iter().map(|value| f64::from(*value) - mean).collect()
    };
    let (one, other) = (centred(one), centred(other));
    let product = |one: &[f64], other: &[f64]| one.iter().zip(other).map(|(one, other)| one * other).sum::<f64>();
    product(&one, &other) / (product(&one, &one) * product(&other, &other)).sqrt()
}
