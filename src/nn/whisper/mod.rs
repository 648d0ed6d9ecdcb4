//! Whisper, every size: mel spectrogram, audio encoder, text decoder.
//!
//! Source: OpenAI's `whisper` (MIT) and the checkpoints of transformers' `WhisperForConditionalGeneration`. Beside the
//! reference: attention without temporaries on the CPU, keys and values of the audio computed once per window, an
//! encoder that hears only as many positions as there is audio, a decoder cache that is written in place, and a batch
//! of windows. What to write next is not decided here: `engine::stt` has the decoding rules.

mod attention;
mod config;
mod decoder;
mod encoder;
mod kernel;
mod linear;
mod mel;

use candle_core::{DType, Device, Result, Tensor, bail};
use candle_nn::VarBuilder;

pub use config::{Config, ConfigError, WINDOW_FRAMES};
pub use decoder::{Attended, DecoderState, Heard};
pub use kernel::log_sum_exp;
pub use mel::{HOP, MelFrontEnd, WINDOW_SAMPLES};

use decoder::Decoder;
use encoder::Encoder;

/// How weights are held on a CPU. Elsewhere they are in half precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// As floats, in which the reference computes.
    Floats,
    /// In 8 bits, activations too, as in whisper.cpp's `q8_0` and `CTranslate2`'s `int8`: three times as fast.
    EightBits,
}

/// Asked between layers whether to go on.
pub type Check<'a> = &'a mut dyn FnMut() -> bool;

/// A loaded checkpoint.
pub struct Whisper {
    config: Config,
    encoder: Encoder,
    decoder: Decoder,
    device: Device,
}

impl Whisper {
    /// Reads a checkpoint with the reference tensor names (`model.encoder.layers.0.self_attn.q_proj.weight`, …).
    ///
    /// # Errors
    /// Names the tensor that is missing or of another shape than the config says.
    pub fn load(config: Config, vb: &VarBuilder, precision: Precision) -> Result<Self> {
        let vb = vb.pp("model").to_dtype(Self::dtype(vb.device()));
        let encoder = Encoder::load(&config, &vb.pp("encoder"), precision)?;
        let decoder = Decoder::load(&config, &vb.pp("decoder"), precision)?;
        Ok(Self { config, encoder, decoder, device: vb.device().clone() })
    }

    /// The type of activations: f32 on a CPU, half precision elsewhere.
    fn dtype(device: &Device) -> DType {
        if device.is_cpu() { DType::F32 } else { DType::F16 }
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Bytes of the weights as they are held on `device`, in 8 bits on a CPU.
    pub fn weight_bytes(config: &Config, device: &Device) -> u64 {
        let Config { d_model: width, encoder_ffn_dim, decoder_ffn_dim, .. } = *config;
        let convolutions = 3 * width * (config.num_mel_bins + width);
        let encoder_layer = 4 * width * width + 2 * width * encoder_ffn_dim;
        let decoder_layer = 8 * width * width + 2 * width * decoder_ffn_dim;
        let layers = config.encoder_layers * encoder_layer + config.decoder_layers * decoder_layer;
        let embedding = config.vocab_size * width;
        // 34 bytes for 32 weights; there as an embedding the tokens are in half precision too.
        let bytes = |weights: usize| if device.is_cpu() { weights * 34 / 32 } else { 2 * weights };
        let as_embedding = if device.is_cpu() { 2 * embedding } else { 0 };
        (bytes(convolutions + layers + embedding) + as_embedding + 4 * config.max_source_positions * width) as u64
    }

    /// Bytes that hearing one whole window and writing `rows` rows takes at most, beside the weights.
    pub fn activation_bytes(config: &Config, device: &Device, rows: usize) -> u64 {
        let bytes = Self::dtype(device).size_in_bytes();
        let positions = config.max_source_positions;
        let encoder = positions * (8 * config.d_model + 2 * config.encoder_ffn_dim);
        let scores = config.encoder_attention_heads * positions * if device.is_cpu() { 256 } else { 2 * positions };
        let heard = config.decoder_layers * 2 * positions * config.d_model;
        let cache = config.decoder_layers * 4 * rows * config.max_target_positions * config.d_model;
        // More positions of a draft are not read at a time.
        let logits = 8 * rows * config.vocab_size;
        ((encoder + scores + heard + cache + logits) * bytes) as u64
    }

    /// Encodes windows of equally many mel frames (an even number, at most 3,000): `[windows, frames, bins]`, row by
    /// row. None where `check` answered no between two layers.
    ///
    /// # Errors
    /// A length of `mel` that is not so, and what candle says.
    pub fn hear(&self, mel: &[f32], windows: usize, frames: usize, check: Check) -> Result<Option<Heard>> {
        match self.encode(mel, windows, frames, check)? {
            Some(encoded) => self.decoder.listen(&encoded, check),
            None => Ok(None),
        }
    }

    /// The encoder's output alone: `[windows, frames / 2, width]`.
    pub(crate) fn encode(&self, mel: &[f32], windows: usize, frames: usize, check: Check) -> Result<Option<Tensor>> {
        let bins = self.config.num_mel_bins;
        if frames == 0 || !frames.is_multiple_of(2) || frames > WINDOW_FRAMES || mel.len() != windows * frames * bins {
            bail!("{} mel values are not {windows} windows of {frames} frames", mel.len());
        }
        let mel = Tensor::from_slice(mel, (windows, frames, bins), &self.device)?;
        self.encoder.forward(&mel, check)
    }

    /// Room to write `rows` rows (a multiple of the windows heard) of up to `capacity` tokens, prompt included.
    pub fn open(&self, rows: usize, capacity: usize) -> Result<DecoderState> {
        self.decoder.open(rows, capacity)
    }

    /// Reads `tokens` (equally many for every row, row after row) and gives the logits that follow those of a row's
    /// new tokens that `wanted` names: row after row, `wanted` of them each.
    ///
    /// # Errors
    /// A token beyond the vocabulary, more tokens than the state has room for, and what candle says.
    pub fn read(
        &self,
        heard: &Heard,
        state: &mut DecoderState,
        tokens: &[u32],
        wanted: &[usize],
    ) -> Result<Vec<Vec<f32>>> {
        self.decoder.read(heard, state, tokens, wanted)
    }

    /// How the alignment heads attend to the audio while one row reads `tokens`, and the logits after the token at `last`,
    /// where one is named. For one window only.
    ///
    /// # Errors
    /// As [`Whisper::read`].
    pub fn attend(&self, heard: &Heard, tokens: &[u32], last: Option<usize>) -> Result<Attended> {
        self.decoder.attend(heard, tokens, &self.config.alignment_heads(), last)
    }
}

#[cfg(test)]
mod tests;
