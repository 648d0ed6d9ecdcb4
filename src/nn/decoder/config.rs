//! The numbers in which the families differ, from a GGUF header or a config.json alike.

use super::DecoderError;

/// A model's sizes and rules. Every combination that passes [`DecoderConfig::check`] runs.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    pub family: Family,
    /// Rows of the embedding: every token id is below.
    pub vocabulary: usize,
    /// Width of a token's row between layers.
    pub hidden: usize,
    /// Width between gate/up and down.
    pub intermediate: usize,
    pub layers: usize,
    /// Query heads; a multiple of `kv_heads`.
    pub heads: usize,
    pub kv_heads: usize,
    /// Even. `heads * head_dim` need not be `hidden`.
    pub head_dim: usize,
    /// Added to the mean square in every RMSNorm.
    pub rms_epsilon: f32,
    pub rope: Rope,
    pub window: Option<SlidingWindow>,
    pub activation: Activation,
    /// The embedding is the head.
    pub tied: bool,
    /// Multiplies the rows of the embedding: 1, and √hidden in Gemma.
    pub embedding_scale: f32,
    /// Multiplies the scores before the softmax: 1/√`head_dim` in most.
    pub query_scale: f32,
    /// Positions that the model was trained for.
    pub context: usize,
    /// Put before every text, where the model wants it.
    pub begin: Option<u32>,
    /// Each ends a reply.
    pub ends: Vec<u32>,
}

/// What a layer is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Also SmolLM2 and Mistral.
    Llama,
    /// Queries, keys and values have biases.
    Qwen2,
    /// The heads of queries and keys are normed.
    Qwen3,
    /// As Qwen 3, and what attention and feed-forward network give is normed before it is added.
    Gemma3,
}

impl Family {
    pub(super) fn has_biases(self) -> bool {
        self == Self::Qwen2
    }

    pub(super) fn norms_heads(self) -> bool {
        matches!(self, Self::Qwen3 | Self::Gemma3)
    }

    pub(super) fn norms_results(self) -> bool {
        self == Self::Gemma3
    }
}

/// Rotary positions over the two halves of a head.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    pub theta: f64,
    /// Of the layers that see a sliding window only, unscaled; `theta` where none.
    pub local_theta: Option<f64>,
    pub scaling: RopeScaling,
}

/// How frequencies are stretched beyond the context of the first training. A GGUF file's `rope_freqs` come on top.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    None,
    /// All divided by the factor.
    Linear {
        factor: f64,
    },
    /// Llama 3.1 on: long waves divided by the factor, short ones kept, a ramp between.
    Llama3 {
        factor: f64,
        low_frequency: f64,
        high_frequency: f64,
        original_context: f64,
    },
}

/// Layers that attend to the last `size` positions only, their own among them.
#[derive(Clone, Debug, PartialEq)]
pub struct SlidingWindow {
    pub size: usize,
    /// For each layer whether it is one of them.
    pub local: Vec<bool>,
}

/// Of the gate in the feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    Silu,
    /// The tanh approximation of GELU.
    GeluTanh,
}

impl DecoderConfig {
    /// Positions that `layer` attends to: the last so many. None: all.
    pub fn window(&self, layer: usize) -> Option<usize> {
        self.window.as_ref().filter(|window| window.local.get(layer) == Some(&true)).map(|window| window.size)
    }

    /// `layer` turns by `local_theta`.
    pub fn turns_locally(&self, layer: usize) -> bool {
        self.rope.local_theta.is_some() && self.window(layer).is_some()
    }

    /// Numbers that a token adds to a slot's keys and values, over all layers.
    pub fn cache_elements_per_position(&self) -> usize {
        2 * self.layers * self.kv_heads * self.head_dim
    }

    /// Whether the sizes fit each other and are of a size that a model has, so that nothing later overflows, divides by
    /// zero or allocates by a damaged number.
    pub(super) fn check(self, error: impl Fn(String) -> DecoderError) -> Result<Self, DecoderError> {
        let sizes = [
            ("the vocabulary", self.vocabulary, 1, 1 << 24),
            ("the hidden size", self.hidden, 1, 1 << 17),
            ("the feed-forward size", self.intermediate, 1, 1 << 19),
            ("the number of layers", self.layers, 1, 512),
            ("the number of heads", self.heads, 1, 1024),
            ("the number of key heads", self.kv_heads, 1, 1024),
            ("the size of a head", self.head_dim, 2, 1024),
            ("the context", self.context, 1, 1 << 32),
        ];
        check_sizes(&sizes).and_then(|()| check_heads(self.heads, self.kv_heads, self.head_dim)).map_err(&error)?;
        if self.window.as_ref().is_some_and(|window| window.size == 0 || window.local.len() != self.layers) {
            return Err(error("its sliding window does not fit its layers".to_owned()));
        }
        if self.rope.local_theta.is_some() && self.window.is_none() {
            return Err(error("it has a rotary base for layers with a sliding window and no window".to_owned()));
        }
        let numbers = [
            ("the norm's epsilon", f64::from(self.rms_epsilon)),
            ("the rotary base", self.rope.theta),
            ("the local rotary base", self.rope.local_theta.unwrap_or(1.0)),
            ("the query scale", f64::from(self.query_scale)),
        ];
        check_numbers(&numbers, self.rope.scaling).map_err(&error)?;
        Ok(self)
    }
}

/// Whether sizes, each with its name, its least and its most, are such as a model has.
pub(in crate::nn) fn check_sizes(sizes: &[(&str, usize, usize, usize)]) -> Result<(), String> {
    match sizes.iter().find(|(_, size, least, most)| !(least..=most).contains(&size)) {
        Some((what, size, least, most)) => Err(format!("{what} is {size}, expected {least} to {most}")),
        None => Ok(()),
    }
}

/// Whether heads go together; no number is zero.
pub(in crate::nn) fn check_heads(heads: usize, kv_heads: usize, head_dim: usize) -> Result<(), String> {
    if heads.is_multiple_of(kv_heads) && head_dim.is_multiple_of(2) {
        return Ok(());
    }
    Err(format!("{heads} heads of size {head_dim} and {kv_heads} key heads do not fit"))
}

/// Whether numbers, each with its name, and those of the rotary scaling are finite and above zero.
pub(in crate::nn) fn check_numbers(numbers: &[(&str, f64)], scaling: RopeScaling) -> Result<(), String> {
    let scaling = match scaling {
        RopeScaling::None => [1.0; 4],
        RopeScaling::Linear { factor } => [factor; 4],
        RopeScaling::Llama3 { factor, low_frequency, high_frequency, original_context } => {
            [factor, low_frequency, high_frequency - low_frequency, original_context]
        }
    };
    let mut all = numbers.iter().copied().chain(scaling.map(|number| ("the rotary scaling", number)));
    match all.find(|(_, number)| !(number.is_finite() && *number > 0.0)) {
        Some((what, number)) => Err(format!("{what} is {number}")),
        None => Ok(()),
    }
}
