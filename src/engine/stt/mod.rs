//! Speech to text by Whisper, behind [`SpeechToText`].
//!
//! One named thread owns the model and serves all sessions: finals first, then whole windows of long audio, then
//! guesses at what is still being said. Reading order: `tokens` and `rules` (what may be written), `decode` (the
//! search), `segments` and `words` (when it was said), `listener` (one window), `agreement` and `session` (one
//! utterance), `schedule` (all of them).

mod agreement;
mod decode;
mod listener;
mod rules;
mod schedule;
mod segments;
mod session;
mod tokens;
mod words;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::mpsc;

use super::EngineError;
use super::precedence::Precedence;
use super::worker::{Ended, Resident, Worker};
use crate::audio::Mic;
use crate::nn::whisper::{Config, MelFrontEnd, Precision, Whisper};
use crate::provider::{Flow, ProviderError, SpeechToText, SttOptions, Transcript, VoiceActivity};
use listener::Listener;
use session::{Item, Session};
use tokens::Tokens;

/// Sessions that wait for the thread to notice them, which it does between two tokens.
const WAITING: usize = 64;
/// Items that wait for a slow listener: the terminal one, which has its place from the beginning, and some guesses.
const ITEMS: usize = 8;
/// Rows of the decoder's state.
const ROWS: usize = 5;

/// A Whisper model on its own thread.
pub struct WhisperEngine {
    name: Arc<str>,
    worker: Worker<Session>,
    languages: Vec<String>,
}

impl WhisperEngine {
    /// Loads `config.json`, `tokenizer.json` and `model.safetensors` of `directory` and asks the model a first
    /// question. Blocks until it is ready. `voice_activity` is asked about doubtful text: with it, noise makes no
    /// words.
    ///
    /// # Errors
    /// Names the file that is missing, broken or of another model, and why; or that the first answer was no number.
    pub fn load(
        name: &str,
        directory: &Path,
        device: &Device,
        voice_activity: Option<Arc<dyn VoiceActivity>>,
        precedence: Precedence,
    ) -> Result<Self, EngineError> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let (folder, device, served_by) = (directory.to_owned(), device.clone(), Arc::<str>::from(name));
        let what = name.to_owned();
        let load = move || {
            let listener = load_listener(&folder, &device, voice_activity)?;
            first_question(&what, &listener)?;
            // The receiver waits below.
            let _ = sender.send(listener.tokens.languages.iter().map(|(code, _)| code.clone()).collect());
            Ok(listener)
        };
        let serve = {
            let name = Arc::clone(&served_by);
            move |listener: Listener, inbox| schedule::run(&listener, inbox, &name, &precedence)
        };
        let worker = Worker::spawn(&format!("stt {name}"), WAITING, load, serve)?;
        let languages: Vec<String> = receiver.recv().unwrap_or_default();
        let languages = if languages.is_empty() { vec!["en".to_owned()] } else { languages };
        Ok(Self { name: served_by, worker, languages })
    }

    /// Bytes of memory that the model in `directory` needs on `device`: weights, then all else.
    ///
    /// # Errors
    /// That its `config.json` cannot be read.
    pub fn memory_estimate(directory: &Path, device: &Device) -> Result<(u64, u64), EngineError> {
        let config = read_config(directory)?;
        Ok((Whisper::weight_bytes(&config, device), Whisper::activation_bytes(&config, device, ROWS)))
    }

    fn open(
        &self,
        audio: BoxStream<'static, Mic>,
        mut options: SttOptions,
    ) -> Result<mpsc::Receiver<Item>, ProviderError> {
        for language in &mut options.languages {
            *language = language.to_lowercase();
        }
        if !options.languages.is_empty() {
            let asked = options.languages.first().cloned().unwrap_or_default();
            options.languages.retain(|language| self.languages.contains(language));
            if options.languages.is_empty() {
                let what = self.name.to_string();
                return Err(ProviderError::LanguageUnsupported { language: asked, what });
            }
        }
        let (out, items) = mpsc::channel(ITEMS);
        let failed = || ProviderError::Failed { what: self.name.to_string() };
        let terminal = out.clone().try_reserve_owned().map_err(|_| failed())?;
        self.worker.send(Session::new(audio, options, out, terminal)).map_err(|refused| {
            let what = self.name.to_string();
            match refused {
                mpsc::error::TrySendError::Full(_) => {
                    ProviderError::Overloaded { what, retry_after: Duration::from_secs(1) }
                }
                mpsc::error::TrySendError::Closed(_) => {
                    ProviderError::Unavailable { what, remedy: "its thread has ended; restart the server".to_owned() }
                }
            }
        })?;
        Ok(items)
    }
}

impl Resident for WhisperEngine {
    fn ended(&self) -> Ended {
        self.worker.ended()
    }
}

impl SpeechToText for WhisperEngine {
    fn transcribe(&self, audio: BoxStream<'static, Mic>, options: SttOptions) -> Flow<Transcript> {
        let items = match self.open(audio, options) {
            Ok(items) => items,
            Err(error) => return stream::iter([Err(error)]).boxed(),
        };
        let what = self.name.to_string();
        // A thread that dies leaves no terminal item: then it is made here.
        stream::unfold(Some((items, what)), |waiting| async move {
            let (mut items, what) = waiting?;
            let item = items.recv().await.unwrap_or_else(|| Err(ProviderError::Failed { what: what.clone() }));
            let more = matches!(item, Ok(Transcript::Partial { .. } | Transcript::Draft(_)));
            Some((item, more.then_some((items, what))))
        })
        .boxed()
    }

    /// ISO 639-1 codes (Hawaiian and Cantonese, which have none, as `haw` and `yue`).
    fn languages(&self) -> Vec<String> {
        self.languages.clone()
    }
}

fn bad_file(directory: &Path, name: &str, reason: impl std::fmt::Display) -> EngineError {
    EngineError::BadFile { path: directory.join(name), reason: reason.to_string() }
}

fn read_config(directory: &Path) -> Result<Config, EngineError> {
    let bad = |reason: String| bad_file(directory, "config.json", reason);
    let json = fs::read(directory.join("config.json")).map_err(|error| bad(error.to_string()))?;
    let mut config = Config::parse(&json).map_err(|error| bad(error.to_string()))?;
    // Newer checkpoints keep what concerns writing in a file of its own.
    if let Ok(json) = fs::read(directory.join("generation_config.json")) {
        config.take_over(&json).map_err(|error| bad_file(directory, "generation_config.json", error))?;
    }
    Ok(config)
}

fn load_listener(
    directory: &Path,
    device: &Device,
    voice_activity: Option<Arc<dyn VoiceActivity>>,
) -> Result<Listener, EngineError> {
    let config = read_config(directory)?;
    let json =
        fs::read(directory.join("tokenizer.json")).map_err(|error| bad_file(directory, "tokenizer.json", error))?;
    let tokens = Tokens::parse(&json, &config).map_err(|reason| bad_file(directory, "tokenizer.json", reason))?;
    let weights = "model.safetensors";
    #[expect(unsafe_code, reason = "weights are read through a memory map")]
    // SAFETY: the map lives only while the weights are copied out of it, and whoever replaces a model's file writes a
    // new one and renames it.
    let vb = unsafe { VarBuilder::from_mmaped_safetensors(&[directory.join(weights)], DType::F32, device) };
    let vb = vb.map_err(|error| bad_file(directory, weights, error))?;
    let mel = MelFrontEnd::new(config.num_mel_bins);
    let whisper =
        Whisper::load(config, &vb, Precision::EightBits).map_err(|error| bad_file(directory, weights, error))?;
    Ok(Listener { whisper, tokens, mel, voice_activity })
}

/// Hears a second of silence and writes one token: warms the device up and finds weights that are not numbers.
fn first_question(name: &str, listener: &Listener) -> Result<(), EngineError> {
    let wrong = |reason: String| EngineError::Canary { what: name.to_owned(), reason };
    let frames = 100;
    let mel = listener.mel.log_mel(&vec![0.0; 16_000], frames).map_err(|error| wrong(error.to_string()))?;
    let heard = listener.whisper.hear(&mel, 1, frames, &mut || true)?;
    let heard = heard.ok_or_else(|| wrong("it did not finish".to_owned()))?;
    let mut state = listener.whisper.open(1, 1)?;
    let logits = listener.whisper.read(&heard, &mut state, &[listener.tokens.start], &[0])?;
    if logits.iter().flatten().all(|logit| logit.is_finite()) {
        return Ok(());
    }
    Err(wrong("its first token has no finite probability; fetch its weights again".to_owned()))
}

#[cfg(test)]
mod tests;
