//! CTranslate2's Whisper (faster-whisper) to the Hugging Face layout.
//!
//! CTranslate2's binary, version 6, little-endian: u32 version, string specification, u32 revision, u32 count, then per
//! variable: string name, u8 rank, u32 dimensions, u8 type (0 f32, 1 i8, 2 i16, 3 i32, 4 f16), u32 bytes, data. A
//! string is a u16 length and that many bytes, the last of them NUL. In a self-attention, `linear_0` holds q, k and v
//! stacked; in a cross-attention `linear_0` is q and `linear_1` k and v stacked. Whisper's key projections have no
//! bias: the stored one must be zero.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use safetensors::{Dtype, tensor::View};
use serde_json::{Value, json};

use super::{Malformed, write_safetensors};

/// The width of one attention head, the same in every Whisper.
const HEAD_WIDTH: usize = 64;
const VERSION: u32 = 6;

/// Reads `model.bin` and `config.json` in `source`, writes `model.safetensors` and `config.json` in `target`.
pub(crate) fn convert_whisper(source: &Path, target: &Path) -> Result<(), Malformed> {
    let read = |name: &str| {
        fs::read(source.join(name)).map_err(|error| Malformed::new(format!("{}: {error}", source.join(name).display())))
    };
    let bytes = read("model.bin")?;
    let settings: Value = serde_json::from_slice(&read("config.json")?)
        .map_err(|error| Malformed::new(format!("config.json: {error}")))?;
    let variables = read_variables(&bytes)?;
    let tensors = Renaming { variables, out: Vec::new() }.whisper()?;
    let config = config(&tensors, &settings)?;
    write_safetensors(tensors, &target.join("model.safetensors"))?;
    fs::write(target.join("config.json"), config)
        .map_err(|error| Malformed::new(format!("{}: {error}", target.join("config.json").display())))
}

/// A tensor whose values lie in the file as they are.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Variable<'a> {
    shape: Vec<usize>,
    dtype: Dtype,
    data: &'a [u8],
}

impl View for Variable<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.data)
    }
    fn data_len(&self) -> usize {
        self.data.len()
    }
}

struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) =
            self.left.split_at_checked(count).ok_or_else(|| Malformed::new("model.bin ends too early"))?;
        self.left = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.bytes(N)?.try_into().map_err(|_| Malformed::new("model.bin ends too early"))
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn string(&mut self) -> Result<&'a str, Malformed> {
        let length = u16::from_le_bytes(self.array()?);
        let text = std::str::from_utf8(self.bytes(length.into())?)
            .map_err(|_| Malformed::new("model.bin has a name that is not text"))?;
        Ok(text.trim_end_matches('\0'))
    }
}

fn read_variables(bytes: &[u8]) -> Result<BTreeMap<&str, Variable<'_>>, Malformed> {
    let mut reader = Reader { left: bytes };
    let version = reader.u32()?;
    if version != VERSION {
        return Err(Malformed::new(format!("model.bin has CTranslate2 version {version}, {VERSION} is understood")));
    }
    let _specification = reader.string()?;
    let _revision = reader.u32()?;
    let count = reader.u32()?;
    let mut variables = BTreeMap::new();
    for _ in 0..count {
        let name = reader.string()?;
        let [rank] = reader.array()?;
        let shape = (0..rank).map(|_| Ok(reader.u32()? as usize)).collect::<Result<Vec<_>, Malformed>>()?;
        let [code] = reader.array()?;
        let dtype = match code {
            0 => Dtype::F32,
            1 => Dtype::I8,
            2 => Dtype::I16,
            3 => Dtype::I32,
            4 => Dtype::F16,
            _ => return Err(Malformed::new(format!("{name} has the unknown type {code}"))),
        };
        let length = reader.u32()? as usize;
        let expected = shape.iter().try_fold(dtype.bitsize() / 8, |size, &n| size.checked_mul(n));
        if expected != Some(length) {
            return Err(Malformed::new(format!("{name} has {length} bytes, which does not fit its shape {shape:?}")));
        }
        variables.insert(name, Variable { shape, dtype, data: reader.bytes(length)? });
    }
    Ok(variables)
}

struct Renaming<'a> {
    variables: BTreeMap<&'a str, Variable<'a>>,
    out: Vec<(String, Variable<'a>)>,
}

impl<'a> Renaming<'a> {
    fn whisper(mut self) -> Result<Vec<(String, Variable<'a>)>, Malformed> {
        for side in ["encoder", "decoder"] {
            for layer in self.layers(side) {
                self.layer(side, layer)?;
            }
            self.norm(&format!("{side}/layer_norm"), &format!("model.{side}.layer_norm"))?;
            let positions = self.take(&format!("{side}/position_encodings/encodings"))?;
            self.out.push((format!("model.{side}.embed_positions.weight"), positions));
        }
        for conv in ["conv1", "conv2"] {
            self.linear(&format!("encoder/{conv}"), &format!("model.encoder.{conv}"))?;
        }
        let embeddings = self.take("decoder/embeddings/weight")?;
        self.out.push(("model.decoder.embed_tokens.weight".into(), embeddings));
        Ok(self.out)
    }

    fn layer(&mut self, side: &str, layer: usize) -> Result<(), Malformed> {
        let from = format!("{side}/layer_{layer}");
        let to = format!("model.{side}.layers.{layer}");
        self.split(&format!("{from}/self_attention/linear_0"), &format!("{to}.self_attn"), &["q", "k", "v"])?;
        self.linear(&format!("{from}/self_attention/linear_1"), &format!("{to}.self_attn.out_proj"))?;
        self.norm(&format!("{from}/self_attention/layer_norm"), &format!("{to}.self_attn_layer_norm"))?;
        if side == "decoder" {
            self.linear(&format!("{from}/attention/linear_0"), &format!("{to}.encoder_attn.q_proj"))?;
            self.split(&format!("{from}/attention/linear_1"), &format!("{to}.encoder_attn"), &["k", "v"])?;
            self.linear(&format!("{from}/attention/linear_2"), &format!("{to}.encoder_attn.out_proj"))?;
            self.norm(&format!("{from}/attention/layer_norm"), &format!("{to}.encoder_attn_layer_norm"))?;
        }
        self.linear(&format!("{from}/ffn/linear_0"), &format!("{to}.fc1"))?;
        self.linear(&format!("{from}/ffn/linear_1"), &format!("{to}.fc2"))?;
        self.norm(&format!("{from}/ffn/layer_norm"), &format!("{to}.final_layer_norm"))
    }

    fn layers(&self, side: &str) -> BTreeSet<usize> {
        let number = |name: &str| -> Option<usize> {
            name.strip_prefix(side)?.strip_prefix("/layer_")?.split('/').next()?.parse().ok()
        };
        self.variables.keys().filter_map(|name| number(name)).collect()
    }

    fn take(&self, name: &str) -> Result<Variable<'a>, Malformed> {
        let variable = self.variables.get(name).ok_or_else(|| Malformed::new(format!("model.bin has no {name}")))?;
        match variable.dtype {
            Dtype::F32 | Dtype::F16 => Ok(variable.clone()),
            other => Err(Malformed::new(format!("{name} is stored as {other:?}; only f32 and f16 are understood"))),
        }
    }

    fn pair(&mut self, from: &[String; 2], to: &str) -> Result<(), Malformed> {
        for (from, part) in from.iter().zip(["weight", "bias"]) {
            let variable = self.take(from)?;
            self.out.push((format!("{to}.{part}"), variable));
        }
        Ok(())
    }

    fn norm(&mut self, from: &str, to: &str) -> Result<(), Malformed> {
        self.pair(&[format!("{from}/gamma"), format!("{from}/beta")], to)
    }

    fn linear(&mut self, from: &str, to: &str) -> Result<(), Malformed> {
        self.pair(&[format!("{from}/weight"), format!("{from}/bias")], to)
    }

    /// Cuts stacked projections apart along their first axis.
    fn split(&mut self, from: &str, to: &str, names: &[&str]) -> Result<(), Malformed> {
        let weights = cut(&self.take(&format!("{from}/weight"))?, names.len(), from)?;
        let biases = cut(&self.take(&format!("{from}/bias"))?, names.len(), from)?;
        for ((name, weight), bias) in names.iter().zip(weights).zip(biases) {
            self.out.push((format!("{to}.{name}_proj.weight"), weight));
            if *name != "k" {
                self.out.push((format!("{to}.{name}_proj.bias"), bias));
            } else if bias.data.iter().any(|&byte| byte != 0) {
                return Err(Malformed::new(format!("{from} has a key bias, which Whisper has not")));
            }
        }
        Ok(())
    }
}

fn cut<'a>(variable: &Variable<'a>, parts: usize, name: &str) -> Result<Vec<Variable<'a>>, Malformed> {
    let Some((&rows, rest)) = variable.shape.split_first().filter(|(rows, _)| **rows > 0 && **rows % parts == 0) else {
        return Err(Malformed::new(format!("{name} has shape {:?}, not a stack of {parts}", variable.shape)));
    };
    let shape: Vec<usize> = std::iter::once(rows / parts).chain(rest.iter().copied()).collect();
    let piece = |data| Variable { shape: shape.clone(), dtype: variable.dtype, data };
    // A stack of empty rows has no bytes to cut.
    let size = (variable.data.len() / parts).max(1);
    Ok(variable.data.chunks_exact(size).map(piece).collect())
}

/// The configuration in transformers' words, from the shapes and from what CTranslate2 kept of the original.
fn config(tensors: &[(String, Variable<'_>)], settings: &Value) -> Result<Vec<u8>, Malformed> {
    let axis = |name: &str, axis: usize| {
        let found = tensors.iter().find(|(other, _)| other == name);
        found
            .and_then(|(_, variable)| variable.shape.get(axis).copied())
            .filter(|&length| length > 0)
            .ok_or_else(|| Malformed::new(format!("{name} has no axis {axis}")))
    };
    let layers = |side: &str| {
        let norm = format!("model.{side}.layers.");
        tensors.iter().filter(|(name, _)| name.starts_with(&norm) && name.ends_with(".final_layer_norm.bias")).count()
    };
    let width = axis("model.decoder.embed_tokens.weight", 1)?;
    let heads = width / HEAD_WIDTH;
    let list = |key: &str| settings.get(key).cloned().unwrap_or_else(|| json!([]));
    let config = json!({
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "vocab_size": axis("model.decoder.embed_tokens.weight", 0)?,
        "d_model": width,
        "encoder_layers": layers("encoder"),
        "decoder_layers": layers("decoder"),
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": 4 * width,
        "decoder_ffn_dim": 4 * width,
        "num_mel_bins": axis("model.encoder.conv1.weight", 1)?,
        "max_source_positions": axis("model.encoder.embed_positions.weight", 0)?,
        "max_target_positions": axis("model.decoder.embed_positions.weight", 0)?,
        "suppress_tokens": list("suppress_ids"),
        "begin_suppress_tokens": list("suppress_ids_begin"),
        "alignment_heads": settings.get("alignment_heads").cloned().unwrap_or(Value::Null),
    });
    let mut text = Vec::new();
    let layout = serde_json::ser::PrettyFormatter::with_indent(b" ");
    serde::Serialize::serialize(&config, &mut serde_json::Serializer::with_formatter(&mut text, layout))
        .map_err(|error| Malformed::new(error.to_string()))?;
    Ok(text)
}

#[cfg(test)]
#[path = "ctranslate2_tests.rs"]
mod tests;
