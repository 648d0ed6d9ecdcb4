//! What was said so far, as the language model is told it: what the user said, and of each reply what was heard.
//!
//! Kept short enough for a model's window; the whole conversation is in the records.

use super::record::{Message, OpenConversation};
use crate::provider::{ChatMessage, Role};

/// Messages kept, and read from the records at the start.
pub(super) const MESSAGES: usize = 64;
/// Bytes of text that are put before a model, about 4000 tokens: the smallest window of ours holds 8192.
const MAX_BYTES: usize = 16_000;

/// Oldest first.
#[derive(Debug, Default)]
pub(super) struct History {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) role: Role,
    /// Of a reply, what was heard.
    pub(super) text: String,
    pub(super) client_message_id: Option<String>,
    /// The records have it.
    pub(super) is_stored: bool,
}

impl History {
    pub(super) fn of(conversation: &OpenConversation) -> Self {
        let spoken = |message: &&Message| matches!(message.role, Role::User | Role::Assistant);
        let entry = |message: &Message| Entry {
            id: message.id.clone(),
            role: message.role,
            text: message.content.chars().take(message.heard_chars.unwrap_or(usize::MAX)).collect(),
            client_message_id: message.client_message_id.clone(),
            is_stored: true,
        };
        Self { entries: conversation.messages.iter().filter(spoken).map(entry).collect() }
    }

    /// Adds an entry, or replaces the one with its id.
    pub(super) fn put(&mut self, entry: Entry) {
        if let Some(old) = self.entries.iter_mut().find(|old| old.id == entry.id) {
            *old = entry;
            return;
        }
        if self.entries.len() >= MESSAGES {
            self.entries.remove(0);
        }
        self.entries.push(entry);
    }

    pub(super) fn stored(&mut self, id: &str) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) {
            entry.is_stored = true;
        }
    }

    /// The entry that a client's message became.
    pub(super) fn by_client_message(&self, client_message_id: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.client_message_id.as_deref() == Some(client_message_id))
    }

    pub(super) fn is_reply(&self, id: &str) -> bool {
        self.entries.iter().any(|entry| entry.id == id && entry.role == Role::Assistant)
    }

    /// The messages of a request: the prompt, then what was said, or what was said before the message `until`. Roles
    /// alternate and the user begins, as most templates demand.
    pub(super) fn messages(&self, system_prompt: String, until: Option<&str>) -> Vec<ChatMessage> {
        let end = self.entries.iter().position(|entry| Some(entry.id.as_str()) == until);
        let entries = &self.entries[..end.unwrap_or(self.entries.len())];
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            bytes += entry.text.len();
            bytes <= MAX_BYTES
        };
        let newest = entries.last().map_or(0, |entry| usize::from(entry.text.len() > MAX_BYTES));
        // The newest message is answered even where it alone is too long.
        let count = entries.iter().rev().take_while(fits).count().max(newest);
        let mut messages: Vec<ChatMessage> = Vec::new();
        if !system_prompt.is_empty() {
            messages.push(ChatMessage::new(Role::System, system_prompt));
        }
        for entry in entries[entries.len() - count..].iter().filter(|entry| !entry.text.is_empty()) {
            match messages.last_mut() {
                Some(last) if last.role == entry.role => {
                    last.content.push(' ');
                    last.content.push_str(&entry.text);
                }
                Some(last) if last.role == Role::System && entry.role == Role::Assistant => {}
                None if entry.role == Role::Assistant => {}
                _ => messages.push(ChatMessage::new(entry.role, entry.text.clone())),
            }
        }
        messages
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
