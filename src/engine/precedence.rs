//! Who goes first where models share one device: what somebody waits for in silence, then all else.
//!
//! The end of an utterance and the first audio of a reply are waited for. Meanwhile the language model, which writes
//! several times faster than anybody listens, gives way between its steps, so that a small device is not divided among
//! models just when one of them is urgent.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The longest that a step gives way, so that many in a hurry only slow the others down.
const PATIENCE: Duration = Duration::from_secs(1);

/// Shared by the engines of one device.
#[derive(Clone, Debug, Default)]
pub struct Precedence(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    hurrying: Mutex<usize>,
    over: Condvar,
}

impl Precedence {
    /// Something is waited for until the answer is dropped.
    #[must_use]
    pub(super) fn hurry(&self) -> Hurry {
        *self.0.hurrying.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Hurry(Arc::clone(&self.0))
    }

    /// Waits while anything is waited for, but not for ever. Blocks the thread.
    pub(super) fn give_way(&self) {
        let hurrying = self.0.hurrying.lock().unwrap_or_else(PoisonError::into_inner);
        // A poisoned lock holds a count all the same.
        drop(self.0.over.wait_timeout_while(hurrying, PATIENCE, |hurrying| *hurrying > 0));
    }
}

/// Somebody waits.
#[derive(Debug)]
pub(super) struct Hurry(Arc<Shared>);

impl Drop for Hurry {
    fn drop(&mut self) {
        *self.0.hurrying.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.over.notify_all();
    }
}

#[cfg(test)]
#[path = "precedence_tests.rs"]
mod tests;
