//! Who goes first where models share one device: what somebody waits for in silence, then all else.
//!
//! The end of an utterance and the first audio of a reply are waited for, and so are the first guesses at an utterance,
//! which may be meant to stop a reply. Meanwhile the language model, which writes several times faster than anybody
//! listens, gives way between its steps, so that a small device is not divided among models just when one of them is
//! urgent; and speech that is made ahead of its listener, which may have to stop, gives way to such guesses for a while.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The longest that a step, or a piece of speech, gives way, so that many in a hurry only slow the others down.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Shared by the engines of one device.
#[derive(Clone, Debug, Default)]
pub struct Precedence(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    hurrying: Mutex<Hurrying>,
    changed: Condvar,
}

/// How many are waited for.
#[derive(Debug, Default)]
struct Hurrying {
    answers: usize,
    interruptions: usize,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgent {
    /// A step towards an answer.
    Answer,
    /// What may be meant to stop one.
    Interruption,
}

impl Precedence {
    /// This is waited for until the answer is dropped.
    #[must_use]
    pub(super) fn hurry(&self, urgent: Urgent) -> Hurry {
        *self.0.lock().count(urgent) += 1;
        self.0.changed.notify_all();
        Hurry { shared: Arc::clone(&self.0), urgent }
    }

    /// Waits while anything is waited for, but not for ever. Blocks the thread.
    pub(super) fn give_way(&self) {
        self.0.wait_while(PATIENCE, |hurrying| hurrying.answers + hurrying.interruptions > 0);
    }

    /// Waits while there may be an interruption and no answer is waited for, which may be the caller's own to make. What
    /// is left of its patience.
    pub(super) fn give_way_to_interruption(&self, patience: Duration) -> Duration {
        let begun = Instant::now();
        self.0.wait_while(patience, |hurrying| hurrying.interruptions > 0 && hurrying.answers == 0);
        patience.saturating_sub(begun.elapsed())
    }
}

impl Shared {
    /// A poisoned lock holds counts all the same.
    fn lock(&self) -> MutexGuard<'_, Hurrying> {
        self.hurrying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, patience: Duration, is_busy: impl Fn(&Hurrying) -> bool) {
        drop(self.changed.wait_timeout_while(self.lock(), patience, |hurrying| is_busy(hurrying)));
    }
}

impl Hurrying {
    const fn count(&mut self, urgent: Urgent) -> &mut usize {
        match urgent {
            Urgent::Answer => &mut self.answers,
            Urgent::Interruption => &mut self.interruptions,
        }
    }
}

/// Somebody waits.
#[derive(Debug)]
pub(super) struct Hurry {
    shared: Arc<Shared>,
    urgent: Urgent,
}

impl Drop for Hurry {
    fn drop(&mut self) {
        *self.shared.lock().count(self.urgent) -= 1;
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
#[path = "precedence_tests.rs"]
mod tests;
