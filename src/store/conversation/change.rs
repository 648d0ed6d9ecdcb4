//! What was done to conversations, told to whoever listens as it is committed.
//!
//! A session that is live tells its clients itself what it does: the rows that it writes through are quiet.

use std::sync::Arc;

use tokio::sync::broadcast;

use super::{StoredConversation, StoredMessage};
use crate::store::{Owned, Store};

/// Changes that may wait for a listener. Who listens so slowly misses some.
pub(in crate::store) const WAITING: usize = 256;

/// What one transaction has done to conversations. However many they are, it is one of those that wait.
#[derive(Debug, PartialEq)]
pub struct Change {
    pub owner: String,
    /// By the conversation's id; of each once.
    pub done: Vec<(String, Changed)>,
}

/// What there is now; of what was deleted, what there was.
#[derive(Debug, PartialEq)]
pub enum Changed {
    Conversation {
        conversation: Box<StoredConversation>,
        /// Others take part, or in another order.
        is_recast: bool,
    },
    /// For good.
    ConversationDeleted,
    /// In their order.
    MessagesCreated(Vec<StoredMessage>),
    MessageUpdated(Box<StoredMessage>),
    MessageDeleted(Box<StoredMessage>),
}

impl Store {
    /// What is done to conversations from now on.
    pub fn changes(&self) -> broadcast::Receiver<Arc<Change>> {
        self.changes.subscribe()
    }
}

impl Owned {
    /// The same rows for somebody who tells what they do themselves.
    #[must_use]
    pub fn quiet(self) -> Self {
        Self { is_quiet: true, ..self }
    }

    /// Tells what was committed of one conversation.
    pub(in crate::store) fn tell(&self, conversation_id: &str, what: impl FnOnce() -> Changed) {
        self.tell_all(|| vec![(conversation_id.to_owned(), what())]);
    }

    /// Tells all that was committed at once. It is not put together where nobody listens.
    pub(in crate::store) fn tell_all(&self, done: impl FnOnce() -> Vec<(String, Changed)>) {
        if self.is_quiet || self.store.changes.receiver_count() == 0 {
            return;
        }
        let done = done();
        if !done.is_empty() {
            // Who listened may have left.
            let _ = self.store.changes.send(Arc::new(Change { owner: self.owner.to_string(), done }));
        }
    }
}
