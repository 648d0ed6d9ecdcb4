//! What REST and other sessions do to a call's conversation: its clients are told, and its session takes it in.

use super::{Call, Ending};
use crate::api::rest::{shown_conversation, shown_message};
use crate::api::wire::Notice;
use crate::session::event::Input;
use crate::session::record::Message;
use crate::store::{Changed, StoredMessage};

impl Call {
    /// Why the call ends, where that ends it.
    pub(super) fn hear_of(&self, what: Changed) -> Option<Ending> {
        let (notice, input) = match what {
            Changed::Conversation { conversation, is_recast } => {
                let character_ids = conversation.character_ids.clone();
                let input = (is_recast && !character_ids.is_empty()).then_some(Input::Recast { character_ids });
                let conversation = shown_conversation(*conversation);
                (Notice::ConversationChanged { conversation, is_deleted: false }, input)
            }
            Changed::ConversationDeleted => {
                let conversation = serde_json::Value::Null;
                self.log.announce(Notice::ConversationChanged { conversation, is_deleted: true });
                return Some(Ending::NotFound);
            }
            Changed::MessageCreated(message) => {
                let input = Input::Noted(Box::new(record_of(&message)));
                (Notice::MessageCreated(shown_message(*message)), Some(input))
            }
            Changed::MessageUpdated(message) => {
                let input = Input::Noted(Box::new(record_of(&message)));
                (Notice::MessageUpdated { message: shown_message(*message), is_deleted: false }, Some(input))
            }
            Changed::MessageDeleted(message) => {
                let input = Input::Dropped { message_id: message.id.clone() };
                (Notice::MessageUpdated { message: shown_message(*message), is_deleted: true }, Some(input))
            }
        };
        self.log.announce(notice);
        if let Some(input) = input {
            self.ask(input);
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
