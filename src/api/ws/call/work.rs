//! What a call has under way, by what its session tells.

use crate::provider::Role;
use crate::session::event::Output;

#[derive(Debug, Default)]
pub(super) struct Work {
    /// The user speaks.
    speaking: bool,
    /// Speech has ended and is not written down yet.
    hearing: bool,
    /// A character has the floor.
    floor: bool,
    /// Something was said that may be answered, or its reply has not ended.
    replying: bool,
    /// Something happened: there is something to come back to.
    has_begun: bool,
}

impl Work {
    /// That of a session that goes on.
    pub(super) fn again() -> Self {
        Self { has_begun: true, ..Self::default() }
    }

    /// Whether a draining server has to wait for it.
    pub(super) const fn is_under_way(&self) -> bool {
        self.hearing || self.replying
    }

    pub(super) const fn is_replying(&self) -> bool {
        self.replying
    }

    /// Whether a client that comes back would miss something.
    pub(super) const fn has_begun(&self) -> bool {
        self.has_begun
    }

    pub(super) fn note(&mut self, output: &Output) {
        match output {
            Output::SpeechStarted { .. } => self.speaking = true,
            Output::SpeechStopped { .. } => (self.speaking, self.hearing) = (false, true),
            Output::Transcription(heard) if heard.is_final => {
                self.hearing = false;
                self.replying |= !heard.text.is_empty();
            }
            // Whoever answers it has had the floor since before it was stored, unless the user has not finished.
            Output::MessageSaved { role: Role::User, .. } => {
                self.replying &= self.floor || self.speaking || self.hearing;
            }
            Output::SpeakerChanged { character_id } => {
                self.floor = character_id.is_some();
                self.replying = self.floor;
            }
            Output::TextChunk { .. } | Output::Audio(_) => self.replying = true,
            Output::TurnComplete(_) | Output::Interrupted { .. } => self.replying = false,
            Output::Error(_) => self.hearing = false,
            _ => {}
        }
        self.has_begun |= !matches!(output, Output::SessionStarted(_) | Output::SettingsApplied(_) | Output::Error(_));
    }
}

#[cfg(test)]
#[path = "work_tests.rs"]
mod tests;
