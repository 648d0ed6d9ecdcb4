//! All calls of the house.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{MutexGuard as Gate, watch};

use super::journal::Pages;
use super::{Call, Client};
use crate::api::House;

/// Who is in a call now.
#[derive(Default)]
pub(in crate::api) struct Hall {
    calls: Mutex<Vec<Arc<Call>>>,
    /// Calls that have not stored all that was said.
    running: watch::Sender<usize>,
    /// Held while a named conversation is opened, so that two sockets never open it twice: one gate for all conversations,
    /// held over what the database is asked meanwhile, so that they are opened one after another. That is a few reads,
    /// and of a session that goes on its journal. Whoever is in a call, or begins a new conversation, does not wait for it.
    gate: tokio::sync::Mutex<()>,
    pub(super) pages: Pages,
}

/// A call that runs, until this is dropped.
pub(super) struct Running(Arc<House>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.hall.running.send_modify(|running| *running -= 1);
    }
}

impl Hall {
    /// Waits until all calls have stored what was said.
    pub(in crate::api) async fn all_ended(&self) {
        // The sender is the hall's own.
        let _ = self.running.subscribe().wait_for(|running| *running == 0).await;
    }

    /// Waits for one's turn to open a conversation.
    pub(in crate::api::ws) async fn gate(&self) -> Gate<'_, ()> {
        self.gate.lock().await
    }

    /// The call on a conversation.
    pub(in crate::api::ws) fn on(&self, owner: &str, conversation_id: &str) -> Option<Arc<Call>> {
        self.calls().iter().rfind(|call| call.is(owner, conversation_id)).cloned()
    }

    /// The call of a session, for whoever has a token of it; and which client that is.
    pub(in crate::api::ws) fn find(&self, owner: &str, session_id: &str, token: &str) -> Option<(Arc<Call>, Client)> {
        let call = self.calls().iter().find(|call| call.session_id == session_id).cloned()?;
        let client = call.client_of(owner, token)?;
        Some((call, client))
    }

    pub(super) fn add(house: &Arc<House>, call: Arc<Call>) -> Running {
        house.hall.calls().push(call);
        house.hall.running.send_modify(|running| *running += 1);
        Running(Arc::clone(house))
    }

    pub(super) fn remove(&self, call: &Arc<Call>) {
        self.calls().retain(|known| !Arc::ptr_eq(known, call));
    }

    /// Of more than `most` calls that nobody is in, whether this one has waited longest: then it gives way.
    pub(super) fn is_too_much(&self, call: &Call, most: usize) -> bool {
        let waiting = |call: &Call| call.attendance().away_since;
        let Some(since) = waiting(call) else { return false };
        let calls = self.calls().clone();
        let later = calls.iter().filter_map(|other| waiting(other)).filter(|other| *other > since).count();
        later >= most
    }

    fn calls(&self) -> MutexGuard<'_, Vec<Arc<Call>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
