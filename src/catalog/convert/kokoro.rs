//! Kokoro-82M's int8 ONNX export back to f32 tensors under the names of the reference implementation (kokoro 0.9.4).
//!
//! Weights are stored dynamically quantized: `(q - zero_point) * scale`, per tensor, per output column of a matrix, or
//! per direction of an LSTM. An initializer's name is often an exporter's number, so the module's path is read from
//! the name of the node that uses it. Zero points are shared between nodes: they are the node's input, not derived from
//! a name. Weight norm is folded (one `weight` per convolution), instance norms are the identity and absent.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
    path::Path,
};

use safetensors::{Dtype, tensor::View};

use super::{
    Malformed,
    onnx::{Graph, Node, Tensor},
    write_safetensors,
};

/// Writes the weights in `model` (an ONNX file's bytes) to the safetensors file `target`, f32.
pub(crate) fn convert(model: &[u8], target: &Path) -> Result<(), Malformed> {
    let graph = Graph::read(model)?;
    write_safetensors(weights(&graph)?.into_iter().collect(), target)
}

/// One tensor to be written.
#[derive(Debug, PartialEq)]
pub(crate) struct Weight {
    shape: Vec<usize>,
    /// f32, little-endian.
    bytes: Vec<u8>,
}

impl View for Weight {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

impl Weight {
    fn new(shape: Vec<usize>, values: &[f32]) -> Self {
        Self { shape, bytes: values.iter().flat_map(|value| value.to_le_bytes()).collect() }
    }

    fn plain(tensor: &Tensor<'_>) -> Result<Self, Malformed> {
        Ok(Self::new(tensor.shape.clone(), &tensor.values()?))
    }
}

fn weights(graph: &Graph<'_>) -> Result<BTreeMap<String, Weight>, Malformed> {
    let mut out = Collected { graph, used: HashSet::new(), weights: BTreeMap::new() };
    for node in &graph.nodes {
        out.node(node)?;
    }
    out.named_parameters()?;
    if out.weights.is_empty() {
        return Err(Malformed::new("the ONNX file holds none of Kokoro's weights"));
    }
    Ok(out.weights)
}

struct Collected<'g, 'a> {
    graph: &'g Graph<'a>,
    used: HashSet<&'a str>,
    weights: BTreeMap<String, Weight>,
}

impl<'a> Collected<'_, 'a> {
    fn node(&mut self, node: &Node<'a>) -> Result<(), Malformed> {
        match node.operator {
            "MatMulInteger" if self.graph.has(node.input(1)) => self.quantized_matrix(node),
            "ConvInteger" => {
                let values = self.dequantized(node.input(1), node.input(3))?;
                self.put(module_path(node.name)? + ".weight", values)
            }
            "Conv" | "ConvTranspose" if self.graph.has(node.input(1)) => {
                self.used.insert(node.input(1));
                // The Fourier transforms are convolutions in the export; the engine has its own.
                if node.input(1).contains("istft") || node.name.contains("stft") {
                    return Ok(());
                }
                self.put(module_path(node.name)? + ".weight", Weight::plain(self.graph.tensor(node.input(1))?)?)
            }
            "Gather" if node.input(0).ends_with("weight_quantized") => {
                // The three embedding tables share one zero point, and their nodes do not carry it.
                let zero_point = "encoder.bert.embeddings.word_embeddings.weight_zero_point";
                let values = self.dequantized(node.input(0), zero_point)?;
                self.put(without_suffix(reference_name(node.input(0)), "_quantized")?, values)
            }
            "DynamicQuantizeLSTM" => self.lstm(node),
            "MatMul" => {
                let Some(name) = node.inputs.iter().copied().find(|name| self.graph.has(name)) else { return Ok(()) };
                self.used.insert(name);
                let weight = transposed(&Weight::plain(self.graph.tensor(name)?)?, name)?;
                self.put(module_path(node.name)? + ".weight", weight)
            }
            _ => Ok(()),
        }
    }

    /// A linear layer, stored [in, out] with a scale per column.
    fn quantized_matrix(&mut self, node: &Node<'a>) -> Result<(), Malformed> {
        let stored = node.input(1);
        let values = self.dequantized(stored, node.input(3))?;
        let name = if stored.starts_with("onnx::") {
            without_number(&module_path(node.name)?).to_owned() + ".weight"
        } else {
            let name = without_suffix(reference_name(stored), "_quantized")?;
            match name.strip_suffix(".weight") {
                Some(stem) => without_number(stem).to_owned() + ".weight",
                None => name,
            }
        };
        self.put(name, transposed(&values, stored)?)
    }

    /// `(q - z) * s`, where s and z are single numbers or one per column of the last axis.
    fn dequantized(&mut self, stored: &'a str, zero_point: &'a str) -> Result<Weight, Malformed> {
        let tensor = self.graph.tensor(stored)?;
        let scale = self.graph.tensor(&(without_suffix(Some(stored), "_quantized")? + "_scale"))?;
        let zero_point = self.graph.tensor(zero_point)?;
        self.used.extend([stored, scale.name, zero_point.name]);
        let (scales, zero_points) = (scale.values()?, zero_point.values()?);
        let columns = tensor.shape.last().copied().unwrap_or(1);
        for (found, what) in [(scales.len(), "scale"), (zero_points.len(), "zero point")] {
            if found != 1 && found != columns {
                return Err(Malformed::new(format!("{stored} has {columns} columns and a {what} of {found}")));
            }
        }
        let mut values = tensor.values()?;
        for (index, value) in values.iter_mut().enumerate() {
            let column = index % columns;
            *value = (*value - zero_points[column % zero_points.len()]) * scales[column % scales.len()];
        }
        Ok(Weight::new(tensor.shape.clone(), &values))
    }

    /// ONNX stacks gates as input, output, forget, cell and directions along the first axis; PyTorch has input, forget,
    /// cell, output and one set of tensors per direction. Inputs: X W R B - - - - W scale, W zero, R scale, R zero.
    fn lstm(&mut self, node: &Node<'a>) -> Result<(), Malformed> {
        let path = module_path(node.name)?;
        for (part, scale, label) in [(1, 8, "weight_ih_l0"), (2, 10, "weight_hh_l0")] {
            let inputs = [part, scale, scale + 1].map(|index| node.input(index));
            self.used.extend(inputs);
            let [stored, scale, zero_point] = inputs.map(|name| self.graph.tensor(name));
            let (stored, scales, zero_points) = (stored?, scale?.values()?, zero_point?.values()?);
            let &[2, rows, columns] = stored.shape.as_slice() else {
                return Err(Malformed::new(format!("{} is not a two-way LSTM: {:?}", stored.name, stored.shape)));
            };
            if columns == 0 || columns % 4 != 0 || scales.len() != 2 || zero_points.len() != 2 {
                return Err(Malformed::new(format!("{} is not quantized per direction", stored.name)));
            }
            let values = stored.values()?;
            for (direction, suffix) in ["", "_reverse"].iter().enumerate() {
                let half = &values[direction * rows * columns..][..rows * columns];
                let half: Vec<f32> =
                    half.iter().map(|value| (value - zero_points[direction]) * scales[direction]).collect();
                let turned = transposed(&Weight::new(vec![rows, columns], &half), stored.name)?;
                self.put(format!("{path}.{label}{suffix}"), gates_reordered(turned))?;
            }
        }
        self.used.insert(node.input(3));
        let bias = self.graph.tensor(node.input(3))?;
        let &[2, width] = bias.shape.as_slice() else {
            return Err(Malformed::new(format!("{} is not the bias of a two-way LSTM: {:?}", bias.name, bias.shape)));
        };
        if width == 0 || width % 8 != 0 {
            return Err(Malformed::new(format!("{} does not hold eight gates", bias.name)));
        }
        let values = bias.values()?;
        for (direction, suffix) in ["", "_reverse"].iter().enumerate() {
            for (half, label) in ["bias_ih_l0", "bias_hh_l0"].iter().enumerate() {
                let start = direction * width + half * width / 2;
                let piece = Weight::new(vec![width / 2], &values[start..start + width / 2]);
                self.put(format!("{path}.{label}{suffix}"), gates_reordered(piece))?;
            }
        }
        Ok(())
    }

    /// Biases, norms and the like, which the export kept under their own names and in full precision.
    fn named_parameters(&mut self) -> Result<(), Malformed> {
        let graph = self.graph;
        for tensor in &graph.initializers {
            if self.used.contains(tensor.name) || !tensor.is_float() {
                continue;
            }
            if let Some(name) = reference_name(tensor.name)
                && !name.contains("istft")
                && !name.ends_with("_scale")
            {
                self.put(name.to_owned(), Weight::plain(tensor)?)?;
            }
        }
        Ok(())
    }

    /// A layer that is used twelve times arrives twelve times, with the same values.
    fn put(&mut self, name: String, weight: Weight) -> Result<(), Malformed> {
        match self.weights.get(&name) {
            Some(earlier) if *earlier != weight => {
                Err(Malformed::new(format!("two different tensors claim the name {name}")))
            }
            Some(_) => Ok(()),
            None => {
                self.weights.insert(name, weight);
                Ok(())
            }
        }
    }
}

/// The reference's name of an initializer that kept it.
fn reference_name(name: &str) -> Option<&str> {
    if name.starts_with("decoder.decoder.") { name.strip_prefix("decoder.") } else { name.strip_prefix("encoder.") }
}

fn without_suffix(name: Option<&str>, suffix: &str) -> Result<String, Malformed> {
    name.and_then(|name| name.strip_suffix(suffix))
        .map(str::to_owned)
        .ok_or_else(|| Malformed::new(format!("{} is not a quantized weight's name", name.unwrap_or("an input"))))
}

/// `attention/query_11` is the twelfth use of `attention/query`.
fn without_number(name: &str) -> &str {
    match name.rsplit_once('_') {
        Some((stem, number)) if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => stem,
        _ => name,
    }
}

/// `/encoder/text_encoder/cnn.0/cnn.0.0/Conv_quant` to `text_encoder.cnn.0.0`: the exporter names each container and
/// then its member, and traced the predictor's parts outside their parent.
fn module_path(node: &str) -> Result<String, Malformed> {
    let parts: Vec<&str> = node.trim_matches('/').split('/').collect();
    let unusual = || Malformed::new(format!("the ONNX node {node} has an unexpected name"));
    let [root, inner @ .., _operator] = parts.as_slice() else { return Err(unusual()) };
    let first = inner.first().ok_or_else(unusual)?;
    let mut path = Vec::new();
    if *root != "decoder" && belongs_to_predictor(first) {
        path.push("predictor");
    }
    for (index, part) in inner.iter().enumerate() {
        let is_container =
            inner.get(index + 1).and_then(|next| next.strip_prefix(part)).is_some_and(|rest| rest.starts_with('.'));
        if !is_container {
            path.push(part);
        }
    }
    Ok(path.join("."))
}

fn belongs_to_predictor(part: &str) -> bool {
    matches!(part, "F0_proj" | "N_proj" | "shared")
        || ["F0.", "N."].iter().any(|prefix| {
            part.strip_prefix(prefix)
                .is_some_and(|rest| rest.len() == 1 && rest.bytes().all(|byte| byte.is_ascii_digit()))
        })
}

fn transposed(weight: &Weight, name: &str) -> Result<Weight, Malformed> {
    let &[rows, columns] = weight.shape.as_slice() else {
        return Err(Malformed::new(format!("{name} is not a matrix: {:?}", weight.shape)));
    };
    let values = weight.bytes.as_chunks::<4>().0;
    let mut bytes = Vec::with_capacity(weight.bytes.len());
    for column in 0..columns {
        for row in 0..rows {
            bytes.extend(values[row * columns + column]);
        }
    }
    Ok(Weight { shape: vec![columns, rows], bytes })
}

/// From ONNX's order of gates (input, output, forget, cell) to PyTorch's (input, forget, cell, output).
fn gates_reordered(weight: Weight) -> Weight {
    let gate = weight.bytes.len() / 4;
    let bytes = [0, 2, 3, 1].iter().flat_map(|&from| &weight.bytes[from * gate..(from + 1) * gate]).copied().collect();
    Weight { shape: weight.shape, bytes }
}

#[cfg(test)]
#[path = "kokoro_tests.rs"]
mod tests;
