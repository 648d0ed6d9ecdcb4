//! Folders that are another model, or a damaged one: an error that names what is wrong, never a panic.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde_json::{Value, json};

use super::{LAYOUTS, folder, tiny};
use crate::nn::higgs::{Checkpoint, Higgs, HiggsConfig, Layout, LoadOptions, Precision};

fn copy(layout: &str) -> tempfile::TempDir {
    let at = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(folder(layout)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), at.path().join(entry.file_name())).unwrap();
    }
    at
}

fn refusal(folder: &Path) -> String {
    Checkpoint::open(folder).err().expect("it should be refused").to_string()
}

/// Changes config.json.
fn with(layout: &str, change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> tempfile::TempDir {
    let at = copy(layout);
    let path = at.path().join("config.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(json.as_object_mut().unwrap());
    fs::write(&path, json.to_string()).unwrap();
    at
}

/// Changes the tensors of one file.
fn rewrite(path: &Path, change: impl FnOnce(&mut BTreeMap<String, Tensor>)) {
    let mut tensors: BTreeMap<String, Tensor> =
        candle_core::safetensors::load(path, &Device::Cpu).unwrap().into_iter().collect();
    change(&mut tensors);
    candle_core::safetensors::save(&tensors.into_iter().collect(), path).unwrap();
}

/// A checkpoint of these sizes in Boson's layout.
pub(super) fn write_random(folder: &Path, config: &HiggsConfig, seed: u64) {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    let mut random = StdRng::seed_from_u64(seed);
    let tensors = crate::nn::higgs::weights::wanted(config).into_iter().map(|wanted| {
        let count = wanted.shape.iter().product();
        let values: Vec<f32> = (0..count).map(|_| random.random_range(-0.1..0.1)).collect();
        let tensor = Tensor::from_vec(values, wanted.shape.as_slice(), &Device::Cpu).unwrap();
        let tensor = if wanted.shape.len() == 1 { (tensor + 1.0).unwrap() } else { tensor };
        (format!("{}.weight", wanted.name), tensor)
    });
    candle_core::safetensors::save(&tensors.collect(), folder.join("model.safetensors")).unwrap();
    fs::write(folder.join("config.json"), config_json(config).to_string()).unwrap();
}

/// As the published repository has it.
pub(super) fn config_json(config: &HiggsConfig) -> Value {
    json!({
        "model_type": "higgs_audio",
        "audio_adapter_type": "dual_ffn_fast_forward",
        "audio_codebook_size": config.codes,
        "audio_decoder_proj_num_layers": 0,
        "audio_dual_ffn_layers": (0..config.layers).collect::<Vec<_>>(),
        "audio_embed_avg": false,
        "audio_encoder_config": { "model_type": "higgs_audio_encoder", "activation_function": "gelu" },
        "audio_ffn_hidden_size": config.hidden,
        "audio_ffn_intermediate_size": config.intermediate,
        "audio_num_codebooks": config.codebooks,
        "audio_out_bos_token_id": config.speech_begin,
        "audio_stream_bos_id": config.codes,
        "audio_stream_eos_id": config.codes + 1,
        "encode_audio_in_tokens": true,
        "encode_whisper_embed": false,
        "rq_transformer_hidden_size": null,
        "rq_transformer_num_hidden_layers": 3,
        "skip_audio_tower": true,
        "text_config": {
            "model_type": "llama", "attention_bias": false, "mlp_bias": false, "hidden_act": "silu",
            "head_dim": config.head_dim, "hidden_size": config.hidden, "intermediate_size": config.intermediate,
            "num_attention_heads": config.heads, "num_hidden_layers": config.layers,
            "num_key_value_heads": config.kv_heads, "rms_norm_eps": 1e-5, "vocab_size": config.vocabulary,
            "rope_scaling": {
                "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                "original_max_position_embeddings": 8192, "rope_type": "llama3"
            },
            "rope_theta": 500_000.0, "tie_word_embeddings": true, "use_cache": true,
        },
        "use_audio_out_embed_projector": false,
        "use_audio_out_self_attention": 0,
        "use_delay_pattern": true,
        "use_rq_transformer": false,
    })
}

#[test]
fn both_forms_of_config_give_the_same_sizes() {
    let [one, two] = LAYOUTS.map(|layout| HiggsConfig::from_folder(&folder(layout)).unwrap());
    assert_eq!((one.layout, two.layout), (Layout::Transformers, Layout::Boson));
    assert_eq!((one.codes, one.book(), one.codebooks, one.logits()), (16, 18, 8, 144));
    assert_eq!((one.stream_begin(), one.stream_end(), one.speech_begin), (16, 17, 269));
    let alike = HiggsConfig { layout: Layout::Boson, rope_scaling: two.rope_scaling, ..one };
    assert_eq!(alike, two);
}

#[test]
fn parts_that_are_not_built_are_refused_by_their_key() {
    let parts = [
        ("audio_adapter_type", json!("stack")),
        ("audio_decoder_proj_num_layers", json!(2)),
        ("audio_embed_avg", json!(true)),
        ("encode_audio_in_tokens", json!(false)),
        ("encode_whisper_embed", json!(true)),
        ("skip_audio_tower", json!(false)),
        ("use_audio_out_embed_projector", json!(true)),
        ("use_audio_out_self_attention", json!(true)),
        ("use_delay_pattern", json!(false)),
        ("use_rq_transformer", json!(true)),
        // Of a later model.
        ("use_audio_in_gate", json!(1)),
        ("audio_dual_ffn_layers", json!([0])),
    ];
    for (key, value) in parts {
        let at = with("boson", |json| drop(json.insert(key.to_owned(), value.clone())));
        let error = refusal(at.path());
        assert!(error.contains(key) && error.contains("config.json"), "{key}: {error}");
    }
    for layout in LAYOUTS {
        let at = with(layout, |json| drop(json.insert("audio_lora_adapter".to_owned(), json!("rank8"))));
        let error = refusal(at.path());
        assert!(error.contains("audio_lora_adapter"), "{layout}: {error}");
        for key in ["use_audio_in_gate", "use_audio_out_self_attention"] {
            let at = with(layout, |json| drop(json.insert(key.to_owned(), json!(false))));
            Checkpoint::open(at.path()).unwrap();
        }
    }
}

#[test]
fn another_model_and_impossible_sizes_are_refused() {
    let cases: [(&str, &str, Value, &str); 7] = [
        ("boson", "model_type", json!("llama"), "higgs_audio"),
        ("transformers", "num_key_value_heads", json!(3), "do not fit"),
        ("transformers", "head_dim", json!(0), "size of a head"),
        ("transformers", "codebook_size", json!(1), "codebook_size"),
        ("transformers", "codebook_size", json!(20), "audio_stream_bos_id"),
        ("transformers", "hidden_act", json!("gelu"), "activation gelu"),
        ("transformers", "audio_bos_token_id", json!(900), "id 900"),
    ];
    for (layout, key, value, reason) in cases {
        let at = with(layout, |json| drop(json.insert(key.to_owned(), value)));
        let error = refusal(at.path());
        assert!(error.contains(reason), "{key}: {error}");
    }
    let at = with("transformers", |json| drop(json.remove("rope_parameters")));
    assert!(refusal(at.path()).contains("rope"));
    assert!(refusal(Path::new("/nowhere")).contains("config.json"));
}

#[test]
fn every_tensor_that_is_missing_or_misshapen_is_named() {
    for layout in LAYOUTS {
        let at = copy(layout);
        let files: Vec<_> = fs::read_dir(at.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        for path in files.iter().filter(|path| path.extension().is_some_and(|kind| kind == "safetensors")) {
            let whole = fs::read(path).unwrap();
            let names: Vec<String> = candle_core::safetensors::load(path, &Device::Cpu).unwrap().into_keys().collect();
            for name in names.iter().filter(|name| !name.contains("layers.1.")) {
                let quoted = format!("tensor {name}");
                rewrite(path, |tensors| {
                    let tensor = tensors[name].clone();
                    let doubled = Tensor::cat(&[&tensor, &tensor], 0).unwrap();
                    tensors.insert(name.clone(), doubled);
                });
                let error = refusal(at.path());
                assert!(error.contains(&quoted) && error.contains("shape"), "{name}: {error}");
                fs::write(path, &whole).unwrap();
                rewrite(path, |tensors| drop(tensors.remove(name)));
                // No text is written, so that nothing is missed without this one.
                if name.contains("text_lm_head") {
                    Checkpoint::open(at.path()).unwrap();
                } else {
                    let error = refusal(at.path());
                    assert!(error.contains(&quoted), "{name}: {error}");
                }
                fs::write(path, &whole).unwrap();
            }
        }
        Checkpoint::open(at.path()).unwrap();
    }
}

#[test]
fn a_tensor_that_nobody_would_read_is_named() {
    for name in ["model.layers.0.audio_gate.weight", "model.audio_tower.conv1.weight"] {
        let at = copy("transformers");
        let extra = Tensor::zeros(4, candle_core::DType::F32, &Device::Cpu).unwrap();
        rewrite(&at.path().join("model.safetensors"), |tensors| drop(tensors.insert(name.to_owned(), extra)));
        assert!(refusal(at.path()).contains(name));
    }
}

#[test]
fn weights_that_are_no_floats_are_named() {
    let at = copy("transformers");
    rewrite(&at.path().join("model.safetensors"), |tensors| {
        let weight = &tensors["model.norm.weight"];
        tensors.insert("model.norm.weight".to_owned(), weight.to_dtype(candle_core::DType::U8).unwrap());
    });
    let error = refusal(at.path());
    assert!(error.contains("model.norm.weight") && error.contains("U8"), "{error}");
}

#[test]
fn a_missing_empty_or_cut_shard_is_named() {
    let name = "model-00002-of-00003.safetensors";
    let at = copy("boson");
    let path = at.path().join(name);
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let error = refusal(at.path());
    assert!(error.contains(name) && error.contains("missing"), "{error}");
    fs::write(&path, b"").unwrap();
    assert!(refusal(at.path()).contains(name));
    for length in [4, 9, 200, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).unwrap();
        let error = refusal(at.path());
        assert!(error.contains("cut short"), "{length}: {error}");
    }
}

/// Fine-tuned checkpoints have tables of frozen and of trained rows.
#[test]
fn tables_in_two_parts_are_put_together() {
    let at = tempfile::tempdir().unwrap();
    fs::copy(folder("boson").join("config.json"), at.path().join("config.json")).unwrap();
    let mut all = BTreeMap::new();
    for number in 1..=3 {
        let shard = folder("boson").join(format!("model-0000{number}-of-00003.safetensors"));
        all.extend(candle_core::safetensors::load(shard, &Device::Cpu).unwrap());
    }
    for (name, part) in [
        ("embed_tokens", "embedding"),
        ("audio_decoder_proj.audio_lm_head", "linear"),
        ("audio_decoder_proj.text_lm_head", "linear"),
    ] {
        let whole: Tensor = all.remove(&format!("{name}.weight")).unwrap();
        let rows = whole.dim(0).unwrap();
        let mut put = |half: &str, start, length| {
            let tensor = whole.narrow(0, start, length).unwrap().force_contiguous().unwrap();
            all.insert(format!("{name}.{part}_{half}.weight"), tensor);
        };
        put("frozen", 0, 100);
        put("trainable", 100, rows - 100);
    }
    candle_core::safetensors::save(&all.into_iter().collect(), at.path().join("model.safetensors")).unwrap();
    let options = super::OPTIONS;
    let mut split = Higgs::load(at.path(), &Device::Cpu, options).unwrap();
    let mut whole = tiny("boson");
    let prompt = super::expected().mixed_prompt(whole.config());
    let [one, two] = [&mut split, &mut whole].map(|higgs| {
        higgs.prefill(0, &prompt, usize::MAX).unwrap();
        super::logits_after(higgs, 0, &[16; 8])
    });
    assert_eq!(one, two);
}

/// As conversions leave it that renamed the tensors and kept the config.
#[test]
fn the_names_say_what_the_config_does_not() {
    let at = copy("transformers");
    fs::copy(folder("boson").join("config.json"), at.path().join("config.json")).unwrap();
    let mut mixed = Higgs::load(at.path(), &Device::Cpu, super::OPTIONS).unwrap();
    let mut whole = tiny("boson");
    let prompt = super::expected().mixed_prompt(whole.config());
    let [one, two] = [&mut mixed, &mut whole].map(|higgs| {
        higgs.prefill(0, &prompt, usize::MAX).unwrap();
        super::logits_after(higgs, 0, &[16; 8])
    });
    assert_eq!(one, two);
}

#[test]
fn a_model_without_slots_is_refused() {
    let options = LoadOptions { precision: Precision::Float, slots: 0, positions: 10 };
    assert!(Higgs::load(&folder("boson"), &Device::Cpu, options).is_err());
}
