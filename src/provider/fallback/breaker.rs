//! A circuit breaker: who fails too often is left alone for a while, then asked one question.
//!
//! It opens at half of the last twenty calls, or at five failures in a row. Half a minute later it is half open: one
//! call goes through, and how that one ends decides. It keeps tokio's time, which tests pause.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Calls that are looked back at.
const RECENT: usize = 20;
/// So many failures of those open it.
const FAILURES: usize = RECENT / 2;
/// So many in a row open it.
const IN_A_ROW: usize = 5;
/// So long it stays open.
const REST: Duration = Duration::from_secs(30);

/// What one provider's calls came to, lately.
#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<Record>);

#[derive(Debug, Default)]
struct Record {
    /// Whether each of the latest calls failed, oldest first.
    recent: VecDeque<bool>,
    opened: Option<Instant>,
    is_probed: bool,
}

/// Whether calls go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    Closed,
    /// For so much longer.
    Open(Duration),
    /// One call goes through.
    HalfOpen,
}

impl Breaker {
    pub(super) fn position(&self) -> Position {
        self.record().position()
    }

    /// The right to one call. None: it would not go through.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Pass> {
        let mut record = self.record();
        let is_probe = match record.position() {
            Position::Closed => false,
            Position::HalfOpen if !record.is_probed => true,
            Position::HalfOpen | Position::Open(_) => return None,
        };
        record.is_probed |= is_probe;
        Some(Pass { breaker: Arc::clone(self), is_probe })
    }

    /// A panic elsewhere cannot leave it half written.
    fn record(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn position(&self) -> Position {
        match self.opened.map(|opened| REST.saturating_sub(opened.elapsed())) {
            None => Position::Closed,
            Some(Duration::ZERO) => Position::HalfOpen,
            Some(left) => Position::Open(left),
        }
    }

    fn push(&mut self, failed: bool) {
        // What began before it opened says nothing new.
        if self.opened.is_some() {
            return;
        }
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(failed);
        let in_a_row = self.recent.iter().rev().take_while(|failed| **failed).count();
        let often = self.recent.len() == RECENT && self.recent.iter().filter(|failed| **failed).count() >= FAILURES;
        if in_a_row >= IN_A_ROW || often {
            self.opened = Some(Instant::now());
        }
    }
}

/// One call that went through. Dropped without a word it counts for nothing: its caller has left.
#[derive(Debug)]
pub(super) struct Pass {
    breaker: Arc<Breaker>,
    is_probe: bool,
}

impl Pass {
    /// An answer came.
    pub(super) fn succeeded(&mut self) {
        let mut record = self.breaker.record();
        if std::mem::take(&mut self.is_probe) {
            *record = Record::default();
        }
        record.push(false);
    }

    /// None came, or it broke off: then the call counts twice.
    pub(super) fn failed(&mut self) {
        let mut record = self.breaker.record();
        if std::mem::take(&mut self.is_probe) {
            (record.opened, record.is_probed) = (Some(Instant::now()), false);
        } else {
            record.push(true);
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.is_probe {
            self.breaker.record().is_probed = false;
        }
    }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
