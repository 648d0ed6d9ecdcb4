//! config.json as published models write it, in old and new forms.

use std::fs;

use crate::nn::decoder::{Activation, DecoderConfig, Family, RopeScaling};

fn read(json: &str) -> Result<DecoderConfig, String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), json).unwrap();
    DecoderConfig::from_folder(folder.path()).map_err(|error| error.to_string())
}

const LLAMA_3_2: &str = r#"{"architectures": ["LlamaForCausalLM"], "attention_bias": false, "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009], "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048,
    "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
    "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
    "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192, "rope_type": "llama3"}, "rope_theta": 500000.0,
    "tie_word_embeddings": true, "vocab_size": 128256}"#;

const QWEN_2_5: &str = r#"{"hidden_act": "silu", "hidden_size": 896, "intermediate_size": 4864, "max_window_layers": 21,
    "max_position_embeddings": 32768, "model_type": "qwen2", "num_attention_heads": 14, "num_hidden_layers": 24,
    "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 32768,
    "tie_word_embeddings": true, "use_sliding_window": false, "vocab_size": 151936, "bos_token_id": 151643,
    "eos_token_id": 151645}"#;

const GEMMA_3: &str = r#"{"model_type": "gemma3", "text_config": {"head_dim": 256, "hidden_size": 2560,
    "hidden_activation": "gelu_pytorch_tanh", "intermediate_size": 10240, "max_position_embeddings": 131072,
    "model_type": "gemma3_text", "num_attention_heads": 8, "num_hidden_layers": 34, "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000.0, "attn_logit_softcapping": null,
    "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "rope_theta": 1000000.0, "sliding_window": 1024,
    "sliding_window_pattern": 6, "vocab_size": 262208, "eos_token_id": [1, 106]}}"#;

#[test]
fn llama_3_2() {
    let config = read(LLAMA_3_2).unwrap();
    assert_eq!((config.family, config.head_dim, config.kv_heads, config.layers), (Family::Llama, 64, 8, 16));
    let scaling =
        RopeScaling::Llama3 { factor: 32.0, low_frequency: 1.0, high_frequency: 4.0, original_context: 8192.0 };
    assert_eq!((config.rope.theta, config.rope.scaling), (500_000.0, scaling));
    assert_eq!((config.begin, config.ends), (Some(128_000), vec![128_001, 128_008, 128_009]));
    assert!(config.tied && config.window.is_none());
    assert_eq!(config.query_scale.to_bits(), 0.125f32.to_bits());
}

#[test]
fn qwen_2_5_has_its_window_switched_off() {
    let config = read(QWEN_2_5).unwrap();
    assert_eq!((config.family, config.head_dim, config.window.is_none()), (Family::Qwen2, 64, true));
    let config = read(&QWEN_2_5.replace("\"use_sliding_window\": false", "\"use_sliding_window\": true")).unwrap();
    assert_eq!((config.window(20), config.window(21)), (None, Some(32_768)));
}

#[test]
fn gemma_3_with_eyes() {
    let config = read(GEMMA_3).unwrap();
    assert_eq!((config.family, config.activation), (Family::Gemma3, Activation::GeluTanh));
    assert_eq!((config.window(4), config.window(5), config.window(33)), (Some(1024), None, Some(1024)));
    assert_eq!((config.rope.local_theta, config.rope.scaling), (Some(10_000.0), RopeScaling::Linear { factor: 8.0 }));
    assert!(config.tied);
    assert_eq!((config.query_scale, config.embedding_scale), (0.0625, 2560f32.sqrt()));
}

#[test]
fn generation_config_adds_ends() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), QWEN_2_5).unwrap();
    fs::write(folder.path().join("generation_config.json"), r#"{"eos_token_id": [151645, 151643]}"#).unwrap();
    assert_eq!(DecoderConfig::from_folder(folder.path()).unwrap().ends, [151_643, 151_645]);
}

#[test]
fn what_cannot_run_is_refused() {
    let cases = [
        (LLAMA_3_2.replace("\"llama\"", "\"mamba\""), "the model type mamba is not supported"),
        (LLAMA_3_2.replace("\"llama3\"", "\"yarn\""), "yarn is not supported"),
        (LLAMA_3_2.replace("\"attention_bias\": false", "\"attention_bias\": true"), "biases"),
        (LLAMA_3_2.replace("\"silu\"", "\"relu\""), "the activation relu is not supported"),
        (LLAMA_3_2.replace("\"hidden_size\": 2048,", ""), "it has no hidden_size"),
        (LLAMA_3_2.replace("\"num_key_value_heads\": 8", "\"num_key_value_heads\": 5"), "do not fit"),
        (LLAMA_3_2.replace("\"num_key_value_heads\": 8", "\"num_key_value_heads\": 0"), "expected 1 to 1024"),
        (LLAMA_3_2.replace("\"num_hidden_layers\": 16", "\"num_hidden_layers\": 4000000000"), "expected 1 to 512"),
        (LLAMA_3_2.replace("\"head_dim\": 64", "\"head_dim\": 63"), "do not fit"),
        (LLAMA_3_2.replace("\"factor\": 32.0", "\"factor\": 0.0"), "the rotary scaling is 0"),
        (LLAMA_3_2.replace("\"vocab_size\": 128256", "\"vocab_size\": -1"), "invalid value"),
        (GEMMA_3.replace("softcapping\": null", "softcapping\": 50.0"), "soft-capped"),
        (LLAMA_3_2[..100].to_owned(), "EOF"),
    ];
    for (json, reason) in cases {
        let error = read(&json).unwrap_err();
        assert!(error.contains(reason) && error.contains("config.json"), "{error} should say: {reason}");
    }
}
