//! As much of ONNX as reading weights out of a graph takes: nodes (name, operator, inputs) and initializers.
//!
//! ONNX is protobuf. The fields read here: ModelProto.graph 7; GraphProto.node 1, .initializer 5; NodeProto.input 1,
//! .name 3, .op_type 4; TensorProto.dims 1, .data_type 2, .float_data 4, .int32_data 5, .name 8, .raw_data 9.
//! Everything else is skipped. Nothing is copied that lies in the file as it is needed.

use std::{borrow::Cow, collections::HashMap};

use super::Malformed;

/// TensorProto.DataType.
const FLOAT: u64 = 1;
const UINT8: u64 = 2;
const INT8: u64 = 3;

/// A graph's operators and weights, borrowed from the file.
pub(crate) struct Graph<'a> {
    pub nodes: Vec<Node<'a>>,
    /// In the file's order.
    pub initializers: Vec<Tensor<'a>>,
    by_name: HashMap<&'a str, usize>,
}

#[derive(Default)]
pub(crate) struct Node<'a> {
    pub name: &'a str,
    pub operator: &'a str,
    pub inputs: Vec<&'a str>,
}

#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Tensor<'a> {
    pub name: &'a str,
    pub shape: Vec<usize>,
    kind: u64,
    /// Little-endian elements.
    bytes: Cow<'a, [u8]>,
}

impl<'a> Graph<'a> {
    pub(crate) fn read(model: &'a [u8]) -> Result<Self, Malformed> {
        let graph = fields(model)
            .find_map(|field| match field {
                Ok((7, Payload::Bytes(graph))) => Some(Ok(graph)),
                Ok(_) => None,
                Err(error) => Some(Err(error)),
            })
            .ok_or_else(|| Malformed::new("there is no graph in the ONNX file"))??;
        let (mut nodes, mut initializers) = (Vec::new(), Vec::new());
        for field in fields(graph) {
            match field? {
                (1, Payload::Bytes(bytes)) => nodes.push(Node::read(bytes)?),
                (5, Payload::Bytes(bytes)) => initializers.push(Tensor::read(bytes)?),
                _ => {}
            }
        }
        let by_name = initializers.iter().enumerate().map(|(index, tensor)| (tensor.name, index)).collect();
        Ok(Self { nodes, initializers, by_name })
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    pub(crate) fn tensor(&self, name: &str) -> Result<&Tensor<'a>, Malformed> {
        let index = self.by_name.get(name).ok_or_else(|| Malformed::new(format!("the ONNX file has no {name}")))?;
        Ok(&self.initializers[*index])
    }
}

impl<'a> Node<'a> {
    fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut node = Self::default();
        for field in fields(message) {
            match field? {
                (1, Payload::Bytes(bytes)) => node.inputs.push(text(bytes)?),
                (3, Payload::Bytes(bytes)) => node.name = text(bytes)?,
                (4, Payload::Bytes(bytes)) => node.operator = text(bytes)?,
                _ => {}
            }
        }
        Ok(node)
    }

    /// The name of an input; "" where the input is left out.
    pub(crate) fn input(&self, index: usize) -> &'a str {
        self.inputs.get(index).copied().unwrap_or("")
    }
}

impl<'a> Tensor<'a> {
    fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut tensor = Self::default();
        let mut small = Vec::new();
        for field in fields(message) {
            match field? {
                (1, Payload::Number(length)) => tensor.shape.push(length as usize),
                (1, Payload::Bytes(packed)) => tensor.shape.extend(varints(packed)?.iter().map(|&n| n as usize)),
                (2, Payload::Number(kind)) => tensor.kind = kind,
                (4, Payload::Bytes(packed)) => tensor.bytes = Cow::Borrowed(packed),
                (4, Payload::Fixed32(value)) => tensor.bytes.to_mut().extend(value),
                // int32_data carries one small integer per element: their lowest bytes are the elements.
                (5, Payload::Number(value)) => small.push(value as u8),
                (5, Payload::Bytes(packed)) => small.extend(varints(packed)?.iter().map(|&n| n as u8)),
                (8, Payload::Bytes(bytes)) => tensor.name = text(bytes)?,
                (9, Payload::Bytes(bytes)) => tensor.bytes = Cow::Borrowed(bytes),
                _ => {}
            }
        }
        if matches!(tensor.kind, UINT8 | INT8) && !small.is_empty() {
            tensor.bytes = Cow::Owned(small);
        }
        tensor.check()
    }

    fn check(self) -> Result<Self, Malformed> {
        let size = match self.kind {
            FLOAT => 4,
            UINT8 | INT8 => 1,
            _ => return Ok(self),
        };
        let expected = self.shape.iter().try_fold(size, |bytes: usize, &length| bytes.checked_mul(length));
        if expected == Some(self.bytes.len()) {
            return Ok(self);
        }
        let (name, bytes) = (self.name, self.bytes.len());
        Err(Malformed::new(format!("{name} has {bytes} bytes, which does not fit its shape {:?}", self.shape)))
    }

    pub(crate) fn is_float(&self) -> bool {
        self.kind == FLOAT
    }

    /// Its values as numbers, whichever of float, uint8 or int8 they are stored as.
    pub(crate) fn values(&self) -> Result<Vec<f32>, Malformed> {
        match self.kind {
            FLOAT => Ok(self.bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()),
            UINT8 => Ok(self.bytes.iter().map(|&byte| f32::from(byte)).collect()),
            INT8 => Ok(self.bytes.iter().map(|&byte| f32::from(byte.cast_signed())).collect()),
            kind => Err(Malformed::new(format!("{} has the element type {kind}, which is not a weight's", self.name))),
        }
    }
}

enum Payload<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
    Fixed64,
}

/// The fields of a protobuf message, in order; ends after the first error.
fn fields(message: &[u8]) -> impl Iterator<Item = Result<(u64, Payload<'_>), Malformed>> {
    let mut left = message;
    std::iter::from_fn(move || {
        if left.is_empty() {
            return None;
        }
        let field = field(&mut left).ok_or_else(|| Malformed::new("the ONNX file is damaged"));
        if field.is_err() {
            left = &[];
        }
        Some(field)
    })
}

fn field<'a>(left: &mut &'a [u8]) -> Option<(u64, Payload<'a>)> {
    let tag = varint(left)?;
    let payload = match tag & 7 {
        0 => Payload::Number(varint(left)?),
        1 => {
            take(left, 8)?;
            Payload::Fixed64
        }
        2 => {
            let length = varint(left)?;
            Payload::Bytes(take(left, usize::try_from(length).ok()?)?)
        }
        5 => Payload::Fixed32(take(left, 4)?.try_into().ok()?),
        _ => return None,
    };
    Some((tag >> 3, payload))
}

fn take<'a>(left: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = left.split_at_checked(count)?;
    *left = tail;
    Some(head)
}

fn varint(left: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = left.split_first()?;
        *left = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn varints(mut packed: &[u8]) -> Result<Vec<u64>, Malformed> {
    let mut values = Vec::new();
    while !packed.is_empty() {
        values.push(varint(&mut packed).ok_or_else(|| Malformed::new("the ONNX file is damaged"))?);
    }
    Ok(values)
}

fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed::new("the ONNX file has a name that is not text"))
}

#[cfg(test)]
#[path = "onnx_tests.rs"]
mod tests;
