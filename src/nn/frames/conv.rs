//! Convolutions over [frames, channels], with what precedes them fused into the reading of their input.
//!
//! With the channels innermost, the `taps` frames that one output frame sees lie side by side, so a convolution is one
//! matrix product whose left side's rows overlap: nothing is unfolded. A dilated one is the same after the frames are
//! dealt out by their remainder. Work is cut into tiles of frames that fit a core's cache.

use candle_core::{Device, Result, Tensor};
use candle_nn::VarBuilder;
use rayon::prelude::*;

use super::matrix::{Matrix, Rows};
use super::norm::Affine;
use super::toom::{ShortFilter, ShortFilterScratch};
use super::{scalar, with_elements};

/// What is done to every sample before a convolution sees it.
#[derive(Clone, Copy)]
pub(in crate::nn) enum Before<'a> {
    Nothing,
    LeakyRelu(f32),
    /// Adaptive instance norm, then leaky ReLU.
    NormLeakyRelu(&'a Affine, f32),
    /// Adaptive instance norm, then snake: t + sin²(αt) / α.
    NormSnake(&'a Affine, &'a Snake),
    Snake(&'a Snake),
    Elu,
    /// GELU by the error function.
    Gelu,
    /// Instance norm, then GELU.
    NormGelu(&'a Affine),
}

/// A snake activation, t + sin²(αt) / (α + 1e-9), with α per channel.
pub(in crate::nn) struct Snake {
    alpha: Tensor,
    halves: Vec<f32>,
    inverse: Vec<f32>,
}

/// Keeps a channel whose α is zero from being divided by it.
const NO_ZERO: f32 = 1e-9;

impl Snake {
    pub(in crate::nn) fn new(alpha: Tensor) -> Result<Self> {
        let alphas = alpha.to_vec1::<f32>()?;
        let halves = alphas.iter().map(|alpha| alpha * std::f32::consts::FRAC_1_PI).collect();
        let inverse = alphas.iter().map(|alpha| 1.0 / (alpha + NO_ZERO)).collect();
        Ok(Self { alpha, halves, inverse })
    }

    /// Reads the activation of `channels` channels at `vb`.
    pub(in crate::nn) fn load(channels: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        Self::new(vb.get((1, channels, 1), "alpha")?.flatten_all()?)
    }

    /// By candle operations.
    fn plain(&self, t: &Tensor) -> Result<Tensor> {
        let sine = t.broadcast_mul(&self.alpha)?.sin()?;
        t + sine.sqr()?.broadcast_div(&self.alpha.affine(1.0, f64::from(NO_ZERO))?)?
    }
}

impl Before<'_> {
    /// By candle operations, for `x` of [frames, channels].
    pub(super) fn apply_plain(self, x: &Tensor) -> Result<Tensor> {
        let normed = |affine: &Affine| x.broadcast_mul(&affine.scale)?.broadcast_add(&affine.shift);
        match self {
            Before::Nothing => Ok(x.clone()),
            Before::LeakyRelu(slope) => candle_nn::ops::leaky_relu(x, f64::from(slope)),
            Before::NormLeakyRelu(affine, slope) => candle_nn::ops::leaky_relu(&normed(affine)?, f64::from(slope)),
            Before::NormSnake(affine, snake) => snake.plain(&normed(affine)?),
            Before::Snake(snake) => snake.plain(x),
            Before::Elu => x.elu(1.0),
            Before::Gelu => x.gelu_erf(),
            Before::NormGelu(affine) => normed(affine)?.gelu_erf(),
        }
    }

    /// `x` [frames, channels] after this, as a tensor of its own.
    pub(in crate::nn) fn apply(self, x: &Tensor) -> Result<Tensor> {
        if !matches!(x.device(), Device::Cpu) {
            return self.apply_plain(x);
        }
        let (_, channels) = x.dims2()?;
        let per_row = self.on_cpu()?;
        let mut out = vec![0.0; x.elem_count()];
        with_elements(x, |elements| {
            out.par_chunks_mut(channels * 64).zip(elements.par_chunks(channels * 64)).for_each(|(out, x)| {
                out.chunks_exact_mut(channels).zip(x.chunks_exact(channels)).for_each(|(out, x)| per_row.row(x, out));
            });
            Ok(())
        })?;
        Tensor::from_vec(out, x.shape(), x.device())
    }

    fn on_cpu(self) -> Result<BeforeOnCpu> {
        let affine = |affine: &Affine| Ok::<_, candle_core::Error>((affine.scale.to_vec1()?, affine.shift.to_vec1()?));
        Ok(match self {
            Before::Nothing => BeforeOnCpu::Nothing,
            Before::LeakyRelu(slope) => BeforeOnCpu::LeakyRelu(slope),
            Before::NormLeakyRelu(norm, slope) => {
                let (scale, shift) = affine(norm)?;
                BeforeOnCpu::NormLeakyRelu { scale, shift, slope }
            }
            Before::NormSnake(norm, snake) => {
                let (scale, shift) = affine(norm)?;
                BeforeOnCpu::NormSnake { scale, shift, halves: snake.halves.clone(), inverse: snake.inverse.clone() }
            }
            Before::Snake(snake) => BeforeOnCpu::Snake { halves: snake.halves.clone(), inverse: snake.inverse.clone() },
            Before::Elu => BeforeOnCpu::Elu,
            Before::Gelu => BeforeOnCpu::Gelu,
            Before::NormGelu(norm) => {
                let (scale, shift) = affine(norm)?;
                BeforeOnCpu::NormGelu { scale, shift }
            }
        })
    }
}

enum BeforeOnCpu {
    Nothing,
    LeakyRelu(f32),
    NormLeakyRelu { scale: Vec<f32>, shift: Vec<f32>, slope: f32 },
    NormSnake { scale: Vec<f32>, shift: Vec<f32>, halves: Vec<f32>, inverse: Vec<f32> },
    Snake { halves: Vec<f32>, inverse: Vec<f32> },
    Elu,
    Gelu,
    NormGelu { scale: Vec<f32>, shift: Vec<f32> },
}

impl BeforeOnCpu {
    /// One frame. Slices are cut to one length so that the loops carry no bounds checks.
    #[inline]
    fn row(&self, x: &[f32], out: &mut [f32]) {
        let channels = out.len();
        let x = &x[..channels];
        match self {
            Self::Nothing => out.copy_from_slice(x),
            Self::LeakyRelu(slope) => {
                out.iter_mut().zip(x).for_each(|(out, x)| *out = leaky(*x, *slope));
            }
            Self::NormLeakyRelu { scale, shift, slope } => {
                let (scale, shift) = (&scale[..channels], &shift[..channels]);
                for c in 0..channels {
                    out[c] = leaky(x[c].mul_add(scale[c], shift[c]), *slope);
                }
            }
            Self::NormSnake { scale, shift, halves, inverse } => {
                let (scale, shift) = (&scale[..channels], &shift[..channels]);
                let (halves, inverse) = (&halves[..channels], &inverse[..channels]);
                for c in 0..channels {
                    let t = x[c].mul_add(scale[c], shift[c]);
                    out[c] = scalar::sin_squared_of_halves(t * halves[c]).mul_add(inverse[c], t);
                }
            }
            Self::Snake { halves, inverse } => {
                let (halves, inverse) = (&halves[..channels], &inverse[..channels]);
                for c in 0..channels {
                    out[c] = scalar::sin_squared_of_halves(x[c] * halves[c]).mul_add(inverse[c], x[c]);
                }
            }
            Self::Elu => out.iter_mut().zip(x).for_each(|(out, x)| *out = scalar::elu(*x)),
            Self::Gelu => out.iter_mut().zip(x).for_each(|(out, x)| *out = scalar::gelu_erf(*x)),
            Self::NormGelu { scale, shift } => {
                let (scale, shift) = (&scale[..channels], &shift[..channels]);
                for c in 0..channels {
                    out[c] = scalar::gelu_erf(x[c].mul_add(scale[c], shift[c]));
                }
            }
        }
    }
}

#[inline]
fn leaky(x: f32, slope: f32) -> f32 {
    if x > 0.0 { x } else { x * slope }
}

/// How a convolution walks its input.
#[derive(Clone, Copy, Debug)]
pub(in crate::nn) struct Walk {
    pub(in crate::nn) padding: usize,
    /// 1 unless `dilation` is 1.
    pub(in crate::nn) stride: usize,
    pub(in crate::nn) dilation: usize,
}

impl Walk {
    /// One output frame per input frame, for an odd number of taps.
    pub(in crate::nn) fn same(taps: usize, dilation: usize) -> Self {
        Self { padding: (taps - 1) * dilation / 2, stride: 1, dilation }
    }
}

/// A convolution over time of [frames, input] to [frames', output].
pub(in crate::nn) struct Conv1d {
    kernel: Kernel,
    bias: Option<Tensor>,
    input: usize,
    output: usize,
    taps: usize,
    walk: Walk,
}

enum Kernel {
    /// For the CPU, [taps * input, output] of a convolution, [input, taps * output] of an upsampling one.
    Packed(Matrix),
    /// For the CPU, a convolution of step one whose shape suits a short filter.
    Short(Box<ShortFilter>),
    /// As candle's own convolution takes it.
    Plain(Tensor),
}

impl Conv1d {
    /// `weight` is [output, input, taps], with weight norm folded in.
    pub(in crate::nn) fn new(weight: Tensor, bias: Option<Tensor>, walk: Walk) -> Result<Self> {
        let (output, input, taps) = weight.dims3()?;
        let kernel = if matches!(weight.device(), Device::Cpu) {
            let weight = weight.contiguous()?;
            with_elements(&weight, |weight| {
                let element = |row: usize, o: usize| weight[(o * input + row % input) * taps + row / input];
                Ok(if walk.stride == 1 && ShortFilter::suits(input, output, taps) {
                    Kernel::Short(Box::new(ShortFilter::new(weight, output, input, taps)))
                } else {
                    Kernel::Packed(Matrix::new(taps * input, output, element))
                })
            })?
        } else {
            Kernel::Plain(weight)
        };
        Ok(Self { kernel, bias, input, output, taps, walk })
    }

    /// As [`Self::new`], but computed by candle operations on any device.
    #[cfg(test)]
    pub(super) fn plain(weight: Tensor, bias: Option<Tensor>, walk: Walk) -> Result<Self> {
        let (output, input, taps) = weight.dims3()?;
        Ok(Self { kernel: Kernel::Plain(weight), bias, input, output, taps, walk })
    }

    /// Reads the layer at `vb`, with its bias.
    pub(in crate::nn) fn load(
        (output, input, taps): (usize, usize, usize),
        walk: Walk,
        vb: &VarBuilder<'_>,
    ) -> Result<Self> {
        Self::new(vb.get((output, input, taps), "weight")?, Some(vb.get(output, "bias")?), walk)
    }

    /// Convolves `before(x)`, padded with zeros, and adds `plus` [frames', output].
    pub(in crate::nn) fn forward(&self, x: &Tensor, before: Before<'_>, plus: Option<&Tensor>) -> Result<Tensor> {
        match &self.kernel {
            Kernel::Packed(_) | Kernel::Short(_) => self.forward_on_cpu(x, before, plus),
            Kernel::Plain(weight) => {
                let Walk { padding, stride, dilation } = self.walk;
                let x = before.apply_plain(x)?.t()?.unsqueeze(0)?.contiguous()?;
                let y = x.conv1d(weight, padding, stride, dilation, 1)?.squeeze(0)?.t()?.contiguous()?;
                let y = self.bias.as_ref().map_or(Ok(y.clone()), |bias| y.broadcast_add(bias))?;
                plus.map_or(Ok(y.clone()), |plus| &y + plus)
            }
        }
    }

    fn forward_on_cpu(&self, x: &Tensor, before: Before<'_>, plus: Option<&Tensor>) -> Result<Tensor> {
        let (frames, channels) = x.dims2()?;
        let Walk { padding, stride, dilation } = self.walk;
        let reach = (self.taps - 1) * dilation + 1;
        if channels != self.input || frames + 2 * padding < reach {
            candle_core::bail!("a convolution of {} channels got {:?}", self.input, x.shape());
        }
        let length = (frames + 2 * padding - reach) / stride + 1;
        let before = before.on_cpu()?;
        let bias = self.bias.as_ref().map(Tensor::to_vec1::<f32>).transpose()?;
        let mut y = match plus {
            Some(plus) if plus.dims() == [length, self.output] => with_elements(plus, |plus| Ok(plus.to_vec()))?,
            Some(plus) => candle_core::bail!("cannot add {:?} to [{length}, {}]", plus.shape(), self.output),
            None => vec![0.0; length * self.output],
        };
        // Dilated tiles hold whole rounds of phases.
        let rows_per_tile =
            (TILE_ELEMENTS / (self.input * stride + self.output)).clamp(16, 4096).next_multiple_of(dilation);
        let tiles = length.div_ceil(rows_per_tile);
        let threads = rayon::current_num_threads();
        let few = tiles < 2 * threads;
        let rows_per_tile = if few { length } else { rows_per_tile };
        with_elements(x, |x| {
            let job = TileJob { conv: self, before: &before, bias: bias.as_deref(), x, frames, shared: few };
            let work = |scratch: &mut Scratch, (index, y): (usize, &mut [f32])| {
                job.run(index * rows_per_tile, scratch, y);
            };
            if few {
                work(&mut Scratch::default(), (0, &mut y));
            } else {
                y.par_chunks_mut(rows_per_tile * self.output).enumerate().for_each_init(Scratch::default, work);
            }
            Ok(())
        })?;
        Tensor::from_vec(y, (length, self.output), x.device())
    }
}

/// What all tiles of one convolution share.
struct TileJob<'a> {
    conv: &'a Conv1d,
    before: &'a BeforeOnCpu,
    bias: Option<&'a [f32]>,
    x: &'a [f32],
    frames: usize,
    /// There is but one tile: its own loops are spread over the threads.
    shared: bool,
}

/// Space that one tile leaves to the next.
#[derive(Default)]
struct Scratch {
    input: Vec<f32>,
    short: ShortFilterScratch,
}

impl TileJob<'_> {
    /// Adds the products and the bias onto `y`, the output frames from `first` on.
    fn run(&self, first: usize, scratch: &mut Scratch, y: &mut [f32]) {
        let Conv1d { input, output, taps, walk: Walk { padding, stride, dilation }, .. } = *self.conv;
        let length = y.len() / output;
        // Input frames of this tile, from `first * stride - padding`, dealt out by remainder of the dilation.
        let span = (length - 1) * stride + (taps - 1) * dilation + 1;
        let per_phase = match &self.conv.kernel {
            Kernel::Short(filter) => filter.frames_read(length.div_ceil(dilation)),
            Kernel::Packed(_) | Kernel::Plain(_) => span.div_ceil(dilation),
        };
        let Scratch { input: placed, short } = scratch;
        placed.clear();
        placed.resize(per_phase * dilation * input, 0.0);
        let place = |(at, out): (usize, &mut [f32])| {
            let frame = at % per_phase * dilation + at / per_phase;
            let source = (first * stride + frame).wrapping_sub(padding);
            if frame < span && source < self.frames {
                self.before.row(&self.x[source * input..], out);
            }
        };
        if self.shared {
            placed.par_chunks_exact_mut(input).with_min_len(16).enumerate().for_each(place);
        } else {
            placed.chunks_exact_mut(input).enumerate().for_each(place);
        }
        if let Some(bias) = self.bias {
            for row in y.chunks_exact_mut(output) {
                row.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
            }
        }
        for phase in 0..dilation.min(length) {
            let elements = &placed[phase * per_phase * input..][..per_phase * input];
            let rows = (length - phase).div_ceil(dilation);
            let out = &mut y[phase * output..];
            let left = Rows { elements, count: rows, stride: stride * input };
            match &self.conv.kernel {
                Kernel::Short(filter) => filter.add(elements, rows, out, dilation * output, short, self.shared),
                Kernel::Packed(matrix) if self.shared => matrix.add_product_shared(left, out, dilation * output),
                Kernel::Packed(matrix) => matrix.add_product(left, out, dilation * output),
                // `Conv1d::forward` never comes here with it.
                Kernel::Plain(_) => {}
            }
        }
    }
}

/// Elements of input and output that a tile aims at: 256 KB. With what a short filter makes of them they fill most of
/// a core's second cache.
const TILE_ELEMENTS: usize = 1 << 16;

/// An upsampling transposed convolution whose kernel is twice its rate: [frames, input] to [frames * rate, output].
pub(in crate::nn) struct UpsamplingConv {
    kernel: Kernel,
    bias: Tensor,
    input: usize,
    output: usize,
    rate: usize,
}

impl UpsamplingConv {
    /// `weight` is [input, output, 2 * rate], with weight norm folded in.
    pub(in crate::nn) fn new(weight: Tensor, bias: Tensor) -> Result<Self> {
        let (input, output, taps) = weight.dims3()?;
        let kernel = if matches!(weight.device(), Device::Cpu) {
            // A frame's product is its contribution to the `taps` frames it reaches.
            let weight = weight.contiguous()?;
            Kernel::Packed(with_elements(&weight, |weight| {
                let element = |i: usize, column: usize| weight[(i * output + column % output) * taps + column / output];
                Ok(Matrix::new(input, taps * output, element))
            })?)
        } else {
            Kernel::Plain(weight)
        };
        Ok(Self { kernel, bias, input, output, rate: taps / 2 })
    }

    #[cfg(test)]
    pub(super) fn plain(weight: Tensor, bias: Tensor) -> Result<Self> {
        let (input, output, taps) = weight.dims3()?;
        Ok(Self { kernel: Kernel::Plain(weight), bias, input, output, rate: taps / 2 })
    }

    /// Reads the layer of these channels and this rate at `vb`, with its bias.
    pub(in crate::nn) fn load((input, output, rate): (usize, usize, usize), vb: &VarBuilder<'_>) -> Result<Self> {
        Self::new(vb.get((input, output, 2 * rate), "weight")?, vb.get(output, "bias")?)
    }

    /// Upsamples `x`, without the half kernel at each end: torch's padding of rate / 2, or for an odd rate of
    /// (rate + 1) / 2 with an output padding of 1.
    pub(in crate::nn) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (frames, channels) = x.dims2()?;
        if channels != self.input {
            candle_core::bail!("an upsampling of {} channels got {:?}", self.input, x.shape());
        }
        let y = match &self.kernel {
            Kernel::Packed(matrix) => self.forward_on_cpu(matrix, x)?,
            Kernel::Short(_) => candle_core::bail!("an upsampling has no short filter"),
            Kernel::Plain(weight) => {
                // Padding and output padding 0 take candle's fast path; the edges are cut below.
                let y = x.t()?.unsqueeze(0)?.contiguous()?.conv_transpose1d(weight, 0, 0, self.rate, 1, 1)?;
                y.squeeze(0)?.t()?.contiguous()?.broadcast_add(&self.bias)?
            }
        };
        y.narrow(0, self.rate.div_ceil(2), frames * self.rate)
    }

    /// [frames, input] to [(frames + 1) * rate, output]: each output frame gets two contributions.
    fn forward_on_cpu(&self, matrix: &Matrix, x: &Tensor) -> Result<Tensor> {
        const FRAMES_PER_TILE: usize = 32;
        let frames = x.dim(0)?;
        let few = (frames + 1).div_ceil(FRAMES_PER_TILE) < 2 * rayon::current_num_threads();
        let frames_per_tile = if few { frames + 1 } else { FRAMES_PER_TILE };
        let block = self.rate * self.output;
        let bias = self.bias.to_vec1::<f32>()?;
        let mut y = vec![0.0; (frames + 1) * block];
        with_elements(x, |x| {
            y.par_chunks_mut(frames_per_tile * block).enumerate().for_each_init(Vec::new, |scratch, (index, y)| {
                // Frames `first - 1 ..= last` reach this tile.
                let first = index * frames_per_tile;
                let from = first.saturating_sub(1);
                let to = (first + y.len() / block).min(frames);
                scratch.clear();
                scratch.resize((to - from) * 2 * block, 0.0);
                let left = Rows { elements: &x[from * self.input..], count: to - from, stride: self.input };
                if few {
                    matrix.add_product_shared(left, scratch, matrix.columns());
                } else {
                    matrix.add_product(left, scratch, matrix.columns());
                }
                y.chunks_exact_mut(self.output).for_each(|row| row.copy_from_slice(&bias));
                for (at, y) in y.chunks_exact_mut(block).enumerate() {
                    let frame = first + at;
                    let mut add = |frame: usize, half: usize| {
                        let start = ((frame - from) * 2 + half) * block;
                        y.iter_mut().zip(&scratch[start..start + block]).for_each(|(y, part)| *y += part);
                    };
                    if frame < frames {
                        add(frame, 0);
                    }
                    if frame > 0 {
                        add(frame - 1, 1);
                    }
                }
            });
            Ok(())
        })?;
        Tensor::from_vec(y, (frames + 1, block), x.device())?.reshape(((frames + 1) * self.rate, self.output))
    }
}
