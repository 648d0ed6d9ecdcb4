//! Which slot reads, which speak, whose sound is made next: the arithmetic of many voices on one model.
//!
//! Pure bookkeeping: no clock (moments are given), no channel, no tensor. A slot knows the prompt that it has read and
//! keeps knowing it when its utterance is over; so the slots are the prefix cache as well. A new utterance begins with
//! the longest beginning that any slot has read, in place or by a copy, so that a voice's recording is read once. All
//! that speak advance by one frame in one step; beside them one chunk of one prompt is read, a smaller one where a
//! listener is about to run dry.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

pub(super) use crate::engine::batch::Ticket;
use crate::engine::speech::playback::Playback;
use crate::nn::higgs::Prompt;

/// Fewer positions than this are read again rather than copied, and are no reason to spare a slot.
const WORTH_A_COPY: usize = 16;
/// Positions of a prompt that are read in one step where nobody speaks, usually, and where somebody runs dry.
const CHUNKS: [usize; 3] = [1024, 256, 64];
/// Every so many chunks go to whoever came first, so that the urgent keep nobody waiting for ever.
const TURN: u64 = 4;
/// Frames of a second.
const RATE: u32 = 25;

/// The first `positions` of slot `from` are what another, or `from` itself, begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) from: usize,
    pub(super) positions: usize,
}

/// At most `most` positions of a prompt are to be read, after its slot was made to begin with `prefix`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) ticket: Ticket,
    pub(super) prefix: Option<Prefix>,
    pub(super) most: usize,
}

/// One step.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) reading: Option<Reading>,
    /// By slot.
    pub(super) speaking: Vec<Ticket>,
}

/// Slots, with a `T` for each utterance.
pub(super) struct Schedule<T> {
    slots: Vec<Slot<T>>,
    /// Counts admissions and departures: the time of this file.
    clock: u64,
    chunks: u64,
}

struct Slot<T> {
    /// Counts the utterances that were here.
    generation: u64,
    /// Its first `read` positions lie in the model's memory. Whatever was spoken after it does not count.
    held: Arc<Prompt>,
    read: usize,
    used: u64,
    occupant: Option<Occupant<T>>,
}

struct Occupant<T> {
    arrived: u64,
    /// The slot's memory was not yet cut to what it shares with the prompt.
    is_new: bool,
    playback: Playback,
    work: T,
}

impl<T> Schedule<T> {
    pub(super) fn new(slots: usize) -> Self {
        let nothing = Arc::new(Prompt::default());
        let slot = |_| Slot { generation: 0, held: Arc::clone(&nothing), read: 0, used: 0, occupant: None };
        Self { slots: (0..slots).map(slot).collect(), clock: 0, chunks: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.iter().all(Slot::is_free)
    }

    pub(super) fn is_full(&self) -> bool {
        !self.slots.iter().any(Slot::is_free)
    }

    /// All utterances.
    pub(super) fn works(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| slot.occupant.as_ref().map(|occupant| &occupant.work))
    }

    /// Gives an utterance a slot.
    ///
    /// # Errors
    /// Gives `work` back where none is free.
    pub(super) fn admit(&mut self, prompt: Arc<Prompt>, playback: Playback, work: T) -> Result<Ticket, T> {
        let Some(place) = self.place(&prompt) else { return Err(work) };
        self.clock += 1;
        let slot = &mut self.slots[place];
        slot.generation += 1;
        slot.used = self.clock;
        slot.begin(prompt);
        slot.occupant = Some(Occupant { arrived: self.clock, is_new: true, playback, work });
        Ok(Ticket { slot: place, generation: slot.generation })
    }

    /// The utterance stays in its slot and goes on with another prompt: the next piece of its text, or another attempt.
    pub(super) fn go_on(&mut self, ticket: Ticket, prompt: Arc<Prompt>) {
        if let Some(slot) = self.slot(ticket) {
            slot.begin(prompt);
            if let Some(occupant) = &mut slot.occupant {
                occupant.is_new = true;
            }
        }
    }

    /// Frees the slot of an utterance that is over. It stays as a prefix of later ones.
    pub(super) fn finish(&mut self, ticket: Ticket) -> Option<T> {
        let clock = self.clock + 1;
        let slot = self.slot(ticket)?;
        slot.used = clock;
        let occupant = slot.occupant.take();
        self.clock = clock;
        occupant.map(|occupant| occupant.work)
    }

    /// Frees every slot whose work `is_over`, and gives what was there.
    pub(super) fn evict(&mut self, mut is_over: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut gone = Vec::new();
        for slot in &mut self.slots {
            if let Some(occupant) = slot.occupant.take_if(|occupant| is_over(&occupant.work)) {
                self.clock += 1;
                slot.used = self.clock;
                gone.push(occupant.work);
            }
        }
        gone
    }

    pub(super) fn work(&mut self, ticket: Ticket) -> Option<&mut T> {
        self.slot(ticket)?.occupant.as_mut().map(|occupant| &mut occupant.work)
    }

    /// Every utterance with its ticket.
    pub(super) fn occupants(&mut self) -> impl Iterator<Item = (Ticket, &mut T)> {
        self.slots.iter_mut().enumerate().filter_map(|(slot, it)| {
            let ticket = Ticket { slot, generation: it.generation };
            it.occupant.as_mut().map(|occupant| (ticket, &mut occupant.work))
        })
    }

    /// The prompt that the utterance has read, or reads.
    pub(super) fn prompt(&self, ticket: Ticket) -> Option<Arc<Prompt>> {
        let slot = self.slots.get(ticket.slot).filter(|slot| slot.generation == ticket.generation)?;
        slot.occupant.as_ref().map(|_| Arc::clone(&slot.held))
    }

    /// The slot now holds so many positions of its utterance's prompt; none where its memory was lost.
    pub(super) fn holds(&mut self, ticket: Ticket, positions: usize) {
        if let Some(slot) = self.slot(ticket) {
            slot.read = positions.min(slot.held.len());
            if let Some(occupant) = &mut slot.occupant {
                occupant.is_new = false;
            }
        }
    }

    /// So many columns of sound more are on their way to the listener.
    pub(super) fn spoke(&mut self, ticket: Ticket, columns: usize, now: Duration) {
        if let Some(occupant) = self.slot(ticket).and_then(|slot| slot.occupant.as_mut()) {
            occupant.playback.extend(Duration::from_secs(1) / RATE * columns as u32, now);
        }
    }

    /// What the next step does.
    pub(super) fn plan(&mut self, now: Duration) -> Plan {
        let ticket = |(place, slot): (usize, &Slot<T>)| Ticket { slot: place, generation: slot.generation };
        let speaking: Vec<Ticket> =
            self.slots.iter().enumerate().filter(|(_, slot)| slot.speaks()).map(ticket).collect();
        let is_dry = |slot: &Slot<T>| slot.occupant.as_ref().is_some_and(|it| it.playback.is_running_dry(now));
        let [alone, usual, little] = CHUNKS;
        let most = if speaking.is_empty() {
            alone
        } else if self.slots.iter().any(|slot| slot.speaks() && is_dry(slot)) {
            little
        } else {
            usual
        };
        let reading = self.reader().map(|place| Reading {
            ticket: ticket((place, &self.slots[place])),
            prefix: self.prefix(place),
            most,
        });
        self.chunks += u64::from(reading.is_some());
        Plan { reading, speaking }
    }

    /// Whose prompt is read: the most urgent one's, of these the one that came first.
    fn reader(&self) -> Option<usize> {
        let is_first_come = self.chunks % TURN == TURN - 1;
        let key = |(_, slot): &(usize, &Slot<T>)| {
            let occupant = slot.occupant.as_ref();
            let is_urgent = occupant.is_some_and(|occupant| occupant.playback.is_waited_for());
            (!is_urgent && !is_first_come, occupant.map(|occupant| occupant.arrived))
        };
        self.slots.iter().enumerate().filter(|(_, slot)| slot.reads()).min_by_key(key).map(|(place, _)| place)
    }

    /// What the slot is to begin with before it reads on; None where it holds that already.
    fn prefix(&mut self, to: usize) -> Option<Prefix> {
        let slot = &self.slots[to];
        let is_new = slot.occupant.as_ref().is_some_and(|occupant| occupant.is_new);
        let others = self.slots.iter().enumerate().filter(|(place, _)| *place != to);
        let longest = others.map(|(place, other)| (other.common(&slot.held), Reverse(place))).max();
        if let Some((positions, Reverse(from))) = longest
            && positions >= slot.read + WORTH_A_COPY
        {
            self.slots[from].used = self.clock;
            return Some(Prefix { from, positions });
        }
        is_new.then_some(Prefix { from: to, positions: slot.read })
    }

    /// A free slot: the one that has read most of the prompt, unless it would lose more than that, which another may
    /// come back for; then the least recently used.
    fn place(&self, prompt: &Prompt) -> Option<usize> {
        let free = || self.slots.iter().enumerate().filter(|(_, slot)| slot.is_free());
        let best = free().map(|(place, slot)| (slot.common(prompt), Reverse(slot.read), Reverse(place))).max();
        let (common, Reverse(read), Reverse(place)) = best?;
        if common >= WORTH_A_COPY && read - common <= common {
            return Some(place);
        }
        free().min_by_key(|(_, slot)| (slot.read > 0, slot.used)).map(|(place, _)| place)
    }

    fn slot(&mut self, ticket: Ticket) -> Option<&mut Slot<T>> {
        let slot = self.slots.get_mut(ticket.slot).filter(|slot| slot.generation == ticket.generation)?;
        slot.occupant.is_some().then_some(slot)
    }
}

impl<T> Slot<T> {
    fn is_free(&self) -> bool {
        self.occupant.is_none()
    }

    fn is_new(&self) -> bool {
        self.occupant.as_ref().is_some_and(|occupant| occupant.is_new)
    }

    fn reads(&self) -> bool {
        !self.is_free() && (self.is_new() || self.read < self.held.len())
    }

    fn speaks(&self) -> bool {
        !self.is_free() && !self.reads()
    }

    /// How many positions of `prompt` lie here.
    fn common(&self, prompt: &Prompt) -> usize {
        self.held.shared(prompt).min(self.read)
    }

    fn begin(&mut self, prompt: Arc<Prompt>) {
        self.read = self.common(&prompt);
        self.held = prompt;
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
