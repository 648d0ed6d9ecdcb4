//! The model's thread: requests in, a step of all voices at a time, codes out to the vocoder.
//!
//! A request is a text of one or more pieces. It keeps its slot until its last piece is spoken, or its listener has
//! left, which is looked at before every step. What one voice says of one story is spoken one
//! after the other, because each piece hears the ones before it. A piece that came to nothing is tried again with
//! another seed; one that does not end is ended where its text must long be over.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::limits::{attempt_seed, is_worth_another};
use super::model::{Model, guarded};
use super::schedule::{Plan, Prefix, Reading, Schedule, Ticket};
use super::story::Story;
use super::vocoder::{Command, Heard, Opening};
use super::voices::Enrolled;
use crate::engine::precedence::Hurry;
use crate::engine::speech::playback::Playback;
use crate::engine::worker::Worker;
use crate::nn::higgs::codec::CODEBOOKS;
use crate::nn::higgs::{Outcome, Speaker, Utterance};
use crate::provider::{ProviderError, StoryId, Urgency};

/// Requests that wait for a slot; those beyond wait in the inbox, which is bounded.
const MOST_WAITING: usize = 64;
/// Parts in conversations, and texts, that are remembered; the least recently told is forgotten. Each takes about 100 KB.
const MOST_PARTS: usize = 64;
const MOST_TEXTS: usize = 16;

/// A request.
pub(super) struct Order {
    /// At least one, none of them empty.
    pub(super) pieces: VecDeque<String>,
    pub(super) voice: Arc<Enrolled>,
    pub(super) seed: u64,
    pub(super) speed: f32,
    pub(super) urgency: Urgency,
    pub(super) story: Option<StoryId>,
    pub(super) out: mpsc::Sender<Heard>,
    /// Until the first sound.
    pub(super) hurry: Option<Hurry>,
}

/// A story and a voice that tells it.
type Key = (StoryId, Arc<str>);

impl Order {
    fn key(&self) -> Option<Key> {
        Some((self.story.clone()?, Arc::clone(&self.voice.name)))
    }
}

/// Runs until nobody can command any more.
pub(super) fn run(model: Model, mut inbox: mpsc::Receiver<Order>, vocoder: Worker<Command>) {
    let schedule = Schedule::new(model.higgs.slots());
    let start = Instant::now();
    let mut desk =
        Desk { model, schedule, vocoder, waiting: VecDeque::new(), stories: VecDeque::new(), opened: 0, start };
    while desk.take_in(&mut inbox) {
        desk.step();
    }
}

/// A request at work.
struct Job {
    pieces: VecDeque<String>,
    piece: String,
    attempt: u32,
    utterance: Utterance,
    /// Columns of this piece that the vocoder has.
    sent: usize,
    /// The most frames of this piece.
    frames: usize,
    seed: u64,
    key: Option<Key>,
    story: Story,
    stream: u64,
    out: mpsc::Sender<Heard>,
}

struct Desk {
    model: Model,
    schedule: Schedule<Job>,
    vocoder: Worker<Command>,
    /// First come, first served, the urgent before the others.
    waiting: VecDeque<Order>,
    /// Of stories nobody is telling now, the most recent last.
    stories: VecDeque<(Key, Story)>,
    /// Streams so far: the next one's number.
    opened: u64,
    start: Instant,
}

impl Desk {
    /// Takes in what has come, and waits where there is nothing to do. False: the engine is gone.
    fn take_in(&mut self, inbox: &mut mpsc::Receiver<Order>) -> bool {
        loop {
            // Whoever has left gives up the slot, or the place in the queue.
            for job in self.schedule.evict(|job| job.out.is_closed()) {
                self.remember(job);
            }
            self.waiting.retain(|order| !order.out.is_closed());
            self.admit();
            let is_idle = self.schedule.is_empty() && self.waiting.is_empty();
            if self.waiting.len() >= MOST_WAITING {
                return true;
            }
            match if is_idle { inbox.blocking_recv() } else { inbox.try_recv().ok() } {
                Some(order) => self.waiting.push_back(order),
                None => return !is_idle,
            }
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn admit(&mut self) {
        while !self.schedule.is_full()
            && let Some(index) = self.next_waiting()
            && let Some(order) = self.waiting.remove(index)
        {
            let out = order.out.clone();
            if let Err(error) = self.begin(order) {
                // Nobody has written to it yet: there is room, or the listener has left.
                drop(out.try_send(Err(error)));
            }
        }
    }

    /// The first, of the most urgent, whose story nobody is telling.
    fn next_waiting(&self) -> Option<usize> {
        let is_free = |order: &Order| {
            let key = order.key();
            key.is_none() || self.schedule.works().all(|job| job.key != key)
        };
        let free = self.waiting.iter().enumerate().filter(|(_, order)| is_free(order));
        free.min_by_key(|(index, order)| (order.urgency != Urgency::First, *index)).map(|(index, _)| index)
    }

    fn begin(&mut self, order: Order) -> Result<(), ProviderError> {
        let key = order.key();
        let story = self.recall(key.as_ref(), &order.voice);
        let Order { mut pieces, seed, speed, urgency, out, hurry, .. } = order;
        let piece = pieces.pop_front().unwrap_or_default();
        let (prompt, frames) = self.model.compose(&story, &piece)?;
        let utterance = self.model.utterance(&story, &prompt, &piece, frames, seed);
        let stream = self.opened;
        self.opened += 1;
        let opening = Opening { stream, piece: piece.clone(), out: out.clone(), speed, urgency, hurry };
        self.tell(Command::Open(Box::new(opening)))?;
        let job = Job { pieces, piece, attempt: 0, frames, utterance, sent: 0, seed, key, story, stream, out };
        let playback = Playback::new(self.now(), urgency);
        if self.schedule.admit(Arc::new(prompt), playback, job).is_err() {
            return Err(self.model.failed());
        }
        Ok(())
    }

    /// The story so far, taken out of those that are kept; a new one where the voice has changed.
    fn recall(&mut self, key: Option<&Key>, voice: &Enrolled) -> Story {
        let index = self.stories.iter().position(|(kept, _)| Some(kept) == key);
        let kept = index.and_then(|index| self.stories.remove(index)).map(|(_, story)| story);
        kept.filter(|story| *story.setting() == voice.setting).unwrap_or_else(|| Story::new(voice.setting.clone()))
    }

    /// Keeps the story of a request that is over.
    fn remember(&mut self, job: Job) {
        if let Some(key) = job.key {
            let is_text = |story: &StoryId| matches!(story, StoryId::Text(_));
            let most = if is_text(&key.0) { MOST_TEXTS } else { MOST_PARTS };
            let mut alike = (0..self.stories.len()).filter(|at| is_text(&self.stories[*at].0.0) == is_text(&key.0));
            let oldest = alike.next();
            if let Some(oldest) = oldest.filter(|_| alike.count() + 1 >= most) {
                self.stories.remove(oldest);
            }
            self.stories.push_back((key, job.story));
        }
    }

    /// All voices advance by a frame, and one chunk of a prompt is read.
    fn step(&mut self) {
        let Plan { reading, speaking } = self.schedule.plan(self.now());
        if let Some(reading) = reading
            && let Err(error) = self.read(reading)
        {
            self.fail(reading.ticket, error);
        }
        if speaking.is_empty() {
            return;
        }
        if let Err(error) = self.advance(&speaking) {
            if let [ticket] = speaking[..] {
                self.fail(ticket, error);
                return;
            }
            // Whose fault it was shows when each goes alone.
            for ticket in &speaking {
                if let Err(error) = self.advance(&[*ticket]) {
                    self.fail(*ticket, error);
                }
            }
        }
        for ticket in speaking {
            self.give_out(ticket);
        }
    }

    fn read(&mut self, reading: Reading) -> Result<(), ProviderError> {
        let Reading { ticket, prefix, most } = reading;
        let Some(prompt) = self.schedule.prompt(ticket) else { return Ok(()) };
        let Model { name, higgs, .. } = &mut self.model;
        let slot = ticket.slot;
        let held = guarded(name, || {
            match prefix {
                Some(Prefix { from, positions }) if from == slot => higgs.reset(slot, positions)?,
                Some(Prefix { from, positions }) => higgs.copy_prefix(from, slot, positions)?,
                None => {}
            }
            let left = higgs.prefill(slot, &prompt, most)?;
            Ok(prompt.len() - left)
        });
        // What a failure leaves of the slot nobody knows.
        self.schedule.holds(ticket, *held.as_ref().unwrap_or(&0));
        held.map(drop)
    }

    fn advance(&mut self, tickets: &[Ticket]) -> Result<(), ProviderError> {
        let Self { model: Model { name, higgs, .. }, schedule, .. } = self;
        let speakers = schedule.occupants().filter(|(ticket, _)| tickets.contains(ticket));
        let mut speakers: Vec<Speaker<'_>> =
            speakers.map(|(ticket, job)| Speaker { slot: ticket.slot, utterance: &mut job.utterance }).collect();
        guarded(name, || higgs.step(&mut speakers))
    }

    /// Hands over what the utterance has, and goes on where it is over.
    fn give_out(&mut self, ticket: Ticket) {
        let now = self.now();
        let Some(job) = self.schedule.work(ticket) else { return };
        let (stream, columns, outcome) = (job.stream, job.utterance.columns(), job.utterance.outcome());
        if columns > job.sent {
            let fresh = columns - job.sent;
            let codes = job.utterance.speech(job.sent, columns);
            job.sent = columns;
            self.schedule.spoke(ticket, fresh, now);
            // The engine has seen to it that the model has as many codebooks as the codec.
            let frames = codes.as_arrays::<CODEBOOKS>().unwrap_or_default().to_vec();
            if let Err(error) = self.tell(Command::Columns(stream, frames)) {
                return self.fail(ticket, error);
            }
        }
        if let Some(outcome) = outcome
            && let Err(error) = self.go_on(ticket, outcome)
        {
            self.fail(ticket, error);
        }
    }

    /// A piece is over: another attempt, the next piece, or the end.
    fn go_on(&mut self, ticket: Ticket, outcome: Outcome) -> Result<(), ProviderError> {
        if outcome == Outcome::Broken {
            self.schedule.holds(ticket, 0);
        }
        let Some(mut prompt) = self.schedule.prompt(ticket) else { return Ok(()) };
        let Self { model, schedule, .. } = self;
        let Some(job) = schedule.work(ticket) else { return Ok(()) };
        let stream = job.stream;
        if is_worth_another(outcome, job.attempt, job.sent > 0) {
            job.attempt += 1;
        } else {
            if outcome != Outcome::Spoken {
                tracing::warn!(model = &*model.name, ?outcome, attempt = job.attempt, "speech did not end well");
            }
            if job.sent == 0 {
                return Err(model.failed());
            }
            let columns = job.utterance.speech(0, job.utterance.columns());
            job.story.keep(model.higgs.config(), &job.piece, &columns, outcome);
            let Some(piece) = job.pieces.pop_front() else {
                self.tell(Command::End(stream))?;
                if let Some(job) = self.schedule.finish(ticket) {
                    self.remember(job);
                }
                return Ok(());
            };
            let (next, frames) = model.compose(&job.story, &piece)?;
            (job.piece, job.frames, job.attempt, prompt) = (piece.clone(), frames, 0, Arc::new(next));
            self.tell(Command::PieceEnd(stream, piece))?;
        }
        let Self { model, schedule, .. } = self;
        if let Some(job) = schedule.work(ticket) {
            let seed = attempt_seed(job.seed, job.attempt);
            job.utterance = model.utterance(&job.story, &prompt, &job.piece, job.frames, seed);
            job.sent = 0;
        }
        schedule.go_on(ticket, prompt);
        Ok(())
    }

    fn fail(&mut self, ticket: Ticket, error: ProviderError) {
        let Some(job) = self.schedule.finish(ticket) else { return };
        if self.tell(Command::Fail(job.stream, error.clone())).is_err() {
            // It has all that was made; where there is no room it hears that the stream has broken off.
            drop(job.out.try_send(Err(error)));
        }
        self.remember(job);
    }

    /// Waits where the vocoder is far behind.
    fn tell(&self, command: Command) -> Result<(), ProviderError> {
        self.vocoder.feed(command).map_err(|_| self.model.failed())
    }
}
