//! What the language model writes for the session itself, while nobody speaks and no reply is under way: a title for a
//! conversation that has none, and a summary of the history where the settings ask for one.
//!
//! A note is a favour. Whatever begins stops it, and the next pause begins it anew; a session that is about to end begins
//! none. A summary that fails changes nothing and is tried again after the next turn, with fewer messages. A conversation
//! is first called by what the user said first; a title that anybody else gave it stays.

use super::{Effect, Machine, system_prompt};
use crate::provider::{ChatRequest, ProviderError};
use crate::session::event::{Output, Turn};
use crate::session::history::{Fold, History, clean_title};
use crate::session::record::RecordError;

/// What the conversation is called.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Title {
    /// Nothing yet.
    None,
    /// What is about to be stored.
    Given,
    /// The beginning of what was said first.
    First(String),
    /// Something that is to stay.
    Settled,
}

impl Title {
    pub(super) fn of(title: &str, history: &History) -> Self {
        match history.first_title() {
            _ if title.is_empty() => Self::None,
            Some(first) if first == title => Self::First(first),
            _ => Self::Settled,
        }
    }
}

/// Notes asked for.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Of the latest. It only grows: an answer with another number is stale.
    number: u64,
    under_way: Option<Note>,
    /// Of summaries, in a row.
    failures: u32,
    /// When the latest summary failed.
    failed_in: Option<Turn>,
    /// Nobody would wait for another one.
    is_closed: bool,
}

impl Notes {
    pub(super) const fn close(&mut self) {
        self.is_closed = true;
    }
}

#[derive(Debug)]
enum Note {
    Title,
    Summary {
        /// The first message that it does not tell.
        until: String,
    },
}

impl Machine {
    /// Nobody speaks, is answered or waits for an answer.
    pub(super) fn is_idle(&self) -> bool {
        self.replies.is_empty() && self.speaking.is_empty() && self.owed.is_none()
    }

    /// Asks for a note where it is time, and stops one where it no longer is.
    pub(super) fn note_when_idle(&mut self) {
        let wanted = match &self.notes.under_way {
            _ if !self.is_idle() || self.notes.is_closed => false,
            Some(Note::Summary { .. }) => self.settings.summarize_history,
            Some(Note::Title) | None => true,
        };
        if !wanted {
            self.stop_note();
            return;
        }
        if self.notes.under_way.is_some() {
            return;
        }
        if let Some((note, request)) = self.title_note().or_else(|| self.summary_note()) {
            self.notes.number += 1;
            self.notes.under_way = Some(note);
            let request = Box::new(ChatRequest { caller: self.scene.caller.clone(), ..request });
            self.effects.push(Effect::Note { number: self.notes.number, request });
        }
    }

    /// A reply may begin and end between two looks at whether it is time.
    pub(super) fn stop_note(&mut self) {
        if self.notes.under_way.take().is_some() {
            // Before whatever needs the model.
            self.effects.insert(0, Effect::StopNote);
        }
    }

    fn title_note(&self) -> Option<(Note, ChatRequest)> {
        let Title::First(_) = self.title else { return None };
        Some((Note::Title, self.history.title_request()?))
    }

    fn summary_note(&self) -> Option<(Note, ChatRequest)> {
        if !self.settings.summarize_history || self.notes.failed_in == Some(self.turn) {
            return None;
        }
        let (speaker, player) = self.cast.likely();
        let prompt = system_prompt(&player.character, &self.settings, &self.cast.others(speaker)).len();
        let Fold { request, until } = self.history.fold(prompt, &player.character.name, self.notes.failures)?;
        Some((Note::Summary { until }, request))
    }

    pub(super) fn noted(&mut self, number: u64, outcome: Result<String, ProviderError>) {
        if number != self.notes.number {
            return;
        }
        match (self.notes.under_way.take(), outcome) {
            (None, _) => {}
            (Some(Note::Title), Ok(written)) => {
                let Title::First(first) = std::mem::replace(&mut self.title, Title::Settled) else { return };
                let title = clean_title(&written);
                if !title.is_empty() && title != first {
                    self.effects.push(Effect::Title { title, instead_of: first });
                }
            }
            (Some(Note::Title), Err(error)) => {
                tracing::warn!(%error, "no title of a conversation was written; it keeps its first one");
                self.title = Title::Settled;
            }
            (Some(Note::Summary { until }), Ok(summary)) => {
                self.history.take_summary(&until, &summary);
                (self.notes.failures, self.notes.failed_in) = (0, None);
                // The next request begins differently.
                self.prepare();
            }
            (Some(Note::Summary { .. }), Err(error)) => {
                tracing::warn!(%error, "no summary of a conversation was written; it is tried again after a turn");
                self.notes.failures += 1;
                self.notes.failed_in = Some(self.turn);
            }
        }
    }

    /// Something was answered: a conversation without a title gets its first one.
    pub(super) fn give_title(&mut self) {
        if self.title == Title::None
            && let Some(title) = self.history.first_title()
        {
            self.title = Title::Given;
            self.effects.push(Effect::Title { title, instead_of: String::new() });
        }
    }

    /// A title was stored, or somebody else has given one, or the records failed.
    pub(super) fn titled(&mut self, title: String, instead_of: &str, outcome: &Result<bool, RecordError>) {
        let is_first = instead_of.is_empty();
        if is_first {
            self.title = match outcome {
                Ok(true) => Title::First(title.clone()),
                Ok(false) => Title::Settled,
                Err(_) => Title::None,
            };
        }
        if *outcome == Ok(true) {
            self.tell(Output::Titled { title, is_final: !is_first });
        }
    }
}

#[cfg(test)]
#[path = "notes_tests.rs"]
mod tests;
