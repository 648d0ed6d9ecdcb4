//! A checkpoint's `config.json`, by its upstream names, and the limits within which this code runs it.

use serde::Deserialize;

/// Mel frames that the encoder hears at most: 30 s at 10 ms.
pub const WINDOW_FRAMES: usize = 3_000;

/// The sizes of one checkpoint. Every size of the family fits: only the numbers differ.
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    pub vocab_size: usize,
    pub d_model: usize,
    pub encoder_layers: usize,
    pub decoder_layers: usize,
    pub encoder_attention_heads: usize,
    pub decoder_attention_heads: usize,
    pub encoder_ffn_dim: usize,
    pub decoder_ffn_dim: usize,
    /// 80; 128 from large-v3 on.
    pub num_mel_bins: usize,
    /// Encoder positions of a whole window: half its mel frames.
    pub max_source_positions: usize,
    /// Tokens that the decoder can hold, its prompt included.
    pub max_target_positions: usize,
    /// Tokens never written (symbols that are not speech). Negative numbers stand for none.
    #[serde(default)]
    pub suppress_tokens: Option<Vec<i64>>,
    /// Tokens never written first.
    #[serde(default)]
    pub begin_suppress_tokens: Option<Vec<i64>>,
    /// Decoder layer and head of those cross-attention heads that follow the words in time.
    #[serde(default)]
    pub alignment_heads: Option<Vec<[usize; 2]>>,
}

/// The part of `generation_config.json` that concerns writing.
#[derive(Deserialize)]
struct Generation {
    #[serde(default)]
    suppress_tokens: Option<Vec<i64>>,
    #[serde(default)]
    begin_suppress_tokens: Option<Vec<i64>>,
    #[serde(default)]
    alignment_heads: Option<Vec<[usize; 2]>>,
}

/// Why a `config.json` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("it is not the JSON of a Whisper model: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{field} is {value}, and it must be {expected}")]
    Value { field: &'static str, value: usize, expected: String },
}

impl Config {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// Names the field that is missing or that no Whisper checkpoint has with such a value.
    pub fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        let config: Self = serde_json::from_slice(json)?;
        config.check()?;
        Ok(config)
    }

    /// Takes over what `generation_config.json`, where newer checkpoints keep it, says about writing.
    ///
    /// # Errors
    /// That it is not such a file.
    pub fn take_over(&mut self, json: &[u8]) -> Result<(), ConfigError> {
        let generation: Generation = serde_json::from_slice(json)?;
        self.suppress_tokens = generation.suppress_tokens.or(self.suppress_tokens.take());
        self.begin_suppress_tokens = generation.begin_suppress_tokens.or(self.begin_suppress_tokens.take());
        self.alignment_heads = generation.alignment_heads.or(self.alignment_heads.take());
        Ok(())
    }

    fn check(&self) -> Result<(), ConfigError> {
        let within = |field, value, least: usize, most: usize| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(ConfigError::Value { field, value, expected: format!("{least} to {most}") })
            }
        };
        within("vocab_size", self.vocab_size, 1, 1 << 20)?;
        within("d_model", self.d_model, 2, 1 << 14)?;
        within("encoder_layers", self.encoder_layers, 1, 256)?;
        within("decoder_layers", self.decoder_layers, 1, 256)?;
        within("encoder_ffn_dim", self.encoder_ffn_dim, 1, 1 << 16)?;
        within("decoder_ffn_dim", self.decoder_ffn_dim, 1, 1 << 16)?;
        within("max_source_positions", self.max_source_positions, WINDOW_FRAMES / 2, WINDOW_FRAMES / 2)?;
        within("max_target_positions", self.max_target_positions, 16, 1 << 14)?;
        for (field, heads) in [
            ("encoder_attention_heads", self.encoder_attention_heads),
            ("decoder_attention_heads", self.decoder_attention_heads),
        ] {
            if heads == 0 || !self.d_model.is_multiple_of(heads) {
                let expected = format!("a divisor of d_model, {}", self.d_model);
                return Err(ConfigError::Value { field, value: heads, expected });
            }
        }
        if self.num_mel_bins != 80 && self.num_mel_bins != 128 {
            let expected = "80 or 128".to_owned();
            return Err(ConfigError::Value { field: "num_mel_bins", value: self.num_mel_bins, expected });
        }
        Ok(())
    }

    /// The heads to align words by: the checkpoint's own, or every head of the upper half of the decoder.
    pub fn alignment_heads(&self) -> Vec<[usize; 2]> {
        let known = |head: &[usize; 2]| head[0] < self.decoder_layers && head[1] < self.decoder_attention_heads;
        let named: Vec<_> = self.alignment_heads.iter().flatten().copied().filter(known).collect();
        if !named.is_empty() {
            return named;
        }
        let upper = self.decoder_layers / 2..self.decoder_layers;
        upper.flat_map(|layer| (0..self.decoder_attention_heads).map(move |head| [layer, head])).collect()
    }
}
