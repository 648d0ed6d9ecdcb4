//! The mouth speaks one reply: each sentence is asked for as it comes, and the audio leaves in the order of sentences.
//!
//! While one sentence is being sent the next is being generated, two at the most, so that sentences follow without a
//! gap. Audio leaves in pieces of at most 100 ms, so far ahead of its playback as the client allows and no further:
//! what has not left can still be taken back. Dropping the task takes back everything.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::event::{AudioPiece, Turn};
use super::guard::guarded;
use super::loopback::Loopback;
use super::machine::Event;
use super::settings::AudioFormat;
use crate::audio::packets::{PACKET, TAIL};
use crate::audio::{SPEECH_HZ, Samples, Speech};
use crate::provider::{
    Caller, Language, ProviderError, SpeakRequest, SpeechChunk, SpeechSynthesizer, StoryId, Urgency, WordMark, at_once,
};

/// Sentences that may wait to be spoken. The text of a whole reply at the most tokens a client may ask for, at 16 a
/// sentence: the reply is written much faster than it is spoken, and its text must not wait for its audio.
pub(super) const INBOX: usize = 512;
/// Sentences of one session that are generated at once, so that one session cannot take every permit.
const AT_ONCE: usize = 2;
/// Audio that is taken from the synthesiser before its time to leave.
const AHEAD: Duration = Duration::from_secs(30);
/// The longest piece: what an interruption may still let through.
const PIECE: Samples<24_000> = Samples::from_millis(100);
/// So many sentences of one reply may fail before the rest is only written.
const FAILURES: usize = 2;

/// How to speak a reply, and what its audio is labelled with.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Voicing {
    pub(super) turn: Turn,
    pub(super) character_id: String,
    pub(super) item_id: String,
    /// The speech synthesiser. None: the server's own.
    pub(super) model: Option<String>,
    pub(super) voice: Option<String>,
    pub(super) language: Option<Language>,
    pub(super) speed: f32,
    pub(super) seed: Option<u64>,
    pub(super) format: AudioFormat,
    /// How far audio may run ahead of its playback. None: as far as it is taken.
    pub(super) lead: Option<Duration>,
    /// Pieces are reported with their audio.
    pub(super) keeps_audio: bool,
    /// So much of it was spoken before.
    pub(super) begins: Duration,
    pub(super) caller: Caller,
}

impl Voicing {
    /// A character's voice hears what it said before in the same conversation.
    fn story(&self) -> Option<StoryId> {
        let conversation_id = self.caller.conversation_id.as_ref()?;
        Some(StoryId::Part(format!("{conversation_id}/{}", self.character_id).into()))
    }
}

/// What a session's mouths share.
#[derive(Clone)]
pub(super) struct Voice {
    pub(super) speech: Arc<dyn SpeechSynthesizer>,
    /// Hears what is played.
    pub(super) loopback: Loopback,
    /// One session's permits to have a sentence generated: [`AT_ONCE`].
    permits: Arc<Semaphore>,
}

impl Voice {
    pub(super) fn new(speech: Arc<dyn SpeechSynthesizer>, loopback: Loopback) -> Self {
        Self { speech, loopback, permits: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

/// A sentence to speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sentence {
    pub(super) sequence_number: u64,
    pub(super) text: String,
    pub(super) urgency: Urgency,
}

/// What the mouth reports.
#[derive(Clone, Debug)]
pub(super) enum Progress {
    Sent(SentPiece),
    /// A sentence stays unspoken.
    Failed(ProviderError),
    /// Everything was sent and, going by the pace, played.
    Finished,
}

/// A piece of audio that was sent.
#[derive(Clone, Debug)]
pub(super) struct SentPiece {
    pub(super) sequence_number: u64,
    /// From the item's first sample.
    pub(super) pts: Duration,
    pub(super) length: Duration,
    pub(super) plays_at: Instant,
    /// Timed from the item's first sample.
    pub(super) words: Vec<WordMark>,
    /// No more of this sentence will come.
    pub(super) last: bool,
    pub(super) served_by: Arc<str>,
    /// From asking for the sentence to its first chunk.
    pub(super) first_audio: Duration,
    /// Where recordings are kept.
    pub(super) audio: Option<Speech>,
}

/// Speaks a reply to its end. With a `floor` its first sentence is made ready, and nothing leaves before the floor is
/// given.
pub(super) async fn speak(
    voice: Voice,
    voicing: Voicing,
    floor: Option<oneshot::Receiver<()>>,
    inbox: mpsc::Receiver<Sentence>,
    lane: mpsc::Sender<AudioPiece>,
    turn: mpsc::Sender<Event>,
) {
    let mouth = Mouth {
        at_once: at_once(&voice.speech.voices()).min(AT_ONCE),
        voice,
        pts: voicing.begins,
        voicing,
        floor,
        lane,
        turn,
        generating: SelectAll::new(),
        unfinished: 0,
        permit: None,
        queue: VecDeque::new(),
        buffered: Duration::ZERO,
        playhead: None,
        failures: 0,
    };
    // A listener or a session that is gone ends it; nobody is left to tell.
    let _ = mouth.run(inbox).await;
}

/// Whoever should be told is gone.
struct Gone;

impl<T> From<mpsc::error::SendError<T>> for Gone {
    fn from(_: mpsc::error::SendError<T>) -> Self {
        Self
    }
}

impl From<oneshot::error::RecvError> for Gone {
    fn from(_: oneshot::error::RecvError) -> Self {
        Self
    }
}

struct Mouth {
    voice: Voice,
    /// Sentences to have generated at a time.
    at_once: usize,
    voicing: Voicing,
    /// Tells when it may speak. None: it may.
    floor: Option<oneshot::Receiver<()>>,
    lane: mpsc::Sender<AudioPiece>,
    turn: mpsc::Sender<Event>,
    /// Chunks of the sentences that are being generated, with their numbers.
    generating: SelectAll<BoxStream<'static, (u64, Result<SpeechChunk, ProviderError>)>>,
    unfinished: usize,
    /// For the next sentence.
    permit: Option<OwnedSemaphorePermit>,
    /// In the order of their numbers; the first one is being sent.
    queue: VecDeque<Spoken>,
    buffered: Duration,
    /// Length of all that was sent.
    pts: Duration,
    /// When all that was sent will have been played.
    playhead: Option<Instant>,
    failures: usize,
}

/// A sentence on its way out.
struct Spoken {
    sequence_number: u64,
    asked: Instant,
    first_audio: Option<Duration>,
    /// Where its audio begins, from the item's first sample, once its first piece was sent.
    begins: Option<Duration>,
    /// Of what was generated.
    length: Samples<SPEECH_HZ>,
    pieces: VecDeque<Piece>,
    /// Until it is generated.
    permit: Option<OwnedSemaphorePermit>,
}

impl Spoken {
    const fn is_generated(&self) -> bool {
        self.permit.is_none()
    }
}

struct Piece {
    audio: Speech,
    /// Timed from the sentence's first sample.
    words: Vec<WordMark>,
    last: bool,
    served_by: Arc<str>,
}

impl Mouth {
    async fn run(mut self, mut inbox: mpsc::Receiver<Sentence>) -> Result<(), Gone> {
        let mut more = true;
        while more || !self.queue.is_empty() {
            let due = self.due();
            // A sentence that cannot be sent yet must be generated, whatever waits behind it.
            let hungry = self.unfinished > 0 && (self.buffered < AHEAD || due.is_none());
            // Who waits for the floor makes one sentence ready: the speaker needs the permits more.
            let wanted = if self.floor.is_some() { usize::from(self.queue.is_empty()) } else { self.at_once };
            let wants = more && self.unfinished < wanted;
            tokio::select! {
                biased;
                given = floor(&mut self.floor), if self.floor.is_some() => {
                    given?;
                    self.floor = None;
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.send().await?,
                Some((number, chunk)) = self.generating.next(), if hungry => self.take(number, chunk).await?,
                sentence = inbox.recv(), if wants && self.permit.is_some() => if let Some(sentence) = sentence {
                    self.begin(sentence);
                } else {
                    more = false;
                    self.permit = None;
                },
                // The semaphore is never closed.
                Ok(permit) = Arc::clone(&self.voice.permits).acquire_owned(), if wants && self.permit.is_none() => {
                    self.permit = Some(permit);
                }
            }
            while self.queue.front().is_some_and(|it| it.is_generated() && it.pieces.is_empty()) {
                self.queue.pop_front();
            }
        }
        if let Some(playhead) = self.playhead {
            sleep_until(playhead).await;
        }
        self.report(Progress::Finished).await
    }

    /// When the next piece may leave. None: there is none.
    fn due(&self) -> Option<Instant> {
        self.queue.front().filter(|_| self.floor.is_none())?.pieces.front()?;
        Some(match (self.playhead, self.voicing.lead) {
            // An instant so early that it cannot be said is past.
            (Some(playhead), Some(lead)) => playhead.checked_sub(lead).unwrap_or_else(Instant::now),
            _ => Instant::now(),
        })
    }

    fn begin(&mut self, sentence: Sentence) {
        let permit = self.permit.take();
        if self.failures >= FAILURES {
            return;
        }
        let request = SpeakRequest {
            text: sentence.text,
            voice: self.voicing.voice.clone(),
            language: self.voicing.language.clone(),
            speed: self.voicing.speed,
            urgency: sentence.urgency,
            story: self.voicing.story(),
            seed: self.voicing.seed,
            model: self.voicing.model.clone(),
            caller: self.voicing.caller.clone(),
            ..SpeakRequest::default()
        };
        let number = sentence.sequence_number;
        let flow = guarded("speech", || self.voice.speech.speak(request), |chunk| chunk.last);
        self.generating.push(flow.map(move |chunk| (number, chunk)).boxed());
        self.unfinished += 1;
        self.queue.push_back(Spoken {
            sequence_number: number,
            asked: Instant::now(),
            first_audio: None,
            begins: None,
            length: Samples(0),
            pieces: VecDeque::new(),
            permit,
        });
    }

    async fn take(&mut self, number: u64, chunk: Result<SpeechChunk, ProviderError>) -> Result<(), Gone> {
        let Some(spoken) = self.queue.iter_mut().find(|spoken| spoken.sequence_number == number) else { return Ok(()) };
        match chunk {
            Ok(mut chunk) => {
                if chunk.last && self.voicing.format == AudioFormat::Opus {
                    chunk.audio.extend(&packet_rest(spoken.length + chunk.audio.len()));
                }
                spoken.length += chunk.audio.len();
                spoken.first_audio.get_or_insert_with(|| spoken.asked.elapsed());
                if chunk.last {
                    spoken.permit = None;
                }
                self.unfinished -= usize::from(chunk.last);
                self.buffered += chunk.audio.duration();
                spoken.pieces.extend(cut(chunk));
                Ok(())
            }
            Err(error) => {
                spoken.permit = None;
                self.unfinished -= 1;
                let passing = matches!(
                    error,
                    ProviderError::Failed { .. } | ProviderError::TimedOut { .. } | ProviderError::Overloaded { .. }
                );
                self.failures = if passing { self.failures + 1 } else { FAILURES };
                self.report(Progress::Failed(error)).await
            }
        }
    }

    /// Sends the next piece, and waits where the listener is slow.
    async fn send(&mut self) -> Result<(), Gone> {
        let Some(spoken) = self.queue.front_mut() else { return Ok(()) };
        let Some(piece) = spoken.pieces.pop_front() else { return Ok(()) };
        let length = piece.audio.duration();
        let begins = *spoken.begins.get_or_insert(self.pts);
        let words: Vec<WordMark> = piece
            .words
            .into_iter()
            .map(|word| WordMark { text: word.text, start: begins + word.start, end: begins + word.end })
            .collect();
        let sequence_number = spoken.sequence_number;
        let first_audio = spoken.first_audio.unwrap_or_default();
        let pts = self.pts;
        self.pts += length;
        self.buffered = self.buffered.saturating_sub(length);
        let sound = piece.audio.clone();
        // An MP3 file has an end of its own, which may have to follow the last sound.
        if !piece.audio.is_empty() || (piece.last && self.voicing.format == AudioFormat::Mp3) {
            let piece = AudioPiece {
                turn: self.voicing.turn,
                character_id: self.voicing.character_id.clone(),
                item_id: self.voicing.item_id.clone(),
                sequence_number,
                pts,
                audio: piece.audio,
                words: words.clone(),
                last: piece.last,
                format: self.voicing.format,
            };
            self.lane.send(piece).await?;
        }
        let now = Instant::now();
        let plays_at = self.playhead.map_or(now, |playhead| playhead.max(now));
        // Without a pace everything counts as played when it was taken.
        self.playhead = Some(if self.voicing.lead.is_some() { plays_at + length } else { now });
        if self.voicing.lead.is_some() {
            self.voice.loopback.play(&sound, plays_at + length);
        }
        let last = piece.last;
        let served_by = piece.served_by;
        self.report(Progress::Sent(SentPiece {
            sequence_number,
            pts,
            length,
            plays_at,
            words,
            last,
            served_by,
            first_audio,
            audio: self.voicing.keeps_audio.then_some(sound),
        }))
        .await
    }

    async fn report(&mut self, progress: Progress) -> Result<(), Gone> {
        self.turn.send(Event::Progress { turn: self.voicing.turn, progress }).await?;
        Ok(())
    }
}

/// Waits for the floor. A session that is over gives it to nobody, and ends its mouths.
async fn floor(floor: &mut Option<oneshot::Receiver<()>>) -> Result<(), oneshot::error::RecvError> {
    match floor {
        Some(floor) => floor.await,
        None => Ok(()),
    }
}

/// The silence that makes a sentence whole packets, the last of which has all of its sound.
fn packet_rest(length: Samples<SPEECH_HZ>) -> Speech {
    if length.0 == 0 {
        return Speech::default();
    }
    Speech::silence(Samples((length + TAIL).0.next_multiple_of(PACKET.0) - length.0))
}

/// Cuts a chunk into pieces of equal length; its words ride on the first.
fn cut(chunk: SpeechChunk) -> Vec<Piece> {
    let length = chunk.audio.len();
    let count = length.0.div_ceil(PIECE.0).max(1);
    let mut words = chunk.words;
    let piece = |index: u64| {
        let audio = chunk.audio.slice(Samples(length.0 * index / count), Samples(length.0 * (index + 1) / count));
        let last = chunk.last && index + 1 == count;
        Piece { audio, words: std::mem::take(&mut words), last, served_by: Arc::clone(&chunk.served_by) }
    };
    (0..count).map(piece).collect()
}

#[cfg(test)]
#[path = "mouth_tests.rs"]
mod tests;
