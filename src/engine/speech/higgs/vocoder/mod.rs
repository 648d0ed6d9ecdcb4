//! The codec's thread: columns of codes in, chunks of sound out, for every listener.
//!
//! Apart from the model's thread, so that sound is made while the next frames are computed. Whoever runs dry first is
//! served first, one chunk at a time. A listener who does not read on holds nobody: its codes wait, which are a
//! thousandth of the sound, and are made into sound when there is room for it. Codes are taken in as long as not too
//! many wait; beyond that the model waits.

#[cfg(test)]
mod failing_tests;
mod words;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use futures::future::{select, select_all};
use tokio::sync::mpsc;

use crate::audio::{SPEECH_HZ, Speech, Stretch};
use crate::engine::precedence::Hurry;
use crate::engine::speech::CHUNK_SAMPLES;
use crate::engine::speech::playback::Playback;
use crate::nn::higgs::codec::{Chunking, Decoder, DecoderStream, Frame};
use crate::provider::{ProviderError, SpeechChunk, Urgency};
use words::Words;

/// Columns of all listeners together that wait: three quarters of an hour, 2 MB.
const MOST_WAITING: usize = 1 << 16;

/// What a listener gets.
pub(super) type Heard = Result<SpeechChunk, ProviderError>;

/// One request's way to the listener's ear.
pub(super) struct Opening {
    pub(super) stream: u64,
    /// The first piece of the text.
    pub(super) piece: String,
    pub(super) out: mpsc::Sender<Heard>,
    pub(super) speed: f32,
    pub(super) urgency: Urgency,
    /// Until the first sound.
    pub(super) hurry: Option<Hurry>,
}

pub(super) enum Command {
    Open(Box<Opening>),
    Columns(u64, Vec<Frame>),
    /// A piece of the text is over; another comes.
    PieceEnd(u64, String),
    End(u64),
    Fail(u64, ProviderError),
}

/// What the thread owns.
pub(super) struct Vocoder {
    pub(super) decoder: Decoder,
    pub(super) chunking: Chunking,
    pub(super) name: Arc<str>,
}

/// Runs until nobody can command any more and every listener has what was made.
#[expect(clippy::needless_pass_by_value, reason = "the thread owns its model")]
pub(super) fn run(vocoder: Vocoder, inbox: mpsc::Receiver<Command>) {
    let mut desk = Desk { inbox, streams: VecDeque::new(), is_closed: false, start: Instant::now() };
    loop {
        desk.take_in(&vocoder);
        desk.give_out();
        let start = desk.start;
        if let Some(stream) = desk.next() {
            stream.work(&vocoder, start);
        } else if !desk.wait(&vocoder) {
            return;
        }
    }
}

struct Desk {
    inbox: mpsc::Receiver<Command>,
    streams: VecDeque<Stream>,
    is_closed: bool,
    start: Instant,
}

/// What waits to be made into sound.
enum Part {
    Column(Frame),
    PieceEnd(String),
    End,
    Fail(ProviderError),
}

/// Samples, and how it ended where they are the last.
type Made = (Vec<f32>, Option<Result<(), ProviderError>>);

struct Stream {
    id: u64,
    out: mpsc::Sender<Heard>,
    decoder: DecoderStream,
    stretch: Option<Stretch<SPEECH_HZ>>,
    words: Words,
    /// Samples made, at the speed that was asked for.
    position: usize,
    hurry: Option<Hurry>,
    playback: Playback,
    parts: VecDeque<Part>,
    /// Made, but the listener has not taken what came before.
    made: VecDeque<Heard>,
    /// Nothing more comes.
    has_ended: bool,
}

impl Desk {
    fn take_in(&mut self, vocoder: &Vocoder) {
        while self.streams.iter().map(|stream| stream.parts.len()).sum::<usize>() < MOST_WAITING {
            match self.inbox.try_recv() {
                Ok(command) => self.obey(command, vocoder),
                Err(mpsc::error::TryRecvError::Empty) => return,
                Err(mpsc::error::TryRecvError::Disconnected) => return self.close(vocoder),
            }
        }
    }

    fn obey(&mut self, command: Command, vocoder: &Vocoder) {
        let (id, parts) = match command {
            Command::Open(opening) => {
                let stream = Stream::new(*opening, vocoder.chunking, self.start);
                return self.streams.push_back(stream);
            }
            Command::Columns(id, frames) => (id, frames.into_iter().map(Part::Column).collect()),
            Command::PieceEnd(id, next) => (id, vec![Part::PieceEnd(next)]),
            Command::End(id) => (id, vec![Part::End]),
            Command::Fail(id, error) => (id, vec![Part::Fail(error)]),
        };
        // A stream whose listener has left is no longer here.
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == id) {
            stream.parts.extend(parts);
        }
    }

    /// The model's thread is gone. Who waits for more of it waits in vain.
    fn close(&mut self, vocoder: &Vocoder) {
        if !self.is_closed {
            self.is_closed = true;
            for stream in &mut self.streams {
                stream.parts.push_back(Part::Fail(ProviderError::Failed { what: vocoder.name.to_string() }));
            }
        }
    }

    fn give_out(&mut self) {
        self.streams.iter_mut().for_each(Stream::flush);
        self.streams.retain(|stream| !stream.is_over());
    }

    /// Of those for whom something can be made, who runs dry first.
    fn next(&mut self) -> Option<&mut Stream> {
        self.streams.iter_mut().filter(|stream| stream.is_due()).min_by_key(|stream| stream.playback.dry_at())
    }

    /// Waits for a command, or for a listener to read on or leave. False where neither can come.
    fn wait(&mut self, vocoder: &Vocoder) -> bool {
        if self.is_closed && self.streams.is_empty() {
            return false;
        }
        match futures::executor::block_on(wake(&mut self.inbox, &self.streams, self.is_closed)) {
            Wake::Command(command) => self.obey(command, vocoder),
            Wake::Closed => self.close(vocoder),
            Wake::Listener => {}
        }
        true
    }
}

/// What ends a wait.
enum Wake {
    Command(Command),
    Closed,
    Listener,
}

async fn wake(inbox: &mut mpsc::Receiver<Command>, streams: &VecDeque<Stream>, is_closed: bool) -> Wake {
    let command = async {
        if is_closed {
            return futures::future::pending().await;
        }
        inbox.recv().await.map_or(Wake::Closed, Wake::Command)
    };
    let moved = async {
        // Of the others only that they left can be noticed.
        let moves = streams.iter().map(|stream| {
            Box::pin(async {
                if stream.made.is_empty() { stream.out.closed().await } else { drop(stream.out.reserve().await) }
            })
        });
        let moves: Vec<_> = moves.collect();
        if moves.is_empty() {
            return futures::future::pending().await;
        }
        select_all(moves).await;
        Wake::Listener
    };
    select(pin!(command), pin!(moved)).await.factor_first().0
}

impl Stream {
    fn new(opening: Opening, chunking: Chunking, start: Instant) -> Self {
        let Opening { stream, piece, out, speed, urgency, hurry } = opening;
        let is_natural = (speed - 1.0).abs() < f32::EPSILON;
        Self {
            id: stream,
            out,
            decoder: DecoderStream::new(chunking),
            stretch: (!is_natural).then(|| Stretch::new(speed)),
            words: Words::new(&piece, speed),
            position: 0,
            hurry,
            playback: Playback::new(start.elapsed(), urgency),
            parts: VecDeque::new(),
            made: VecDeque::new(),
            has_ended: false,
        }
    }

    fn is_over(&self) -> bool {
        self.out.is_closed() || (self.has_ended && self.made.is_empty())
    }

    /// Gives out what there is room for.
    fn flush(&mut self) {
        while let Some(heard) = self.made.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(heard)) = self.out.try_send(heard) {
                self.made.push_front(heard);
                return;
            }
            self.hurry = None;
        }
    }

    /// Sound can be made, and there is somebody to hear it.
    fn is_due(&self) -> bool {
        let wants = self.decoder.wants().max(1);
        let is_column = |part: &Part| matches!(part, Part::Column(_));
        let ready = self.parts.len() >= wants || !self.parts.iter().all(is_column);
        !self.has_ended && self.made.is_empty() && ready
    }

    /// Makes the next chunk.
    fn work(&mut self, vocoder: &Vocoder, start: Instant) {
        let made = catch_unwind(AssertUnwindSafe(|| self.make(vocoder)));
        let failed = || ProviderError::Failed { what: vocoder.name.to_string() };
        let (samples, end) =
            made.unwrap_or_else(|_| Err(failed())).unwrap_or_else(|error| (Vec::new(), Some(Err(error))));
        let speech = self.paced(Speech::new(samples), end.is_some());
        if !speech.is_empty() {
            self.playback.extend(speech.duration(), start.elapsed());
        }
        self.has_ended = end.is_some();
        let is_whole = matches!(end, Some(Ok(())));
        let mut chunks = speech.as_slice().chunks(CHUNK_SAMPLES).peekable();
        let is_empty = chunks.peek().is_none();
        while let Some(samples) = chunks.next() {
            self.hand_over(samples, is_whole && chunks.peek().is_none(), &vocoder.name);
        }
        match end {
            Some(Ok(())) if is_empty => self.hand_over(&[], true, &vocoder.name),
            Some(Err(error)) => self.made.push_back(Err(error)),
            Some(Ok(())) | None => {}
        }
        self.flush();
    }

    fn hand_over(&mut self, samples: &[f32], last: bool, served_by: &Arc<str>) {
        self.position += samples.len();
        let words = self.words.take(self.position as f64 / f64::from(SPEECH_HZ), last);
        let audio = Speech::new(samples.to_vec());
        self.made.push_back(Ok(SpeechChunk { audio, words, last, served_by: Arc::clone(served_by) }));
    }

    /// The sound of the next columns, and the end where it comes after them.
    fn make(&mut self, vocoder: &Vocoder) -> Result<Made, ProviderError> {
        let report = |error| crate::engine::failure(&vocoder.name, &error);
        let mut frames = Vec::new();
        let wants = self.decoder.wants().max(1);
        while frames.len() < wants
            && let Some(Part::Column(frame)) = self.parts.front()
        {
            frames.push(*frame);
            self.parts.pop_front();
        }
        let mut samples = self.decoder.push(&vocoder.decoder, &frames).map_err(report)?;
        if frames.len() == wants {
            self.words.hear(&samples);
            return Ok((samples, None));
        }
        let over = self.parts.pop_front();
        samples.extend(self.decoder.finish(&vocoder.decoder).map_err(report)?);
        self.words.hear(&samples);
        let end = match over {
            Some(Part::End) => Some(Ok(())),
            Some(Part::Fail(error)) => Some(Err(error)),
            Some(Part::PieceEnd(next)) => {
                self.words.end_piece(Some(&next));
                return Ok((samples, None));
            }
            Some(Part::Column(_)) | None => None,
        };
        self.words.end_piece(None);
        Ok((samples, end))
    }

    /// At the speed that was asked for.
    fn paced(&mut self, speech: Speech, is_end: bool) -> Speech {
        let Some(stretch) = &mut self.stretch else { return speech };
        let mut paced = stretch.push(&speech);
        if is_end {
            paced.extend(&stretch.finish());
        }
        paced
    }
}
