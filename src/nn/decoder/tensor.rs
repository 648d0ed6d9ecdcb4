//! The forward pass in candle's tensors: what runs on CUDA, and what the CPU's own kernels are measured against.
//!
//! The rows of all spans go through each product together; attention goes span by span, or slot by slot in one product
//! where every span is a single token. Rows between layers are f32. Keys and values are written in place into one
//! allocation per layer and never copied: grouped heads fold into the rows of the product. Everything that depends on
//! positions is built once per call and shared by the layers.

use std::sync::Arc;

use candle_core::quantized::QMatMul;
use candle_core::{DType, Device, IndexOp, Module, Result, Tensor};
use candle_nn::ops::{rms_norm, silu, softmax_last_dim};
use candle_nn::rotary_emb::rope_thd;

use super::config::{Activation, DecoderConfig, Family};
use super::rope::{RopeTable, frequencies};
use super::weights::{DecoderWeights, LayerWeights, Matrix};
use super::{Span, Wants};

/// Queries of one span that attend together: bounds the scores to so many rows.
const TILE: usize = 256;

pub(super) struct TensorDecoder {
    config: DecoderConfig,
    device: Device,
    embedding: Matrix,
    layers: Vec<Layer>,
    norm: Tensor,
    head: Product,
    /// Of the layers that turn by `theta`, and of those that turn by `local_theta`.
    frequencies: Vec<f32>,
    local_frequencies: Option<Vec<f32>>,
}

/// Keys and values of all slots.
pub(super) struct TensorStore {
    /// Per layer, each `[slots, kv_heads, positions, head_dim]`.
    keys: Vec<Tensor>,
    values: Vec<Tensor>,
    /// What keys and values are rounded to before they are written.
    precision: DType,
    turns: Turns,
    local_turns: Option<Turns>,
}

/// Cosines and sines, `[positions, head_dim / 2]`.
struct Turns {
    cosines: Tensor,
    sines: Tensor,
}

impl Turns {
    fn new(frequencies: &[f32], positions: usize, device: &Device) -> Result<Self> {
        let table = RopeTable::new(frequencies, positions);
        let shape = (positions, frequencies.len());
        Ok(Self {
            cosines: Tensor::from_vec(table.cosines, shape, device)?,
            sines: Tensor::from_vec(table.sines, shape, device)?,
        })
    }

    /// Of these positions.
    fn at(&self, positions: &Tensor) -> Result<Self> {
        Ok(Self { cosines: self.cosines.index_select(positions, 0)?, sines: self.sines.index_select(positions, 0)? })
    }

    /// `[rows, heads, head_dim]`.
    fn turn(&self, heads: &Tensor) -> Result<Tensor> {
        rope_thd(&heads.unsqueeze(0)?.contiguous()?, &self.cosines, &self.sines)?.squeeze(0)
    }
}

impl TensorStore {
    pub(super) fn element_bytes(&self) -> usize {
        self.keys.first().map_or(0, |keys| keys.dtype().size_in_bytes())
    }

    /// Rounds keys and values further than the memory does.
    #[cfg(test)]
    pub(super) fn rounded_to(self, precision: DType) -> Self {
        Self { precision, ..self }
    }

    /// Slots and positions are as `KvCache::copy` has checked them.
    pub(super) fn copy(&mut self, from: usize, to: usize, positions: usize) -> Result<()> {
        for memory in self.keys.iter().chain(&self.values) {
            // One head at a time is contiguous.
            for head in 0..memory.dim(1)? {
                let read =
                    memory.narrow(0, from, 1)?.narrow(1, head, 1)?.narrow(2, 0, positions)?.force_contiguous()?;
                memory.narrow(0, to, 1)?.narrow(1, head, 1)?.slice_set(&read, 2, 0)?;
            }
        }
        Ok(())
    }
}

impl TensorDecoder {
    pub(super) fn new(config: &DecoderConfig, weights: DecoderWeights, device: &Device) -> Result<Self> {
        let DecoderWeights { embedding, layers, norm, head, rope_factors } = weights;
        let head = match &head {
            Some(head) => Product::new(head)?,
            None => Product::new(&embedding)?,
        };
        let factors = rope_factors.map(|factors| factors.to_vec1::<f32>()).transpose()?;
        let frequencies_of = |local| frequencies(config, local, factors.as_deref());
        Ok(Self {
            config: config.clone(),
            device: device.clone(),
            embedding,
            layers: layers.into_iter().enumerate().map(|layer| Layer::new(layer, config)).collect::<Result<_>>()?,
            norm,
            head,
            frequencies: frequencies_of(false),
            local_frequencies: config.rope.local_theta.map(|_| frequencies_of(true)),
        })
    }

    /// The type of keys and values: f32 on a CPU, half of that elsewhere. Only Gemma's exceed the range of f16.
    fn cache_type(&self) -> DType {
        match self.config.family {
            _ if self.device.is_cpu() => DType::F32,
            Family::Gemma3 => DType::BF16,
            Family::Llama | Family::Qwen2 | Family::Qwen3 => DType::F16,
        }
    }

    pub(super) fn store(&self, slots: usize, positions: usize) -> Result<TensorStore> {
        let DecoderConfig { layers, kv_heads, head_dim, .. } = self.config;
        let zeros = || Tensor::zeros((slots, kv_heads, positions, head_dim), self.cache_type(), &self.device);
        let turns = |frequencies: &Vec<f32>| Turns::new(frequencies, positions, &self.device);
        Ok(TensorStore {
            keys: (0..layers).map(|_| zeros()).collect::<Result<_>>()?,
            values: (0..layers).map(|_| zeros()).collect::<Result<_>>()?,
            precision: self.cache_type(),
            turns: turns(&self.frequencies)?,
            local_turns: self.local_frequencies.as_ref().map(turns).transpose()?,
        })
    }

    /// Appends the rows of logits that the spans want to `logits`. Spans are as `KvCache::check` has checked them.
    pub(super) fn forward(&self, store: &TensorStore, spans: &[Span<'_>], logits: &mut Vec<f32>) -> Result<()> {
        if spans.is_empty() {
            return Ok(());
        }
        let call = Call::new(&self.config, store, spans, &self.device)?;
        let tokens: Vec<u32> = spans.iter().flat_map(|span| span.tokens).copied().collect();
        let tokens = Tensor::from_vec(tokens, call.rows, &self.device)?;
        let mut rows = embed(&self.embedding, &tokens)?;
        if self.config.family == Family::Gemma3 {
            rows = (rows * f64::from(self.config.embedding_scale))?;
        }
        for (layer, (keys, values)) in self.layers.iter().zip(store.keys.iter().zip(&store.values)) {
            rows = layer.forward(&rows, keys, values, &call)?;
        }
        let Some(wanted) = &call.wanted else { return Ok(()) };
        let rows = rms_norm(&rows.index_select(wanted, 0)?, &self.norm, self.config.rms_epsilon)?;
        logits.extend(self.head.forward(&rows)?.flatten_all()?.to_vec1::<f32>()?);
        Ok(())
    }
}

/// What one call's layers share.
struct Call {
    rows: usize,
    turns: Turns,
    local_turns: Option<Turns>,
    attention: Attention,
    precision: DType,
    /// Rows whose logits are wanted.
    wanted: Option<Tensor>,
}

enum Attention {
    BySpan(Vec<Tile>),
    BySlot(Slots),
}

/// Rows of one span that attend together.
struct Tile {
    row: usize,
    rows: usize,
    slot: usize,
    /// Position after the last row's.
    end: usize,
    mask: Option<Tensor>,
    /// Of the layers with a window: the first position that any row sees.
    local_begin: usize,
    local_mask: Option<Tensor>,
}

/// The place at which candle's scatter, on a CPU as on CUDA, writes nothing.
pub(in crate::nn) const NOWHERE: u32 = u32::MAX;

/// One token each for several slots: a run of slots attends at once, the unused ones among them for nothing.
struct Slots {
    first: usize,
    count: usize,
    /// Positions that the longest holds.
    end: usize,
    /// `[count]`: the row of each slot, row 0 for unused ones.
    rows: Tensor,
    /// `[rows]`: the place of each row in the run.
    places: Tensor,
    /// Where the keys of each slot of the run go, `[count, kv_heads, 1, head_dim]`: the position, [`NOWHERE`] for unused
    /// ones. So laid out a card writes every number by a thread of its own.
    memory_places: Tensor,
    /// `[count, 1, 1, end]`.
    mask: Tensor,
    local_mask: Option<Tensor>,
}

impl Call {
    fn new(config: &DecoderConfig, store: &TensorStore, spans: &[Span<'_>], device: &Device) -> Result<Self> {
        let (mut positions, mut wanted) = (Vec::new(), Vec::new());
        for span in spans {
            for offset in 0..span.tokens.len() {
                let position = span.start + offset;
                let is_last = offset + 1 == span.tokens.len();
                if span.wants == Wants::All || (span.wants == Wants::Last && is_last) {
                    wanted.push(positions.len() as u32);
                }
                positions.push(position as u32);
            }
        }
        let rows = positions.len();
        let positions = Tensor::from_vec(positions, rows, device)?;
        let window = (0..config.layers).find_map(|layer| config.window(layer));
        let singles = spans.len() > 1 && spans.iter().all(|span| span.tokens.len() == 1);
        Ok(Self {
            rows,
            turns: store.turns.at(&positions)?,
            local_turns: store.local_turns.as_ref().map(|turns| turns.at(&positions)).transpose()?,
            attention: if singles {
                Attention::BySlot(Slots::new(config, spans, window, device)?)
            } else {
                Attention::BySpan(tiles(spans, window, device)?)
            },
            precision: store.precision,
            wanted: match wanted.len() {
                0 => None,
                count => Some(Tensor::from_vec(wanted, count, device)?),
            },
        })
    }

    /// Writes `rows`, `[rows, kv_heads, head_dim]`, into a layer's memory of keys or values.
    fn write(&self, memory: &Tensor, rows: &Tensor) -> Result<()> {
        let rows = rows.to_dtype(self.precision)?.to_dtype(memory.dtype())?;
        match &self.attention {
            Attention::BySpan(tiles) => tiles.iter().try_for_each(|tile| {
                let read = rows.narrow(0, tile.row, tile.rows)?.transpose(0, 1)?.contiguous()?.unsqueeze(0)?;
                memory.narrow(0, tile.slot, 1)?.slice_set(&read, 2, tile.end - tile.rows)
            }),
            Attention::BySlot(slots) => {
                let rows = rows.index_select(&slots.rows, 0)?.unsqueeze(2)?;
                memory.narrow(0, slots.first, slots.count)?.scatter_set(&slots.memory_places, &rows, 2)
            }
        }
    }
}

fn tiles(spans: &[Span<'_>], window: Option<usize>, device: &Device) -> Result<Vec<Tile>> {
    let mut tiles = Vec::new();
    let mut row = 0;
    for span in spans {
        for begin in (0..span.tokens.len()).step_by(TILE) {
            let rows = TILE.min(span.tokens.len() - begin);
            let first = span.start + begin;
            let end = first + rows;
            let local_begin = window.map_or(0, |window| (first + 1).saturating_sub(window));
            let mask = |begin: usize, window: usize| -> Result<Option<Tensor>> {
                // A single row sees whatever it is given.
                let sees = |position: usize, seen: usize| seen <= position && seen + window > position;
                (rows > 1)
                    .then(|| {
                        let cells =
                            (first..end).flat_map(|position| (begin..end).map(move |seen| cell(sees(position, seen))));
                        Tensor::from_vec(cells.collect::<Vec<f32>>(), (1, 1, rows, end - begin), device)
                    })
                    .transpose()
            };
            tiles.push(Tile {
                row: row + begin,
                rows,
                slot: span.slot,
                end,
                mask: mask(0, usize::MAX / 2)?,
                local_begin,
                local_mask: window.map(|window| mask(local_begin, window)).transpose()?.flatten(),
            });
        }
        row += span.tokens.len();
    }
    Ok(tiles)
}

/// What is added to a score.
fn cell(sees: bool) -> f32 {
    if sees { 0.0 } else { f32::NEG_INFINITY }
}

impl Slots {
    fn new(config: &DecoderConfig, spans: &[Span<'_>], window: Option<usize>, device: &Device) -> Result<Self> {
        let first = spans.iter().map(|span| span.slot).min().unwrap_or(0);
        let last = spans.iter().map(|span| span.slot).max().unwrap_or(0);
        let end = spans.iter().map(|span| span.start + 1).max().unwrap_or(0);
        let count = last - first + 1;
        let (mut rows, mut positions) = (vec![0u32; count], vec![0; count]);
        for (row, span) in spans.iter().enumerate() {
            rows[span.slot - first] = row as u32;
            positions[span.slot - first] = span.start;
        }
        let mask = |window: usize| {
            let sees = |position: usize, seen: usize| seen <= position && seen + window > position;
            let cells = positions.iter().flat_map(|&position| (0..end).map(move |seen| cell(sees(position, seen))));
            Tensor::from_vec(cells.collect::<Vec<f32>>(), (count, 1, 1, end), device)
        };
        let places: Vec<u32> = spans.iter().map(|span| (span.slot - first) as u32).collect();
        let mut memory_places = vec![NOWHERE; count];
        for span in spans {
            memory_places[span.slot - first] = span.start as u32;
        }
        Ok(Self {
            first,
            count,
            end,
            mask: mask(usize::MAX / 2)?,
            local_mask: window.map(mask).transpose()?,
            rows: Tensor::from_vec(rows, count, device)?,
            places: Tensor::from_vec(places, spans.len(), device)?,
            memory_places: Tensor::from_vec(memory_places, (count, 1, 1, 1), device)?
                .broadcast_as((count, config.kv_heads, 1, config.head_dim))?
                .contiguous()?,
        })
    }
}

struct Layer {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    epsilon: f32,
    query_scale: f64,
    is_windowed: bool,
    turns_locally: bool,
    activation: Activation,
    attention_norm: Tensor,
    query: Product,
    key: Product,
    value: Product,
    query_bias: Option<Tensor>,
    key_bias: Option<Tensor>,
    value_bias: Option<Tensor>,
    query_norm: Option<Tensor>,
    key_norm: Option<Tensor>,
    output: Product,
    post_attention_norm: Option<Tensor>,
    mlp_norm: Tensor,
    gate: Product,
    up: Product,
    down: Product,
    post_mlp_norm: Option<Tensor>,
}

impl Layer {
    fn new((index, weights): (usize, LayerWeights), config: &DecoderConfig) -> Result<Self> {
        Ok(Self {
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            epsilon: config.rms_epsilon,
            query_scale: f64::from(config.query_scale),
            is_windowed: config.window(index).is_some(),
            turns_locally: config.turns_locally(index),
            activation: config.activation,
            attention_norm: weights.attention_norm,
            query: Product::new(&weights.query)?,
            key: Product::new(&weights.key)?,
            value: Product::new(&weights.value)?,
            query_bias: weights.query_bias,
            key_bias: weights.key_bias,
            value_bias: weights.value_bias,
            query_norm: weights.query_norm,
            key_norm: weights.key_norm,
            output: Product::new(&weights.output)?,
            post_attention_norm: weights.post_attention_norm,
            mlp_norm: weights.mlp_norm,
            gate: Product::new(&weights.gate)?,
            up: Product::new(&weights.up)?,
            down: Product::new(&weights.down)?,
            post_mlp_norm: weights.post_mlp_norm,
        })
    }

    fn norm(&self, rows: &Tensor, weight: &Tensor) -> Result<Tensor> {
        rms_norm(rows, weight, self.epsilon)
    }

    fn norm_where(&self, rows: &Tensor, weight: Option<&Tensor>) -> Result<Tensor> {
        weight.map_or_else(|| Ok(rows.clone()), |weight| self.norm(rows, weight))
    }

    /// `rows`: `[rows, hidden]`.
    fn forward(&self, rows: &Tensor, keys: &Tensor, values: &Tensor, call: &Call) -> Result<Tensor> {
        let attended = self.attention(&self.norm(rows, &self.attention_norm)?, keys, values, call)?;
        let rows = (rows + self.norm_where(&attended, self.post_attention_norm.as_ref())?)?;
        let normed = self.norm(&rows, &self.mlp_norm)?;
        let gate = self.gate.forward(&normed)?;
        let gate = match self.activation {
            Activation::Silu => silu(&gate)?,
            Activation::GeluTanh => gate.gelu()?,
        };
        let result = self.down.forward(&(gate * self.up.forward(&normed)?)?)?;
        rows + self.norm_where(&result, self.post_mlp_norm.as_ref())?
    }

    fn attention(&self, normed: &Tensor, keys: &Tensor, values: &Tensor, call: &Call) -> Result<Tensor> {
        let project = |product: &Product, bias: Option<&Tensor>, heads: usize| -> Result<Tensor> {
            let projected = product.forward(normed)?;
            let projected = bias.map_or_else(|| Ok(projected.clone()), |bias| projected.broadcast_add(bias))?;
            projected.reshape((call.rows, heads, self.head_dim))
        };
        let query = project(&self.query, self.query_bias.as_ref(), self.heads)?;
        let key = project(&self.key, self.key_bias.as_ref(), self.kv_heads)?;
        let value = project(&self.value, self.value_bias.as_ref(), self.kv_heads)?;
        let turns = match &call.local_turns {
            Some(local) if self.turns_locally => local,
            _ => &call.turns,
        };
        let query = turns.turn(&self.norm_where(&query, self.query_norm.as_ref())?)?;
        let key = turns.turn(&self.norm_where(&key, self.key_norm.as_ref())?)?;
        call.write(keys, &key)?;
        call.write(values, &value)?;
        let query = (query * self.query_scale)?.to_dtype(keys.dtype())?;
        let attended = match &call.attention {
            Attention::BySpan(tiles) => {
                let tiles = tiles.iter().map(|tile| self.attend_tile(&query, keys, values, tile));
                Tensor::cat(&tiles.collect::<Result<Vec<_>>>()?, 0)?
            }
            Attention::BySlot(slots) => self.attend_slots(&query, keys, values, slots)?,
        };
        self.output.forward(&attended)
    }

    /// `[tile.rows, heads * head_dim]` of `query`: `[rows, heads, head_dim]`.
    fn attend_tile(&self, query: &Tensor, keys: &Tensor, values: &Tensor, tile: &Tile) -> Result<Tensor> {
        let (begin, mask) = if self.is_windowed { (tile.local_begin, &tile.local_mask) } else { (0, &tile.mask) };
        let seen = |memory: &Tensor| memory.i(tile.slot)?.narrow(1, begin, tile.end - begin);
        let group = self.heads / self.kv_heads;
        // [kv_heads, group * rows, head_dim]: the heads of a group are rows of one product.
        let query = query.narrow(0, tile.row, tile.rows)?.transpose(0, 1)?.contiguous()?;
        let query = query.reshape((self.kv_heads, group * tile.rows, self.head_dim))?;
        let scores = query.matmul(&seen(keys)?.t()?)?.to_dtype(DType::F32)?;
        let scores = match mask {
            Some(mask) => {
                let grouped = scores.reshape((self.kv_heads, group, tile.rows, tile.end - begin))?;
                grouped.broadcast_add(mask)?.reshape(scores.shape())?
            }
            None => scores,
        };
        let weights = softmax_last_dim(&scores)?.to_dtype(values.dtype())?;
        let attended = weights.matmul(&seen(values)?)?.to_dtype(DType::F32)?;
        let attended = attended.reshape((self.heads, tile.rows, self.head_dim))?.transpose(0, 1)?.contiguous()?;
        attended.reshape((tile.rows, self.heads * self.head_dim))
    }

    /// `[rows, heads * head_dim]`.
    fn attend_slots(&self, query: &Tensor, keys: &Tensor, values: &Tensor, slots: &Slots) -> Result<Tensor> {
        let seen = |memory: &Tensor| memory.narrow(0, slots.first, slots.count)?.narrow(2, 0, slots.end);
        let group = self.heads / self.kv_heads;
        let query = query.index_select(&slots.rows, 0)?;
        let query = query.reshape((slots.count, self.kv_heads, group, self.head_dim))?;
        let scores = query.matmul(&seen(keys)?.t()?)?.to_dtype(DType::F32)?;
        let mask = slots.local_mask.as_ref().filter(|_| self.is_windowed).unwrap_or(&slots.mask);
        let weights = softmax_last_dim(&scores.broadcast_add(mask)?)?.to_dtype(values.dtype())?;
        let attended = weights.matmul(&seen(values)?)?.to_dtype(DType::F32)?;
        let attended = attended.reshape((slots.count, self.heads * self.head_dim))?;
        attended.index_select(&slots.places, 0)
    }
}

/// Rows `[rows, in]` in f32 to rows `[rows, out]` in f32.
enum Product {
    /// `[in, out]`, a view.
    Dense(Tensor),
    Quantized(QMatMul),
}

impl Product {
    fn new(matrix: &Matrix) -> Result<Self> {
        Ok(match matrix {
            Matrix::Dense(weight) => Self::Dense(weight.t()?),
            Matrix::Quantized(weight) => Self::Quantized(QMatMul::from_arc(Arc::clone(weight))?),
        })
    }

    fn forward(&self, rows: &Tensor) -> Result<Tensor> {
        match self {
            Self::Dense(weight) => rows.to_dtype(weight.dtype())?.matmul(weight)?.to_dtype(DType::F32),
            Self::Quantized(weight) => weight.forward(rows),
        }
    }
}

/// `[rows, hidden]` in f32 of the table's rows `tokens`.
fn embed(table: &Matrix, tokens: &Tensor) -> Result<Tensor> {
    match table {
        Matrix::Dense(table) => table.index_select(tokens, 0)?.to_dtype(DType::F32),
        Matrix::Quantized(table) => table.embedding(tokens),
    }
}
