//! The codec's tensors under transformers' names, from a file of either layout.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Result as TensorResult, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};

use super::config::STAGES;
use super::{CODEBOOKS, LoadError};
use crate::nn::checkpoint::{self, Weights};

/// A tensor that every codec has.
const TELLTALE: &str = "acoustic_decoder.conv1.weight";
/// So many are looked for: twice what transformers' defaults would make.
const MOST_CODEBOOKS: usize = 32;

/// Opens the weights in `folder`; answers their path, too.
pub(super) fn open(folder: &Path, device: &Device) -> Result<(VarBuilder<'static>, PathBuf), LoadError> {
    let path = checkpoint::path_in(folder);
    let fault = |reason: String| LoadError { path: path.clone(), reason };
    let mut weights = Weights::new(checkpoint::open(&path)?, transformers);
    if !weights.holds(TELLTALE) {
        weights = weights.spelled(boson);
        if !weights.holds(TELLTALE) {
            let boson = boson(TELLTALE).concat();
            return Err(fault(format!("it is no codec of Higgs Audio v2: it holds neither {TELLTALE} nor {boson}")));
        }
    }
    let codebook = |index: usize| weights.holds(&format!("quantizer.quantizers.{index}.codebook.embed"));
    let codebooks = (0..MOST_CODEBOOKS).take_while(|index| codebook(*index)).count();
    if codebooks != CODEBOOKS {
        return Err(fault(format!("it has {codebooks} codebooks, but Higgs Audio v2 speaks through {CODEBOOKS}")));
    }
    Ok((weights.into_builder(device), path))
}

/// Noise under every name.
pub(super) fn random(device: &Device) -> VarBuilder<'static> {
    VarBuilder::from_backend(Box::new(Noise), DType::F32, device.clone())
}

struct Noise;

impl SimpleBackend for Noise {
    fn get(&self, shape: Shape, _: &str, _: Init, dtype: DType, device: &Device) -> TensorResult<Tensor> {
        /// Small enough that no layer's sound grows beyond all bounds.
        const DEVIATION: f32 = 0.02;
        Tensor::randn(0.0, DEVIATION, shape, device)?.to_dtype(dtype)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> TensorResult<Tensor> {
        candle_core::bail!("{name} has no shape to make noise of")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

fn transformers(name: &str) -> Vec<String> {
    vec![name.to_owned()]
}

/// Boson's names.
pub(super) fn boson(name: &str) -> Vec<String> {
    let parts: Vec<&str> = name.split('.').collect();
    let spelled = match parts.as_slice() {
        ["acoustic_encoder", "block", block, rest @ ..] => {
            format!("encoder.block.{}.block.{}", after(block), in_block(rest, ["snake1", "conv1"], 3, 0))
        }
        ["acoustic_decoder", "block", block, rest @ ..] => {
            format!("decoder_2.model.{}.block.{}", after(block), in_block(rest, ["snake1", "conv_t1"], 0, 2))
        }
        ["acoustic_encoder", layer, rest @ ..] => format!("encoder.block.{}.{}", at_end(layer), rest.join(".")),
        ["acoustic_decoder", layer, rest @ ..] => format!("decoder_2.model.{}.{}", at_end(layer), rest.join(".")),
        ["quantizer", "quantizers", index, "codebook", rest @ ..] => {
            format!("quantizer.vq.layers.{index}._codebook.{}", rest.join("."))
        }
        ["quantizer", "quantizers", rest @ ..] => format!("quantizer.vq.layers.{}", rest.join(".")),
        ["fc", rest] => format!("fc_prior.{rest}"),
        ["fc2", rest] => format!("fc_post2.{rest}"),
        ["encoder_semantic", layers @ .., rest] => {
            // Most convolutions there, but not all, are wrapped in a module of their own.
            let plain = name.to_owned();
            let wrapped = format!("encoder_semantic.{}.conv.{rest}", layers.join("."));
            return if layers.last() == Some(&"conv2") { vec![plain, wrapped] } else { vec![wrapped, plain] };
        }
        _ => name.to_owned(),
    };
    vec![spelled]
}

/// The first convolution, the last activation and the last convolution, with the blocks between.
fn at_end(layer: &str) -> usize {
    match layer {
        "conv1" => 0,
        "snake1" => STAGES + 1,
        _ => STAGES + 2,
    }
}

/// Blocks count from 1: the first convolution is 0.
fn after(block: &str) -> usize {
    block.parse::<usize>().map_or(0, |block| block + 1)
}

/// What is in a block: its own activation and convolution from `own_from` on, its residual units from `units_from` on.
fn in_block(path: &[&str], own: [&str; 2], own_from: usize, units_from: usize) -> String {
    const IN_UNIT: [&str; 4] = ["snake1", "conv1", "snake2", "conv2"];
    let index_in = |names: &[&str], name: &str| names.iter().position(|known| *known == name).unwrap_or(0);
    match path {
        [unit, layer, rest] => {
            let unit = index_in(&["res_unit1", "res_unit2", "res_unit3"], unit);
            format!("{}.block.{}.{rest}", unit + units_from, index_in(&IN_UNIT, layer))
        }
        [layer, rest] => format!("{}.{rest}", index_in(&own, layer) + own_from),
        _ => path.join("."),
    }
}
