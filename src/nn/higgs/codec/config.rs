//! The codec's dimensions, from either published config.json.
//!
//! Boson's is flat and says nothing of the acoustic networks' widths nor of HuBERT, which its code fixes;
//! transformers' nests both. Where a file is silent the published dimensions hold. What the forward pass fixes (24 kHz,
//! 960 samples a frame, 1024 codes, strides and kernels of the semantic encoder) is checked, not configured, so another
//! codec is refused by the number that differs. How many codebooks there are, the tensors say, not the file:
//! transformers derives it from a list of bit rates that published files disagree about.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{CODEBOOKS, CODES, LoadError, SAMPLE_RATE, SAMPLES_PER_FRAME};

/// Upsampling and downsampling blocks.
pub(super) const STAGES: usize = 5;
/// Samples at 16 kHz per position of HuBERT.
const SAMPLES_PER_POSITION: usize = 320;

/// The dimensions.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Config {
    /// Width of a codebook's entries.
    pub(super) codebook_dim: usize,
    pub(super) acoustic: AcousticConfig,
    pub(super) semantic: HubertConfig,
}

/// DAC's encoder and decoder, as in transformers' `acoustic_model_config`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct AcousticConfig {
    /// Channels after the encoder's first convolution; each block doubles them.
    pub(super) encoder_hidden_size: usize,
    pub(super) downsampling_ratios: Vec<usize>,
    /// Channels after the decoder's first convolution; each block halves them.
    pub(super) decoder_hidden_size: usize,
    pub(super) upsampling_ratios: Vec<usize>,
    /// Channels between encoder and quantizer, and between quantizer and decoder.
    pub(super) hidden_size: usize,
}

impl Default for AcousticConfig {
    fn default() -> Self {
        Self {
            encoder_hidden_size: 64,
            downsampling_ratios: vec![8, 5, 4, 2, 3],
            decoder_hidden_size: 1024,
            upsampling_ratios: vec![8, 5, 4, 2, 3],
            hidden_size: 256,
        }
    }
}

/// HuBERT, as in transformers' `semantic_model_config`; the defaults are the base model's.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct HubertConfig {
    pub(super) hidden_size: usize,
    pub(super) num_hidden_layers: usize,
    pub(super) num_attention_heads: usize,
    pub(super) intermediate_size: usize,
    pub(super) conv_dim: Vec<usize>,
    pub(super) conv_kernel: Vec<usize>,
    pub(super) conv_stride: Vec<usize>,
    pub(super) num_conv_pos_embeddings: usize,
    pub(super) num_conv_pos_embedding_groups: usize,
    pub(super) layer_norm_eps: f64,
    pub(super) conv_bias: bool,
    pub(super) do_stable_layer_norm: bool,
    pub(super) feat_proj_layer_norm: bool,
    pub(super) feat_extract_norm: String,
    pub(super) feat_extract_activation: String,
    pub(super) hidden_act: String,
}

impl Default for HubertConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            conv_dim: vec![512; 7],
            conv_kernel: vec![10, 3, 3, 3, 3, 2, 2],
            conv_stride: vec![5, 2, 2, 2, 2, 2, 2],
            num_conv_pos_embeddings: 128,
            num_conv_pos_embedding_groups: 16,
            layer_norm_eps: 1e-5,
            conv_bias: false,
            do_stable_layer_norm: false,
            feat_proj_layer_norm: true,
            feat_extract_norm: "group".to_owned(),
            feat_extract_activation: "gelu".to_owned(),
            hidden_act: "gelu".to_owned(),
        }
    }
}

impl Config {
    /// The published codec.
    pub(super) fn published() -> Self {
        Self { codebook_dim: 64, acoustic: AcousticConfig::default(), semantic: HubertConfig::default() }
    }

    /// Channels of the quantizer: the acoustic ones and the semantic ones beside each other.
    pub(super) fn hidden_size(&self) -> usize {
        self.acoustic.hidden_size + self.semantic.hidden_size
    }
}

/// What transformers writes, as far as it matters here.
#[derive(Deserialize)]
#[serde(default)]
struct TransformersFile {
    sample_rate: usize,
    semantic_sample_rate: usize,
    downsample_factor: usize,
    codebook_size: usize,
    codebook_dim: usize,
    kernel_size: usize,
    unit_kernel_size: usize,
    channel_ratios: Vec<f64>,
    strides: Vec<usize>,
    block_dilations: Vec<usize>,
    acoustic_model_config: AcousticConfig,
    semantic_model_config: HubertConfig,
}

impl Default for TransformersFile {
    fn default() -> Self {
        Self {
            sample_rate: SAMPLE_RATE,
            semantic_sample_rate: 16_000,
            downsample_factor: SAMPLES_PER_POSITION,
            codebook_size: CODES,
            codebook_dim: 64,
            kernel_size: 3,
            unit_kernel_size: 3,
            channel_ratios: vec![1.0, 1.0],
            strides: vec![1, 1],
            block_dilations: vec![1, 1],
            acoustic_model_config: AcousticConfig::default(),
            semantic_model_config: HubertConfig::default(),
        }
    }
}

/// What boson publishes. The last two it does not: they let a small model of the same layout say what it is.
#[derive(Deserialize)]
#[serde(default)]
struct BosonFile {
    #[serde(rename = "D")]
    hidden_size: usize,
    codebook_dim: usize,
    ratios: Vec<usize>,
    sample_rate: usize,
    bins: usize,
    n_q: usize,
    /// Spelled so upstream.
    semantic_techer: String,
    acoustic_model_config: AcousticConfig,
    semantic_model_config: HubertConfig,
}

impl Default for BosonFile {
    fn default() -> Self {
        let acoustic_model_config = AcousticConfig::default();
        Self {
            hidden_size: acoustic_model_config.hidden_size,
            codebook_dim: 64,
            ratios: acoustic_model_config.upsampling_ratios.clone(),
            sample_rate: SAMPLE_RATE,
            bins: CODES,
            n_q: CODEBOOKS,
            semantic_techer: "hubert_base_general".to_owned(),
            acoustic_model_config,
            semantic_model_config: HubertConfig::default(),
        }
    }
}

/// Reads `folder`/config.json.
pub(super) fn read(folder: &Path) -> Result<Config, LoadError> {
    let path = folder.join("config.json");
    let fault = |reason: String| LoadError { path: path.clone(), reason };
    let bytes = std::fs::read(&path).map_err(|error| fault(error.to_string()))?;
    let file: Value = serde_json::from_slice(&bytes).map_err(|error| fault(error.to_string()))?;
    parse(file).map_err(fault)
}

/// Tells which layout the file is of, and checks it.
pub(super) fn parse(file: Value) -> Result<Config, String> {
    let kind = file.get("model_type").and_then(Value::as_str).map(ToOwned::to_owned);
    let nested = |error: serde_json::Error| error.to_string();
    let config = match kind.as_deref() {
        Some("higgs_audio_v2_tokenizer") => from_transformers(serde_json::from_value(file).map_err(nested)?)?,
        None if file.get("ratios").is_some() && file.get("n_q").is_some() => {
            from_boson(serde_json::from_value(file).map_err(nested)?)?
        }
        kind => {
            let kind = kind.unwrap_or("nothing that is known");
            return Err(format!(
                "it describes {kind}, not the codec of Higgs Audio v2 (bosonai/higgs-audio-v2-tokenizer)"
            ));
        }
    };
    check(&config)?;
    Ok(config)
}

fn from_transformers(file: TransformersFile) -> Result<Config, String> {
    fixed("sample_rate", &file.sample_rate, &SAMPLE_RATE)?;
    fixed("semantic_sample_rate", &file.semantic_sample_rate, &16_000)?;
    fixed("downsample_factor", &file.downsample_factor, &SAMPLES_PER_POSITION)?;
    fixed("codebook_size", &file.codebook_size, &CODES)?;
    fixed("kernel_size", &file.kernel_size, &3)?;
    fixed("unit_kernel_size", &file.unit_kernel_size, &3)?;
    fixed("channel_ratios", &file.channel_ratios, &vec![1.0, 1.0])?;
    fixed("strides", &file.strides, &vec![1, 1])?;
    fixed("block_dilations", &file.block_dilations, &vec![1, 1])?;
    Ok(Config {
        codebook_dim: file.codebook_dim,
        acoustic: file.acoustic_model_config,
        semantic: file.semantic_model_config,
    })
}

fn from_boson(file: BosonFile) -> Result<Config, String> {
    fixed("sample_rate", &file.sample_rate, &SAMPLE_RATE)?;
    fixed("bins", &file.bins, &CODES)?;
    fixed("n_q", &file.n_q, &CODEBOOKS)?;
    fixed("semantic_techer", &file.semantic_techer, &"hubert_base_general".to_owned())?;
    let acoustic = AcousticConfig {
        hidden_size: file.hidden_size,
        downsampling_ratios: file.ratios.clone(),
        upsampling_ratios: file.ratios,
        ..file.acoustic_model_config
    };
    Ok(Config { codebook_dim: file.codebook_dim, acoustic, semantic: file.semantic_model_config })
}

fn check(config: &Config) -> Result<(), String> {
    let Config { codebook_dim, acoustic, semantic } = config;
    for (name, ratios) in
        [("upsampling_ratios", &acoustic.upsampling_ratios), ("downsampling_ratios", &acoustic.downsampling_ratios)]
    {
        let product = ratios.iter().try_fold(1_usize, |product, ratio| product.checked_mul(*ratio));
        if ratios.len() != STAGES || product != Some(SAMPLES_PER_FRAME) {
            return Err(format!("{name} are {ratios:?}; the codec's are {STAGES} of product {SAMPLES_PER_FRAME}"));
        }
    }
    for (name, size) in [
        ("codebook_dim", *codebook_dim),
        ("acoustic hidden_size", acoustic.hidden_size),
        ("encoder_hidden_size", acoustic.encoder_hidden_size),
        ("decoder_hidden_size", acoustic.decoder_hidden_size >> STAGES),
        ("semantic hidden_size", semantic.hidden_size),
        ("intermediate_size", semantic.intermediate_size),
        ("num_conv_pos_embeddings", semantic.num_conv_pos_embeddings),
        ("conv_dim", semantic.conv_dim.iter().copied().min().unwrap_or(0)),
        ("conv_kernel", semantic.conv_kernel.iter().copied().min().unwrap_or(0)),
    ] {
        if !(1..=1 << 16).contains(&size) {
            return Err(format!("{name} cannot be used: it is too small or too large"));
        }
    }
    check_hubert(semantic)
}

fn check_hubert(hubert: &HubertConfig) -> Result<(), String> {
    fixed("conv_bias", &hubert.conv_bias, &false)?;
    fixed("do_stable_layer_norm", &hubert.do_stable_layer_norm, &false)?;
    fixed("feat_proj_layer_norm", &hubert.feat_proj_layer_norm, &true)?;
    fixed("feat_extract_norm", &hubert.feat_extract_norm, &"group".to_owned())?;
    fixed("feat_extract_activation", &hubert.feat_extract_activation, &"gelu".to_owned())?;
    fixed("hidden_act", &hubert.hidden_act, &"gelu".to_owned())?;
    let strides = hubert.conv_stride.iter().try_fold(1_usize, |product, stride| product.checked_mul(*stride));
    fixed("the product of conv_stride", &strides, &Some(SAMPLES_PER_POSITION))?;
    let layers = hubert.conv_dim.len();
    if hubert.conv_kernel.len() != layers || hubert.conv_stride.len() != layers {
        return Err("conv_dim, conv_kernel and conv_stride are not as many".to_owned());
    }
    for (name, parts) in [
        ("num_attention_heads", hubert.num_attention_heads),
        ("num_conv_pos_embedding_groups", hubert.num_conv_pos_embedding_groups),
    ] {
        if parts == 0 || !hubert.hidden_size.is_multiple_of(parts) {
            return Err(format!("{name} is {parts}, which does not divide the hidden_size {}", hubert.hidden_size));
        }
    }
    Ok(())
}

fn fixed<T: PartialEq + std::fmt::Debug>(name: &str, found: &T, wanted: &T) -> Result<(), String> {
    if found == wanted {
        return Ok(());
    }
    Err(format!("{name} is {found:?}, but {wanted:?} in the codec of Higgs Audio v2"))
}
