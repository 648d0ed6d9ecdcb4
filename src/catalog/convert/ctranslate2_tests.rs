use safetensors::SafeTensors;

use super::*;

const WIDTH: usize = 64;

/// Writes CTranslate2's binary. Every tensor's f16 elements count up from a number of its own.
#[derive(Default)]
struct Binary {
    variables: Vec<u8>,
    count: u32,
    zeroed: Vec<String>,
}

impl Binary {
    fn add(&mut self, name: &str, shape: &[usize]) {
        let elements = shape.iter().product::<usize>();
        let first = 1000 * u16::try_from(self.count).unwrap();
        let zero_rows = self.zeroed.iter().any(|zeroed| zeroed == name);
        let element = |index: usize| {
            // Of stacked q, k and v biases (or k and v), the key's part is zero.
            let parts = if name.contains("self_attention") { 3 } else { 2 };
            let part = index * parts / elements;
            let is_key = part == parts - 2;
            if zero_rows && is_key { 0 } else { first.wrapping_add(index as u16) }
        };
        self.string(name);
        self.variables.push(u8::try_from(shape.len()).unwrap());
        self.variables.extend(shape.iter().flat_map(|&length| (length as u32).to_le_bytes()));
        self.variables.push(4);
        self.variables.extend((2 * elements as u32).to_le_bytes());
        self.variables.extend((0..elements).flat_map(|index| element(index).to_le_bytes()));
        self.count += 1;
    }

    fn string(&mut self, text: &str) {
        self.variables.extend((text.len() as u16 + 1).to_le_bytes());
        self.variables.extend(text.bytes().chain([0]));
    }

    fn attention(&mut self, at: &str, widths: &[usize]) {
        for (index, width) in widths.iter().enumerate() {
            if *width > 1 {
                self.zeroed.push(format!("{at}/linear_{index}/bias"));
            }
            self.add(&format!("{at}/linear_{index}/weight"), &[width * WIDTH, WIDTH]);
            self.add(&format!("{at}/linear_{index}/bias"), &[width * WIDTH]);
        }
        self.norm(&format!("{at}/layer_norm"));
    }

    fn norm(&mut self, at: &str) {
        self.add(&format!("{at}/gamma"), &[WIDTH]);
        self.add(&format!("{at}/beta"), &[WIDTH]);
    }

    fn whisper() -> Vec<u8> {
        let mut binary = Self::default();
        for side in ["encoder", "decoder"] {
            binary.attention(&format!("{side}/layer_0/self_attention"), &[3, 1]);
            if side == "decoder" {
                binary.attention("decoder/layer_0/attention", &[1, 2, 1]);
            }
            for linear in ["linear_0", "linear_1"] {
                binary.add(&format!("{side}/layer_0/ffn/{linear}/weight"), &[2, WIDTH]);
                binary.add(&format!("{side}/layer_0/ffn/{linear}/bias"), &[2]);
            }
            binary.norm(&format!("{side}/layer_0/ffn/layer_norm"));
            binary.norm(&format!("{side}/layer_norm"));
            binary
                .add(&format!("{side}/position_encodings/encodings"), &[if side == "encoder" { 15 } else { 4 }, WIDTH]);
        }
        for conv in ["conv1", "conv2"] {
            binary.add(&format!("encoder/{conv}/weight"), &[WIDTH, 80, 3]);
            binary.add(&format!("encoder/{conv}/bias"), &[WIDTH]);
        }
        binary.add("decoder/embeddings/weight", &[7, WIDTH]);
        let mut whole = 6u32.to_le_bytes().to_vec();
        whole.extend([12, 0]);
        whole.extend(b"WhisperSpec\0");
        whole.extend(3u32.to_le_bytes());
        whole.extend(binary.count.to_le_bytes());
        whole.extend(binary.variables);
        whole.extend(0u32.to_le_bytes());
        whole
    }
}

fn convert(model: &[u8]) -> Result<(Vec<u8>, Value), Malformed> {
    let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(source.path().join("model.bin"), model).unwrap();
    let settings = json!({"suppress_ids": [1, 2], "suppress_ids_begin": [3], "alignment_heads": [[0, 0]]});
    fs::write(source.path().join("config.json"), settings.to_string()).unwrap();
    convert_whisper(source.path(), target.path())?;
    let config = fs::read(target.path().join("config.json")).unwrap();
    Ok((fs::read(target.path().join("model.safetensors")).unwrap(), serde_json::from_slice(&config).unwrap()))
}

#[test]
fn stacked_projections_come_apart_under_the_reference_names() {
    let model = Binary::whisper();
    let (weights, config) = convert(&model).unwrap();
    let weights = SafeTensors::deserialize(&weights).unwrap();
    let variables = read_variables(&model).unwrap();
    let stacked = &variables["encoder/layer_0/self_attention/linear_0/weight"];
    for (part, name) in ["q", "k", "v"].iter().enumerate() {
        let tensor = weights.tensor(&format!("model.encoder.layers.0.self_attn.{name}_proj.weight")).unwrap();
        assert_eq!((tensor.shape(), tensor.dtype()), ([WIDTH, WIDTH].as_slice(), Dtype::F16));
        let size = 2 * WIDTH * WIDTH;
        assert_eq!(tensor.data(), &stacked.data[part * size..(part + 1) * size], "{name}");
    }
    let values = weights.tensor("model.decoder.layers.0.encoder_attn.v_proj.bias").unwrap();
    assert_eq!(values.data(), &variables["decoder/layer_0/attention/linear_1/bias"].data[2 * WIDTH..]);
    let output = weights.tensor("model.decoder.layers.0.encoder_attn.out_proj.weight").unwrap();
    assert_eq!(output.data(), variables["decoder/layer_0/attention/linear_2/weight"].data);
    assert!(weights.tensor("model.decoder.layers.0.encoder_attn.k_proj.bias").is_err(), "Whisper's keys have no bias");
    // Per attention 7 tensors and a norm, per layer 4 of the feed-forward and a norm, per side a norm and positions.
    assert_eq!(weights.len(), 3 * 9 + 2 * 6 + 2 * 3 + 2 * 2 + 1);
    assert_eq!(config["num_mel_bins"], 80);
    assert_eq!((&config["encoder_layers"], &config["decoder_layers"]), (&json!(1), &json!(1)));
    assert_eq!((&config["vocab_size"], &config["d_model"]), (&json!(7), &json!(64)));
    assert_eq!((&config["max_source_positions"], &config["max_target_positions"]), (&json!(15), &json!(4)));
    assert_eq!((&config["suppress_tokens"], &config["alignment_heads"]), (&json!([1, 2]), &json!([[0, 0]])));
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let model = Binary::whisper();
    assert_eq!(convert(&model).unwrap().0, convert(&model).unwrap().0);
}

#[test]
fn a_damaged_binary_is_an_error_and_never_a_panic() {
    let model = Binary::whisper();
    assert!(convert(&[]).is_err());
    assert!(convert(&model[..model.len() / 2]).unwrap_err().to_string().contains("ends too early"));
    let mut other = model.clone();
    other[0] = 5;
    assert!(convert(&other).unwrap_err().to_string().contains("version 5"));
    for at in 0..200 {
        let mut mutated = model.clone();
        mutated[at] ^= 0x81;
        let _outcome = convert(&mutated);
    }
}
