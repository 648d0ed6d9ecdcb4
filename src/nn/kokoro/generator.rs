//! The generator: features to the short-time spectrum, and that to samples.
//!
//! Source: hexgrad/kokoro 0.9.4, istftnet.py `AdaINResBlock1` and `Generator`.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::config::Config;
use super::ops::norm::{Modulation, StyleTableBuilder, StyledNorm};
use crate::nn::frames::conv::{Before, Conv1d, Snake, UpsamplingConv, Walk};
use crate::nn::frames::scaled_sum;

pub(super) struct Generator {
    stages: Vec<Stage>,
    conv_post: Conv1d,
}

struct Stage {
    noise_conv: Conv1d,
    noise_block: SnakeResBlock,
    upsampling: UpsamplingConv,
    /// Reflects one frame to the left: the last stage makes room for the spectrum's extra frame.
    last: bool,
    blocks: Vec<SnakeResBlock>,
}

impl Generator {
    pub(super) fn load(config: &Config, styles: &mut StyleTableBuilder, vb: &VarBuilder<'_>) -> Result<Self> {
        let generator = &config.istftnet;
        let stages = generator.upsample_rates.len();
        let stages = (0..stages).map(|index| Stage::load(index, config, styles, vb)).collect::<Result<Vec<_>>>()?;
        let channels = generator.upsample_initial_channel >> stages.len();
        let spectrum = generator.gen_istft_n_fft + 2;
        let conv_post = Conv1d::load((spectrum, channels, 7), Walk::same(7, 1), &vb.pp("conv_post"))?;
        Ok(Self { stages, conv_post })
    }

    /// `x` [frames, upsample_initial_channel] at 80 Hz and the source's spectrum `source` [frames * 60 + 1, n_fft + 2]
    /// to [frames * 60 + 1, n_fft + 2]: log magnitudes, then the sines' arguments of the phases.
    /// None where `keep_going` said no.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        source: &Tensor,
        modulation: &Modulation,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Tensor>> {
        let mut x = x.clone();
        for stage in &self.stages {
            let Some(next) = stage.forward(&x, source, modulation, keep_going)? else { return Ok(None) };
            x = next;
        }
        // Upstream's last activation has torch's default slope, unlike the stages'.
        self.conv_post.forward(&x, Before::LeakyRelu(0.01), None).map(Some)
    }
}

impl Stage {
    fn load(index: usize, config: &Config, styles: &mut StyleTableBuilder, vb: &VarBuilder<'_>) -> Result<Self> {
        let generator = &config.istftnet;
        let style_dim = config.style_dim;
        let input = generator.upsample_initial_channel >> index;
        let channels = input / 2;
        let spectrum = generator.gen_istft_n_fft + 2;
        let last = index + 1 == generator.upsample_rates.len();
        let rest: usize = generator.upsample_rates[index + 1..].iter().product();
        let (taps, walk) = if last {
            (1, Walk::same(1, 1))
        } else {
            (2 * rest, Walk { padding: rest.div_ceil(2), stride: rest, dilation: 1 })
        };
        let noise_res = SnakeShape { channels, taps: if last { 11 } else { 7 }, dilations: &[1, 3, 5] };
        let upsampling = vb.pp("ups").pp(index);
        let weight = upsampling.get((input, channels, generator.upsample_kernel_sizes[index]), "weight")?;
        let kinds = generator.resblock_kernel_sizes.len();
        let blocks = generator.resblock_kernel_sizes.iter().zip(&generator.resblock_dilation_sizes).enumerate();
        let mut block = |(kind, (taps, dilations)): (usize, (&usize, &Vec<usize>))| {
            let shape = SnakeShape { channels, taps: *taps, dilations };
            SnakeResBlock::load(&shape, style_dim, styles, &vb.pp("resblocks").pp(index * kinds + kind))
        };
        Ok(Self {
            blocks: blocks.map(&mut block).collect::<Result<_>>()?,
            noise_conv: Conv1d::load((channels, spectrum, taps), walk, &vb.pp("noise_convs").pp(index))?,
            noise_block: SnakeResBlock::load(&noise_res, style_dim, styles, &vb.pp("noise_res").pp(index))?,
            upsampling: UpsamplingConv::new(weight, upsampling.get(channels, "bias")?)?,
            last,
        })
    }

    fn forward(
        &self,
        x: &Tensor,
        source: &Tensor,
        modulation: &Modulation,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Tensor>> {
        let source = self.noise_conv.forward(source, Before::Nothing, None)?;
        let source = self.noise_block.forward(&source, modulation)?;
        if !keep_going() {
            return Ok(None);
        }
        let mut x = self.upsampling.forward(&Before::LeakyRelu(0.1).apply(x)?)?;
        if self.last {
            x = Tensor::cat(&[&x.narrow(0, 1, 1)?, &x], 0)?;
        }
        let x = scaled_sum(&[source, x.contiguous()?], 1.0)?;
        let mut outputs = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            outputs.push(block.forward(&x, modulation)?);
            if !keep_going() {
                return Ok(None);
            }
        }
        scaled_sum(&outputs, 1.0 / outputs.len() as f32).map(Some)
    }
}

struct SnakeShape<'a> {
    channels: usize,
    taps: usize,
    dilations: &'a [usize],
}

/// Three rounds of norm, snake and convolution, twice each, onto a residual stream.
struct SnakeResBlock(Vec<Round>);

struct Round {
    norm1: StyledNorm,
    snake1: Snake,
    conv1: Conv1d,
    norm2: StyledNorm,
    snake2: Snake,
    conv2: Conv1d,
}

impl SnakeResBlock {
    fn load(
        shape: &SnakeShape<'_>,
        style_dim: usize,
        styles: &mut StyleTableBuilder,
        vb: &VarBuilder<'_>,
    ) -> Result<Self> {
        let SnakeShape { channels, taps, dilations } = *shape;
        let snake = |name: &str, index: usize| {
            Snake::new(vb.pp(name).get((1, channels, 1), &index.to_string())?.flatten_all()?)
        };
        let size = (channels, channels, taps);
        let mut round = |(index, dilation): (usize, &usize)| {
            Ok(Round {
                norm1: styles.norm(channels, style_dim, &vb.pp("adain1").pp(index))?,
                snake1: snake("alpha1", index)?,
                conv1: Conv1d::load(size, Walk::same(taps, *dilation), &vb.pp("convs1").pp(index))?,
                norm2: styles.norm(channels, style_dim, &vb.pp("adain2").pp(index))?,
                snake2: snake("alpha2", index)?,
                conv2: Conv1d::load(size, Walk::same(taps, 1), &vb.pp("convs2").pp(index))?,
            })
        };
        dilations.iter().enumerate().map(&mut round).collect::<Result<_>>().map(Self)
    }

    fn forward(&self, x: &Tensor, modulation: &Modulation) -> Result<Tensor> {
        self.0.iter().try_fold(x.clone(), |x, round| {
            let norm = round.norm1.affine(&x, modulation)?;
            let inner = round.conv1.forward(&x, Before::NormSnake(&norm, &round.snake1), None)?;
            let norm = round.norm2.affine(&inner, modulation)?;
            round.conv2.forward(&inner, Before::NormSnake(&norm, &round.snake2), Some(&x))
        })
    }
}
