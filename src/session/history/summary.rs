//! A running summary: the oldest messages told in a few sentences, which the model itself writes.
//!
//! Messages are folded into it a good many at a time, when what is told word by word nears the model's window, and then
//! down to half of that: between two folds every request begins like the last, and the prefix cache holds. Whose turn
//! it is to ask is the machine's business; here is what to ask and what to do with the answer. The messages themselves
//! stay, for requests without a summary.

use std::fmt::Write;

use super::{Entry, History, MAX_BYTES, MESSAGES};
use crate::provider::{ChatMessage, ChatRequest, Role, Sampling};

/// Taken where a model does not say how much it reads.
const UNKNOWN_WINDOW: usize = 4096;
/// Cautiously: English has four and more.
const BYTES_PER_TOKEN: usize = 3;
/// What a message takes beside its text: the template's markers, or a name.
const BYTES_PER_MESSAGE: usize = 24;
/// The newest messages, which are always told word by word: two turns.
const LAST_MESSAGES: usize = 4;
/// About five sentences.
const SUMMARY_TOKENS: usize = 160;
/// A summary is cut here, whatever the model wrote.
const MAX_SUMMARY: usize = 8 * SUMMARY_TOKENS;

const INSTRUCTION: &str = "You keep the notes of a conversation. Write in its language, in short plain sentences. \
                           Keep names, facts, wishes, promises and open questions.";
const QUESTION: &str = "Write one summary of all of this in at most five sentences.";
/// A text may take more tokens than its bytes tell; a model that fails for another reason shall not be told snippets.
const MOST_HALVINGS: u32 = 3;
/// Stands between the system prompt and the summary.
const EARLIER: &str = "Earlier in this conversation:";

/// What a summary is asked for.
#[derive(Debug)]
pub(in crate::session) struct Fold {
    pub(in crate::session) request: ChatRequest,
    /// The first message that is not in it.
    pub(in crate::session) until: String,
}

impl History {
    /// The request that folds the oldest messages into the summary. None: there is room for all of them beside a system
    /// prompt of `prompt` bytes. After each of the first `failures` half as much is tried.
    pub(in crate::session) fn fold(&self, prompt: usize, character_name: &str, failures: u32) -> Option<Fold> {
        let room = self.room(prompt);
        let most = room >> failures.min(MOST_HALVINGS);
        let end = self.fold_end(room, most)?;
        let mut told = String::new();
        if !self.summary.is_empty() {
            // Writing to a string does not fail.
            let _ = writeln!(told, "Summary so far:\n{}\n", self.summary);
        }
        told.push_str("What was said then:\n");
        let mut left = most;
        for entry in self.entries[self.folded..end].iter().filter(|entry| !entry.text.is_empty()) {
            let own = entry.speaker.as_ref().map_or(character_name, |speaker| speaker.name.as_str());
            let name = if entry.role == Role::User { "User" } else { own };
            let text = beginning(&entry.text, left);
            left -= text.len();
            let _ = writeln!(told, "{name}: {text}");
        }
        let _ = write!(told, "\n{QUESTION}");
        let max_tokens = SUMMARY_TOKENS.min(self.window() / 8).max(1);
        let messages = vec![ChatMessage::new(Role::System, INSTRUCTION), ChatMessage::new(Role::User, told)];
        let sampling = Sampling { temperature: 0.0, max_tokens, ..Sampling::default() };
        let request = ChatRequest { messages, sampling, ..ChatRequest::default() };
        Some(Fold { request, until: self.entries[end].id.clone() })
    }

    /// Takes `summary` for all that was said before the message `until`.
    pub(in crate::session) fn take_summary(&mut self, until: &str, summary: &str) {
        if let Some(end) = self.entries.iter().position(|entry| entry.id == until) {
            self.folded = end;
            beginning(summary, MAX_SUMMARY).clone_into(&mut self.summary);
        }
    }

    pub(super) fn with_summary(&self, system_prompt: &str) -> String {
        format!("{system_prompt}\n\n{EARLIER} {}", self.summary).trim_start().to_owned()
    }

    fn window(&self) -> usize {
        self.window.unwrap_or(UNKNOWN_WINDOW)
    }

    /// Bytes for what is told word by word: what the model lets a prompt take, less the prompt and the summary.
    fn room(&self, prompt: usize) -> usize {
        let window = self.window();
        // A quarter is kept for the reply.
        let bytes = (window - window / 4) * BYTES_PER_TOKEN;
        bytes.saturating_sub(prompt + self.summary.len()).clamp((window / 2).min(MAX_BYTES / 2), MAX_BYTES / 2)
    }

    /// Where the messages end that are to be folded: before a user's, so that what is left begins a turn. They take
    /// `most` bytes at most, or are one turn.
    fn fold_end(&self, room: usize, most: usize) -> Option<usize> {
        let open = &self.entries[self.folded..];
        let total: usize = open.iter().map(bytes_of).sum();
        if total <= room && open.len() <= MESSAGES / 2 {
            return None;
        }
        let last = self.entries.len().saturating_sub(LAST_MESSAGES);
        let mut folded = 0;
        let mut end = None;
        for place in self.folded..last {
            folded += bytes_of(&self.entries[place]);
            if end.is_some() && folded > most {
                break;
            }
            if self.entries[place + 1].role == Role::User {
                end = Some(place + 1);
                let left = self.entries.len() - place - 1;
                if total - folded <= room / 2 && left <= MESSAGES / 4 {
                    break;
                }
            }
        }
        end
    }
}

fn bytes_of(entry: &Entry) -> usize {
    entry.text.len() + BYTES_PER_MESSAGE
}

/// As much of a text as fits into so many bytes.
fn beginning(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
#[path = "summary_tests.rs"]
mod tests;
