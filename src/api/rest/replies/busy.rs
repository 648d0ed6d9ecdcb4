//! One request at a time writes replies into a conversation: the next one answers what the last one said.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

/// Who waits for a conversation to be asked again hears of so many at once; whoever misses some takes it for the one.
const NEWS: usize = 64;

/// An owner's conversation.
type Place = (Arc<str>, String);

/// The conversations that are being replied to.
pub(in crate::api) struct Busy {
    taken: Mutex<HashSet<Place>>,
    entered: broadcast::Sender<Place>,
}

impl Default for Busy {
    fn default() -> Self {
        Self { taken: Mutex::default(), entered: broadcast::Sender::new(NEWS) }
    }
}

impl Busy {
    /// None: somebody else is there.
    pub(super) fn enter(self: &Arc<Self>, owner: &str, conversation_id: &str) -> Option<Pass> {
        let place: Place = (owner.into(), conversation_id.to_owned());
        if !self.taken().insert(place.clone()) {
            return None;
        }
        // Nobody may be listening.
        let _ = self.entered.send(place.clone());
        let next = Next { place: place.clone(), entered: self.entered.subscribe() };
        Some(Pass { busy: Arc::clone(self), place, next: Some(next) })
    }

    fn taken(&self) -> MutexGuard<'_, HashSet<Place>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A conversation is one's own until this is dropped.
pub(super) struct Pass {
    busy: Arc<Busy>,
    place: Place,
    next: Option<Next>,
}

impl Pass {
    /// Gives the conversation free.
    pub(super) fn leave(mut self) -> Option<Next> {
        self.next.take()
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.busy.taken().remove(&self.place);
    }
}

/// Tells when the conversation is entered again.
pub(super) struct Next {
    place: Place,
    entered: broadcast::Receiver<Place>,
}

impl Next {
    pub(super) async fn entered(mut self) {
        while self.entered.recv().await.is_ok_and(|place| place != self.place) {}
    }
}

#[cfg(test)]
#[path = "busy_tests.rs"]
mod tests;
