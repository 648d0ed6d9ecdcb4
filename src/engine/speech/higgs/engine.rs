//! Higgs behind the [`SpeechSynthesizer`] door.
//!
//! Two threads: one owns the language model and advances all voices together (`desk`), the other owns the codec and
//! makes sound of their codes (`vocoder`). The codec's encoder is loaded where a recording is enrolled, and given back. It
//! runs on the CPU, whatever the device: it is needed once per voice, and would take gigabytes of a card that others need
//! all the time.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use candle_core::Device;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::desk::{self, Order};
use super::layout::HiggsOptions;
use super::limits::seed_of;
use super::model::{Model, Network};
use super::story::pieces;
use super::text::fit_to_speak;
use super::tokens::PromptTokens;
use super::vocoder::{self, Heard, Vocoder};
use super::voices::{Enrolled, HiggsVoice, Voices, standard};
use crate::audio::Speech;
use crate::engine::device::{self, DeviceChoice};
use crate::engine::precedence::{Precedence, Urgent};
use crate::engine::worker::{Ended, Resident, Worker};
use crate::engine::{EngineError, failure};
use crate::nn::higgs::codec::{CODEBOOKS, CODES, Decoder, Encoder};
use crate::nn::higgs::{Checkpoint, Codes, Higgs, HiggsConfig};
use crate::provider::{
    Flow, OwnVoice, ProviderError, SpeakRequest, SpeechChunk, SpeechSynthesizer, Urgency, VoiceInfo, VoiceStudio,
};

/// Requests that wait for the model's thread. A permit per request (`provider::limit`) keeps them far fewer.
const WAITING_REQUESTS: usize = 64;
/// Commands that wait for the codec's thread, which takes them all in before each of its works.
const WAITING_COMMANDS: usize = 256;
/// Chunks that wait to be taken, per request. Audio is buffered by `provider::limit`, which takes it at once: this is no
/// more than the hand-over.
const CHUNKS_AHEAD: usize = 8;
/// In characters: about twenty minutes of speech. A longer text is a book, whose chapters are requests of their own.
const LONGEST_TEXT: usize = 20_000;

/// A loaded Higgs Audio v2.
pub struct HiggsEngine {
    name: Arc<str>,
    studio: Arc<Studio>,
    /// Voices that speak at once.
    slots: usize,
    desk: Worker<Order>,
    /// The codec's thread, which the model's commands.
    vocoder: Ended,
    precedence: Precedence,
}

/// Where voices are learned: the encoder, and what it has made so far. It outlives an engine that is given up.
#[derive(Debug)]
struct Studio {
    name: Arc<str>,
    config: HiggsConfig,
    voices: Voices,
    /// For the encoder.
    codec: PathBuf,
    /// Names this codec's tokens: its weights' size tells it from another in its place.
    tokens: String,
}

impl HiggsEngine {
    /// Loads the language model in `model` and the codec in `codec`, each of either layout, and has the model say a
    /// word. `name` is what it is called in replies and errors. It has voices in words; [`Self::enrol`] adds others.
    ///
    /// # Errors
    /// [`EngineError::BadFile`] names the file, and the tensor or key in it, that is missing or wrong;
    /// [`EngineError::Canary`] where the model loaded but does not speak; what candle says where memory runs out.
    pub fn load(
        name: &str,
        model: &Path,
        codec: &Path,
        device: DeviceChoice,
        options: HiggsOptions,
        precedence: Precedence,
    ) -> Result<Self, EngineError> {
        Self::load_with(name, (model, codec), device, options, precedence, |higgs| Box::new(higgs))
    }

    /// As [`Self::load`], with what `network` makes of the model in its place.
    pub(super) fn load_with(
        name: &str,
        (model, codec): (&Path, &Path),
        device: DeviceChoice,
        options: HiggsOptions,
        precedence: Precedence,
        network: impl FnOnce(Higgs) -> Box<dyn Network> + Send + 'static,
    ) -> Result<Self, EngineError> {
        let config = read_config(model)?;
        let load_codec = {
            let codec = codec.to_owned();
            move || Ok(Decoder::load(&codec, &device::open(device)?)?)
        };
        let load_model = {
            let folder = model.to_owned();
            move || {
                let checkpoint = Checkpoint::open(&folder)?;
                let tokens = PromptTokens::load(&folder, checkpoint.config())?;
                let higgs = checkpoint.load(&device::open(device)?, options.layout())?;
                Ok((network(higgs), tokens))
            }
        };
        let tokens = format!("{name}-{:x}", codec_bytes(codec)?);
        let studio = Studio { name: name.into(), config, voices: Voices::default(), codec: codec.to_owned(), tokens };
        let engine = Self::start(studio, options, load_model, load_codec)?;
        Ok(Self { precedence, ..engine })
    }

    /// A model of these sizes that speaks noise, with a codec of the published sizes that makes noise of it: for
    /// measuring without a checkpoint. `tokenizer` is a folder with a tokenizer.json of Higgs' markers. It enrols codes,
    /// not sound.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn random(
        name: &str,
        tokenizer: &Path,
        config: HiggsConfig,
        device: DeviceChoice,
        options: HiggsOptions,
    ) -> Result<Self, EngineError> {
        let load_codec = move || Decoder::random(&device::open(device)?).map_err(|error| canary("codec", &error));
        let load_model = {
            let (folder, config) = (tokenizer.to_owned(), config.clone());
            move || {
                let tokens = PromptTokens::load(&folder, &config)?;
                let higgs = Higgs::random(config, &device::open(device)?, options.layout())?;
                Ok((Box::new(higgs) as Box<dyn Network>, tokens))
            }
        };
        let (codec, tokens) = (PathBuf::new(), format!("{name}-random"));
        let studio = Studio { name: name.into(), config, voices: Voices::default(), codec, tokens };
        Self::start(studio, options, load_model, load_codec)
    }

    /// An engine whose model has said a word and whose codec has made a sound, with the voices in words.
    fn start(
        studio: Studio,
        HiggsOptions { slots, chunking, .. }: HiggsOptions,
        load_model: impl FnOnce() -> Result<(Box<dyn Network>, PromptTokens), EngineError> + Send + 'static,
        load_codec: impl FnOnce() -> Result<Decoder, EngineError> + Send + 'static,
    ) -> Result<Self, EngineError> {
        let name = Arc::clone(&studio.name);
        let load_codec = {
            let name = Arc::clone(&name);
            move || {
                let decoder = load_codec()?;
                decoder.decode(&[[0; CODEBOOKS]]).map_err(|error| canary(&name, &error))?;
                Ok(Vocoder { decoder, chunking, name })
            }
        };
        let load_model = {
            let name = Arc::clone(&name);
            move || {
                let (higgs, tokens) = load_model()?;
                let mut model = Model { name, higgs, tokens };
                model.check()?;
                Ok(model)
            }
        };
        let vocoder = Worker::spawn(&format!("{name}-codec"), WAITING_COMMANDS, load_codec, vocoder::run)?;
        let ended = vocoder.ended();
        let desk =
            Worker::spawn(&name, WAITING_REQUESTS, load_model, move |model, inbox| desk::run(model, inbox, vocoder))?;
        let precedence = Precedence::default();
        let engine = Self { name, studio: Arc::new(studio), slots, desk, vocoder: ended, precedence };
        for voice in standard() {
            engine.enrol(voice).map_err(|error| canary(&engine.name, &error))?;
        }
        Ok(engine)
    }

    /// Voices that speak at once; whoever asks beyond them waits.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Makes a voice available, in the place of one of that name. Blocks while a recording is encoded: seconds, and
    /// nothing where the same recording was enrolled before.
    ///
    /// # Errors
    /// [`ProviderError::InvalidRequest`] says what is wrong with the recording: too short, too long, silent, without
    /// its words.
    pub fn enrol(&self, voice: HiggsVoice) -> Result<(), ProviderError> {
        let studio = &self.studio;
        studio.voices.enrol(&studio.config, voice, &studio.tokens, |sound| studio.encoded(sound))
    }

    /// Takes a voice away. What speaks with it goes on. False where there is none of that name.
    pub fn forget(&self, voice: &str) -> bool {
        self.studio.voices.forget(voice)
    }

    fn order(&self, request: SpeakRequest) -> Result<Option<mpsc::Receiver<Heard>>, ProviderError> {
        let invalid = |field, message: String| ProviderError::InvalidRequest { field, message };
        if !(0.5..=2.0).contains(&request.speed) {
            return Err(invalid("speed", format!("{} is not between 0.5 and 2", request.speed)));
        }
        if request.text.trim().is_empty() {
            return Err(invalid("text", "it is empty; write what is to be said".to_owned()));
        }
        let characters = request.text.chars().count();
        if characters > LONGEST_TEXT {
            let message = format!("it has {characters} characters, of {LONGEST_TEXT} at most; send it in parts");
            return Err(invalid("text", message));
        }
        let voice = self.studio.known(&request)?;
        let pieces: std::collections::VecDeque<String> =
            pieces(&request.text).into_iter().filter(|piece| !fit_to_speak(piece).is_empty()).collect();
        if pieces.is_empty() {
            return Ok(None);
        }
        let (out, heard) = mpsc::channel(CHUNKS_AHEAD);
        let hurry = (request.urgency == Urgency::First).then(|| self.precedence.hurry(Urgent::Answer));
        let listener = out.clone();
        let SpeakRequest { own_voice, seed, speed, urgency, story, .. } = request;
        let order = move |voice: Arc<Enrolled>| {
            let seed = seed.unwrap_or_else(|| seed_of(&voice.name));
            Order { pieces, voice, seed, speed, urgency, story, out, hurry }
        };
        match (voice, own_voice) {
            (Some(voice), _) => self.desk.send(order(voice)).map_err(|error| refusal(&self.name, &error))?,
            (None, Some(own)) => {
                let (desk, name, wanted) = (self.desk.clone(), Arc::clone(&self.name), listener.clone());
                let go_on = move |learned: Result<Arc<Enrolled>, ProviderError>| {
                    let sent =
                        learned.and_then(|voice| desk.send(order(voice)).map_err(|error| refusal(&name, &error)));
                    if let Err(error) = sent {
                        // Nobody has written to it yet: there is room, or the listener has left.
                        drop(listener.try_send(Err(error)));
                    }
                };
                self.studio.learn_then(own, move || !wanted.is_closed(), go_on)?;
            }
            (None, None) => return Err(ProviderError::Failed { what: self.name.to_string() }),
        }
        Ok(Some(heard))
    }
}

fn refusal<T>(name: &str, error: &TrySendError<T>) -> ProviderError {
    match error {
        TrySendError::Full(_) => {
            ProviderError::Overloaded { what: name.to_owned(), retry_after: Duration::from_secs(2) }
        }
        TrySendError::Closed(_) => ProviderError::Failed { what: name.to_owned() },
    }
}

impl Studio {
    fn encoded(&self, sound: Speech) -> Result<Codes, ProviderError> {
        self.encode(sound).map_err(|error| failure(&self.name, &error))
    }

    /// On a thread of its own, which gives the encoder's memory back at its end.
    fn encode(&self, sound: Speech) -> Result<Codes, EngineError> {
        let thread = format!("{}-encoder", self.name);
        let failed = |reason: &str| EngineError::Thread { name: thread.clone(), reason: reason.to_owned() };
        let (codec, name) = (self.codec.clone(), Arc::clone(&self.name));
        let encoded = Arc::new(Mutex::new(None));
        let answer = Arc::clone(&encoded);
        let work = move || {
            let encoder = Encoder::load(&codec, &Device::Cpu)?;
            let frames = encoder.encode(sound.as_slice()).map_err(|error| canary(&name, &error))?;
            *answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(Codes::from_arrays(&frames));
            Ok(())
        };
        // Nothing can be commanded: it loads, encodes and ends.
        let _: Worker<()> = Worker::spawn(&thread, 1, work, |(), _| ())?;
        let codes = encoded.lock().unwrap_or_else(PoisonError::into_inner).take();
        codes.ok_or_else(|| failed("it gave no codes"))
    }

    /// The voice of a request, where it is known at once.
    fn known(&self, request: &SpeakRequest) -> Result<Option<Arc<Enrolled>>, ProviderError> {
        match &request.own_voice {
            Some(own) => self.voices.own(&self.config, own),
            None => self.voices.choose(request.voice.as_deref(), request.language.as_deref()).map(Some),
        }
    }

    /// Blocks while a recording is read and encoded.
    fn learned(&self, own: &OwnVoice) -> Result<Arc<Enrolled>, ProviderError> {
        self.voices.learn(&self.config, own, &self.tokens, |sound| self.encoded(sound))
    }

    /// Has `then` go on with the voice, on a thread that may block. Nothing is learned for nobody: it first asks
    /// whether `is_wanted`.
    fn learn_then(
        self: &Arc<Self>,
        own: Arc<OwnVoice>,
        is_wanted: impl Fn() -> bool + Send + 'static,
        then: impl FnOnce(Result<Arc<Enrolled>, ProviderError>) + Send + 'static,
    ) -> Result<(), ProviderError> {
        let studio = Arc::clone(self);
        let learn = move || {
            if is_wanted() {
                then(studio.learned(&own));
            }
        };
        let thread = std::thread::Builder::new().name(format!("{}-studio", self.name));
        thread.spawn(learn).map(drop).map_err(|error| failure(&self.name, &error))
    }
}

impl VoiceStudio for Studio {
    fn learn(self: Arc<Self>, voice: Arc<OwnVoice>) -> BoxFuture<'static, Result<(), ProviderError>> {
        let (told, learned) = oneshot::channel();
        let tell = |learned: Result<Arc<Enrolled>, ProviderError>| {
            // Whoever asked may have left.
            let _ = told.send(learned.map(drop));
        };
        let begun = self.learn_then(voice, || true, tell);
        let failed = ProviderError::Failed { what: self.name.to_string() };
        async move {
            begun?;
            // A thread that panicked told nothing.
            learned.await.unwrap_or(Err(failed))
        }
        .boxed()
    }
}

impl Resident for HiggsEngine {
    fn ended(&self) -> Ended {
        self.desk.ended().and(self.vocoder.clone())
    }
}

impl SpeechSynthesizer for HiggsEngine {
    fn speak(&self, request: SpeakRequest) -> Flow<SpeechChunk> {
        let heard = match self.order(request) {
            Ok(Some(heard)) => heard,
            Ok(None) => {
                // Signs without a word.
                let served_by = Arc::clone(&self.name);
                let nothing = SpeechChunk { audio: Speech::default(), words: Vec::new(), last: true, served_by };
                return stream::once(async { Ok(nothing) }).boxed();
            }
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        // A thread that dies drops its end: that, too, must reach the listener as a terminal item.
        let failed = ProviderError::Failed { what: self.name.to_string() };
        stream::unfold((heard, Some(failed)), |(mut heard, failed)| async move {
            let failed = failed?;
            match heard.recv().await {
                Some(Ok(chunk)) => {
                    let failed = (!chunk.last).then_some(failed);
                    Some((Ok(chunk), (heard, failed)))
                }
                Some(Err(error)) => Some((Err(error), (heard, None))),
                None => Some((Err(failed), (heard, None))),
            }
        })
        .boxed()
    }

    fn voices(&self) -> Vec<VoiceInfo> {
        self.studio.voices.list()
    }

    fn studio(&self) -> Option<Arc<dyn VoiceStudio>> {
        Some(Arc::<Studio>::clone(&self.studio))
    }
}

/// The model's config, where it goes with the codec.
pub(super) fn read_config(model: &Path) -> Result<HiggsConfig, EngineError> {
    let config = HiggsConfig::from_folder(model)?;
    if config.codebooks != CODEBOOKS || config.codes != CODES {
        let reason = format!(
            "the model speaks {} codebooks of {} codes, the codec has {CODEBOOKS} of {CODES}: they do not go together",
            config.codebooks, config.codes
        );
        return Err(EngineError::BadFile { path: model.join("config.json"), reason });
    }
    Ok(config)
}

/// Bytes of the codec's weights, which are stored as they are used.
pub(super) fn codec_bytes(codec: &Path) -> Result<u64, EngineError> {
    let bytes = ["model.safetensors", "model.pth"].iter().find_map(|file| std::fs::metadata(codec.join(file)).ok());
    bytes.map(|file| file.len()).ok_or_else(|| EngineError::BadFile {
        path: codec.to_owned(),
        reason: "the codec's model.safetensors or model.pth is missing".to_owned(),
    })
}

fn canary(name: &str, error: &dyn std::error::Error) -> EngineError {
    EngineError::Canary { what: name.to_owned(), reason: error.to_string() }
}
