//! Kokoro-82M, a text-to-speech model of StyleTTS 2's family with an iSTFT generator: phonemes in, 24 kHz speech out.
//!
//! Source: hexgrad/kokoro 0.9.4 (Apache-2.0), model.py `KModel`. Reading order: `config`, `albert` and `text_encoder`
//! (two readings of the phonemes), `prosody` (durations, pitch, energy), `decoder`, `source`, `generator`, `spectrum`.
//! Nothing here knows text or languages: what a phoneme string is, `engine::speech` decides.

mod albert;
mod config;
mod decoder;
mod generator;
mod ops;
mod prosody;
mod source;
mod spectrum;
mod text_encoder;
mod weights;

#[cfg(test)]
mod tests;

use std::path::Path;

use candle_core::{Device, Result, Tensor};
use candle_nn::{Linear, Module, linear};

use albert::Albert;
pub use config::{Config, Vocabulary};
use decoder::DecoderTrunk;
use generator::Generator;
use ops::norm::{Modulation, StyleTable, StyleTableBuilder};
use prosody::ProsodyPredictor;
pub use source::Noise;
use source::Source;
use spectrum::Spectrum;
use text_encoder::TextEncoder;

pub use crate::nn::checkpoint::LoadError;
use crate::nn::checkpoint::{self, reason_of};

/// The dimensions and the alphabet of the model in `dir`, without its weights.
pub fn read_config(dir: &Path) -> std::result::Result<(Config, Vocabulary), LoadError> {
    config::read(dir)
}

/// Bytes of the weights in `dir`, in memory as on disk where they are f32.
pub fn weight_bytes(dir: &Path) -> std::result::Result<u64, LoadError> {
    let path = checkpoint::path_in(dir);
    let bytes = std::fs::metadata(&path).map(|file| file.len());
    bytes.map_err(|error| LoadError { path, reason: error.to_string() })
}

/// What Kokoro makes of one string of phonemes.
#[derive(Clone, Debug)]
pub struct Utterance {
    /// At 24 kHz. Finite, but not bounded.
    pub samples: Vec<f32>,
    /// For each symbol, the boundary symbol before the first and the one after the last included: how many frames of
    /// [`Config::samples_per_frame`] samples it lasts.
    pub durations: Vec<usize>,
}

/// A style row, made ready: every styled norm's gains and shifts.
pub struct Style {
    /// [style_dim], for the predictor.
    prosody: Tensor,
    prosody_modulation: Modulation,
    decoder_modulation: Modulation,
}

/// A minute: far beyond what 510 phonemes take, so only broken weights or styles get there.
const LONGEST_FRAMES: usize = 2400;

/// The model.
pub struct Kokoro {
    config: Config,
    vocabulary: Vocabulary,
    device: Device,
    bert: Albert,
    bert_encoder: Linear,
    predictor: ProsodyPredictor,
    text_encoder: TextEncoder,
    trunk: DecoderTrunk,
    source: Source,
    spectrum: Spectrum,
    generator: Generator,
    prosody_styles: StyleTable,
    decoder_styles: StyleTable,
}

impl Kokoro {
    /// Loads the weights in `dir` in either layout (see `weights`) to `device`, as f32.
    pub fn load(dir: &Path, device: &Device) -> std::result::Result<Self, LoadError> {
        let (config, vocabulary) = config::read(dir)?;
        let (vb, path) = weights::open(dir, device)?;
        Self::build(config, vocabulary, &vb).map_err(|error| LoadError { path, reason: reason_of(&error) })
    }

    fn build(config: Config, vocabulary: Vocabulary, vb: &candle_nn::VarBuilder<'_>) -> Result<Self> {
        let mut prosody_styles = StyleTableBuilder::default();
        let mut decoder_styles = StyleTableBuilder::default();
        let decoder = vb.pp("decoder");
        let vb_generator = decoder.pp("generator");
        let hop = config.samples_per_pitch_frame();
        Ok(Self {
            device: vb.device().clone(),
            bert: Albert::load(&config.plbert, config.n_token, &vb.pp("bert"))?,
            bert_encoder: linear(config.plbert.hidden_size, config.hidden_dim, vb.pp("bert_encoder"))?,
            predictor: ProsodyPredictor::load(&config, &mut prosody_styles, &vb.pp("predictor"))?,
            text_encoder: TextEncoder::load(&config, &vb.pp("text_encoder"))?,
            trunk: DecoderTrunk::load(&config, &mut decoder_styles, &decoder)?,
            source: Source::load(hop, &vb_generator.pp("m_source"))?,
            spectrum: Spectrum::new(config.istftnet.gen_istft_n_fft, config.istftnet.gen_istft_hop_size),
            generator: Generator::load(&config, &mut decoder_styles, &vb_generator)?,
            prosody_styles: prosody_styles.build()?,
            decoder_styles: decoder_styles.build()?,
            config,
            vocabulary,
        })
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// Reads a voice's file, NAME.bin or NAME.pt: its rows, of which the one at n is for n + 1 phonemes.
    pub fn read_voice(&self, path: &Path) -> std::result::Result<Vec<Vec<f32>>, LoadError> {
        weights::read_voice(path, self.config.max_symbols(), 2 * self.config.style_dim)
    }

    /// Makes a row of a voice ready: its first half is the decoder's style, its second the predictor's.
    pub fn style(&self, row: &[f32]) -> Result<Style> {
        let size = self.config.style_dim;
        let row = Tensor::from_slice(row, 2 * size, &self.device)?;
        let prosody = row.narrow(0, size, size)?.contiguous()?;
        Ok(Style {
            prosody_modulation: self.prosody_styles.project(&prosody)?,
            decoder_modulation: self.decoder_styles.project(&row.narrow(0, 0, size)?)?,
            prosody,
        })
    }

    /// Speaks `ids`, the phonemes without boundary symbols: at least one, at most [`Config::max_symbols`], each an id
    /// of the vocabulary. Durations are divided by `speed`. Answers None as soon as `keep_going`, asked between
    /// stages, says no.
    pub fn speak(
        &self,
        ids: &[u32],
        style: &Style,
        speed: f32,
        noise: Noise,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Utterance>> {
        if ids.is_empty() || ids.len() > self.config.max_symbols() {
            candle_core::bail!("{} phonemes; it takes 1 to {}", ids.len(), self.config.max_symbols());
        }
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.config.n_token) {
            candle_core::bail!("the phoneme id {id} is not in the vocabulary");
        }
        let bounded: Vec<u32> = std::iter::once(0).chain(ids.iter().copied()).chain(std::iter::once(0)).collect();
        let ids = Tensor::new(bounded, &self.device)?;
        let encoded = self.bert_encoder.forward(&self.bert.forward(&ids)?)?;
        let encoded = self.predictor.encode(&encoded, &style.prosody, &style.prosody_modulation)?;
        let durations = durations(&self.predictor.duration_logits(&encoded)?, speed)?;
        let alignment = self.alignment(&durations)?;
        let (pitch, energy) =
            self.predictor.curves(&encoded.index_select(&alignment, 0)?, &style.prosody_modulation)?;
        if !keep_going() {
            return Ok(None);
        }
        let text = self.text_encoder.forward(&ids)?.index_select(&alignment, 0)?;
        let features = self.trunk.forward(&text, &pitch, &energy, &style.decoder_modulation)?;
        let source = self.source_spectrum(&self.source.forward(&pitch.flatten_all()?.to_vec1()?, noise))?;
        if !keep_going() {
            return Ok(None);
        }
        let spectrum = self.generator.forward(&features, &source, &style.decoder_modulation, keep_going)?;
        let Some(spectrum) = spectrum else { return Ok(None) };
        let samples = self.spectrum.synthesise(&spectrum.flatten_all()?.to_vec1()?);
        if samples.iter().any(|sample| !sample.is_finite()) {
            candle_core::bail!("the audio is not finite");
        }
        Ok(Some(Utterance { samples, durations }))
    }

    /// For each frame, the index of its symbol.
    fn alignment(&self, durations: &[usize]) -> Result<Tensor> {
        let frames: usize = durations.iter().sum();
        if frames > LONGEST_FRAMES {
            candle_core::bail!("the durations add up to {frames} frames; the weights or the voice are broken");
        }
        let symbols: Vec<u32> = (0_u32..).zip(durations).flat_map(|(symbol, length)| vec![symbol; *length]).collect();
        Tensor::new(symbols, &self.device)
    }

    fn source_spectrum(&self, samples: &[f32]) -> Result<Tensor> {
        let channels = self.config.istftnet.gen_istft_n_fft + 2;
        let spectrum = self.spectrum.analyse(samples);
        let frames = spectrum.len() / channels;
        Tensor::from_vec(spectrum, (frames, channels), &self.device)
    }
}

/// Frames per symbol: the expected number of classes that hold on, at least one.
fn durations(logits: &Tensor, speed: f32) -> Result<Vec<usize>> {
    let expected = candle_nn::ops::sigmoid(logits)?.sum(1)?.affine(1.0 / f64::from(speed), 0.0)?;
    Ok(expected.to_vec1::<f32>()?.iter().map(|frames| frames.round_ties_even().max(1.0) as usize).collect())
}
