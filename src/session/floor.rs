//! Who speaks next where several characters take part. Pure.
//!
//! One has the floor at a time. A user's message names those who answer it, in order; what a character says may call on
//! another, a few times in a row at most.

use super::settings::TurnTaking;
use crate::text::mentioned;

/// Replies that may follow each other without a word from the user: characters that keep calling on each other would
/// talk for ever.
const ROUNDS: usize = 4;

/// Somebody who may speak.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seat {
    pub(super) name: String,
    /// 0 to 1.
    pub(super) talkativeness: f32,
}

/// The floor of one session.
#[derive(Debug)]
pub(super) struct Floor {
    seats: Vec<Seat>,
    /// Replies of each, so far.
    replies: Vec<usize>,
    last: Option<usize>,
    /// Replies since the user last said something.
    rounds: usize,
}

impl Floor {
    /// `seats` is not empty.
    pub(super) fn new(seats: Vec<Seat>) -> Self {
        let replies = vec![0; seats.len()];
        Self { seats, replies, last: None, rounds: 0 }
    }

    /// Others take their seats: `moved` has the new place of each old seat, or none.
    pub(super) fn reseat(&mut self, seats: Vec<Seat>, moved: &[Option<usize>]) {
        let mut replies = vec![0; seats.len()];
        for (old, new) in moved.iter().enumerate() {
            if let Some(new) = new {
                replies[*new] = self.replies[old];
            }
        }
        self.last = self.last.and_then(|last| moved[last]);
        (self.seats, self.replies) = (seats, replies);
    }

    /// Who answers what the user said.
    pub(super) fn answer(&mut self, policy: TurnTaking, text: &str) -> Vec<usize> {
        self.rounds = 0;
        let named = self.named(text);
        match policy {
            TurnTaking::All => {
                let mut all = named;
                let others: Vec<usize> = (0..self.seats.len()).filter(|seat| !all.contains(seat)).collect();
                all.extend(others);
                all
            }
            TurnTaking::Mention if named.is_empty() => vec![self.last.unwrap_or(0)],
            TurnTaking::Natural if named.is_empty() => vec![self.readiest()],
            TurnTaking::Mention | TurnTaking::Natural | TurnTaking::Manual => named,
        }
    }

    /// Whom a character's reply calls on.
    pub(super) fn follow(&mut self, policy: TurnTaking, speaker: usize, text: &str) -> Option<usize> {
        if matches!(policy, TurnTaking::Manual | TurnTaking::All) || self.rounds >= ROUNDS {
            return None;
        }
        self.named(text).into_iter().find(|seat| *seat != speaker)
    }

    /// Somebody begins to speak.
    pub(super) fn takes(&mut self, speaker: usize) {
        self.last = Some(speaker);
        self.rounds += 1;
        self.replies[speaker] += 1;
    }

    /// Notes a reply from before.
    pub(super) fn has_spoken(&mut self, speaker: usize) {
        self.last = Some(speaker);
        self.replies[speaker] += 1;
    }

    /// Whoever spoke last.
    pub(super) const fn last(&self) -> Option<usize> {
        self.last
    }

    fn named(&self, text: &str) -> Vec<usize> {
        let names: Vec<&str> = self.seats.iter().map(|seat| seat.name.as_str()).collect();
        mentioned(text, &names)
    }

    /// The most talkative, less the share of the replies that was theirs; of equals the first.
    fn readiest(&self) -> usize {
        let all = self.replies.iter().sum::<usize>().max(1) as f32;
        let readiness = |seat: usize| self.seats[seat].talkativeness - self.replies[seat] as f32 / all;
        (0..self.seats.len())
            .reduce(|best, seat| if readiness(seat) > readiness(best) { seat } else { best })
            .unwrap_or(0)
    }
}

#[cfg(test)]
#[path = "floor_tests.rs"]
mod tests;
