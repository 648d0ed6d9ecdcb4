//! The forward pass: a Llama whose norms and feed-forward network are double, one for text, one for audio.
//!
//! Attention and its cache are shared, over one count of positions. A position is audio where codes were its input.
//! Prompts are a handful of runs of one kind: each run is cut out (`narrow`) and goes through its own branch, so that
//! nothing is computed twice. While the model speaks every row is audio and the text branch is not touched.
//!
//! The rows of a call go through each product together. In a step every row belongs to another slot: slots of one run,
//! the unused ones among them, attend in one product. Everything that depends on positions comes in one upload per call
//! and is shared by the layers; keys and values are written in place.

use std::ops::Range;

use candle_core::quantized::QMatMul;
use candle_core::{D, DType, Device, IndexOp, Module, Result, Tensor};
use candle_nn::ops::{rms_norm, silu, softmax_last_dim};
use candle_nn::rotary_emb::rope_thd;

use super::cache::Slots;
use super::config::HiggsConfig;
use super::prompt::{Prompt, Run, Segment};
use super::weights::{BranchWeights, HiggsWeights, LayerWeights, Matrix, float_type};
use crate::nn::decoder::{NOWHERE, RopeTable, scaled_frequencies};
use crate::nn::kernel::PackedLinear;

/// Rows of a prompt that attend together: bounds the scores to so many rows.
const TILE: usize = 256;
/// In a step, what is attended to is rounded up to so many positions: shapes, and what is compiled or captured for them,
/// change every few seconds instead of every step.
const BUCKET: usize = 64;

pub(super) struct Model {
    config: HiggsConfig,
    device: Device,
    dtype: DType,
    embedding: Tensor,
    audio_embedding: Tensor,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Product,
    keys: Turns,
    /// The keys' with the scale of the scores in them.
    queries: Turns,
    /// `[1, positions]`: 0, 1, 2, …
    counting: Tensor,
}

/// Cosines and sines, `[positions, head_dim / 2]`.
struct Turns {
    cosines: Tensor,
    sines: Tensor,
}

impl Turns {
    fn new(table: &RopeTable, positions: usize, scale: f32, dtype: DType, device: &Device) -> Result<Self> {
        let tensor = |values: &[f32]| -> Result<Tensor> {
            let values: Vec<f32> = values.iter().map(|value| value * scale).collect();
            let half = values.len() / positions.max(1);
            Tensor::from_vec(values, (positions, half), device)?.to_dtype(dtype)
        };
        Ok(Self { cosines: tensor(&table.cosines)?, sines: tensor(&table.sines)? })
    }

    fn at(&self, positions: &Tensor) -> Result<Self> {
        Ok(Self { cosines: self.cosines.index_select(positions, 0)?, sines: self.sines.index_select(positions, 0)? })
    }

    fn within(&self, positions: &Range<usize>) -> Result<Self> {
        let cut = |table: &Tensor| table.narrow(0, positions.start, positions.len());
        Ok(Self { cosines: cut(&self.cosines)?, sines: cut(&self.sines)? })
    }

    /// `[rows, heads, head_dim]`.
    fn turn(&self, heads: &Tensor) -> Result<Tensor> {
        rope_thd(&heads.unsqueeze(0)?, &self.cosines, &self.sines)?.squeeze(0)
    }
}

/// What one call's layers share.
struct Call {
    rows: usize,
    runs: Vec<Run>,
    queries: Turns,
    keys: Turns,
    attention: Attention,
}

enum Attention {
    /// A prompt's rows, all of one slot.
    Prompt { slot: usize, tiles: Vec<Tile> },
    /// A row each of several slots.
    Step(Step),
}

/// Rows of a prompt that attend together.
struct Tile {
    row: usize,
    rows: usize,
    /// Position after the last row's.
    end: usize,
    /// `[1, 1, rows, end]`; None for a single row, which sees whatever it is given.
    mask: Option<Tensor>,
}

struct Step {
    first: usize,
    count: usize,
    /// Positions that are attended to, hidden ones among them.
    end: usize,
    /// Where the keys of each slot of the run go, `[count, kv_heads, 1, head_dim]`: the position, [`NOWHERE`] for unused
    /// slots. So laid out every number is written by a thread of its own.
    places: Tensor,
    /// `[count, 1, 1, end]`
    mask: Tensor,
    /// None where row i is the i-th slot of the run.
    order: Option<Order>,
}

impl Step {
    /// `[rows, …]` to `[count, …]`.
    fn by_slot(&self, rows: &Tensor) -> Result<Tensor> {
        match &self.order {
            Some(order) => rows.index_select(&order.rows, 0),
            None => Ok(rows.clone()),
        }
    }
}

struct Order {
    /// `[count]`: the row of each slot, row 0 for unused ones.
    rows: Tensor,
    /// `[rows]`: the place of each row in the run.
    places: Tensor,
}

/// A frame to read: its slot, and the slot's position that it takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading<'a> {
    pub(super) slot: usize,
    pub(super) position: usize,
    pub(super) frame: &'a [u32],
}

impl Model {
    pub(super) fn new(config: &HiggsConfig, weights: HiggsWeights, positions: usize, device: &Device) -> Result<Self> {
        let dtype = float_type(device);
        let half = config.head_dim / 2;
        let frequencies = scaled_frequencies(half, config.rope_theta, config.rope_scaling);
        let table = RopeTable::new(&frequencies.map(|frequency| frequency as f32).collect::<Vec<_>>(), positions);
        let scale = (config.head_dim as f32).sqrt().recip();
        Ok(Self {
            config: config.clone(),
            device: device.clone(),
            dtype,
            embedding: weights.embedding,
            audio_embedding: weights.audio_embedding,
            layers: weights.layers.into_iter().map(|layer| Layer::new(layer, config)).collect::<Result<_>>()?,
            norm: weights.norm,
            head: Product::new(Matrix::Dense(weights.head))?,
            keys: Turns::new(&table, positions, 1.0, dtype, device)?,
            queries: Turns::new(&table, positions, scale, dtype, device)?,
            counting: Tensor::arange(0u32, positions as u32, device)?.unsqueeze(0)?,
        })
    }

    /// Memory for so many slots of the positions that the model was built for.
    pub(super) fn slots(&self, slots: usize) -> Result<Slots> {
        let positions = self.counting.dim(1)?;
        Slots::new(&self.config, (slots, positions), self.dtype, &self.device)
    }

    /// Reads `positions` of a prompt into those of `slot`; gives the rows after the last layer, `[positions, hidden]`.
    pub(super) fn read(&self, slots: &Slots, slot: usize, prompt: &Prompt, positions: Range<usize>) -> Result<Tensor> {
        let (mut embedded, mut runs, mut start) = (Vec::new(), Vec::new(), 0);
        for (segment, within) in prompt.parts(positions.clone()) {
            let is_audio = matches!(segment, Segment::Audio(_));
            runs.push(Run { start, length: within.len(), is_audio });
            start += within.len();
            embedded.push(match segment {
                Segment::Text(ids) => self.embed_text(&ids[within])?,
                Segment::Audio(frames) => {
                    let codebooks = self.config.codebooks;
                    let codes = &frames.values()[within.start * codebooks..within.end * codebooks];
                    let rows: Vec<u32> = self.table_rows(codes).collect();
                    self.embed_audio(&Tensor::new(rows, &self.device)?)?
                }
            });
        }
        let call = Call {
            rows: positions.len(),
            runs,
            queries: self.queries.within(&positions)?,
            keys: self.keys.within(&positions)?,
            attention: Attention::Prompt { slot, tiles: tiles(&positions, &self.device)? },
        };
        self.forward(joined(embedded)?, slots, &call)
    }

    /// Reads a frame each into several slots, which are all others and in rising order; gives their logits,
    /// `[rows, codebooks * (codes + 2)]` in f32.
    pub(super) fn step(&self, slots: &Slots, readings: &[Reading<'_>]) -> Result<Tensor> {
        let (codes, call) = self.plan(slots, readings)?;
        let rows = self.forward(self.embed_audio(&codes)?, slots, &call)?;
        self.logits(&rows)
    }

    /// `rows`: `[rows, hidden]` after the last layer.
    pub(super) fn logits(&self, rows: &Tensor) -> Result<Tensor> {
        let normed = rms_norm(rows, &self.norm, self.config.rms_epsilon)?;
        self.head.forward(&normed)?.to_dtype(DType::F32)
    }

    fn forward(&self, mut rows: Tensor, slots: &Slots, call: &Call) -> Result<Tensor> {
        for (layer, (keys, values)) in self.layers.iter().zip(slots.keys.iter().zip(&slots.values)) {
            rows = layer.forward(&rows, keys, values, call)?;
        }
        Ok(rows)
    }

    /// Leaves the layers after the first so many out.
    #[cfg(test)]
    pub(super) fn keep_layers(&mut self, layers: usize) {
        self.layers.truncate(layers);
    }

    fn embed_text(&self, ids: &[u32]) -> Result<Tensor> {
        self.embedding.index_select(&Tensor::new(ids, &self.device)?, 0)
    }

    /// Row numbers of the audio embedding for `[frames, codebooks]`.
    fn table_rows(&self, codes: &[u32]) -> impl Iterator<Item = u32> {
        let (codebooks, book) = (self.config.codebooks, self.config.book());
        codes.iter().enumerate().map(move |(index, code)| code + (index % codebooks * book) as u32)
    }

    /// The sum over the codebooks, in f32. `rows`: `[frames * codebooks]`.
    fn embed_audio(&self, rows: &Tensor) -> Result<Tensor> {
        let parts = self.audio_embedding.index_select(rows, 0)?.to_dtype(DType::F32)?;
        parts.reshape(((), self.config.codebooks, self.config.hidden))?.sum(1)?.to_dtype(self.dtype)
    }

    /// Rows of the audio embedding, and what the layers share: all numbers of a step go to the device at once.
    fn plan(&self, slots: &Slots, readings: &[Reading<'_>]) -> Result<(Tensor, Call)> {
        let HiggsConfig { kv_heads, head_dim, .. } = self.config;
        let rows = readings.len();
        let first = readings.first().map_or(0, |reading| reading.slot);
        let count = readings.last().map_or(0, |reading| reading.slot + 1 - first);
        let held = readings.iter().map(|reading| reading.position + 1).max().unwrap_or(0);
        let end = held.next_multiple_of(BUCKET).min(slots.positions);
        let mut numbers = Vec::new();
        let mut sections = Vec::new();
        let mut add = |section: &mut dyn Iterator<Item = u32>| {
            let start = numbers.len();
            numbers.extend(section);
            sections.push(start..numbers.len());
        };
        add(&mut readings.iter().flat_map(|reading| self.table_rows(reading.frame)));
        add(&mut readings.iter().map(|reading| reading.position as u32));
        let (mut places, mut row_of) = (vec![NOWHERE; count], vec![0u32; count]);
        for (row, reading) in readings.iter().enumerate() {
            places[reading.slot - first] = reading.position as u32;
            row_of[reading.slot - first] = row as u32;
        }
        add(&mut places.iter().copied());
        // An unused slot's row attends to something, which nobody looks at.
        add(&mut places.iter().map(|place| if *place == NOWHERE { 0 } else { *place }));
        add(&mut row_of.into_iter());
        add(&mut readings.iter().map(|reading| (reading.slot - first) as u32));
        let uploaded = Tensor::new(numbers, &self.device)?;
        let section = |index: usize| uploaded.narrow(0, sections[index].start, sections[index].len());
        let positions = section(1)?;
        let order = Order { rows: section(4)?, places: section(5)? };
        let step = Step {
            first,
            count,
            end,
            places: section(2)?
                .reshape((count, 1, 1, 1))?
                .broadcast_as((count, kv_heads, 1, head_dim))?
                .contiguous()?,
            mask: self.mask(&section(3)?, end)?,
            order: (count != rows).then_some(order),
        };
        let call = Call {
            rows,
            runs: vec![Run { start: 0, length: rows, is_audio: true }],
            queries: self.queries.at(&positions)?,
            keys: self.keys.at(&positions)?,
            attention: Attention::Step(step),
        };
        Ok((section(0)?, call))
    }

    /// What is added to the scores: 0 up to each slot's last position, and so much less beyond it that nothing is left.
    /// `last`: `[count]`.
    fn mask(&self, last: &Tensor, end: usize) -> Result<Tensor> {
        const HIDDEN: f64 = 1e9;
        let sees = self.counting.narrow(1, 0, end)?.broadcast_le(&last.unsqueeze(1)?)?.to_dtype(DType::F32)?;
        sees.affine(HIDDEN, -HIDDEN)?.unsqueeze(1)?.unsqueeze(1)
    }
}

fn tiles(positions: &Range<usize>, device: &Device) -> Result<Vec<Tile>> {
    let tile = |begin: usize| {
        let rows = TILE.min(positions.end - begin);
        let end = begin + rows;
        let cells = (begin..end)
            .flat_map(|position| (0..end).map(move |seen| if seen <= position { 0.0 } else { f32::NEG_INFINITY }));
        let mask = (rows > 1).then(|| Tensor::from_vec(cells.collect::<Vec<f32>>(), (1, 1, rows, end), device));
        Ok(Tile { row: begin - positions.start, rows, end, mask: mask.transpose()? })
    };
    positions.clone().step_by(TILE).map(tile).collect()
}

/// One under the other.
fn joined(mut parts: Vec<Tensor>) -> Result<Tensor> {
    match (parts.len(), parts.pop()) {
        (1, Some(part)) => Ok(part),
        (_, last) => {
            parts.extend(last);
            Tensor::cat(&parts, 0)
        }
    }
}

struct Layer {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    query: Product,
    key: Product,
    value: Product,
    output: Product,
    text: Branch,
    audio: Branch,
}

/// What a kind of position has for itself.
struct Branch {
    epsilon: f32,
    attention_norm: Tensor,
    mlp_norm: Tensor,
    gate: Product,
    up: Product,
    down: Product,
}

impl Branch {
    fn new(weights: BranchWeights, config: &HiggsConfig) -> Result<Self> {
        Ok(Self {
            epsilon: config.rms_epsilon,
            attention_norm: weights.attention_norm,
            mlp_norm: weights.mlp_norm,
            gate: Product::new(weights.gate)?,
            up: Product::new(weights.up)?,
            down: Product::new(weights.down)?,
        })
    }

    fn norm(&self, rows: &Tensor) -> Result<Tensor> {
        rms_norm(rows, &self.attention_norm, self.epsilon)
    }

    fn mlp(&self, rows: &Tensor) -> Result<Tensor> {
        let normed = rms_norm(rows, &self.mlp_norm, self.epsilon)?;
        let gate = silu(&self.gate.forward(&normed)?)?;
        self.down.forward(&(gate * self.up.forward(&normed)?)?)
    }
}

impl Layer {
    fn new(weights: LayerWeights, config: &HiggsConfig) -> Result<Self> {
        Ok(Self {
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            query: Product::new(weights.query)?,
            key: Product::new(weights.key)?,
            value: Product::new(weights.value)?,
            output: Product::new(weights.output)?,
            text: Branch::new(weights.text, config)?,
            audio: Branch::new(weights.audio, config)?,
        })
    }

    /// Each run through its branch.
    fn routed(&self, rows: &Tensor, runs: &[Run], part: impl Fn(&Branch, &Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let branch = |run: &Run| if run.is_audio { &self.audio } else { &self.text };
        match runs {
            [run] => part(branch(run), rows),
            runs => {
                let parts = runs.iter().map(|run| part(branch(run), &rows.narrow(0, run.start, run.length)?));
                joined(parts.collect::<Result<_>>()?)
            }
        }
    }

    /// `rows`: `[rows, hidden]`.
    fn forward(&self, rows: &Tensor, keys: &Tensor, values: &Tensor, call: &Call) -> Result<Tensor> {
        let normed = self.routed(rows, &call.runs, Branch::norm)?;
        let rows = (rows + self.attention(&normed, keys, values, call)?)?;
        let result = self.routed(&rows, &call.runs, Branch::mlp)?;
        rows + result
    }

    fn attention(&self, normed: &Tensor, keys: &Tensor, values: &Tensor, call: &Call) -> Result<Tensor> {
        let project =
            |product: &Product, heads: usize| product.forward(normed)?.reshape((call.rows, heads, self.head_dim));
        let query = call.queries.turn(&project(&self.query, self.heads)?)?;
        let key = call.keys.turn(&project(&self.key, self.kv_heads)?)?;
        let value = project(&self.value, self.kv_heads)?;
        let attended = match &call.attention {
            Attention::Prompt { slot, tiles } => {
                let start = tiles.first().map_or(0, |tile| tile.end - tile.rows);
                for (memory, rows) in [(keys, &key), (values, &value)] {
                    let rows = rows.transpose(0, 1)?.contiguous()?.unsqueeze(0)?;
                    memory.narrow(0, *slot, 1)?.slice_set(&rows, 2, start)?;
                }
                let tiles = tiles.iter().map(|tile| self.attend_tile(&query, keys, values, *slot, tile));
                joined(tiles.collect::<Result<_>>()?)?
            }
            Attention::Step(step) => {
                for (memory, rows) in [(keys, &key), (values, &value)] {
                    let rows = step.by_slot(rows)?.unsqueeze(2)?;
                    memory.narrow(0, step.first, step.count)?.scatter_set(&step.places, &rows, 2)?;
                }
                self.attend_step(&query, keys, values, step)?
            }
        };
        self.output.forward(&attended)
    }

    /// `[tile.rows, heads * head_dim]`. `query`: `[rows, heads, head_dim]`.
    fn attend_tile(&self, query: &Tensor, keys: &Tensor, values: &Tensor, slot: usize, tile: &Tile) -> Result<Tensor> {
        let seen = |memory: &Tensor| memory.i(slot)?.narrow(1, 0, tile.end);
        let group = self.heads / self.kv_heads;
        // The heads of a group are rows of one product.
        let query = query.narrow(0, tile.row, tile.rows)?.transpose(0, 1)?.contiguous()?;
        let query = query.reshape((self.kv_heads, group * tile.rows, self.head_dim))?;
        let scores = query.matmul(&seen(keys)?.t()?)?.to_dtype(DType::F32)?;
        let scores = match &tile.mask {
            Some(mask) => {
                let grouped = scores.reshape((self.kv_heads, group, tile.rows, tile.end))?;
                grouped.broadcast_add(mask)?.reshape(scores.shape())?
            }
            None => scores,
        };
        let weights = softmax_last_dim(&scores)?.to_dtype(values.dtype())?;
        let attended = weights.matmul(&seen(values)?)?;
        let attended = attended.reshape((self.heads, tile.rows, self.head_dim))?.transpose(0, 1)?.contiguous()?;
        attended.flatten_from(D::Minus2)
    }

    /// `[rows, heads * head_dim]`.
    fn attend_step(&self, query: &Tensor, keys: &Tensor, values: &Tensor, step: &Step) -> Result<Tensor> {
        let seen = |memory: &Tensor| memory.narrow(0, step.first, step.count)?.narrow(2, 0, step.end);
        let group = self.heads / self.kv_heads;
        let query = step.by_slot(query)?.reshape((step.count, self.kv_heads, group, self.head_dim))?;
        let scores = query.matmul(&seen(keys)?.t()?)?.to_dtype(DType::F32)?;
        let weights = softmax_last_dim(&scores.broadcast_add(&step.mask)?)?.to_dtype(values.dtype())?;
        let attended = weights.matmul(&seen(values)?)?.reshape((step.count, self.heads * self.head_dim))?;
        match &step.order {
            Some(order) => attended.index_select(&order.places, 0),
            None => Ok(attended),
        }
    }
}

/// Rows `[rows, in]` to rows `[rows, out]`, both of the device's float type.
enum Product {
    /// On a CPU.
    Packed(PackedLinear),
    /// `[in, out]`, a view.
    Dense(Tensor),
    Quantized(QMatMul),
}

impl Product {
    fn new(matrix: Matrix) -> Result<Self> {
        Ok(match matrix {
            Matrix::Dense(weight) if weight.device().is_cpu() => Self::Packed(PackedLinear::dense(&weight)?),
            Matrix::Dense(weight) => Self::Dense(weight.t()?),
            Matrix::Quantized(weight) if weight.device().is_cpu() => Self::Packed(PackedLinear::quantized(&weight)?),
            Matrix::Quantized(weight) => Self::Quantized(QMatMul::from_qtensor(weight)?),
        })
    }

    fn forward(&self, rows: &Tensor) -> Result<Tensor> {
        match self {
            Self::Packed(linear) => linear.forward(&rows.contiguous()?, |value| value),
            Self::Dense(weight) => rows.matmul(weight),
            // Some of CUDA's kernels for quantized weights give f32, whatever they were given.
            Self::Quantized(weight) => weight.forward(rows)?.to_dtype(rows.dtype()),
        }
    }
}
