//! A checkpoint of the published names and shapes: three sparse files of 11.5 GB, of which only the headers exist.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use candle_core::Device;
use serde_json::{Map, Value, json};

use super::checkpoints::config_json;
use crate::nn::higgs::{Checkpoint, HiggsConfig, MemoryNeed, Precision};

const SHARDS: usize = 3;

/// Name to shape, of all tensors.
type Shapes = BTreeMap<String, Vec<usize>>;

/// As listed in the published repository's index, written out here once more rather than asked of the loader.
fn published() -> Shapes {
    let mut all = Shapes::new();
    let mut add = |name: String, shape: &[usize]| drop(all.insert(name + ".weight", shape.to_vec()));
    add("embed_tokens".to_owned(), &[128_256, 3072]);
    add("norm".to_owned(), &[3072]);
    add("audio_codebook_embeddings".to_owned(), &[8208, 3072]);
    add("audio_decoder_proj.audio_lm_head".to_owned(), &[8208, 3072]);
    add("audio_decoder_proj.text_lm_head".to_owned(), &[128_256, 3072]);
    for layer in 0..28 {
        for (part, rows, columns) in [("q", 3072, 3072), ("k", 1024, 3072), ("v", 1024, 3072), ("o", 3072, 3072)] {
            add(format!("layers.{layer}.self_attn.{part}_proj"), &[rows, columns]);
        }
        for kind in ["mlp", "audio_mlp"] {
            add(format!("layers.{layer}.{kind}.gate_proj"), &[8192, 3072]);
            add(format!("layers.{layer}.{kind}.up_proj"), &[8192, 3072]);
            add(format!("layers.{layer}.{kind}.down_proj"), &[3072, 8192]);
        }
        for norm in
            ["input_layernorm", "post_attention_layernorm", "audio_input_layernorm", "audio_post_attention_layernorm"]
        {
            add(format!("layers.{layer}.{norm}"), &[3072]);
        }
    }
    all
}

/// Writes headers, and nothing but their lengths of the data. Gives the bytes of all data.
fn write(folder: &Path, shapes: &Shapes) -> u64 {
    fs::write(folder.join("config.json"), config_json(&HiggsConfig::published()).to_string()).unwrap();
    let (mut headers, mut ends) = (vec![Map::new(); SHARDS], [0u64; SHARDS]);
    let mut places = Map::new();
    for (index, (name, shape)) in shapes.iter().enumerate() {
        let shard = index * SHARDS / shapes.len();
        let bytes = shape.iter().product::<usize>() as u64 * 2;
        let offsets = [ends[shard], ends[shard] + bytes];
        ends[shard] = offsets[1];
        headers[shard].insert(name.clone(), json!({ "dtype": "BF16", "shape": shape, "data_offsets": offsets }));
        places.insert(name.clone(), json!(format!("model-0000{}-of-00003.safetensors", shard + 1)));
    }
    for (shard, header) in headers.into_iter().enumerate() {
        let header = Value::Object(header).to_string();
        let mut file = File::create(folder.join(format!("model-0000{}-of-00003.safetensors", shard + 1))).unwrap();
        file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
        file.write_all(header.as_bytes()).unwrap();
        file.set_len(8 + header.len() as u64 + ends[shard]).unwrap();
    }
    let index = json!({ "metadata": { "total_size": ends.iter().sum::<u64>() }, "weight_map": places });
    fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
    ends.iter().sum()
}

#[test]
fn the_published_names_and_shapes_are_accepted_without_reading_the_data() {
    let at = tempfile::tempdir().unwrap();
    let shapes = published();
    assert_eq!(shapes.len(), 397);
    // The total of the published index.
    assert_eq!(write(at.path(), &shapes), 11_542_566_912);
    let started = Instant::now();
    let checkpoint = Checkpoint::open(at.path()).unwrap();
    // Reading the data would take many times this long, and more memory than most machines have.
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(checkpoint.config(), &HiggsConfig::published());
}

#[test]
fn a_published_tensor_that_is_missing_or_misshapen_is_named() {
    let at = tempfile::tempdir().unwrap();
    for name in [
        "embed_tokens.weight",
        "audio_codebook_embeddings.weight",
        "audio_decoder_proj.audio_lm_head.weight",
        "layers.27.audio_mlp.down_proj.weight",
        "layers.13.audio_post_attention_layernorm.weight",
        "layers.0.self_attn.k_proj.weight",
        "norm.weight",
    ] {
        let mut shapes = published();
        let shape = shapes.remove(name).unwrap();
        write(at.path(), &shapes);
        let error = Checkpoint::open(at.path()).err().unwrap().to_string();
        assert!(error.contains(name), "{error}");
        let wrong: Vec<usize> = shape.iter().rev().map(|size| size + 1).collect();
        shapes.insert(name.to_owned(), wrong);
        write(at.path(), &shapes);
        let error = Checkpoint::open(at.path()).err().unwrap().to_string();
        assert!(error.contains(name) && error.contains(&format!("{shape:?}")), "{error}");
    }
}

/// The figures by which a card is chosen.
#[test]
fn what_the_published_model_takes_of_a_device() {
    let config = HiggsConfig::published();
    let need = |precision| MemoryNeed::of(&config, precision, &Device::Cpu);
    // f32 on a CPU; all parameters but the text head's.
    assert_eq!(need(Precision::Float).weights, (5_771_283_456 - 128_256 * 3072) * 4);
    assert_eq!(need(Precision::Float).bytes_per_position, 2 * 112 * 1024);
    let (eight, four) = (need(Precision::Q8_0).weights, need(Precision::Q4K).weights);
    assert!(eight < need(Precision::Float).weights / 3 && four < eight * 3 / 4, "{eight} {four}");
}
