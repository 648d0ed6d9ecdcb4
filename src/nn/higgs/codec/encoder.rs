//! Sound to codes, for cloning: what DAC's encoder hears and what HuBERT understands, beside each other, quantized.
//!
//! A recording is padded with silence to whole frames, so that both branches give one vector per frame; the reference
//! implementations each mend other lengths in their own way. The quantizer's eight codebooks each describe what those
//! before left over.

use std::path::Path;

use candle_core::{Device, Result, Tensor};
use candle_nn::{Linear, Module, VarBuilder, linear};

use super::config::{self, AcousticConfig, Config};
use super::hubert::Hubert;
use super::units::ResidualUnits;
use super::{CODEBOOKS, CODES, CodecError, Frame, LoadError, SAMPLES_PER_FRAME, resample, weights};
use crate::nn::checkpoint::reason_of;
use crate::nn::frames::conv::{Before, Conv1d, Snake, Walk};

/// Silence around the recording before HuBERT, in samples at 16 kHz: half of what one position spans.
const SEMANTIC_PADDING: usize = 160;
/// HuBERT's positions per frame.
const POSITIONS_PER_FRAME: usize = 2;
/// Blocks of the semantic encoder, and residual units in each.
const SEMANTIC_BLOCKS: usize = 2;

/// The encoder.
pub struct Encoder {
    pub(super) acoustic: AcousticEncoder,
    hubert: Hubert,
    pub(super) semantic: SemanticEncoder,
    fc: Linear,
    quantizers: Vec<Quantizer>,
    device: Device,
}

impl Encoder {
    /// Loads the encoder of the codec in `folder`; the decoder's weights are not read. See [`super::Codec::load`].
    pub fn load(folder: &Path, device: &Device) -> std::result::Result<Self, LoadError> {
        let config = config::read(folder)?;
        let (vb, path) = weights::open(folder, device)?;
        Self::build(&config, &vb).map_err(|error| LoadError { path, reason: reason_of(&error) })
    }

    pub(super) fn build(config: &Config, vb: &VarBuilder<'_>) -> Result<Self> {
        let hidden = config.hidden_size();
        let quantizers = vb.pp("quantizer.quantizers");
        let quantizer = |index| Quantizer::load(hidden, config.codebook_dim, &quantizers.pp(index));
        Ok(Self {
            acoustic: AcousticEncoder::load(&config.acoustic, &vb.pp("acoustic_encoder"))?,
            hubert: Hubert::load(&config.semantic, &vb.pp("semantic_model"))?,
            semantic: SemanticEncoder::load(config.semantic.hidden_size, &vb.pp("encoder_semantic"))?,
            fc: linear(hidden, hidden, vb.pp("fc"))?,
            quantizers: (0..CODEBOOKS).map(quantizer).collect::<Result<_>>()?,
            device: vb.device().clone(),
        })
    }

    /// The codes of `samples`, mono at 24 kHz: a frame for every 960, the last one filled up with silence.
    pub fn encode(&self, samples: &[f32]) -> std::result::Result<Vec<Frame>, CodecError> {
        if samples.is_empty() {
            return Err(CodecError::Empty);
        }
        if let Some(sample) = samples.iter().position(|sample| !sample.is_finite()) {
            return Err(CodecError::NotFinite { sample });
        }
        let mut samples = samples.to_vec();
        samples.resize(samples.len().next_multiple_of(SAMPLES_PER_FRAME), 0.0);
        let semantic = self.semantic.forward(&self.understand(&samples)?)?;
        let frames = samples.len() / SAMPLES_PER_FRAME;
        let samples = Tensor::from_vec(samples, (frames * SAMPLES_PER_FRAME, 1), &self.device)?;
        let acoustic = self.acoustic.forward(&samples)?;
        Ok(self.quantize(self.hear(&acoustic, &semantic)?)?)
    }

    /// Both branches, [frames, …], to [frames, hidden].
    pub(super) fn hear(&self, acoustic: &Tensor, semantic: &Tensor) -> Result<Tensor> {
        self.fc.forward(&Tensor::cat(&[acoustic, semantic], 1)?)
    }

    /// Whole frames of samples to [frames, semantic hidden].
    pub(super) fn understand(&self, samples: &[f32]) -> Result<Tensor> {
        let resampled = resample::to_16k(samples);
        let mut padded = vec![0.0; SEMANTIC_PADDING];
        padded.extend(resampled);
        padded.resize(padded.len() + SEMANTIC_PADDING, 0.0);
        let length = padded.len();
        let positions = self.hubert.forward(&Tensor::from_vec(padded, (length, 1), &self.device)?)?;
        let every = (0..positions.dim(0)? as u32).step_by(POSITIONS_PER_FRAME).collect::<Vec<_>>();
        positions.index_select(&Tensor::new(every, &self.device)?, 0)
    }

    /// [frames, hidden] to each frame's codes.
    fn quantize(&self, heard: Tensor) -> Result<Vec<Frame>> {
        let mut rest = heard;
        let mut frames = vec![[0; CODEBOOKS]; rest.dim(0)?];
        for (codebook, quantizer) in self.quantizers.iter().enumerate() {
            let codes = quantizer.nearest(&rest)?;
            rest = (rest - quantizer.value(&codes)?)?;
            for (frame, code) in frames.iter_mut().zip(codes.to_vec1::<u32>()?) {
                frame[codebook] = code;
            }
        }
        Ok(frames)
    }
}

/// DAC's encoder: a vector per frame.
pub(super) struct AcousticEncoder {
    conv1: Conv1d,
    blocks: Vec<AcousticBlock>,
    snake1: Snake,
    conv2: Conv1d,
}

struct AcousticBlock {
    units: ResidualUnits,
    snake1: Snake,
    conv1: Conv1d,
}

impl AcousticEncoder {
    fn load(config: &AcousticConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let width = config.encoder_hidden_size;
        let block = |(index, rate): (usize, &usize)| {
            let vb = vb.pp("block").pp(index);
            let (input, output) = (width << index, width << (index + 1));
            let walk = Walk { padding: rate.div_ceil(2), stride: *rate, dilation: 1 };
            Ok(AcousticBlock {
                units: ResidualUnits::load(input, &vb)?,
                snake1: Snake::load(input, &vb.pp("snake1"))?,
                conv1: Conv1d::load((output, input, 2 * rate), walk, &vb.pp("conv1"))?,
            })
        };
        let last = width << config.downsampling_ratios.len();
        Ok(Self {
            conv1: Conv1d::load((width, 1, 7), Walk::same(7, 1), &vb.pp("conv1"))?,
            blocks: config.downsampling_ratios.iter().enumerate().map(block).collect::<Result<_>>()?,
            snake1: Snake::load(last, &vb.pp("snake1"))?,
            conv2: Conv1d::load((config.hidden_size, last, 3), Walk::same(3, 1), &vb.pp("conv2"))?,
        })
    }

    /// [samples, 1] to [frames, acoustic hidden].
    pub(super) fn forward(&self, samples: &Tensor) -> Result<Tensor> {
        let mut x = self.conv1.forward(samples, Before::Nothing, None)?;
        for block in &self.blocks {
            x = block.conv1.forward(&block.units.forward(&x)?, Before::Snake(&block.snake1), None)?;
        }
        self.conv2.forward(&x, Before::Snake(&self.snake1), None)
    }
}

/// Small convolutions over HuBERT's vectors, one per frame.
pub(super) struct SemanticEncoder {
    conv: Conv1d,
    blocks: Vec<SemanticBlock>,
}

struct SemanticBlock {
    /// Two convolutions each.
    units: Vec<(Conv1d, Conv1d)>,
    conv: Conv1d,
}

impl SemanticEncoder {
    fn load(width: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let plain = |taps: usize, vb: VarBuilder<'_>| {
            Conv1d::new(vb.get((width, width, taps), "weight")?, None, Walk::same(taps, 1))
        };
        let block = |index| {
            let vb = vb.pp("conv_blocks").pp(index);
            let unit = |index| {
                let vb = vb.pp("res_units").pp(index);
                Ok((plain(3, vb.pp("conv1"))?, plain(1, vb.pp("conv2"))?))
            };
            Ok(SemanticBlock {
                units: (0..SEMANTIC_BLOCKS).map(unit).collect::<Result<_>>()?,
                conv: Conv1d::load((width, width, 3), Walk::same(3, 1), &vb.pp("conv"))?,
            })
        };
        Ok(Self { conv: plain(3, vb.pp("conv"))?, blocks: (0..SEMANTIC_BLOCKS).map(block).collect::<Result<_>>()? })
    }

    /// [frames, width] to the same.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = self.conv.forward(x, Before::Nothing, None)?;
        for block in &self.blocks {
            for (conv1, conv2) in &block.units {
                let inner = conv1.forward(&x, Before::Elu, None)?;
                x = conv2.forward(&inner, Before::Elu, Some(&x))?;
            }
            x = block.conv.forward(&x, Before::Nothing, None)?;
        }
        Ok(x)
    }
}

/// One codebook.
struct Quantizer {
    project_in: Linear,
    /// [1024, codebook_dim]
    embed: Tensor,
    /// [codebook_dim, 1024]: twice the entries.
    doubled: Tensor,
    /// [1024]: the entries' squared lengths.
    squares: Tensor,
    project_out: Linear,
}

impl Quantizer {
    fn load(hidden: usize, width: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let embed = vb.get((CODES, width), "codebook.embed")?;
        Ok(Self {
            project_in: linear(hidden, width, vb.pp("project_in"))?,
            doubled: embed.affine(2.0, 0.0)?.t()?.contiguous()?,
            squares: embed.sqr()?.sum(1)?,
            embed,
            project_out: linear(width, hidden, vb.pp("project_out"))?,
        })
    }

    /// For each row of `x` [frames, hidden] the entry nearest to it: the one of the largest 2 z·e - |e|².
    fn nearest(&self, x: &Tensor) -> Result<Tensor> {
        let z = self.project_in.forward(x)?;
        z.matmul(&self.doubled)?.broadcast_sub(&self.squares)?.argmax(1)
    }

    /// What the codes stand for, [frames, hidden].
    fn value(&self, codes: &Tensor) -> Result<Tensor> {
        self.project_out.forward(&self.embed.index_select(codes, 0)?)
    }
}
