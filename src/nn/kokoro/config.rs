//! Kokoro's dimensions and its alphabet, as upstream's config.json has them.
//!
//! The package mirror carries no config.json: there the published v1.0 dimensions hold, and the alphabet is its
//! vocab.json. Every number is checked before a layer is built from it.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

use super::LoadError;

/// The part of config.json that the forward pass needs. Defaults are Kokoro v1.0's.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Symbols in the embedding tables.
    pub n_token: usize,
    pub hidden_dim: usize,
    /// Half of a style row: its first half drives the decoder, its second the predictor.
    pub style_dim: usize,
    pub n_layer: usize,
    /// Classes of the duration head.
    pub max_dur: usize,
    pub text_encoder_kernel_size: usize,
    pub plbert: AlbertConfig,
    pub istftnet: GeneratorConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            n_token: 178,
            hidden_dim: 512,
            style_dim: 128,
            n_layer: 3,
            max_dur: 50,
            text_encoder_kernel_size: 5,
            plbert: AlbertConfig::default(),
            istftnet: GeneratorConfig::default(),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct AlbertConfig {
    pub hidden_size: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub max_position_embeddings: usize,
    pub num_hidden_layers: usize,
    pub embedding_size: usize,
}

impl Default for AlbertConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            num_attention_heads: 12,
            intermediate_size: 2048,
            max_position_embeddings: 512,
            num_hidden_layers: 12,
            embedding_size: 128,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct GeneratorConfig {
    pub upsample_rates: Vec<usize>,
    pub upsample_kernel_sizes: Vec<usize>,
    pub upsample_initial_channel: usize,
    pub resblock_kernel_sizes: Vec<usize>,
    pub resblock_dilation_sizes: Vec<Vec<usize>>,
    pub gen_istft_n_fft: usize,
    pub gen_istft_hop_size: usize,
}

impl Default for GeneratorConfig {
    fn default() -> Self {
        Self {
            upsample_rates: vec![10, 6],
            upsample_kernel_sizes: vec![20, 12],
            upsample_initial_channel: 512,
            resblock_kernel_sizes: vec![3, 7, 11],
            resblock_dilation_sizes: vec![vec![1, 3, 5]; 3],
            gen_istft_n_fft: 20,
            gen_istft_hop_size: 5,
        }
    }
}

impl Config {
    /// Samples of audio per frame of the pitch curve (80 Hz): 300.
    pub fn samples_per_pitch_frame(&self) -> usize {
        self.istftnet.upsample_rates.iter().product::<usize>() * self.istftnet.gen_istft_hop_size
    }

    /// Samples of audio per unit of duration (25 ms): 600.
    pub fn samples_per_frame(&self) -> usize {
        2 * self.samples_per_pitch_frame()
    }

    /// Symbols that one utterance may have, the two boundary symbols apart.
    pub fn max_symbols(&self) -> usize {
        self.plbert.max_position_embeddings - 2
    }

    /// Bytes of a voice's NAME.bin: a row of styles, as f32, for each number of symbols.
    pub fn voice_bytes(&self) -> u64 {
        (self.max_symbols() * 2 * self.style_dim * size_of::<f32>()) as u64
    }

    fn check(&self) -> Result<(), String> {
        let albert = &self.plbert;
        let generator = &self.istftnet;
        let sizes = [
            ("n_token", self.n_token, 1..=65_536),
            ("hidden_dim", self.hidden_dim, 2..=8192),
            ("style_dim", self.style_dim, 1..=8192),
            ("n_layer", self.n_layer, 1..=64),
            ("max_dur", self.max_dur, 1..=1024),
            ("text_encoder_kernel_size", self.text_encoder_kernel_size, 1..=63),
            ("plbert.hidden_size", albert.hidden_size, 1..=8192),
            ("plbert.num_attention_heads", albert.num_attention_heads, 1..=128),
            ("plbert.intermediate_size", albert.intermediate_size, 1..=65_536),
            ("plbert.max_position_embeddings", albert.max_position_embeddings, 3..=8192),
            ("plbert.num_hidden_layers", albert.num_hidden_layers, 1..=128),
            ("plbert.embedding_size", albert.embedding_size, 1..=8192),
            ("istftnet.upsample_initial_channel", generator.upsample_initial_channel, 4..=8192),
            ("istftnet.gen_istft_n_fft", generator.gen_istft_n_fft, 4..=4096),
            ("istftnet.gen_istft_hop_size", generator.gen_istft_hop_size, 1..=4096),
        ];
        for (name, value, range) in sizes {
            if !range.contains(&value) {
                return Err(format!("{name} is {value}"));
            }
        }
        let stages = generator.upsample_rates.len();
        let doubled = |(rate, kernel): (&usize, &usize)| (1..=64).contains(rate) && *kernel == 2 * rate;
        let upsampling = generator.upsample_rates.iter().zip(&generator.upsample_kernel_sizes);
        let odd = |size: &usize| (1..=63).contains(size) && size % 2 == 1;
        let wrong = [
            (!self.hidden_dim.is_multiple_of(2), "hidden_dim is odd"),
            (!albert.hidden_size.is_multiple_of(albert.num_attention_heads), "plbert: heads do not divide hidden_size"),
            (stages == 0 || stages > 4 || generator.upsample_initial_channel >> stages == 0, "istftnet: wrong stages"),
            (generator.upsample_kernel_sizes.len() != stages, "istftnet: upsample_kernel_sizes differs in length"),
            (!upsampling.into_iter().all(doubled), "istftnet: an upsample kernel is not twice its rate"),
            (generator.resblock_kernel_sizes.is_empty(), "istftnet: no residual blocks"),
            (!generator.resblock_kernel_sizes.iter().all(odd), "istftnet: an even resblock kernel"),
            (
                generator.resblock_dilation_sizes.len() != generator.resblock_kernel_sizes.len()
                    || generator.resblock_dilation_sizes.iter().any(|dilations| dilations.len() != 3)
                    || generator.resblock_dilation_sizes.iter().flatten().any(|dilation| !(1..=64).contains(dilation)),
                "istftnet: wrong resblock_dilation_sizes",
            ),
            (generator.gen_istft_n_fft != 4 * generator.gen_istft_hop_size, "istftnet: n_fft is not four hops"),
        ];
        wrong.iter().find(|(is_wrong, _)| *is_wrong).map_or(Ok(()), |(_, what)| Err((*what).to_owned()))
    }
}

/// The model's alphabet: one id for each character of a phoneme string.
#[derive(Clone, Debug)]
pub struct Vocabulary(HashMap<char, u32>);

impl Vocabulary {
    /// None where the model does not know the symbol: upstream drops such symbols.
    pub fn id(&self, symbol: char) -> Option<u32> {
        self.0.get(&symbol).copied()
    }
}

/// Reads config.json, or where there is none (the package mirror) vocab.json.
pub(super) fn read(dir: &Path) -> Result<(Config, Vocabulary), LoadError> {
    #[derive(Deserialize)]
    struct Alphabet {
        vocab: HashMap<String, u32>,
    }
    let official = dir.join("config.json");
    let path = if official.is_file() { official.clone() } else { dir.join("vocab.json") };
    let fault = |reason: String| LoadError { path: path.clone(), reason };
    let text = std::fs::read_to_string(&path).map_err(|error| fault(error.to_string()))?;
    let alphabet: Alphabet = serde_json::from_str(&text).map_err(|error| fault(error.to_string()))?;
    let config: Config = if path == official {
        serde_json::from_str(&text).map_err(|error| fault(error.to_string()))?
    } else {
        Config::default()
    };
    config.check().map_err(fault)?;
    let mut symbols = HashMap::new();
    for (symbol, id) in alphabet.vocab {
        let mut characters = symbol.chars();
        if let (Some(character), None) = (characters.next(), characters.next())
            && (id as usize) < config.n_token
        {
            symbols.insert(character, id);
        } else {
            return Err(fault(format!("the vocabulary's entry \"{symbol}\": {id} is not one symbol and a valid id")));
        }
    }
    Ok((config, Vocabulary(symbols)))
}
