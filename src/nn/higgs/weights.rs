//! The checkpoint: its names and shapes, read from the files' headers before anything else, and its weights.
//!
//! One set of names is used here, Boson's; transformers' differ by a prefix and in three places. A checkpoint is refused
//! where a tensor is missing or of another shape, and where one is left over that nobody would read: what it would add
//! to the sum would be missing without a word.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use safetensors::tensor::Dtype;

use super::HiggsError;
use super::config::{HiggsConfig, Layout};
use crate::nn::decoder::shards;

const EMBEDDING: &str = "embed_tokens";
const AUDIO_EMBEDDING: &str = "audio_codebook_embeddings";
const AUDIO_HEAD: &str = "audio_decoder_proj.audio_lm_head";
/// Not read: speech is begun by force, and no text is written.
const TEXT_HEAD: &str = "audio_decoder_proj.text_lm_head";
const NORM: &str = "norm";

/// What the products of the layers are stored as, on the device. Embeddings, norms and the head stay floats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// bf16 on an accelerator, f32 on a CPU.
    #[default]
    Float,
    /// 8.5 bits a weight.
    Q8_0,
    /// 4.5 bits a weight.
    Q4K,
}

impl Precision {
    fn quantized(self) -> Option<GgmlDType> {
        match self {
            Self::Float => None,
            Self::Q8_0 => Some(GgmlDType::Q8_0),
            Self::Q4K => Some(GgmlDType::Q4K),
        }
    }

    /// Whether a model of these sizes can be stored so.
    pub fn fits(self, config: &HiggsConfig) -> bool {
        self.refuse(config).is_ok()
    }

    /// A row of a quantized matrix is whole blocks.
    fn refuse(self, config: &HiggsConfig) -> Result<(), HiggsError> {
        let Some(kind) = self.quantized() else { return Ok(()) };
        let block = kind.block_size();
        let widths = layer_matrices(config).map(|(_, _, columns)| columns);
        match widths.iter().find(|width| !width.is_multiple_of(block)) {
            Some(width) => Err(HiggsError::Unfit(format!(
                "{kind:?} needs rows of a multiple of {block} weights, the model has rows of {width}"
            ))),
            None => Ok(()),
        }
    }

    fn bytes(self, weights: u64, float: u64) -> u64 {
        match self.quantized() {
            None => weights * float,
            Some(kind) => weights / kind.block_size() as u64 * kind.type_size() as u64,
        }
    }
}

/// The float type of everything on `device`.
pub(super) fn float_type(device: &Device) -> DType {
    if device.is_cpu() { DType::F32 } else { DType::BF16 }
}

/// A weight of a product, `[out, in]`.
pub(super) enum Matrix {
    Dense(Tensor),
    Quantized(QTensor),
}

/// What the two kinds of positions do not share.
pub(super) struct BranchWeights {
    pub(super) attention_norm: Tensor,
    pub(super) mlp_norm: Tensor,
    pub(super) gate: Matrix,
    pub(super) up: Matrix,
    pub(super) down: Matrix,
}

pub(super) struct LayerWeights {
    pub(super) query: Matrix,
    pub(super) key: Matrix,
    pub(super) value: Matrix,
    pub(super) output: Matrix,
    pub(super) text: BranchWeights,
    pub(super) audio: BranchWeights,
}

pub(super) struct HiggsWeights {
    /// `[vocabulary, hidden]`
    pub(super) embedding: Tensor,
    /// `[codebooks * (codes + 2), hidden]`
    pub(super) audio_embedding: Tensor,
    pub(super) layers: Vec<LayerWeights>,
    pub(super) norm: Tensor,
    /// `[codebooks * (codes + 2), hidden]`
    pub(super) head: Tensor,
}

/// A tensor by Boson's name, without `.weight`, and its shape.
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    /// Not missed where it is missing.
    is_optional: bool,
}

/// The matrices of one layer, by Boson's names.
fn layer_matrices(config: &HiggsConfig) -> [(&'static str, usize, usize); 10] {
    let HiggsConfig { hidden, intermediate, .. } = *config;
    let (queries, keys) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    [
        ("self_attn.q_proj", queries, hidden),
        ("self_attn.k_proj", keys, hidden),
        ("self_attn.v_proj", keys, hidden),
        ("self_attn.o_proj", hidden, queries),
        ("mlp.gate_proj", intermediate, hidden),
        ("mlp.up_proj", intermediate, hidden),
        ("mlp.down_proj", hidden, intermediate),
        ("audio_mlp.gate_proj", intermediate, hidden),
        ("audio_mlp.up_proj", intermediate, hidden),
        ("audio_mlp.down_proj", hidden, intermediate),
    ]
}

const LAYER_NORMS: [&str; 4] =
    ["input_layernorm", "post_attention_layernorm", "audio_input_layernorm", "audio_post_attention_layernorm"];

/// Every tensor of a checkpoint: for the published sizes 397.
pub(super) fn wanted(config: &HiggsConfig) -> Vec<Wanted> {
    let hidden = config.hidden;
    let tensor = |name: String, shape: &[usize]| Wanted { name, shape: shape.to_vec(), is_optional: false };
    let mut all = vec![
        tensor(EMBEDDING.to_owned(), &[config.vocabulary, hidden]),
        tensor(AUDIO_EMBEDDING.to_owned(), &[config.logits(), hidden]),
        tensor(AUDIO_HEAD.to_owned(), &[config.logits(), hidden]),
        Wanted { is_optional: true, ..tensor(TEXT_HEAD.to_owned(), &[config.vocabulary, hidden]) },
        tensor(NORM.to_owned(), &[hidden]),
    ];
    for layer in 0..config.layers {
        let name = |part: &str| format!("layers.{layer}.{part}");
        all.extend(layer_matrices(config).map(|(part, rows, columns)| tensor(name(part), &[rows, columns])));
        all.extend(LAYER_NORMS.map(|part| tensor(name(part), &[hidden])));
    }
    all
}

/// A checkpoint whose every tensor was found to be there and of the right shape. Nothing of its weights was read.
pub struct Checkpoint {
    folder: PathBuf,
    config: HiggsConfig,
    tensors: MmapedSafetensors,
    /// Boson's name to the file's: one name, or the parts of a table that was split into frozen and trained rows.
    places: BTreeMap<String, Vec<String>>,
}

/// What a model takes of a device's memory for good. A step's activations come on top, some tens of megabytes; so do a
/// prompt's, which are bounded by the positions of one prefill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryNeed {
    pub weights: u64,
    pub bytes_per_position: u64,
}

impl MemoryNeed {
    /// Of a model of these sizes on a device of that kind.
    pub fn of(config: &HiggsConfig, precision: Precision, device: &Device) -> Self {
        let float = float_type(device).size_in_bytes() as u64;
        let matrices: usize = layer_matrices(config).iter().map(|(_, rows, columns)| rows * columns).sum();
        let layers = config.layers as u64;
        let vectors = (4 * config.layers + 1) * config.hidden;
        let tables = (config.vocabulary + 2 * config.logits()) * config.hidden;
        let cached = 2 * config.layers * config.kv_heads * config.head_dim;
        Self {
            weights: layers * precision.bytes(matrices as u64, float) + (vectors + tables) as u64 * float,
            bytes_per_position: cached as u64 * float,
        }
    }
}

impl Checkpoint {
    /// Reads `folder`'s config.json and the headers of its safetensors, by the index where there is one.
    ///
    /// # Errors
    /// [`HiggsError::BadFile`] names the file, and the tensor or the key in it, that is missing, wrong or too much.
    pub fn open(folder: &Path) -> Result<Self, HiggsError> {
        let config = HiggsConfig::from_folder(folder)?;
        let paths = shards(folder)?;
        for path in &paths {
            // An empty file cannot be mapped, and a mapping's error does not name its file.
            let length = fs::metadata(path).map(|about| about.len());
            let reason = match length {
                Ok(8..) => continue,
                Ok(_) => "it is damaged or cut short".to_owned(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    "this part of the checkpoint is missing: pull the model again".to_owned()
                }
                Err(error) => error.to_string(),
            };
            return Err(HiggsError::bad_file(path, reason));
        }
        // SAFETY: the files are a pulled model's, which nobody writes while the server runs.
        #[expect(unsafe_code, reason = "a memory map")]
        let tensors = unsafe { MmapedSafetensors::multi(&paths) };
        let tensors = tensors.map_err(|error| {
            HiggsError::bad_file(folder, format!("its safetensors are damaged or cut short: {error}"))
        })?;
        let mut checkpoint = Self { folder: folder.to_owned(), config, tensors, places: BTreeMap::new() };
        checkpoint.find()?;
        Ok(checkpoint)
    }

    pub fn config(&self) -> &HiggsConfig {
        &self.config
    }

    fn error(&self, reason: String) -> HiggsError {
        HiggsError::bad_file(&self.folder, reason)
    }

    /// Fills `places`.
    fn find(&mut self) -> Result<(), HiggsError> {
        let shapes: BTreeMap<String, (Vec<usize>, Dtype)> = self
            .tensors
            .tensors()
            .into_iter()
            .map(|(name, view)| (name, (view.shape().to_vec(), view.dtype())))
            .collect();
        let layout = self.layout(&shapes)?;
        let mut read = BTreeSet::new();
        for Wanted { name, shape, is_optional } in wanted(&self.config) {
            let mut ways = spellings(&name, layout);
            let complete = |way: &Vec<String>| way.iter().all(|part| shapes.contains_key(part));
            let Some(way) = ways.iter().position(complete) else {
                if is_optional {
                    continue;
                }
                return Err(self.error(format!("it has no tensor {}", ways[0].join(" and "))));
            };
            let way = ways.swap_remove(way);
            self.check(&way, &shape, &shapes)?;
            read.extend(way.iter().cloned());
            // The audio head may stand in a file twice, by both layouts' names.
            read.extend(ways.into_iter().flatten());
            self.places.insert(name, way);
        }
        let is_idle = |name: &str| name.contains("rotary") || name.contains("audio_codebook_weights");
        match shapes.keys().find(|name| !read.contains(*name) && !is_idle(name)) {
            Some(name) => Err(self.error(format!("it has the tensor {name}, which Higgs Audio v2 does not have"))),
            None => Ok(()),
        }
    }

    /// By the names rather than by the config: conversions exist that changed only one of them.
    fn layout(&self, shapes: &BTreeMap<String, (Vec<usize>, Dtype)>) -> Result<Layout, HiggsError> {
        let has = |layout| spellings(EMBEDDING, layout).iter().any(|way| shapes.contains_key(&way[0]));
        let other = match self.config.layout {
            Layout::Boson => Layout::Transformers,
            Layout::Transformers => Layout::Boson,
        };
        let found = [self.config.layout, other].into_iter().find(|layout| has(*layout));
        found.ok_or_else(|| {
            let name = &spellings(EMBEDDING, self.config.layout)[0][0];
            self.error(format!("it has no tensor {name}"))
        })
    }

    /// The parts of `way` lie on each other and make `shape`.
    fn check(
        &self,
        way: &[String],
        shape: &[usize],
        shapes: &BTreeMap<String, (Vec<usize>, Dtype)>,
    ) -> Result<(), HiggsError> {
        let mut rows = 0;
        for part in way {
            let (found, kind) = &shapes[part];
            if !matches!(kind, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
                return Err(self.error(format!("the tensor {part} is stored as {kind:?}: floats are expected")));
            }
            if found.len() != shape.len() || found[1..] != shape[1..] || (way.len() == 1 && found[0] != shape[0]) {
                return Err(self.error(format!("the tensor {part} has the shape {found:?}, expected {shape:?}")));
            }
            rows += found[0];
        }
        if rows != shape[0] {
            let parts = way.join(" and ");
            return Err(self.error(format!("{parts} have {rows} rows together, expected {}", shape[0])));
        }
        Ok(())
    }

    /// A tensor as it is stored.
    fn stored(&self, name: &str, device: &Device) -> Result<Tensor, HiggsError> {
        let parts = self.places.get(name).map(Vec::as_slice).unwrap_or_default();
        let mut parts = parts.iter().map(|part| self.tensors.load(part, device)).collect::<Result<Vec<_>, _>>()?;
        match (parts.len(), parts.pop()) {
            (1, Some(whole)) => Ok(whole),
            (_, Some(last)) => {
                parts.push(last);
                Ok(Tensor::cat(&parts, 0)?)
            }
            (_, None) => Err(self.error(format!("it has no tensor {name}"))),
        }
    }
}

/// The names that a tensor may have, each a list of parts; the usual one first.
fn spellings(name: &str, layout: Layout) -> Vec<Vec<String>> {
    let whole = |name: &str| vec![format!("{name}.weight")];
    let halves = |name: &str, part: &str| ["frozen", "trainable"].map(|half| format!("{name}.{part}_{half}.weight"));
    match (layout, name) {
        (Layout::Boson, EMBEDDING) => vec![whole(name), halves(name, "embedding").to_vec()],
        (Layout::Boson, AUDIO_HEAD | TEXT_HEAD) => vec![whole(name), halves(name, "linear").to_vec()],
        (Layout::Boson, name) => vec![whole(name)],
        (Layout::Transformers, AUDIO_EMBEDDING) => vec![whole("model.embed_audio_tokens.embed_audio_tokens")],
        (Layout::Transformers, AUDIO_HEAD | TEXT_HEAD) => {
            vec![whole(name.trim_start_matches("audio_decoder_proj.")), whole(name)]
        }
        (Layout::Transformers, name) => vec![whole(&format!("model.{name}"))],
    }
}

/// Where weights come from.
pub(super) trait Source {
    /// As stored, or as made.
    fn tensor(&self, name: &str, shape: &[usize], device: &Device) -> Result<Tensor, HiggsError>;
}

impl Source for Checkpoint {
    fn tensor(&self, name: &str, _: &[usize], device: &Device) -> Result<Tensor, HiggsError> {
        self.stored(name, device)
    }
}

/// Weights of a normal distribution: for measuring where there is no checkpoint. Norms are ones.
pub(super) struct RandomSource;

impl Source for RandomSource {
    fn tensor(&self, _: &str, shape: &[usize], device: &Device) -> Result<Tensor, HiggsError> {
        /// As models are initialised.
        const DEVIATION: f32 = 0.02;
        Ok(match shape {
            [_] => Tensor::ones(shape, DType::F32, device)?,
            _ => Tensor::randn(0.0, DEVIATION, shape, device)?,
        })
    }
}

/// Reads a source by [`wanted`]'s names and shapes.
struct Reader<'a, S> {
    source: &'a S,
    shapes: BTreeMap<String, Vec<usize>>,
    precision: Precision,
    device: &'a Device,
}

impl<S: Source> Reader<'_, S> {
    fn on(&self, name: &str, device: &Device) -> Result<Tensor, HiggsError> {
        let shape = self.shapes.get(name).ok_or_else(|| HiggsError::Unfit(format!("{name} is no part of it")))?;
        self.source.tensor(name, shape, device)
    }

    /// In the device's float type.
    fn floats(&self, name: &str) -> Result<Tensor, HiggsError> {
        Ok(self.on(name, self.device)?.to_dtype(float_type(self.device))?)
    }

    fn matrix(&self, name: &str) -> Result<Matrix, HiggsError> {
        match self.precision.quantized() {
            None => Ok(Matrix::Dense(self.floats(name)?)),
            // On the CPU, which knows how to on every machine.
            Some(kind) => Ok(Matrix::Quantized(quantize(&self.on(name, &Device::Cpu)?, kind, self.device)?)),
        }
    }

    fn layer(&self, layer: usize) -> Result<LayerWeights, HiggsError> {
        let matrix = |part: &str| self.matrix(&format!("layers.{layer}.self_attn.{part}_proj"));
        Ok(LayerWeights {
            query: matrix("q")?,
            key: matrix("k")?,
            value: matrix("v")?,
            output: matrix("o")?,
            text: self.branch(&format!("layers.{layer}."))?,
            audio: self.branch(&format!("layers.{layer}.audio_"))?,
        })
    }

    fn branch(&self, prefix: &str) -> Result<BranchWeights, HiggsError> {
        Ok(BranchWeights {
            attention_norm: self.floats(&format!("{prefix}input_layernorm"))?,
            mlp_norm: self.floats(&format!("{prefix}post_attention_layernorm"))?,
            gate: self.matrix(&format!("{prefix}mlp.gate_proj"))?,
            up: self.matrix(&format!("{prefix}mlp.up_proj"))?,
            down: self.matrix(&format!("{prefix}mlp.down_proj"))?,
        })
    }
}

impl HiggsWeights {
    pub(super) fn read(
        source: &impl Source,
        config: &HiggsConfig,
        precision: Precision,
        device: &Device,
    ) -> Result<Self, HiggsError> {
        precision.refuse(config)?;
        let shapes = wanted(config).into_iter().map(|tensor| (tensor.name, tensor.shape)).collect();
        let reader = Reader { source, shapes, precision, device };
        Ok(Self {
            embedding: reader.floats(EMBEDDING)?,
            audio_embedding: reader.floats(AUDIO_EMBEDDING)?,
            layers: (0..config.layers).map(|layer| reader.layer(layer)).collect::<Result<_, _>>()?,
            norm: reader.floats(NORM)?,
            head: reader.floats(AUDIO_HEAD)?,
        })
    }
}

/// All processors work on the rows of a matrix; the result goes to `device`.
fn quantize(matrix: &Tensor, kind: GgmlDType, device: &Device) -> Result<QTensor, HiggsError> {
    /// Rows that a processor takes at a time.
    const ROWS: usize = 64;
    let rows = matrix.dim(0)?;
    let parts: Vec<Vec<u8>> = (0..rows.div_ceil(ROWS))
        .into_par_iter()
        .map(|part| {
            // Its own memory: candle quantizes from the beginning of a view's, wherever the view begins.
            let rows = matrix.narrow(0, part * ROWS, ROWS.min(rows - part * ROWS))?.force_contiguous()?;
            Ok(QTensor::quantize(&rows, kind)?.data()?.into_owned())
        })
        .collect::<candle_core::Result<_>>()?;
    let storage = QStorage::from_data(parts.concat().into(), device, kind)?;
    Ok(QTensor::new(storage, matrix.shape().clone())?)
}
