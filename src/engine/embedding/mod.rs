//! Text embeddings by a BERT encoder, behind [`TextEmbedder`].
//!
//! One named thread owns the model. A request's texts are sorted by length and embedded in batches, so that little is
//! padded; between two batches the thread gives way to whatever somebody waits for, and drops what nobody waits for any
//! more. A text that is too long is refused: cutting it would lose its end silently.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use futures::future::{self, BoxFuture, FutureExt};
use serde::Deserialize;
use tokenizers::Tokenizer;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::EngineError;
use super::precedence::Precedence;
use super::worker::{Ended, Resident, Worker};
use crate::nn::bert::{Config, SentenceEncoder};
use crate::provider::{EmbedRequest, Embeddings, ProviderError, TextEmbedder};

/// Requests that wait for the thread; more are refused.
const WAITING: usize = 64;
/// Tokens of a batch with its padding, which bounds a batch's memory and how long a cancelled one goes on.
const BATCH_TOKENS: usize = 4_096;
const BATCH_TEXTS: usize = 64;

/// A BERT model on its own thread.
pub struct BertEngine {
    name: Arc<str>,
    worker: Worker<Job>,
}

/// A request and whoever waits for it.
struct Job {
    texts: Vec<String>,
    answer: oneshot::Sender<Result<Embeddings, ProviderError>>,
}

impl BertEngine {
    /// Loads `config.json`, `tokenizer.json`, `model.safetensors` and, where it is there, `sentence_bert_config.json`
    /// of `directory` and embeds a first text. Blocks until it is ready.
    ///
    /// # Errors
    /// Names the file that is missing, broken or of another model, and why; or that the first answer was no number.
    pub fn load(name: &str, directory: &Path, device: &Device, precedence: Precedence) -> Result<Self, EngineError> {
        let (folder, device, served_by) = (directory.to_owned(), device.clone(), Arc::<str>::from(name));
        let what = Arc::clone(&served_by);
        let load = move || {
            let embedder = Embedder::load(&folder, &device, what)?;
            embedder.first_question()?;
            Ok(embedder)
        };
        let serve = move |embedder: Embedder, inbox| embedder.run(inbox, &precedence);
        let worker = Worker::spawn(&format!("embed {name}"), WAITING, load, serve)?;
        Ok(Self { name: served_by, worker })
    }

    /// Bytes of memory that the model in `directory` needs, weights and all else.
    ///
    /// # Errors
    /// That its `config.json` cannot be read.
    pub fn memory_estimate(directory: &Path) -> Result<u64, EngineError> {
        let config: Config = read_json(directory, "config.json")?;
        let tokens = longest_text(directory, &config)?;
        let texts = BATCH_TOKENS.div_ceil(tokens);
        Ok(SentenceEncoder::weight_bytes(&config) + SentenceEncoder::activation_bytes(&config, texts, tokens))
    }
}

impl Resident for BertEngine {
    fn ended(&self) -> Ended {
        self.worker.ended()
    }
}

impl TextEmbedder for BertEngine {
    fn embed(&self, request: EmbedRequest) -> BoxFuture<'static, Result<Embeddings, ProviderError>> {
        let (answer, waiting) = oneshot::channel();
        let what = self.name.to_string();
        if let Err(refused) = self.worker.send(Job { texts: request.texts, answer }) {
            let error = match refused {
                TrySendError::Full(_) => ProviderError::Overloaded { what, retry_after: Duration::from_secs(1) },
                TrySendError::Closed(_) => {
                    ProviderError::Unavailable { what, remedy: "its thread has ended; restart the server".to_owned() }
                }
            };
            return future::ready(Err(error)).boxed();
        }
        // A thread that dies answers nobody.
        async move { waiting.await.unwrap_or(Err(ProviderError::Failed { what })) }.boxed()
    }
}

/// The model with all that is needed to use it.
struct Embedder {
    name: Arc<str>,
    encoder: SentenceEncoder,
    tokenizer: Tokenizer,
    /// Tokens of a text, the model's own first and last among them.
    longest: usize,
}

impl Embedder {
    fn load(directory: &Path, device: &Device, name: Arc<str>) -> Result<Self, EngineError> {
        let config: Config = read_json(directory, "config.json")?;
        let longest = longest_text(directory, &config)?;
        let tokenizer = read_tokenizer(directory)?;
        let weights = "model.safetensors";
        #[expect(unsafe_code, reason = "weights are read through a memory map")]
        // SAFETY: the map lives only while the weights are copied out of it, and whoever replaces a model's file writes
        // a new one and renames it.
        let vb = unsafe { VarBuilder::from_mmaped_safetensors(&[directory.join(weights)], DType::F32, device) };
        let vb = vb.map_err(|error| bad_file(directory, weights, error))?;
        let encoder = SentenceEncoder::load(&config, vb).map_err(|error| bad_file(directory, weights, error))?;
        Ok(Self { name, encoder, tokenizer, longest })
    }

    /// Warms the device up and finds weights that are not numbers.
    fn first_question(&self) -> Result<(), EngineError> {
        let wrong = |reason: &str| EngineError::Canary { what: self.name.to_string(), reason: reason.to_owned() };
        let tokens = self.tokens("hello", 0).map_err(|error| wrong(&error.to_string()))?;
        let vectors = self.encoder.embed(&[&tokens])?;
        if vectors.iter().flatten().all(|value| value.is_finite()) {
            return Ok(());
        }
        Err(wrong("its first embedding is no number; fetch its weights again"))
    }

    fn run(&self, mut inbox: mpsc::Receiver<Job>, precedence: &Precedence) {
        while let Some(Job { texts, answer }) = inbox.blocking_recv() {
            if let Some(outcome) = self.embed(&texts, &mut || {
                precedence.give_way();
                !answer.is_closed()
            }) {
                // Whoever asked may have left meanwhile.
                let _ = answer.send(outcome);
            }
        }
    }

    /// None where `wanted`, asked before every batch, answered no.
    fn embed(&self, texts: &[String], wanted: &mut dyn FnMut() -> bool) -> Option<Result<Embeddings, ProviderError>> {
        let tokens = texts.iter().enumerate().map(|(index, text)| self.tokens(text, index));
        let tokens: Vec<Vec<u32>> = match tokens.collect() {
            Ok(tokens) => tokens,
            Err(error) => return Some(Err(error)),
        };
        let mut vectors = vec![Vec::new(); tokens.len()];
        for batch in batches(&tokens) {
            if !wanted() {
                return None;
            }
            let rows: Vec<&[u32]> = batch.iter().map(|&index| tokens[index].as_slice()).collect();
            match self.encoder.embed(&rows) {
                Ok(embedded) => batch.iter().zip(embedded).for_each(|(&index, vector)| vectors[index] = vector),
                Err(error) => {
                    tracing::error!(model = &*self.name, %error, "embedding failed");
                    return Some(Err(ProviderError::Failed { what: self.name.to_string() }));
                }
            }
        }
        let tokens = tokens.iter().map(Vec::len).sum();
        Some(Ok(Embeddings { vectors, tokens, served_by: Arc::clone(&self.name) }))
    }

    fn tokens(&self, text: &str, index: usize) -> Result<Vec<u32>, ProviderError> {
        let wrong = |message: String| ProviderError::InvalidRequest { field: "input", message };
        let encoding = self.tokenizer.encode_fast(text, true);
        let encoding = encoding.map_err(|error| wrong(format!("text {index} cannot be read: {error}")))?;
        let (length, longest) = (encoding.get_ids().len(), self.longest);
        if length > longest {
            let name = &self.name;
            return Err(wrong(format!("text {index} has {length} tokens and {name} takes {longest}; split it")));
        }
        Ok(encoding.get_ids().to_vec())
    }
}

/// The texts' indices in batches of about one length each.
fn batches(texts: &[Vec<u32>]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&index| texts[index].len());
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for index in order {
        // In this order the newcomer is the longest.
        let fits =
            |batch: &Vec<usize>| batch.len() < BATCH_TEXTS && (batch.len() + 1) * texts[index].len() <= BATCH_TOKENS;
        match batches.last_mut() {
            Some(batch) if fits(batch) => batch.push(index),
            _ => batches.push(vec![index]),
        }
    }
    batches
}

fn bad_file(directory: &Path, name: &str, reason: impl std::fmt::Display) -> EngineError {
    EngineError::BadFile { path: directory.join(name), reason: reason.to_string() }
}

fn read_json<T: serde::de::DeserializeOwned>(directory: &Path, name: &str) -> Result<T, EngineError> {
    let json = fs::read(directory.join(name)).map_err(|error| bad_file(directory, name, error))?;
    serde_json::from_slice(&json).map_err(|error| bad_file(directory, name, error))
}

/// What sentence-transformers keeps beside a model.
#[derive(Deserialize)]
struct SentenceConfig {
    max_seq_length: usize,
}

fn longest_text(directory: &Path, config: &Config) -> Result<usize, EngineError> {
    let name = "sentence_bert_config.json";
    let longest = if directory.join(name).exists() {
        read_json::<SentenceConfig>(directory, name)?.max_seq_length
    } else {
        config.max_position_embeddings
    };
    if (3..=config.max_position_embeddings).contains(&longest) {
        return Ok(longest);
    }
    let reason = format!("texts of {longest} tokens do not fit {} positions", config.max_position_embeddings);
    Err(bad_file(directory, name, reason))
}

/// The file's own cutting and padding are left out. The library panics on some broken files, which is an error here
/// like any other.
fn read_tokenizer(directory: &Path) -> Result<Tokenizer, EngineError> {
    let name = "tokenizer.json";
    let json = fs::read(directory.join(name)).map_err(|error| bad_file(directory, name, error))?;
    let read = std::panic::catch_unwind(|| Tokenizer::from_bytes(json));
    let read = read.map_err(|_| bad_file(directory, name, "it is not a tokenizer that can be read"))?;
    let mut tokenizer = read.map_err(|error| bad_file(directory, name, error))?;
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|error| bad_file(directory, name, error))?;
    // Special tokens inside a text are plain text.
    tokenizer.set_encode_special_tokens(true);
    Ok(tokenizer)
}

#[cfg(test)]
mod tests;
