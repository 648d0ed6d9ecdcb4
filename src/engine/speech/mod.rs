//! Kokoro behind the [`SpeechSynthesizer`] door.
//!
//! Two threads. One turns text into phonemes (`phonemes`, with `english` and `espeak` behind it) and cuts them into
//! pieces (`pieces`); the other owns the model and speaks one piece at a time (`speaker`), for whoever runs dry first
//! (`playback`). It hands over whole pieces and buffers no audio: a request whose last piece was not taken is passed
//! over, so that no listener ever holds the model. Dropping a request's stream cancels it at the next stage of the model.

mod english;
mod espeak;
pub mod higgs;
mod phonemes;
mod pieces;
mod playback;
mod queue;
mod render;
mod speaker;
#[cfg(test)]
mod tests;
mod voices;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::Device;
use futures::StreamExt;
use futures::stream;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::audio::{SPEECH_HZ, Speech};
use crate::engine::EngineError;
use crate::engine::precedence::{Hurry, Precedence, Urgent};
use crate::engine::worker::{Ended, Resident, Worker};
use crate::nn::kokoro;
use crate::provider::voices::unavailable;
use crate::provider::{Flow, ProviderError, SpeakRequest, SpeechChunk, SpeechSynthesizer, Urgency, VoiceInfo};
use english::English;
use phonemes::{Phonemes, Tongue, Writer};
use queue::Job;
use voices::Voices;

/// Length of a chunk: short enough that stopping between two feels immediate.
const CHUNK_MILLIS: usize = 200;
const CHUNK_SAMPLES: usize = SPEECH_HZ as usize * CHUNK_MILLIS / 1000;
/// Spoken pieces that may wait to be taken, per request. Audio is buffered by `provider::limit`, which takes it at
/// once: this is no more than the hand-over.
const PIECES_AHEAD: usize = 1;
/// Requests that wait for a thread. A permit per request (`provider::limit`) keeps them far fewer.
const WAITING_REQUESTS: usize = 64;
/// A text longer than this is a mistake: about an hour and a half of speech.
const LONGEST_TEXT: usize = 100_000;

/// A loaded Kokoro.
pub struct KokoroEngine {
    name: Arc<str>,
    voices: Arc<Voices>,
    front: Worker<Order>,
    /// The model's thread, which the front's thread commands.
    model: Ended,
    precedence: Precedence,
}

/// The chunks of a piece.
type Spoken = Result<Vec<SpeechChunk>, ProviderError>;

/// A request on its way to the phonemes.
struct Order {
    request: SpeakRequest,
    voice: String,
    tongue: Tongue,
    seed: u64,
    out: mpsc::Sender<Spoken>,
    /// Until the first audio.
    hurry: Option<Hurry>,
}

impl KokoroEngine {
    /// Loads the model in `dir` (config.json or vocab.json, the weights, voices/) to `device` and has it say a word.
    /// `name` is what it is called in replies and errors. Returns when it is ready; takes a second or two.
    ///
    /// # Errors
    /// [`EngineError::BadFile`] names the file and what is wrong with it; [`EngineError::Canary`] where the model
    /// loaded but does not speak.
    pub fn load(name: &str, dir: &Path, device: &Device, precedence: Precedence) -> Result<Self, EngineError> {
        let (config, vocabulary) = kokoro::read_config(dir)?;
        let voices = Arc::new(Voices::find(&dir.join("voices"), config.voice_bytes())?);
        let name: Arc<str> = Arc::from(name);
        let load_model = {
            let (name, dir, device, voices) = (Arc::clone(&name), dir.to_owned(), device.clone(), Arc::clone(&voices));
            move || speaker::load(&name, &dir, &device, voices)
        };
        let start = Instant::now();
        let (model, english) = rayon::join(
            || {
                let precedence = precedence.clone();
                Worker::spawn(&name, WAITING_REQUESTS, load_model, move |speaker, inbox| {
                    queue::run(speaker, inbox, start, precedence);
                })
            },
            || {
                English::load()
                    .map_err(|reason| EngineError::Canary { what: "the English phonemizer".to_owned(), reason })
            },
        );
        let (model, english) = (model?, english?);
        let ended = model.ended();
        let writer = Writer { english, vocabulary, name: Arc::clone(&name) };
        let front = Worker::spawn(
            &format!("{name}-text"),
            WAITING_REQUESTS,
            move || Ok(writer),
            move |writer, inbox| write_orders(&writer, inbox, &model, start),
        )?;
        Ok(Self { name, voices, front, model: ended, precedence })
    }

    /// Bytes that the model in `dir` needs once loaded: its weights as f32 and the largest utterance's activations.
    ///
    /// # Errors
    /// [`EngineError::BadFile`] where the weights are missing.
    pub fn memory_estimate(dir: &Path) -> Result<u64, EngineError> {
        /// Activations of a piece of the longest kind, the lexicons and the voices' rows.
        const BESIDES_WEIGHTS: u64 = 500 << 20;
        Ok(kokoro::weight_bytes(dir)? + BESIDES_WEIGHTS)
    }

    fn order(&self, request: SpeakRequest) -> Result<mpsc::Receiver<Spoken>, ProviderError> {
        let invalid = |field, message: String| ProviderError::InvalidRequest { field, message };
        if !(0.5..=2.0).contains(&request.speed) {
            return Err(invalid("speed", format!("{} is not between 0.5 and 2", request.speed)));
        }
        if request.text.len() > LONGEST_TEXT {
            return Err(invalid("text", format!("it is longer than {LONGEST_TEXT} bytes; send it in parts")));
        }
        if let Some(own) = &request.own_voice {
            return Err(unavailable(own, &self.voices.list()));
        }
        let (voice, tongue) = self.voices.choose(request.voice.as_deref(), request.language.as_deref(), &self.name)?;
        let (out, pieces) = mpsc::channel(PIECES_AHEAD);
        let seed = request.seed.unwrap_or_else(rand::random);
        let hurry = (request.urgency == Urgency::First).then(|| self.precedence.hurry(Urgent::Answer));
        let order = Order { request, voice, tongue, seed, out, hurry };
        self.front.send(order).map_err(|error| self.refusal(&error))?;
        Ok(pieces)
    }

    fn refusal<T>(&self, error: &TrySendError<T>) -> ProviderError {
        refusal(&self.name, error)
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

impl Resident for KokoroEngine {
    fn ended(&self) -> Ended {
        self.front.ended().and(self.model.clone())
    }
}

impl SpeechSynthesizer for KokoroEngine {
    fn speak(&self, request: SpeakRequest) -> Flow<SpeechChunk> {
        let pieces = match self.order(request) {
            Ok(pieces) => pieces,
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        let failed = ProviderError::Failed { what: self.name.to_string() };
        // A thread that dies drops its end: that, too, must reach the listener as a terminal item.
        let begin = (pieces, Vec::<SpeechChunk>::new().into_iter(), Some(failed));
        stream::unfold(begin, |(mut pieces, mut piece, failed)| async move {
            let failed = failed?;
            loop {
                if let Some(chunk) = piece.next() {
                    let failed = (!chunk.last).then_some(failed);
                    return Some((Ok(chunk), (pieces, piece, failed)));
                }
                match pieces.recv().await {
                    Some(Ok(next)) => piece = next.into_iter(),
                    Some(Err(error)) => return Some((Err(error), (pieces, piece, None))),
                    None => return Some((Err(failed), (pieces, piece, None))),
                }
            }
        })
        .boxed()
    }

    fn voices(&self) -> Vec<VoiceInfo> {
        self.voices.list()
    }
}

/// The front thread: text in, phonemes on to the model.
fn write_orders(writer: &Writer, mut inbox: mpsc::Receiver<Order>, model: &Worker<Job>, start: Instant) {
    while let Some(order) = inbox.blocking_recv() {
        if order.out.is_closed() {
            continue;
        }
        // A channel that nobody has written to yet has room, so what `try_send` can find is a listener who left.
        match writer.write(&order.request.text, order.tongue) {
            Err(error) => drop(order.out.try_send(Err(error))),
            Ok(phonemes) if phonemes.words.is_empty() => {
                let nothing = SpeechChunk {
                    audio: Speech::default(),
                    words: Vec::new(),
                    last: true,
                    served_by: Arc::clone(&writer.name),
                };
                drop(order.out.try_send(Ok(vec![nothing])));
            }
            Ok(phonemes) => hand_over(writer, order, phonemes, model, start),
        }
    }
}

fn hand_over(writer: &Writer, order: Order, phonemes: Phonemes, model: &Worker<Job>, start: Instant) {
    let hurry = order.request.urgency == Urgency::First;
    let job = Job::new(order, pieces::cut(phonemes, hurry), Arc::clone(&writer.name), start);
    let out = job.listener();
    if let Err(error) = model.send(job) {
        drop(out.try_send(Err(refusal(&writer.name, &error))));
    }
}

impl From<kokoro::LoadError> for EngineError {
    fn from(error: kokoro::LoadError) -> Self {
        Self::BadFile { path: error.path, reason: error.reason }
    }
}
