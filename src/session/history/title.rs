//! What a conversation is called: the first thing the user said, cut to a line, until the model has named it.

use super::History;
use crate::provider::{ChatMessage, ChatRequest, Role, Sampling};
use crate::text::headline;

/// Characters of a title.
const LONGEST: usize = 60;
/// Enough for six words in any script.
const TITLE_TOKENS: usize = 24;
/// Of each of the messages that the model is told.
const TOLD_CHARS: usize = 400;

const INSTRUCTION: &str = "You give conversations short titles, in their own language.";
const QUESTION: &str = "Write a title of two to six words for this. Answer with the title only.";

impl History {
    /// The beginning of what the user said first. None: nothing was said, or nothing but signs.
    pub(in crate::session) fn first_title(&self) -> Option<String> {
        let first = self.entries.iter().find(|entry| entry.role == Role::User)?;
        Some(headline(&first.text, LONGEST)).filter(|title| !title.is_empty())
    }

    /// Whether a conversation has no title, or the first one.
    pub(in crate::session) fn awaits_title(&self, title: &str) -> bool {
        title.is_empty() || self.first_title().is_some_and(|first| first == title)
    }

    /// Asks the model for a title. None: nothing was answered yet.
    pub(in crate::session) fn title_request(&self) -> Option<ChatRequest> {
        let first = |role| self.entries.iter().find(|entry| entry.role == role && !entry.text.is_empty());
        let (said, answered) = (first(Role::User)?, first(Role::Assistant)?);
        let [said, answered] = [said, answered].map(|entry| entry.text.chars().take(TOLD_CHARS).collect::<String>());
        let told = format!("User: {said}\nAnswer: {answered}\n\n{QUESTION}");
        let messages = vec![ChatMessage::new(Role::System, INSTRUCTION), ChatMessage::new(Role::User, told)];
        let sampling = Sampling { temperature: 0.0, max_tokens: TITLE_TOKENS, ..Sampling::default() };
        Some(ChatRequest { messages, sampling, ..ChatRequest::default() })
    }
}

/// A title as a model writes it, without what models put around it. Empty: it is none.
pub(in crate::session) fn clean_title(written: &str) -> String {
    let is_around = |c: char| c.is_whitespace() || "\"'`*_#“”„«»‘’".contains(c);
    let line = written.lines().map(|line| line.trim_matches(is_around)).find(|line| !line.is_empty());
    let line = line.unwrap_or_default();
    let bare = line.strip_prefix("Title:").or_else(|| line.strip_prefix("title:")).unwrap_or(line);
    headline(bare.trim_matches(is_around), LONGEST)
}

#[cfg(test)]
#[path = "title_tests.rs"]
mod tests;
