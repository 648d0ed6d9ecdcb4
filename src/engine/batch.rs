//! Fixed slots in which several sequences of one model advance together, a step at a time.
//!
//! Pure bookkeeping: no clock, no channel, no tensor. A slot knows which tokens' keys and values lie in the model's cache
//! at its place, and keeps knowing it when its sequence has gone; so the slots are the prefix cache as well. A new
//! sequence begins with the longest beginning that any slot has read, in place or by a copy, and the slot whose tokens
//! were of use the longest ago is overwritten first. Whoever drives it carries out a [`Plan`]: its copies in order, then
//! its turns in one call of the model, and says with [`Batch::read`] which turns have succeeded. What a failed turn may
//! have written lies beyond what its slot is known to hold.

use std::cmp::Reverse;

/// Fewer tokens than this are read again rather than copied, and are no reason to spare a slot.
const WORTH_A_COPY: usize = 16;
/// A slot may lose a tail that is this part of what it keeps, as of a reply that was cut short.
const SMALL_PART: usize = 8;

/// Stands for one of those who share slots. Once it has left its slot, the ticket stands for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Ticket {
    pub(in crate::engine) slot: usize,
    pub(in crate::engine) generation: u64,
}

/// The first `positions` of one slot's cache are to be copied to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Copying {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) positions: usize,
}

/// The tokens `start..end` of a sequence are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) ticket: Ticket,
    pub(super) start: usize,
    pub(super) end: usize,
    /// Nothing of the sequence is left to read: its next token is wanted.
    pub(super) last: bool,
}

/// One step. A slot has at most one turn.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) copies: Vec<Copying>,
    pub(super) turns: Vec<Turn>,
}

/// Slots, with a `T` for each sequence.
pub(super) struct Batch<T> {
    slots: Vec<Slot<T>>,
    /// Carried out before the next turns.
    copies: Vec<Copying>,
    /// Counts admissions and departures: the time of this file.
    clock: u64,
}

struct Slot<T> {
    /// Counts the sequences that were here.
    generation: u64,
    /// The tokens whose keys and values lie in the cache.
    held: Vec<u32>,
    /// When they were last of use.
    used: u64,
    sequence: Option<Sequence<T>>,
}

struct Sequence<T> {
    arrived: u64,
    /// Begins with what the slot holds.
    tokens: Vec<u32>,
    prompt: usize,
    cached: usize,
    work: T,
}

impl<T> Batch<T> {
    pub(super) fn new(slots: usize) -> Self {
        let slot = |_| Slot { generation: 0, held: Vec::new(), used: 0, sequence: None };
        Self { slots: (0..slots).map(slot).collect(), copies: Vec::new(), clock: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.iter().all(Slot::is_free)
    }

    pub(super) fn is_full(&self) -> bool {
        !self.slots.iter().any(Slot::is_free)
    }

    /// Gives the sequence that begins with `tokens`, at least one, a slot.
    ///
    /// # Errors
    /// Gives `work` back where no slot is free.
    pub(super) fn admit(&mut self, tokens: Vec<u32>, work: T) -> Result<Ticket, T> {
        let Some(to) = self.place(&tokens) else { return Err(work) };
        self.clock += 1;
        let slot = &mut self.slots[to];
        let common = slot.common(&tokens);
        slot.held.truncate(common);
        slot.generation += 1;
        slot.used = self.clock;
        let (prompt, cached) = (tokens.len(), slot.held.len());
        slot.sequence = Some(Sequence { arrived: self.clock, tokens, prompt, cached, work });
        let ticket = Ticket { slot: to, generation: slot.generation };
        self.copy_longer(to);
        Ok(ticket)
    }

    /// Frees every slot whose work `is_over`. They stay as prefixes of later sequences.
    pub(super) fn evict(&mut self, mut is_over: impl FnMut(&T) -> bool) {
        for slot in &mut self.slots {
            if slot.sequence.as_ref().is_some_and(|sequence| is_over(&sequence.work)) {
                self.clock += 1;
                slot.used = self.clock;
                slot.sequence = None;
            }
        }
    }

    /// Frees the slot of a sequence that is over.
    pub(super) fn finish(&mut self, ticket: Ticket) -> Option<T> {
        self.sequence(ticket)?;
        self.clock += 1;
        let slot = &mut self.slots[ticket.slot];
        slot.used = self.clock;
        slot.sequence.take().map(|sequence| sequence.work)
    }

    /// The sequence's work, and its tokens so far.
    pub(super) fn work(&mut self, ticket: Ticket) -> Option<(&mut T, &[u32])> {
        let sequence = self.sequence(ticket)?;
        Some((&mut sequence.work, &sequence.tokens))
    }

    /// All tokens of the sequence: its prompt, and what it has written.
    pub(super) fn tokens(&self, ticket: Ticket) -> &[u32] {
        let slot = self.slots.get(ticket.slot).filter(|slot| slot.generation == ticket.generation);
        slot.and_then(|slot| slot.sequence.as_ref()).map_or(&[], |sequence| sequence.tokens.as_slice())
    }

    /// How many tokens of its prompt the sequence found in the cache.
    pub(super) fn cached(&mut self, ticket: Ticket) -> usize {
        self.sequence(ticket).map_or(0, |sequence| sequence.cached)
    }

    /// The sequence writes `token`.
    pub(super) fn write(&mut self, ticket: Ticket, token: u32) {
        if let Some(sequence) = self.sequence(ticket) {
            sequence.tokens.push(token);
        }
    }

    /// The turn has succeeded.
    pub(super) fn read(&mut self, turn: Turn) {
        let slot = &mut self.slots[turn.ticket.slot];
        if slot.generation == turn.ticket.generation
            && slot.held.len() == turn.start
            && let Some(sequence) = &slot.sequence
        {
            slot.held.extend_from_slice(&sequence.tokens[turn.start..turn.end]);
        }
    }

    /// The last token that the sequence has read is to be read again, for its logits.
    pub(super) fn again(&mut self, ticket: Ticket) {
        if self.sequence(ticket).is_some() {
            self.slots[ticket.slot].held.pop();
        }
    }

    /// What lies in the cache at `slot` is lost, and with it the sequence there.
    pub(super) fn lose(&mut self, slot: usize) -> Option<T> {
        let slot = &mut self.slots[slot];
        slot.held.clear();
        slot.sequence.take().map(|sequence| sequence.work)
    }

    /// A slot has read all of `tokens`.
    pub(super) fn holds(&self, tokens: &[u32]) -> bool {
        self.slots.iter().any(|slot| slot.held.starts_with(tokens))
    }

    /// The next step: every sequence that writes reads its last token, and beside them at most `most` tokens of prompts
    /// are read. Half of these are the first come's, so that nobody waits for ever; the others go to whoever has least
    /// left, so that a short prompt does not wait for a long one.
    pub(super) fn choose(&mut self, most: usize) -> Plan {
        let mut turns = Vec::with_capacity(self.slots.len());
        let mut reading = Vec::new();
        for (place, slot) in self.slots.iter().enumerate() {
            match &slot.sequence {
                Some(sequence) if sequence.tokens.len() > sequence.prompt => turns.extend(slot.turn(place, usize::MAX)),
                Some(sequence) => reading.push((sequence.arrived, place)),
                None => {}
            }
        }
        reading.sort_unstable();
        let mut ready: Vec<usize> = Vec::with_capacity(reading.len());
        for (rank, (_, place)) in reading.iter().enumerate() {
            if !reading[..rank].iter().any(|(_, before)| self.is_about_to_read(*before, *place)) {
                self.copy_longer(*place);
                ready.push(*place);
            }
        }
        turns.extend(self.share(&ready, most));
        Plan { copies: std::mem::take(&mut self.copies), turns }
    }

    /// Turns of at most `most` tokens together for those that are `ready`, first come first.
    fn share(&self, ready: &[usize], most: usize) -> Vec<Turn> {
        let left = |place: usize| self.slots[place].left();
        let Some((&first, others)) = ready.split_first() else { return Vec::new() };
        let mut others = others.to_vec();
        others.sort_by_key(|place| left(*place));
        let reserved = left(first).min(most.div_ceil(2));
        let mut free = most - reserved;
        let mut turns = Vec::new();
        for place in others {
            if let Some(turn) = self.slots[place].turn(place, free) {
                free -= turn.end - turn.start;
                turns.push(turn);
            }
        }
        turns.extend(self.slots[first].turn(first, reserved + free));
        turns
    }

    /// The sequence in the slot `before` has not read yet what the one in `place` begins with, which can then copy it.
    fn is_about_to_read(&self, before: usize, place: usize) -> bool {
        let (before, slot) = (&self.slots[before], &self.slots[place]);
        let (Some(other), Some(sequence)) = (&before.sequence, &slot.sequence) else { return false };
        let common = common(&other.tokens, &sequence.tokens);
        common >= slot.held.len() + WORTH_A_COPY && before.held.len() < common
    }

    /// A free slot for a sequence that begins with `tokens`: the one that has read most of them, unless it would lose
    /// what another may come back for; then the least recently used.
    fn place(&self, tokens: &[u32]) -> Option<usize> {
        let free = || self.slots.iter().enumerate().filter(|(_, slot)| slot.is_free());
        let matched = free().map(|(place, slot)| (slot.common(tokens), Reverse(slot.held.len()), Reverse(place)));
        let (common, Reverse(held), Reverse(best)) = matched.max()?;
        if common > 0 && held - common < WORTH_A_COPY.max(common / SMALL_PART) {
            return Some(best);
        }
        free().min_by_key(|(_, slot)| (!slot.held.is_empty(), slot.used)).map(|(place, _)| place)
    }

    /// Lets the slot `to` begin with what another has read, where that is more and worth it.
    fn copy_longer(&mut self, to: usize) {
        let Some(sequence) = &self.slots[to].sequence else { return };
        let others = self.slots.iter().enumerate().filter(|(place, _)| *place != to);
        let longest = others.map(|(place, slot)| (slot.common(&sequence.tokens), Reverse(place))).max();
        let Some((common, Reverse(from))) = longest else { return };
        let held = self.slots[to].held.len();
        if common < held + WORTH_A_COPY {
            return;
        }
        self.copies.push(Copying { from, to, positions: common });
        self.slots[from].used = self.clock;
        let slot = &mut self.slots[to];
        if let Some(sequence) = &mut slot.sequence {
            slot.held.extend_from_slice(&sequence.tokens[held..common]);
            sequence.cached += common - held;
        }
    }

    fn sequence(&mut self, ticket: Ticket) -> Option<&mut Sequence<T>> {
        let slot = self.slots.get_mut(ticket.slot).filter(|slot| slot.generation == ticket.generation)?;
        slot.sequence.as_mut()
    }
}

impl<T> Slot<T> {
    fn is_free(&self) -> bool {
        self.sequence.is_none()
    }

    /// How many of `tokens` need not be read here.
    fn common(&self, tokens: &[u32]) -> usize {
        common(&self.held, tokens)
    }

    /// Tokens that are not read yet.
    fn left(&self) -> usize {
        self.sequence.as_ref().map_or(0, |sequence| sequence.tokens.len() - self.held.len())
    }

    fn turn(&self, place: usize, most: usize) -> Option<Turn> {
        let sequence = self.sequence.as_ref()?;
        let start = self.held.len();
        let end = sequence.tokens.len().min(start.saturating_add(most));
        let ticket = Ticket { slot: place, generation: self.generation };
        (start < end).then_some(Turn { ticket, start, end, last: end == sequence.tokens.len() })
    }
}

/// How many of `tokens` a slot that holds `held` spares. The last is always read, for its logits.
fn common(held: &[u32], tokens: &[u32]) -> usize {
    let same = held.iter().zip(tokens).take_while(|(held, token)| held == token).count();
    same.min(tokens.len().saturating_sub(1))
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
