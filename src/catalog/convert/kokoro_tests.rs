use safetensors::SafeTensors;

use super::*;

/// Encodes as much of an ONNX model as the reader reads.
#[derive(Default)]
struct Model {
    graph: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Values<'a> {
    Float(&'a [f32]),
    Signed(&'a [i8]),
    Unsigned(&'a [u8]),
}
use Values::{Float, Signed, Unsigned};

fn message(field: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend(bytes);
    out
}

impl Model {
    fn tensor(mut self, name: &str, shape: &[u8], values: Values<'_>) -> Self {
        let (kind, raw): (u8, Vec<u8>) = match values {
            Float(values) => (1, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
            Unsigned(values) => (2, values.to_vec()),
            Signed(values) => (3, values.iter().map(|value| value.cast_unsigned()).collect()),
        };
        let mut tensor = message(1, shape);
        tensor.extend([0x10, kind]);
        tensor.extend(message(8, name.as_bytes()));
        tensor.extend(message(9, &raw));
        self.graph.extend(message(5, &tensor));
        self
    }

    fn node(mut self, operator: &str, name: &str, inputs: &[&str]) -> Self {
        let mut node: Vec<u8> = inputs.iter().flat_map(|input| message(1, input.as_bytes())).collect();
        node.extend(message(3, name.as_bytes()));
        node.extend(message(4, operator.as_bytes()));
        self.graph.extend(message(1, &node));
        self
    }

    fn weights(self) -> Result<BTreeMap<String, Vec<f32>>, Malformed> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        convert(&message(7, &self.graph), &path)?;
        let bytes = std::fs::read(path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let read = |data: &[u8]| data.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        Ok(tensors.iter().map(|(name, tensor)| (name.to_owned(), read(tensor.data()))).collect())
    }
}

#[test]
fn matrices_are_dequantized_per_column_and_transposed() {
    let named = "decoder.decoder.encode.norm1.fc.weight_quantized";
    let weights = Model::default()
        .tensor(named, &[2, 3], Signed(&[1, 2, 3, -4, -5, -6]))
        .tensor("decoder.decoder.encode.norm1.fc.weight_scale", &[3], Float(&[1.0, 0.5, 2.0]))
        .tensor("shared_zero_point", &[3], Signed(&[0, 0, 1]))
        .node(
            "MatMulInteger",
            "/decoder/decoder/encode/norm1/fc/Gemm_MatMul_quant",
            &["x", named, "z", "shared_zero_point"],
        )
        .weights()
        .unwrap();
    assert_eq!(weights["decoder.encode.norm1.fc.weight"], [1.0, -4.0, 1.0, -2.5, 4.0, -14.0]);
    assert_eq!(weights.len(), 1, "scales and zero points are not weights");
}

#[test]
fn an_anonymous_layer_used_twice_is_written_once_under_its_nodes_name() {
    let model = |second: &[i8]| {
        let node = |number| format!("/encoder/bert/encoder/layers.0/attention/query{number}/MatMul_quant");
        Model::default()
            .tensor("onnx::MatMul_7_quantized", &[1, 2], Signed(&[3, 4]))
            .tensor("onnx::MatMul_7_scale", &[2], Float(&[1.0, 1.0]))
            .tensor("onnx::MatMul_8_quantized", &[1, 2], Signed(second))
            .tensor("onnx::MatMul_8_scale", &[2], Float(&[1.0, 1.0]))
            .tensor("zero", &[1], Signed(&[0]))
            .node("MatMulInteger", &node(""), &["x", "onnx::MatMul_7_quantized", "z", "zero"])
            .node("MatMulInteger", &node("_11"), &["x", "onnx::MatMul_8_quantized", "z", "zero"])
    };
    let weights = model(&[3, 4]).weights().unwrap();
    assert_eq!(weights["bert.encoder.layers.0.attention.query.weight"], [3.0, 4.0]);
    let error = model(&[3, 5]).weights().unwrap_err().to_string();
    assert!(error.contains("two different tensors claim the name bert"), "{error}");
}

#[test]
fn convolutions_take_the_name_of_their_node_and_transforms_are_left_out() {
    let weights = Model::default()
        .tensor("/encoder/N.0/Mul_output_0_quantized", &[1, 1, 2], Unsigned(&[10, 255]))
        .tensor("/encoder/N.0/Mul_output_0_scale", &[1], Float(&[0.25]))
        .tensor("zero", &[1], Unsigned(&[11]))
        .tensor("decoder.decoder.generator.ups.0.raw", &[1, 1, 1], Float(&[7.0]))
        .tensor("decoder.decoder.generator.istft.weight", &[1], Float(&[9.0]))
        .tensor("encoder.text_encoder.cnn.0.1.gamma", &[1], Float(&[5.0]))
        .node(
            "ConvInteger",
            "/encoder/N.0/conv1/Conv_quant",
            &["x", "/encoder/N.0/Mul_output_0_quantized", "z", "zero"],
        )
        .node(
            "ConvTranspose",
            "/decoder/decoder/generator/ups.0/ConvTranspose",
            &["x", "decoder.decoder.generator.ups.0.raw"],
        )
        .node("Conv", "/decoder/decoder/generator/stft/Conv", &["x", "decoder.decoder.generator.istft.weight"])
        .weights()
        .unwrap();
    let expected = [
        ("decoder.generator.ups.0.weight", vec![7.0]),
        ("predictor.N.0.conv1.weight", vec![-0.25, 61.0]),
        ("text_encoder.cnn.0.1.gamma", vec![5.0]),
    ];
    assert_eq!(weights.into_iter().collect::<Vec<_>>(), expected.map(|(name, values)| (name.to_owned(), values)));
}

#[test]
fn lstm_gates_change_their_order_and_directions_come_apart() {
    let weights = Model::default()
        .tensor("w_quantized", &[2, 1, 4], Signed(&[1, 2, 3, 4, 5, 6, 7, 8]))
        .tensor("r_quantized", &[2, 1, 4], Signed(&[11, 12, 13, 14, 15, 16, 17, 18]))
        .tensor("b", &[2, 8], Float(&[0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.]))
        .tensor("w_scale", &[2], Float(&[1.0, 10.0]))
        .tensor("zero", &[2], Signed(&[0, 1]))
        .tensor("r_scale", &[2], Float(&[2.0, 1.0]))
        .node(
            "DynamicQuantizeLSTM",
            "/encoder/shared/LSTM_quant",
            &["x", "w_quantized", "r_quantized", "b", "", "h", "c", "", "w_scale", "zero", "r_scale", "zero"],
        )
        .weights()
        .unwrap();
    assert_eq!(weights.len(), 8);
    let of = |name: &str| weights[&format!("predictor.shared.{name}")].clone();
    assert_eq!(of("weight_ih_l0"), [1.0, 3.0, 4.0, 2.0]);
    assert_eq!(of("weight_ih_l0_reverse"), [40.0, 60.0, 70.0, 50.0]);
    assert_eq!(of("weight_hh_l0"), [22.0, 26.0, 28.0, 24.0]);
    assert_eq!(of("bias_ih_l0"), [0.0, 2.0, 3.0, 1.0]);
    assert_eq!(of("bias_hh_l0_reverse"), [12.0, 14.0, 15.0, 13.0]);
}

#[test]
fn module_paths_drop_containers_and_know_the_predictors_parts() {
    for (node, path) in [
        ("/encoder/text_encoder/cnn.0/cnn.0.0/Conv_quant", "text_encoder.cnn.0.0"),
        ("/decoder/decoder/asr_res/asr_res.0/Conv_quant", "decoder.asr_res.0"),
        ("/encoder/F0_proj/Conv_quant", "predictor.F0_proj"),
        ("/encoder/F0.1/pool/ConvTranspose", "predictor.F0.1.pool"),
        ("/encoder/predictor/lstm/LSTM_quant", "predictor.lstm"),
    ] {
        assert_eq!(module_path(node).unwrap(), path);
    }
    assert!(module_path("").is_err() && module_path("/encoder/Conv").is_err());
}

#[test]
fn a_file_that_is_not_kokoro_is_an_error() {
    assert!(Model::default().weights().unwrap_err().to_string().contains("none of Kokoro's weights"));
    let error =
        Model::default().node("ConvInteger", "/encoder/a/Conv", &["x", "gone_quantized"]).weights().unwrap_err();
    assert!(error.to_string().contains("gone_quantized"), "{error}");
}
