//! Codes to sound: the entries of eight codebooks are added up, and DAC's decoder upsamples their sum 960 times.
//!
//! Between a code and the first convolution everything is linear (`project_out` of its codebook, then `fc2`), so it is
//! multiplied out at load: a code is a row of a table, a frame the sum of eight rows. `window` says what of each layer a
//! stretch of sound needs. There is no tanh at the end: samples are not bounded.

use std::ops::Range;
use std::path::Path;

use candle_core::{Device, Result, Tensor};
use candle_nn::VarBuilder;

use super::config::{self, Config};
use super::units::ResidualUnits;
use super::window::{StageWindow, Window, context};
use super::{CODEBOOKS, CODES, CodecError, Frame, LoadError, check_codes, weights};
use crate::nn::checkpoint::reason_of;
use crate::nn::frames::conv::{Before, Conv1d, Snake, UpsamplingConv, Walk};

/// The decoder.
pub struct Decoder {
    /// [8 * 1024, hidden]
    table: Tensor,
    /// [hidden]
    table_bias: Tensor,
    conv1: Conv1d,
    stages: Vec<Stage>,
    snake1: Snake,
    conv2: Conv1d,
    rates: Vec<usize>,
}

struct Stage {
    snake1: Snake,
    conv_t1: UpsamplingConv,
    units: ResidualUnits,
}

impl Decoder {
    /// Loads the decoder of the codec in `folder`; the encoder's weights are not read. See [`super::Codec::load`].
    pub fn load(folder: &Path, device: &Device) -> std::result::Result<Self, LoadError> {
        let config = config::read(folder)?;
        let (vb, path) = weights::open(folder, device)?;
        Self::build(&config, &vb).map_err(|error| LoadError { path, reason: reason_of(&error) })
    }

    /// The published sizes with noise for weights: for measuring where there is no codec.
    pub fn random(device: &Device) -> std::result::Result<Self, CodecError> {
        Ok(Self::build(&Config::published(), &weights::random(device))?)
    }

    pub(super) fn build(config: &Config, vb: &VarBuilder<'_>) -> Result<Self> {
        let (table, table_bias) = read_table(config, vb)?;
        let acoustic = &config.acoustic;
        let vb = vb.pp("acoustic_decoder");
        let width = acoustic.decoder_hidden_size;
        let stage = |(index, rate): (usize, &usize)| {
            let vb = vb.pp("block").pp(index);
            let (input, output) = (width >> index, width >> (index + 1));
            Ok(Stage {
                snake1: Snake::load(input, &vb.pp("snake1"))?,
                conv_t1: UpsamplingConv::load((input, output, *rate), &vb.pp("conv_t1"))?,
                units: ResidualUnits::load(output, &vb)?,
            })
        };
        let rates = acoustic.upsampling_ratios.clone();
        let last = width >> rates.len();
        Ok(Self {
            table,
            table_bias,
            conv1: Conv1d::load((width, acoustic.hidden_size, 7), Walk::same(7, 1), &vb.pp("conv1"))?,
            stages: rates.iter().enumerate().map(stage).collect::<Result<_>>()?,
            snake1: Snake::load(last, &vb.pp("snake1"))?,
            conv2: Conv1d::load((1, last, 7), Walk::same(7, 1), &vb.pp("conv2"))?,
            rates,
        })
    }

    /// Frames before and after a frame that its sound depends on: ten of either.
    pub fn context(&self) -> usize {
        context(&self.rates)
    }

    /// The sound of `frames`, 960 samples each, at 24 kHz. Finite, but not bounded: clamp it to [-1, 1].
    pub fn decode(&self, frames: &[Frame]) -> std::result::Result<Vec<f32>, CodecError> {
        self.decode_window(frames, 0..frames.len())
    }

    /// The sound of the frames `emit` of `frames`, the others being their context: with [`Self::context`] frames on
    /// either side, or as many as the stream has there, the same samples as within the whole stream.
    pub fn decode_window(&self, frames: &[Frame], emit: Range<usize>) -> std::result::Result<Vec<f32>, CodecError> {
        if emit.is_empty() {
            return Ok(Vec::new());
        }
        check_codes(frames)?;
        if emit.end > frames.len() {
            return Err(candle_core::Error::Msg(format!("no frames {emit:?} among {}", frames.len())).into());
        }
        let window = Window::new(emit, frames.len(), &self.rates);
        let samples = self.forward(frames, &window)?.flatten_all()?.to_vec1::<f32>()?;
        if samples.iter().any(|sample| !sample.is_finite()) {
            return Err(CodecError::Broken);
        }
        Ok(samples)
    }

    /// [samples, 1]
    fn forward(&self, frames: &[Frame], window: &Window) -> Result<Tensor> {
        let x = self.embed(&frames[window.codes.clone()])?;
        let mut x = self.conv1.forward(&x, Before::Nothing, None)?;
        let mut at = window.codes.clone();
        for (stage, StageWindow { input, upsampled }) in self.stages.iter().zip(&window.stages) {
            x = stage.conv_t1.forward(&Before::Snake(&stage.snake1).apply(&cut(&x, &at, input)?)?)?;
            let rate = x.dim(0)? / input.len();
            x = stage.units.forward(&cut(&x, &(input.start * rate..input.end * rate), upsampled)?)?;
            at = upsampled.clone();
        }
        let x = self.conv2.forward(&cut(&x, &at, &window.last)?, Before::Snake(&self.snake1), None)?;
        cut(&x, &window.last, &window.samples)
    }

    /// [frames, hidden]
    fn embed(&self, frames: &[Frame]) -> Result<Tensor> {
        let rows: Vec<u32> = frames
            .iter()
            .flat_map(|frame| frame.iter().zip(0_u32..).map(|(code, codebook)| codebook * CODES as u32 + code))
            .collect();
        let rows = Tensor::new(rows, self.table.device())?;
        let entries = self.table.index_select(&rows, 0)?.reshape((frames.len(), CODEBOOKS, ()))?;
        entries.sum(1)?.broadcast_add(&self.table_bias)
    }
}

/// The rows `wanted` of `x`, whose rows are `held`.
fn cut(x: &Tensor, held: &Range<usize>, wanted: &Range<usize>) -> Result<Tensor> {
    x.narrow(0, wanted.start - held.start, wanted.len())?.contiguous()
}

/// Each code's part in the first convolution's input, and what is the same for all frames.
fn read_table(config: &Config, vb: &VarBuilder<'_>) -> Result<(Tensor, Tensor)> {
    let hidden = config.hidden_size();
    let fc2 = vb.get((config.acoustic.hidden_size, hidden), "fc2.weight")?;
    let mut bias = vb.get(config.acoustic.hidden_size, "fc2.bias")?.unsqueeze(1)?;
    let mut entries = Vec::with_capacity(CODEBOOKS);
    for index in 0..CODEBOOKS {
        let vb = vb.pp("quantizer.quantizers").pp(index);
        let embed = vb.get((CODES, config.codebook_dim), "codebook.embed")?;
        let project_out = fc2.matmul(&vb.get((hidden, config.codebook_dim), "project_out.weight")?)?;
        entries.push(embed.matmul(&project_out.t()?)?);
        bias = (bias + fc2.matmul(&vb.get(hidden, "project_out.bias")?.unsqueeze(1)?)?)?;
    }
    Ok((Tensor::cat(&entries, 0)?, bias.squeeze(1)?))
}
