//! The audio codec of Higgs Audio v2: eight codes of ten bits every 40 ms, and the 24 kHz sound that they stand for.
//!
//! Source: bosonai/higgs-audio-v2-tokenizer; transformers 5.23's `HiggsAudioV2TokenizerModel` is what the tests hold
//! it against. [`Decoder`] (codes to sound: residual vector quantizer, then DAC's decoder) is what speaking takes,
//! 0.09 GB; [`Encoder`] (sound to codes: DAC's encoder beside HuBERT) is what cloning a voice takes, 0.7 GB. They load
//! apart or, as [`Codec`], together, all in f32. Reading order: `config`, `weights`, `units`, `decoder`, `window`,
//! `stream`; `resample`, `hubert`, `encoder`.

mod config;
mod decoder;
mod encoder;
mod hubert;
mod resample;
mod stream;
mod units;
mod weights;
mod window;

#[cfg(test)]
mod tests;

use std::path::Path;

use candle_core::Device;

pub use decoder::Decoder;
pub use encoder::Encoder;
pub use stream::{Chunking, DecoderStream};

pub use crate::nn::checkpoint::LoadError;

/// Codes per frame, one of each codebook.
pub const CODEBOOKS: usize = 8;
/// Entries of a codebook: a code is below this.
pub const CODES: usize = 1024;
/// Of the sound, in hertz.
pub const SAMPLE_RATE: usize = 24_000;
/// The sound of one frame: 40 ms.
pub const SAMPLES_PER_FRAME: usize = 960;

/// One code of each codebook, the coarsest first.
pub type Frame = [u32; CODEBOOKS];

/// Why sound or codes could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("the code {code} in codebook {codebook} of frame {frame} is none of the codec's {CODES}")]
    Code { frame: usize, codebook: usize, code: u32 },
    #[error("there is no audio to encode")]
    Empty,
    #[error("the audio is not finite at sample {sample}")]
    NotFinite { sample: usize },
    #[error("the decoded audio is not finite: the codec's weights are broken")]
    Broken,
    #[error("the codec failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

/// Both directions.
pub struct Codec {
    pub decoder: Decoder,
    pub encoder: Encoder,
}

impl Codec {
    /// Loads the codec in `folder`, in either published layout: config.json with boson's model.pth or with
    /// transformers' model.safetensors. Which layout the config and the tensors' names have is found out, each by
    /// itself.
    pub fn load(folder: &Path, device: &Device) -> Result<Self, LoadError> {
        Ok(Self { decoder: Decoder::load(folder, device)?, encoder: Encoder::load(folder, device)? })
    }

    /// As [`Decoder::decode`].
    pub fn decode(&self, frames: &[Frame]) -> Result<Vec<f32>, CodecError> {
        self.decoder.decode(frames)
    }

    /// As [`Encoder::encode`].
    pub fn encode(&self, samples: &[f32]) -> Result<Vec<Frame>, CodecError> {
        self.encoder.encode(samples)
    }
}

/// Refuses codes that no codebook has: an index out of range would poison a CUDA context.
fn check_codes(frames: &[Frame]) -> Result<(), CodecError> {
    for (frame, codes) in frames.iter().enumerate() {
        if let Some(codebook) = codes.iter().position(|code| *code as usize >= CODES) {
            return Err(CodecError::Code { frame, codebook, code: codes[codebook] });
        }
    }
    Ok(())
}
