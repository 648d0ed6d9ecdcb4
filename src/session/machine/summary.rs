//! When a summary of the history is written: while nobody speaks and no reply is under way, where the settings ask for
//! one.
//!
//! A summary is a favour. Whatever begins stops it, and the next pause begins it anew. One that fails changes nothing and
//! is tried again after the next turn, with fewer messages.

use super::{Effect, Machine, system_prompt};
use crate::provider::{ChatRequest, ProviderError};
use crate::session::event::Turn;
use crate::session::history::Fold;

/// Summaries asked for.
#[derive(Debug, Default)]
pub(super) struct Summaries {
    /// Of the latest. It only grows: an answer with another number is stale.
    number: u64,
    /// The first message that the one under way does not tell.
    until: Option<String>,
    /// In a row.
    failures: u32,
    /// When the latest one failed.
    failed_in: Option<Turn>,
}

impl Machine {
    /// Asks for a summary where it is time, and stops one where it no longer is.
    pub(super) fn summarize_when_idle(&mut self) {
        let is_idle = self.replies.is_empty() && self.speaking.is_empty() && self.owed.is_none();
        if !is_idle || !self.settings.summarize_history {
            if self.summaries.until.take().is_some() {
                // Before whatever needs the model.
                self.effects.insert(0, Effect::StopSummary);
            }
            return;
        }
        if self.summaries.until.is_some() || self.summaries.failed_in == Some(self.turn) {
            return;
        }
        let (speaker, player) = self.cast.likely();
        let prompt = system_prompt(&player.character, &self.settings, &self.cast.others(speaker)).len();
        let fold = self.history.fold(prompt, &player.character.name, self.summaries.failures);
        if let Some(Fold { request, until }) = fold {
            self.summaries.number += 1;
            self.summaries.until = Some(until);
            let request = Box::new(ChatRequest { caller: self.caller.clone(), ..request });
            self.effects.push(Effect::Summarize { number: self.summaries.number, request });
        }
    }

    pub(super) fn summarized(&mut self, number: u64, outcome: Result<String, ProviderError>) {
        if number != self.summaries.number {
            return;
        }
        let Some(until) = self.summaries.until.take() else { return };
        match outcome {
            Ok(summary) => {
                self.history.take_summary(&until, &summary);
                (self.summaries.failures, self.summaries.failed_in) = (0, None);
                // The next request begins differently.
                self.prepare();
            }
            Err(error) => {
                tracing::warn!(%error, "no summary of a conversation was written; it is tried again after a turn");
                self.summaries.failures += 1;
                self.summaries.failed_in = Some(self.turn);
            }
        }
    }
}

#[cfg(test)]
#[path = "summary_tests.rs"]
mod tests;
