//! What was done to conversations, told to whoever listens as it is committed.
//!
//! A session that is live tells its clients itself what it does: the rows that it writes through are quiet.

use tokio::sync::broadcast;

use super::{StoredConversation, StoredMessage};
use crate::store::{Owned, Store};

/// Changes that may wait for a listener. Who listens so slowly misses some.
pub(in crate::store) const WAITING: usize = 256;

/// Something that was done to a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    pub owner: String,
    pub conversation_id: String,
    pub what: Changed,
}

/// What there is now; of what was deleted, what there was.
#[derive(Clone, Debug, PartialEq)]
pub enum Changed {
    Conversation {
        conversation: Box<StoredConversation>,
        /// Others take part, or in another order.
        is_recast: bool,
    },
    /// For good.
    ConversationDeleted,
    MessageCreated(Box<StoredMessage>),
    MessageUpdated(Box<StoredMessage>),
    MessageDeleted(Box<StoredMessage>),
}

impl Store {
    /// What is done to conversations from now on.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }
}

impl Owned {
    /// The same rows for somebody who tells what they do themselves.
    #[must_use]
    pub fn quiet(self) -> Self {
        Self { is_quiet: true, ..self }
    }

    /// Tells what was committed.
    pub(in crate::store) fn tell(&self, conversation_id: &str, what: Changed) {
        if self.is_quiet {
            return;
        }
        let change = Change { owner: self.owner.to_string(), conversation_id: conversation_id.to_owned(), what };
        // Nobody may be listening.
        let _ = self.store.changes.send(change);
    }
}
