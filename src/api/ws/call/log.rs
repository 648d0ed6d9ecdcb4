//! What a call has told, numbered once and kept for a while: every socket reads it at its own pace, from wherever it is,
//! and who comes back reads on where it was.
//!
//! It is the bounded buffer between the session and its sockets: pushing never waits. A socket that falls behind is told
//! to go, and costs nobody anything. Audio has no number; what was played of it is dropped.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::playback::{Heard, Playback};
use super::{Client, Ending};
use crate::api::wire::{self, Notice};
use crate::session::event::{AudioPiece, Output, Told};

/// Numbered messages that are kept for who comes back: many minutes of talk.
const KEPT: usize = 2_048;
/// As they are written: twice what one request of REST's can add, and far more than so many messages of talk have.
const KEPT_BYTES: usize = 4 * 1024 * 1024;
/// Of these, what one client alone was answered: a client that makes mistakes without end leaves room for what the
/// others come back for, and may itself have missed many in a second.
const ANSWERS: usize = 256;
/// Audio that is kept until it is acknowledged: more than a client may hold back.
const AUDIO: Duration = Duration::from_secs(30);
/// A burst of more messages than may wait for a socket is no fault where it is taken in this time.
const CATCH_UP: Duration = Duration::from_secs(2);

/// One message, as every socket that it concerns gets it.
#[derive(Debug)]
pub(in crate::api::ws) struct Line {
    /// Its number in the journal. None: it is not journalled.
    pub seq: Option<u64>,
    /// The one that it is for. None: all.
    pub only: Option<Client>,
    /// Whose request it answers: only that client knows the `ref`.
    pub asker: Option<Client>,
    pub notice: Notice,
    /// Of all but audio: as it is written.
    bytes: usize,
}

impl Line {
    fn audio(&self) -> Option<&AudioPiece> {
        match &self.notice {
            Notice::Told(Told { output: Output::Audio(piece), .. }) => Some(piece),
            _ => None,
        }
    }

    /// Of its audio.
    fn length(&self) -> Duration {
        self.audio().map(|piece| piece.audio.duration()).unwrap_or_default()
    }

    /// Whose message it answers, where it did not reach the session.
    fn answered(&self) -> Option<Client> {
        self.only.filter(|_| matches!(self.notice, Notice::Refused(_) | Notice::ResyncRequired { .. }))
    }
}

/// The lines of one call.
pub(in crate::api::ws) struct Log {
    lines: Mutex<Lines>,
    /// How many lines there ever were; it also changes at the end.
    changed: watch::Sender<u64>,
    /// So many messages may wait for a socket.
    behind: u64,
}

struct Lines {
    /// By place. What was dropped leaves a gap.
    kept: BTreeMap<u64, Arc<Line>>,
    /// The places of all but audio, oldest first.
    texts: VecDeque<u64>,
    /// How long these are together.
    bytes: usize,
    /// What of these each client alone was answered.
    answers: HashMap<Client, Answers>,
    /// The places of audio, oldest first.
    audio: VecDeque<u64>,
    /// How long all of it is together.
    held: Duration,
    /// The place of the next line.
    end: u64,
    last_seq: u64,
    /// Numbers up to this one are not kept any more.
    forgotten: u64,
    /// Nor are texts before this place.
    first: u64,
    playback: Playback,
    ending: Option<Ending>,
}

#[derive(Default)]
struct Answers {
    /// Oldest first.
    places: VecDeque<u64>,
    /// Numbers up to this one are not kept any more.
    forgotten: u64,
}

impl Log {
    /// One where so many messages may wait for a socket.
    pub(in crate::api::ws) fn new(behind: usize) -> Self {
        Self::after(behind, 0, Vec::new())
    }

    /// One that goes on after `last_seq`, with what is known of the numbers before.
    pub(in crate::api::ws) fn after(behind: usize, last_seq: u64, recalled: Vec<(u64, Notice)>) -> Self {
        let forgotten = recalled.first().map_or(last_seq, |(seq, _)| seq - 1);
        let mut lines = Lines {
            kept: BTreeMap::new(),
            texts: VecDeque::new(),
            bytes: 0,
            answers: HashMap::new(),
            audio: VecDeque::new(),
            held: Duration::ZERO,
            end: 0,
            last_seq: forgotten,
            forgotten,
            first: 0,
            playback: Playback::default(),
            ending: None,
        };
        for (seq, notice) in recalled {
            lines.last_seq = seq - 1;
            lines.put(None, None, notice);
        }
        lines.last_seq = last_seq;
        let changed = watch::Sender::new(lines.end);
        Self { lines: Mutex::new(lines), changed, behind: behind as u64 }
    }

    /// Takes in what the session tells. The `ref` in it names whose it is: see [`Client::tag`].
    pub(super) fn tell(&self, mut told: Told) {
        let (asker, reference) = told.reference.take().map(|tagged| Client::untag(&tagged)).unzip();
        told.reference = reference;
        let mut lines = self.lines();
        let next = lines.last_seq + 1;
        match &told.output {
            Output::Audio(piece) => lines.playback.send(Instant::now(), piece),
            Output::TurnComplete(report) => lines.playback.end(&report.item_id, next),
            Output::Interrupted { item_id, .. } => {
                lines.playback.end(item_id, next);
                lines.drop_audio(|piece| piece.item_id == *item_id);
            }
            _ => {}
        }
        lines.put(None, asker, Notice::Told(told));
        self.publish(lines);
    }

    /// Whether all that follows this number is kept for a client.
    pub(super) fn reaches(&self, client: Client, last_seq: u64) -> bool {
        self.lines().reaches(client, last_seq)
    }

    /// Says something to all.
    pub(super) fn announce(&self, notice: Notice) {
        let mut lines = self.lines();
        lines.put(None, None, notice);
        self.publish(lines);
    }

    /// Says something to one client.
    pub(in crate::api::ws) fn say(&self, client: Client, notice: Notice) {
        let mut lines = self.lines();
        lines.put(Some(client), None, notice);
        self.publish(lines);
    }

    /// So much of an item was played, as its listener says: that is not sent again.
    pub(super) fn acknowledge(&self, item_id: &str, played: Duration) {
        let mut lines = self.lines();
        lines.playback.acknowledge(item_id, played);
        lines.drop_audio(|piece| piece.item_id == item_id && piece.pts + piece.audio.duration() <= played);
    }

    /// A listener has left or comes back. Who never says what was played has heard what the pace says.
    pub(super) fn settle(&self, now: Instant) {
        let mut lines = self.lines();
        if let Some((item_id, played)) = lines.playback.played_by(now) {
            lines.drop_audio(|piece| piece.item_id != item_id || piece.pts + piece.audio.duration() <= played);
        }
    }

    /// What was heard by `now` of the reply that is under way. None: no whole sentence.
    pub(super) fn heard(&self, now: Instant) -> Option<Heard> {
        self.lines().playback.heard(now)
    }

    /// Nothing follows. Sockets that have read all of it close so.
    pub(super) fn end(&self, ending: Ending) {
        let mut lines = self.lines();
        lines.ending.get_or_insert(ending);
        self.publish(lines);
    }

    pub(super) fn last_seq(&self) -> u64 {
        self.lines().last_seq
    }

    /// The numbered lines for all after `seq`.
    pub(super) fn since(&self, seq: u64) -> Vec<Arc<Line>> {
        let lines = self.lines();
        let texts = lines.texts.iter().rev().filter_map(|place| lines.kept.get(place));
        let new = texts.take_while(|line| line.seq.is_none_or(|own| own > seq));
        let mut new: Vec<_> = new.filter(|line| line.seq.is_some() && line.only.is_none()).map(Arc::clone).collect();
        new.reverse();
        new
    }

    /// Reads from the beginning.
    pub(super) fn from_the_start(self: &Arc<Self>, client: Client) -> Follower {
        self.follower(client, 0, VecDeque::new())
    }

    /// Reads what comes from now on, after a greeting.
    pub(super) fn from_now(self: &Arc<Self>, client: Client, greeting: Vec<Notice>) -> Follower {
        let mut lines = self.lines();
        let place = lines.end;
        for notice in greeting {
            lines.put(Some(client), None, notice);
        }
        self.publish(lines);
        self.follower(client, place, VecDeque::new())
    }

    /// Reads on after `last_seq`, and again the audio that was not played. None: what follows it is not kept any more, or
    /// there never was such a number.
    pub(super) fn from_seq(self: &Arc<Self>, client: Client, last_seq: u64) -> Option<Follower> {
        let lines = self.lines();
        if !lines.reaches(client, last_seq) {
            return None;
        }
        let after = |place: &&u64| lines.kept.get(place).is_some_and(|line| line.seq > Some(last_seq));
        let place = lines.texts.iter().find(after).copied().unwrap_or(lines.end);
        let again = lines.audio.iter().take_while(|audio| **audio < place).filter_map(|audio| lines.kept.get(audio));
        let is_open = |line: &&Arc<Line>| line.audio().is_some_and(|it| lines.playback.is_open(&it.item_id, last_seq));
        let again = again.filter(is_open).map(Arc::clone).collect();
        drop(lines);
        Some(self.follower(client, place, again))
    }

    fn follower(self: &Arc<Self>, client: Client, place: u64, again: VecDeque<Arc<Line>>) -> Follower {
        let changed = self.changed.subscribe();
        let caught_up = self.lines().end;
        Follower { log: Arc::clone(self), changed, client, place, again, caught_up, late: None }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, lines: MutexGuard<'_, Lines>) {
        let end = lines.end;
        drop(lines);
        self.changed.send_replace(end);
    }
}

impl Lines {
    fn reaches(&self, client: Client, last_seq: u64) -> bool {
        let forgotten = self.answers.get(&client).map_or(0, |own| own.forgotten).max(self.forgotten);
        (forgotten..=self.last_seq).contains(&last_seq)
    }

    fn put(&mut self, only: Option<Client>, asker: Option<Client>, notice: Notice) {
        let seq = notice.is_numbered().then_some(self.last_seq + 1);
        let mut line = Line { seq, only, asker, notice, bytes: 0 };
        if line.audio().is_some() {
            self.audio.push_back(self.end);
            self.held += line.length();
        } else {
            line.bytes = wire::text(&line.notice, seq, "").map_or(0, |text| text.len());
            self.last_seq = seq.unwrap_or(self.last_seq);
            self.texts.push_back(self.end);
            self.bytes += line.bytes;
        }
        let answered = line.answered();
        self.kept.insert(self.end, Arc::new(line));
        if let Some(client) = answered {
            self.answer(client);
        }
        self.end += 1;
        self.forget();
    }

    /// Notes that the next place is an answer, and drops the client's oldest where it has too many.
    fn answer(&mut self, client: Client) {
        let own = self.answers.entry(client).or_default();
        own.places.push_back(self.end);
        if own.places.len() > ANSWERS
            && let Some(place) = own.places.pop_front()
            && let Some(line) = self.kept.remove(&place)
        {
            own.forgotten = line.seq.unwrap_or(own.forgotten);
            self.bytes -= line.bytes;
            if let Ok(at) = self.texts.binary_search(&place) {
                self.texts.remove(at);
            }
        }
    }

    /// Drops what is too much, the oldest first. The newest stays, however long it is.
    fn forget(&mut self) {
        while (self.texts.len() > KEPT || self.texts.len() > 1 && self.bytes > KEPT_BYTES)
            && let Some(place) = self.texts.pop_front()
            && let Some(line) = self.kept.remove(&place)
        {
            self.first = place + 1;
            self.forgotten = line.seq.unwrap_or(self.forgotten);
            self.bytes -= line.bytes;
            if let Some(client) = line.answered()
                && let Some(own) = self.answers.get_mut(&client)
            {
                own.places.pop_front();
                if own.places.is_empty() {
                    self.answers.remove(&client);
                }
            }
        }
        while self.held > AUDIO
            && let Some(line) = self.audio.pop_front().and_then(|place| self.kept.remove(&place))
        {
            self.held = self.held.saturating_sub(line.length());
        }
    }

    fn drop_audio(&mut self, which: impl Fn(&AudioPiece) -> bool) {
        let Self { kept, audio, held, .. } = self;
        audio.retain(|place| {
            let goes = kept.get(place).and_then(|line| line.audio()).is_none_or(&which);
            if goes && let Some(line) = kept.remove(place) {
                *held = held.saturating_sub(line.length());
            }
            !goes
        });
    }
}

/// One socket's place in a log.
pub(in crate::api::ws) struct Follower {
    log: Arc<Log>,
    changed: watch::Receiver<u64>,
    client: Client,
    /// The next line's.
    place: u64,
    /// Goes before it.
    again: VecDeque<Arc<Line>>,
    /// What came before this place was there when the socket was: it may take its time.
    caught_up: u64,
    /// Since when too much waits for it.
    late: Option<Instant>,
}

impl Follower {
    /// The next line for this client, or why its socket ends. Dropping the future loses nothing.
    pub(in crate::api::ws) async fn next(&mut self) -> Result<Arc<Line>, Ending> {
        loop {
            // Before the look, so that what comes after it is noticed.
            self.changed.borrow_and_update();
            if let Some(next) = self.waiting() {
                return next;
            }
            // A log that is gone has said all.
            if self.changed.changed().await.is_err() {
                return Err(Ending::SessionFailed);
            }
        }
    }

    /// The same, where there is one already.
    pub(in crate::api::ws) fn waiting(&mut self) -> Option<Result<Arc<Line>, Ending>> {
        if let Some(line) = self.again.pop_front() {
            return Some(Ok(line));
        }
        let lines = self.log.lines();
        if self.place < lines.first {
            // What it should have read next is not kept any more.
            return Some(Err(Ending::TooSlow));
        }
        let behind = lines.end - self.place.max(self.caught_up).min(lines.end);
        if behind <= self.log.behind {
            self.late = None;
        } else if self.late.get_or_insert_with(Instant::now).elapsed() > CATCH_UP {
            return Some(Err(Ending::TooSlow));
        }
        for (place, line) in lines.kept.range(self.place..) {
            self.place = place + 1;
            if line.only.is_none_or(|only| only == self.client) {
                return Some(Ok(Arc::clone(line)));
            }
        }
        self.place = lines.end;
        lines.ending.map(Err)
    }

    /// Whose it is.
    pub(in crate::api::ws) const fn client(&self) -> Client {
        self.client
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
