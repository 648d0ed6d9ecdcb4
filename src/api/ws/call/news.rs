//! What REST and other sessions do to a call's conversation: its clients are told, and its session takes it in.

use super::{Call, Ending};
use crate::api::rest::{shown_conversation, shown_message};
use crate::api::wire::Notice;
use crate::session::event::Input;
use crate::session::record::Message;
use crate::store::{Changed, StoredMessage};

impl Call {
    /// Why the call ends, where that ends it. The session first: whoever was told may ask about it.
    pub(super) fn hear_of(&self, what: &Changed) -> Option<Ending> {
        match what {
            Changed::Conversation { conversation, is_recast } => {
                self.ask(Input::Stored(conversation.settings.clone()));
                if *is_recast {
                    self.ask(Input::Recast { character_ids: conversation.character_ids.clone() });
                }
                let conversation = shown_conversation((**conversation).clone());
                self.log.announce(Notice::ConversationChanged { conversation, is_deleted: false });
            }
            Changed::ConversationDeleted => {
                let conversation = serde_json::Value::Null;
                self.log.announce(Notice::ConversationChanged { conversation, is_deleted: true });
                return Some(Ending::NotFound);
            }
            Changed::MessagesCreated(messages) => {
                // At once, since the session has room for few requests.
                self.ask(Input::Noted(messages.iter().map(record_of).collect()));
                for message in messages {
                    self.log.announce(Notice::MessageCreated(shown_message(message.clone())));
                }
            }
            Changed::MessageUpdated(message) => {
                self.ask(Input::Noted(vec![record_of(message)]));
                let message = shown_message((**message).clone());
                self.log.announce(Notice::MessageUpdated { message, is_deleted: false });
            }
            Changed::MessageDeleted(message) => {
                self.ask(Input::Dropped { message_id: message.id.clone() });
                let message = shown_message((**message).clone());
                self.log.announce(Notice::MessageUpdated { message, is_deleted: true });
            }
        }
        None
    }
}

/// As a session knows it.
fn record_of(stored: &StoredMessage) -> Message {
    Message {
        id: stored.id.clone(),
        conversation_id: stored.conversation_id.clone(),
        role: stored.role,
        character_id: stored.character_id.clone(),
        character_name: stored.character_name.clone(),
        content: stored.content.clone(),
        status: stored.status,
        heard_chars: stored.heard_chars,
        metadata: stored.metadata.clone(),
        client_message_id: stored.client_message_id.clone(),
    }
}
