//! The text decoder, one token at a time: its self-attention cache is allocated once and written in place, the keys
//! and values of what was heard are computed once per window, and logits are computed only where they are asked for.
//!
//! Source: OpenAI's `whisper/model.py`, `TextDecoder`; names as in transformers' checkpoints.

use candle_core::{DType, Device, Result, Tensor, bail};
use candle_nn::VarBuilder;

use super::attention;
use super::config::Config;
use super::encoder::LayerNorm;
use super::linear::Linear;
use super::{Check, Precision};

/// What the encoder heard, as each decoder layer attends to it.
pub struct Heard {
    /// Per layer: keys `[windows, heads, dim, positions]`, scaled, and values `[windows, heads, positions, dim]`.
    layers: Vec<(Tensor, Tensor)>,
    windows: usize,
}

/// What a reading tells of the text that was read.
pub struct Attended {
    /// Per alignment head `[tokens, positions]`, row by row: how much of each position each token is.
    pub heads: Vec<Vec<f32>>,
    /// How the text could go on after the token that was named.
    pub logits: Option<Vec<f32>>,
}

/// The decoder's memory of the rows it is writing.
pub struct DecoderState {
    /// Per layer: keys and values `[rows, capacity, width]`, of which the first `length` positions are written.
    layers: Vec<(Tensor, Tensor)>,
    rows: usize,
    length: usize,
    capacity: usize,
}

impl DecoderState {
    /// Tokens that each row has room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Tokens that each row has read.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Forgets what was read after the first `length` tokens.
    pub fn forget(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// Makes row `i` a copy of what is now row `parents[i]`; the number of rows becomes that of `parents`.
    ///
    /// # Errors
    /// A parent that is not a row.
    pub fn rearrange(&mut self, parents: &[u32]) -> Result<()> {
        if parents.iter().any(|&parent| parent as usize >= self.rows) {
            bail!("there is no row {parents:?} among {}", self.rows);
        }
        let same_rows = parents.len() == self.rows;
        if same_rows && parents.iter().enumerate().all(|(row, &parent)| row == parent as usize) {
            return Ok(());
        }
        for (key, value) in &mut self.layers {
            for cache in [key, value] {
                let index = Tensor::new(parents, cache.device())?;
                let (_, _, width) = cache.dims3()?;
                if !same_rows {
                    let wider = Tensor::zeros((parents.len(), self.capacity, width), cache.dtype(), cache.device())?;
                    if self.length > 0 {
                        let written = cache.narrow(1, 0, self.length)?.contiguous()?;
                        wider.slice_set(&written.index_select(&index, 0)?, 1, 0)?;
                    }
                    *cache = wider;
                } else if self.length > 0 {
                    let written = cache.narrow(1, 0, self.length)?.contiguous()?;
                    cache.slice_set(&written.index_select(&index, 0)?, 1, 0)?;
                }
            }
        }
        self.rows = parents.len();
        Ok(())
    }
}

/// Which cross-attention weights a pass should keep: layer and head.
struct Watch<'a> {
    heads: &'a [[usize; 2]],
    /// In the order of the layers: head after head, `[tokens * positions]` each.
    seen: Vec<Vec<f32>>,
}

struct DecoderLayer {
    self_attn_layer_norm: LayerNorm,
    qkv: Linear,
    self_out_proj: Linear,
    encoder_attn_layer_norm: LayerNorm,
    cross_q_proj: Linear,
    /// Keys (scaled) and values of what was heard.
    cross_kv: Linear,
    cross_out_proj: Linear,
    final_layer_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl DecoderLayer {
    fn load(config: &Config, vb: &VarBuilder, precision: Precision) -> Result<Self> {
        let (width, ffn) = (config.d_model, config.decoder_ffn_dim);
        let parts = [("q_proj", width, true), ("k_proj", width, false), ("v_proj", width, true)];
        let cross = vb.pp("encoder_attn");
        let scale = ((width / config.decoder_attention_heads) as f64).powf(-0.5);
        let key = (cross.pp("k_proj").get((width, width), "weight")? * scale)?;
        let value = cross.pp("v_proj").get((width, width), "weight")?;
        let bias = cross.pp("v_proj").get(width, "bias")?;
        let bias = Tensor::cat(&[bias.zeros_like()?, bias], 0)?;
        Ok(Self {
            self_attn_layer_norm: LayerNorm::load(width, "self_attn_layer_norm", vb)?,
            qkv: Linear::stacked(width, &parts, &vb.pp("self_attn"), precision)?,
            self_out_proj: Linear::load(width, width, "out_proj", &vb.pp("self_attn"), precision)?,
            encoder_attn_layer_norm: LayerNorm::load(width, "encoder_attn_layer_norm", vb)?,
            cross_q_proj: Linear::load(width, width, "q_proj", &cross, precision)?,
            cross_kv: Linear::new(Tensor::cat(&[key, value], 0)?, bias, precision)?,
            cross_out_proj: Linear::load(width, width, "out_proj", &cross, precision)?,
            final_layer_norm: LayerNorm::load(width, "final_layer_norm", vb)?,
            fc1: Linear::load(width, ffn, "fc1", vb, precision)?,
            fc2: Linear::load(ffn, width, "fc2", vb, precision)?,
        })
    }

    /// Encoder output `[windows, positions, width]` → keys and values as in [`Heard`].
    fn listen(&self, encoded: &Tensor, heads: usize) -> Result<(Tensor, Tensor)> {
        let (windows, positions, width) = encoded.dims3()?;
        let both = self.cross_kv.forward(&encoded.reshape((windows * positions, width))?)?;
        let part = |index| both.narrow(1, index * width, width)?.reshape((windows, positions, heads, width / heads));
        Ok((part(0)?.permute((0, 2, 3, 1))?.contiguous()?, part(1)?.permute((0, 2, 1, 3))?.contiguous()?))
    }

    /// `[rows * new, width]` → the same; writes the new positions' keys and values into `cache` at `offset`.
    fn forward(
        &self,
        input: &Tensor,
        heads: usize,
        offset: usize,
        cache: &(Tensor, Tensor),
        heard: &(Tensor, Tensor),
        watch: impl FnOnce(&Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        let (positions, width) = input.dims2()?;
        let rows = cache.0.dim(0)?;
        let new = positions / rows;
        let qkv = self.qkv.forward(&self.self_attn_layer_norm.forward(input)?)?;
        let part = |index| qkv.narrow(1, index * width, width)?.contiguous()?.reshape((rows, new, width));
        cache.0.slice_set(&part(1)?, 1, offset)?;
        cache.1.slice_set(&part(2)?, 1, offset)?;
        let said = attention::causal(&part(0)?, &cache.0, &cache.1, heads, offset)?;
        let input = (input + self.self_out_proj.forward(&said.reshape((positions, width))?)?)?;

        let windows = heard.0.dim(0)?;
        let query = self.cross_q_proj.forward(&self.encoder_attn_layer_norm.forward(&input)?)?;
        let query = query.reshape((windows, positions / windows, width))?;
        watch(&query)?;
        let context = attention::cross(&query, &heard.0, &heard.1)?;
        let input = (&input + self.cross_out_proj.forward(&context.reshape((positions, width))?)?)?;

        let inner = self.fc1.forward_gelu(&self.final_layer_norm.forward(&input)?)?;
        input + self.fc2.forward(&inner)?
    }
}

pub(super) struct Decoder {
    embed_tokens: Tensor,
    embed_positions: Tensor,
    layers: Vec<DecoderLayer>,
    layer_norm: LayerNorm,
    /// The embedding again, as the output layer.
    logits: Linear,
    heads: usize,
}

impl Decoder {
    pub(super) fn load(config: &Config, vb: &VarBuilder, precision: Precision) -> Result<Self> {
        let width = config.d_model;
        let embed_tokens = vb.pp("embed_tokens").get((config.vocab_size, width), "weight")?;
        let no_bias = Tensor::zeros(config.vocab_size, vb.dtype(), vb.device())?;
        Ok(Self {
            embed_tokens: embed_tokens.to_dtype(DType::F16)?,
            logits: Linear::new(embed_tokens, no_bias, precision)?,
            embed_positions: vb.pp("embed_positions").get((config.max_target_positions, width), "weight")?,
            layers: (0..config.decoder_layers)
                .map(|layer| DecoderLayer::load(config, &vb.pp("layers").pp(layer), precision))
                .collect::<Result<_>>()?,
            layer_norm: LayerNorm::load(width, "layer_norm", vb)?,
            heads: config.decoder_attention_heads,
        })
    }

    /// Encoder output `[windows, positions, width]` → what the layers attend to. None where `check` answered no.
    pub(super) fn listen(&self, encoded: &Tensor, check: Check) -> Result<Option<Heard>> {
        let windows = encoded.dim(0)?;
        let mut layers = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            if !check() {
                return Ok(None);
            }
            layers.push(layer.listen(encoded, self.heads)?);
        }
        Ok(Some(Heard { layers, windows }))
    }

    /// Room for `rows` rows (a multiple of the windows that are heard) of up to `capacity` tokens.
    pub(super) fn open(&self, rows: usize, capacity: usize) -> Result<DecoderState> {
        let (most, width) = self.embed_positions.dims2()?;
        let capacity = capacity.min(most);
        let cache = || Tensor::zeros((rows, capacity, width), self.embed_positions.dtype(), self.device());
        let layers = self.layers.iter().map(|_| Ok((cache()?, cache()?))).collect::<Result<_>>()?;
        Ok(DecoderState { layers, rows, length: 0, capacity })
    }

    /// Reads `tokens`, the same number for every row, row after row, and gives the logits after those of them that
    /// `wanted` names: `[rows, wanted]` of as many numbers as there are tokens in the vocabulary.
    pub(super) fn read(
        &self,
        heard: &Heard,
        state: &mut DecoderState,
        tokens: &[u32],
        wanted: &[usize],
    ) -> Result<Vec<Vec<f32>>> {
        let hidden = self.hidden(heard, state, tokens, None)?;
        let new = tokens.len() / state.rows;
        let index: Vec<u32> =
            (0..state.rows).flat_map(|row| wanted.iter().map(move |position| (row * new + position) as u32)).collect();
        let hidden = if index.len() == tokens.len() {
            hidden
        } else {
            hidden.index_select(&Tensor::new(index, self.device())?, 0)?
        };
        self.logits_of(&hidden)
    }

    /// How the given heads attend while one row reads `tokens`, and the logits after the token at `last`, where one is
    /// named.
    pub(super) fn attend(
        &self,
        heard: &Heard,
        tokens: &[u32],
        heads: &[[usize; 2]],
        last: Option<usize>,
    ) -> Result<Attended> {
        let mut watch = Watch { heads, seen: Vec::new() };
        let hidden = self.hidden(heard, &mut self.open(1, tokens.len())?, tokens, Some(&mut watch))?;
        let logits = last.map(|last| self.logits_of(&hidden.narrow(0, last, 1)?)).transpose()?;
        Ok(Attended { heads: watch.seen, logits: logits.and_then(|mut rows| rows.pop()) })
    }

    fn logits_of(&self, hidden: &Tensor) -> Result<Vec<Vec<f32>>> {
        self.logits.forward(&self.layer_norm.forward(hidden)?)?.to_dtype(DType::F32)?.to_vec2()
    }

    /// The last layer's output at every token: `[tokens, width]`.
    fn hidden(
        &self,
        heard: &Heard,
        state: &mut DecoderState,
        tokens: &[u32],
        mut watch: Option<&mut Watch>,
    ) -> Result<Tensor> {
        let new = tokens.len() / state.rows.max(1);
        let vocabulary = self.embed_tokens.dim(0)?;
        if new == 0 || new * state.rows != tokens.len() || !state.rows.is_multiple_of(heard.windows) {
            bail!("{} tokens do not fill {} rows of {} windows", tokens.len(), state.rows, heard.windows);
        }
        if state.length + new > state.capacity {
            bail!("no room for {new} tokens after {} of {}", state.length, state.capacity);
        }
        // An index out of range would poison a CUDA context: check where it is still a number.
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
            bail!("token {token} is beyond the vocabulary of {vocabulary}");
        }
        let embedded = self.embed_tokens.index_select(&Tensor::new(tokens, self.device())?, 0)?;
        let embedded = embedded.to_dtype(self.embed_positions.dtype())?.reshape((state.rows, new, ()))?;
        let positions = self.embed_positions.narrow(0, state.length, new)?;
        let mut x = embedded.broadcast_add(&positions)?.reshape((tokens.len(), ()))?;
        for (number, layer) in self.layers.iter().enumerate() {
            let heard = &heard.layers[number];
            let seen = |query: &Tensor| match &mut watch {
                Some(watch) => watch.keep(number, query, &heard.0),
                None => Ok(()),
            };
            x = layer.forward(&x, self.heads, state.length, &state.layers[number], heard, seen)?;
        }
        state.length += new;
        Ok(x)
    }

    fn device(&self) -> &Device {
        self.embed_positions.device()
    }
}

impl Watch<'_> {
    /// Keeps the weights of layer `number`'s watched heads.
    fn keep(&mut self, number: usize, query: &Tensor, key: &Tensor) -> Result<()> {
        let heads: Vec<_> = self.heads.iter().filter(|head| head[0] == number).map(|head| head[1]).collect();
        if heads.is_empty() {
            return Ok(());
        }
        let weights = attention::cross_weights(query, key)?.get(0)?.to_dtype(DType::F32)?;
        for head in heads {
            self.seen.push(weights.get(head)?.flatten_all()?.to_vec1()?);
        }
        Ok(())
    }
}
