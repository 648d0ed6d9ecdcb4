//! Silero VAD 6 at 16 kHz: the probability of speech in each 32 ms frame.
//!
//! Source: `tinygrad_model.py` and `silero_vad_16k.safetensors` of PyPI's silero-vad 6.2.3 (MIT). A strided convolution
//! gives the short-time spectrum, four small convolutions reduce it to one vector of 128, an LSTM cell remembers.
//!
//! This runs inside a server task for every frame of every microphone, so it is plain loops over f32 (about 0.7 M
//! multiplications a frame) with no tensor and no allocation. candle only reads the file.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Result, Tensor, bail};

/// Samples per frame.
pub const FRAME: usize = 512;
/// Samples of the frame before that each frame is heard with.
const CONTEXT: usize = 64;
/// Mirrored at the end, so that the last window is whole.
const PAD: usize = 64;
const WINDOW: usize = 256;
const HOP: usize = 128;
const STEPS: usize = (CONTEXT + FRAME + PAD - WINDOW) / HOP + 1;
const BINS: usize = WINDOW / 2 + 1;
const HIDDEN: usize = 128;
/// Partial sums per dot product: what one or two vector registers hold.
const LANES: usize = 16;

/// The weights, shared by all streams.
pub struct Silero {
    /// (2 * BINS, WINDOW): cosines, then sines.
    spectrum: Linear,
    convolutions: [Convolution; 4],
    /// (4 * HIDDEN, HIDDEN + HIDDEN): gates i, f, g, o from the input and the last hidden state.
    lstm: Linear,
    last: Linear,
}

/// One microphone's memory.
pub struct SileroStream {
    weights: Arc<Silero>,
    context: [f32; CONTEXT],
    hidden: [f32; HIDDEN],
    cell: [f32; HIDDEN],
}

/// A matrix and a bias, row by row.
struct Linear {
    weight: Vec<f32>,
    bias: Vec<f32>,
    columns: usize,
}

/// A convolution over time with kernel 3 and padding 1, with its weights as a matrix of (out, in * 3).
struct Convolution {
    matrix: Linear,
    channels: usize,
    stride: usize,
}

impl Linear {
    /// Row `row` times `input`, plus its bias. The sum runs in `LANES` independent chains, so that it vectorises.
    fn row(&self, row: usize, input: &[f32]) -> f32 {
        let weights = &self.weight[row * self.columns..(row + 1) * self.columns];
        let mut sums = [0.0f32; LANES];
        let mut chunks = weights.chunks_exact(LANES).zip(input.chunks_exact(LANES));
        for (weights, inputs) in &mut chunks {
            for lane in 0..LANES {
                sums[lane] += weights[lane] * inputs[lane];
            }
        }
        let whole = self.columns - self.columns % LANES;
        let rest: f32 = weights[whole..].iter().zip(&input[whole..self.columns]).map(|(w, x)| w * x).sum();
        sums.iter().sum::<f32>() + rest + self.bias[row]
    }
}

impl Convolution {
    /// `input` is (channels, steps), and so is `output` with the outgoing channels. Ends in a ReLU.
    fn forward(&self, input: &[f32], steps: usize, output: &mut [f32], column: &mut [f32]) -> usize {
        let steps_out = (steps - 1) / self.stride + 1;
        for step in 0..steps_out {
            let centre = step * self.stride;
            for channel in 0..self.channels {
                for tap in 0..3 {
                    // Position centre + tap - 1, zero outside.
                    let at = (centre + tap).checked_sub(1).filter(|at| *at < steps);
                    column[channel * 3 + tap] = at.map_or(0.0, |at| input[channel * steps + at]);
                }
            }
            for out in 0..self.matrix.bias.len() {
                output[out * steps_out + step] = self.matrix.row(out, column).max(0.0);
            }
        }
        steps_out
    }
}

impl Silero {
    /// Reads `silero_vad_16k.safetensors`.
    ///
    /// # Errors
    /// The file is unreadable, or a tensor is missing or has another shape.
    pub fn load(path: &Path) -> Result<Self> {
        let tensors = candle_core::safetensors::load(path, &Device::Cpu)?;
        let convolution = |name: &str, channels: usize, out: usize, stride: usize| -> Result<Convolution> {
            let weight = take(&tensors, &format!("{name}.weight"), &[out, channels, 3])?;
            let bias = take(&tensors, &format!("{name}.bias"), &[out])?;
            Ok(Convolution { matrix: Linear { weight, bias, columns: channels * 3 }, channels, stride })
        };
        Ok(Self {
            spectrum: Linear {
                weight: take(&tensors, "stft_conv.weight", &[2 * BINS, 1, WINDOW])?,
                bias: vec![0.0; 2 * BINS],
                columns: WINDOW,
            },
            convolutions: [
                convolution("conv1", BINS, 128, 1)?,
                convolution("conv2", 128, 64, 2)?,
                convolution("conv3", 64, 64, 2)?,
                convolution("conv4", 64, HIDDEN, 1)?,
            ],
            lstm: lstm(&tensors)?,
            last: Linear {
                weight: take(&tensors, "final_conv.weight", &[1, HIDDEN, 1])?,
                bias: take(&tensors, "final_conv.bias", &[1])?,
                columns: HIDDEN,
            },
        })
    }

    /// Starts a stream with silence behind it.
    pub fn open(self: &Arc<Self>) -> SileroStream {
        SileroStream { weights: Arc::clone(self), context: [0.0; CONTEXT], hidden: [0.0; HIDDEN], cell: [0.0; HIDDEN] }
    }
}

/// Joins the two weight matrices and the two biases, so that a step is one product.
fn lstm(tensors: &HashMap<String, Tensor>) -> Result<Linear> {
    let from_input = take(tensors, "lstm_cell.weight_ih", &[4 * HIDDEN, HIDDEN])?;
    let from_hidden = take(tensors, "lstm_cell.weight_hh", &[4 * HIDDEN, HIDDEN])?;
    let rows = from_input.chunks_exact(HIDDEN).zip(from_hidden.chunks_exact(HIDDEN));
    let weight = rows.flat_map(|(input, hidden)| input.iter().chain(hidden)).copied().collect();
    let biases = take(tensors, "lstm_cell.bias_ih", &[4 * HIDDEN])?.into_iter().zip(take(
        tensors,
        "lstm_cell.bias_hh",
        &[4 * HIDDEN],
    )?);
    Ok(Linear { weight, bias: biases.map(|(input, hidden)| input + hidden).collect(), columns: 2 * HIDDEN })
}

fn take(tensors: &HashMap<String, Tensor>, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
    let Some(tensor) = tensors.get(name) else { bail!("the tensor {name} is missing") };
    if tensor.dims() != shape {
        bail!("the tensor {name} is {:?}, expected {shape:?}", tensor.dims());
    }
    tensor.flatten_all()?.to_dtype(candle_core::DType::F32)?.to_vec1()
}

impl SileroStream {
    /// The probability of speech in this frame of samples in [-1, 1].
    pub fn score(&mut self, frame: &[f32; FRAME]) -> f32 {
        let weights = Arc::clone(&self.weights);
        let mut features = [0.0; 128 * STEPS];
        let mut scratch = [0.0; 128 * STEPS];
        let mut column = [0.0; BINS * 3];
        let mut magnitudes = [0.0; BINS * STEPS];
        self.spectrum(frame, &mut magnitudes);

        let [first, second, third, fourth] = &weights.convolutions;
        let steps = first.forward(&magnitudes, STEPS, &mut features, &mut column);
        let steps = second.forward(&features, steps, &mut scratch, &mut column);
        let steps = third.forward(&scratch, steps, &mut features, &mut column);
        fourth.forward(&features, steps, &mut scratch, &mut column);

        self.remember(&scratch[..HIDDEN]);
        let heard = self.hidden.map(|value| value.max(0.0));
        sigmoid(weights.last.row(0, &heard))
    }

    /// Magnitudes as (BINS, STEPS) of the context and the frame.
    fn spectrum(&mut self, frame: &[f32; FRAME], magnitudes: &mut [f32; BINS * STEPS]) {
        const HEARD: usize = CONTEXT + FRAME;
        let mut samples = [0.0; HEARD + PAD];
        samples[..CONTEXT].copy_from_slice(&self.context);
        samples[CONTEXT..HEARD].copy_from_slice(frame);
        for step in 0..PAD {
            samples[HEARD + step] = samples[HEARD - 2 - step];
        }
        self.context.copy_from_slice(&frame[FRAME - CONTEXT..]);
        for step in 0..STEPS {
            let window = &samples[step * HOP..step * HOP + WINDOW];
            for bin in 0..BINS {
                let real = self.weights.spectrum.row(bin, window);
                let imaginary = self.weights.spectrum.row(BINS + bin, window);
                magnitudes[bin * STEPS + step] = real.hypot(imaginary);
            }
        }
    }

    /// One step of the LSTM cell.
    fn remember(&mut self, input: &[f32]) {
        let mut joined = [0.0; 2 * HIDDEN];
        joined[..HIDDEN].copy_from_slice(input);
        joined[HIDDEN..].copy_from_slice(&self.hidden);
        let gate = |kind: usize, unit: usize| self.weights.lstm.row(kind * HIDDEN + unit, &joined);
        for unit in 0..HIDDEN {
            let (enter, forget) = (sigmoid(gate(0, unit)), sigmoid(gate(1, unit)));
            let (candidate, leave) = (gate(2, unit).tanh(), sigmoid(gate(3, unit)));
            self.cell[unit] = forget * self.cell[unit] + enter * candidate;
            self.hidden[unit] = leave * self.cell[unit].tanh();
        }
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
