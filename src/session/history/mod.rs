//! What was said so far, as the language model is told it: what the user said, and of each reply what was heard.
//!
//! It is more than a model's window holds: the model leaves out the oldest messages itself, since it alone counts
//! tokens. What is too much even so is dropped several messages at a time, so that the requests of following turns begin
//! alike and the model's prefix cache finds them. The whole conversation is in the records. `summary` tells the oldest
//! messages in a few sentences.

mod summary;
mod title;

use std::borrow::Cow;
use std::iter::successors;

pub(super) use self::summary::Fold;
pub(super) use self::title::clean_title;
use super::record::{Message, MessageStatus, OpenConversation};
use crate::provider::{ChatMessage, Role};

/// Messages kept, and read from the records at the start: more than fit any window of ours.
pub(super) const MESSAGES: usize = 512;
/// Bytes of text kept, about 16,000 tokens, four times the largest window of ours: a bound on what a request costs
/// before the model cuts it to its window.
const MAX_BYTES: usize = 65_536;
/// Old messages go this many at a time at most: half as many, and so on, where too few would be left. A multiple of the
/// steps in which a model leaves messages out, so that it goes on with the same oldest message.
const DROP_STEP: usize = 64;

/// Oldest first.
#[derive(Debug, Default)]
pub(super) struct History {
    entries: Vec<Entry>,
    /// The model's, in tokens. None: unknown.
    window: Option<usize>,
    /// Tells the oldest `folded` entries.
    summary: String,
    folded: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) role: Role,
    /// Of a reply: whose it is.
    pub(super) speaker: Option<Speaker>,
    /// Of a reply, what was heard.
    pub(super) text: String,
    pub(super) client_message_id: Option<String>,
    /// The records have it.
    pub(super) is_stored: bool,
}

/// The character who said a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Speaker {
    /// Empty: of one that was deleted since.
    pub(super) id: String,
    pub(super) name: String,
}

fn speaker_of(message: &Message) -> Option<Speaker> {
    let (id, name) = (message.character_id.clone(), message.character_name.clone());
    (id.is_some() || name.is_some()).then(|| Speaker { id: id.unwrap_or_default(), name: name.unwrap_or_default() })
}

impl History {
    /// What a conversation holds, for a model with this `window` in tokens, where it is known.
    pub(super) fn of(conversation: &OpenConversation, window: Option<usize>) -> Self {
        let spoken = |message: &&Message| matches!(message.role, Role::User | Role::Assistant);
        let entries = conversation.messages.iter().filter(spoken).map(Entry::of).collect();
        let mut history = Self { entries, window, ..Self::default() };
        history.shorten();
        history
    }

    /// Adds an entry, or replaces the one with its id.
    pub(super) fn put(&mut self, entry: Entry) {
        match self.entries.iter_mut().find(|old| old.id == entry.id) {
            Some(old) => *old = entry,
            None => self.entries.push(entry),
        }
        self.shorten();
    }

    /// Takes in what somebody else has stored. It was neither said nor heard while it is not complete.
    pub(super) fn note(&mut self, message: &Message) {
        let is_known = self.entries.iter().any(|entry| entry.id == message.id);
        let is_spoken = matches!(message.role, Role::User | Role::Assistant);
        if is_known || is_spoken && message.status == MessageStatus::Completed {
            self.put(Entry::of(message));
        }
    }

    /// Somebody has deleted a message.
    pub(super) fn drop_entry(&mut self, id: &str) {
        if let Some(at) = self.entries.iter().position(|entry| entry.id == id) {
            self.entries.remove(at);
            self.folded -= usize::from(at < self.folded);
        }
    }

    /// Puts back what an entry was, where there still is one.
    pub(super) fn restore(&mut self, entry: Entry) {
        if let Some(now) = self.entries.iter_mut().find(|now| now.id == entry.id) {
            *now = entry;
        }
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

    pub(super) fn reply(&self, id: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == id && entry.role == Role::Assistant)
    }

    pub(super) fn is_latest(&self, id: &str) -> bool {
        self.entries.last().is_some_and(|entry| entry.id == id)
    }

    /// Nothing was said after it.
    pub(super) fn is_last_word(&self, id: &str) -> bool {
        let said = self.entries.iter().rev().find(|entry| !entry.text.is_empty());
        said.is_some_and(|entry| entry.id == id)
    }

    /// What was heard or said. Empty: there is no such message.
    pub(super) fn text_of(&self, id: &str) -> String {
        self.entries.iter().find(|entry| entry.id == id).map(|entry| entry.text.clone()).unwrap_or_default()
    }

    pub(super) fn is_users(&self, id: &str) -> bool {
        self.entries.iter().any(|entry| entry.id == id && entry.role == Role::User)
    }

    /// The first answer to a user's message.
    pub(super) fn reply_to(&self, id: &str) -> Option<&Entry> {
        let after = self.entries.iter().skip_while(|entry| entry.id != id).skip(1);
        after.take_while(|entry| entry.role != Role::User).find(|entry| entry.role == Role::Assistant)
    }

    /// Whose replies these are, oldest first.
    pub(super) fn speakers(&self) -> impl Iterator<Item = &Speaker> {
        self.entries.iter().filter_map(|entry| entry.speaker.as_ref())
    }

    /// The messages of a request: the prompt, then what was said, or what was said before the message `until`. Roles
    /// alternate and the user begins, as most templates demand. With `is_summarized` the summary stands after the prompt,
    /// in the place of what it tells. `view` is the character who is to go on, where several take part: the lines of the
    /// others then are heard, with their names, and not its own.
    pub(super) fn messages(
        &self,
        mut system_prompt: String,
        until: Option<&str>,
        is_summarized: bool,
        view: Option<&str>,
    ) -> Vec<ChatMessage> {
        let end = self.entries.iter().position(|entry| Some(entry.id.as_str()) == until).unwrap_or(self.entries.len());
        let mut from = 0;
        // A reply from before is written again without what came after it.
        if is_summarized && self.folded > 0 && end > self.folded {
            from = self.folded;
            system_prompt = self.with_summary(&system_prompt);
        }
        let mut messages: Vec<ChatMessage> = Vec::new();
        if !system_prompt.is_empty() {
            messages.push(ChatMessage::new(Role::System, system_prompt));
        }
        for entry in self.entries[from..end].iter().filter(|entry| !entry.text.is_empty()) {
            let (role, text) = entry.seen_by(view);
            add(&mut messages, role, &text, view);
        }
        messages
    }

    /// Drops the oldest entries where there is too much. The newest stays, however long: it is the model's to refuse it.
    fn shorten(&mut self) {
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            bytes += entry.text.len();
            bytes <= MAX_BYTES
        };
        let kept = self.entries.iter().rev().take(MESSAGES).take_while(fits).count().max(1);
        let over = self.entries.len().saturating_sub(kept);
        let affordable = |step: &usize| (over.next_multiple_of(*step) - over) * 2 <= kept;
        let step = successors(Some(DROP_STEP), |step| (*step > 1).then_some(step / 2)).find(affordable).unwrap_or(1);
        let dropped = over.next_multiple_of(step);
        self.entries.drain(..dropped);
        self.folded = self.folded.saturating_sub(dropped);
    }
}

/// Adds a line to the messages of a request, seen by `view`: lines of one role become one message.
pub(super) fn add(messages: &mut Vec<ChatMessage>, role: Role, text: &str, view: Option<&str>) {
    match messages.last_mut() {
        Some(last) if last.role == role => {
            last.content.push(if view.is_some() { '\n' } else { ' ' });
            last.content.push_str(text);
        }
        Some(last) if last.role == Role::System && role == Role::Assistant => {}
        None if role == Role::Assistant => {}
        _ => messages.push(ChatMessage::new(role, text)),
    }
}

impl Entry {
    /// As the records have it.
    fn of(message: &Message) -> Self {
        Self {
            id: message.id.clone(),
            role: message.role,
            speaker: speaker_of(message),
            text: message.content.chars().take(message.heard_chars.unwrap_or(usize::MAX)).collect(),
            client_message_id: message.client_message_id.clone(),
            is_stored: true,
        }
    }

    /// As a message to the character `view`; to the only one there is, where that is none.
    fn seen_by(&self, view: Option<&str>) -> (Role, Cow<'_, str>) {
        match (&self.speaker, view) {
            (Some(speaker), Some(view)) if speaker.id != view => {
                (Role::User, format!("{}: {}", speaker.name, self.text).into())
            }
            _ => (self.role, self.text.as_str().into()),
        }
    }
}

#[cfg(test)]
mod tests;
