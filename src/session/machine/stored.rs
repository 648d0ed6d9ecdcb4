//! What the user said on its way to the records, and what came of it.

use serde_json::Value;

use super::{Effect, Machine, Save};
use crate::provider::Role;
use crate::session::event::{Complaint, ErrorCode, Output};
use crate::session::history::Entry;
use crate::session::record::{Message, MessageStatus, RecordError};

impl Machine {
    /// The user has said something.
    pub(super) fn user_message(
        &mut self,
        id: String,
        text: String,
        client_message_id: Option<String>,
        metadata: Value,
        reference: Option<String>,
    ) {
        self.history.put(Entry {
            id: id.clone(),
            role: Role::User,
            speaker: None,
            text: text.clone(),
            client_message_id: client_message_id.clone(),
            is_stored: false,
        });
        self.save_users(id, text, client_message_id, metadata, reference);
    }

    /// Stores what the user has said.
    pub(super) fn save_users(
        &mut self,
        id: String,
        content: String,
        client_message_id: Option<String>,
        metadata: Value,
        reference: Option<String>,
    ) {
        self.saving.insert(id.clone(), Vec::new());
        let message = Message {
            id,
            conversation_id: self.scene.conversation_id.clone(),
            role: Role::User,
            character_id: None,
            character_name: None,
            content,
            status: MessageStatus::Completed,
            heard_chars: None,
            metadata,
            client_message_id,
        };
        self.effects.push(Effect::Save(Box::new(Save { message, reference })));
    }

    pub(super) fn stored(&mut self, save: Save, outcome: Result<String, RecordError>) {
        let Save { message, reference } = save;
        let Message { id, client_message_id, role, status, .. } = message;
        let references = std::iter::once(reference).chain(self.saving.remove(&id).into_iter().flatten().map(Some));
        match outcome {
            // It is only begun, and may still be taken back.
            Ok(_) if status == MessageStatus::Pending => {}
            Ok(message_id) => {
                self.history.stored(&id);
                for reference in references {
                    let (message_id, client_message_id) = (message_id.clone(), client_message_id.clone());
                    self.tell_to(Output::MessageSaved { message_id, client_message_id, role, status }, reference);
                }
            }
            Err(error) => {
                let message = format!("the message could not be saved: {error}");
                let retryable = error == RecordError::Failed;
                let code = if error == RecordError::Full { ErrorCode::StorageFull } else { ErrorCode::Internal };
                let complaint = Complaint { code, message, retryable, item_id: Some(id) };
                references.for_each(|reference| self.complain(complaint.clone(), reference));
            }
        }
    }
}
