//! What a call has under way, by what its session tells.

use crate::provider::Role;
use crate::session::event::Output;

#[derive(Debug, Default)]
pub(super) struct Work {
    /// The user speaks.
    speaking: bool,
    /// Speech has ended and is not written down yet.
    hearing: bool,
    reply: Reply,
    /// Something happened: there is something to come back to.
    has_begun: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reply {
    #[default]
    None,
    /// Something was said that somebody may answer.
    Owed,
    /// A character has the floor.
    UnderWay,
}

impl Work {
    /// That of a session that goes on.
    pub(super) fn again() -> Self {
        Self { has_begun: true, ..Self::default() }
    }

    /// Whether a draining server has to wait for it.
    pub(super) fn is_under_way(&self) -> bool {
        self.hearing || self.is_replying()
    }

    pub(super) fn is_replying(&self) -> bool {
        self.reply != Reply::None
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
                if !heard.text.is_empty() && self.reply == Reply::None {
                    self.reply = Reply::Owed;
                }
            }
            // Whoever answers it has had the floor since before it was stored, unless the user has not finished.
            Output::MessageSaved { role: Role::User, .. }
                if self.reply == Reply::Owed && !self.speaking && !self.hearing =>
            {
                self.reply = Reply::None;
            }
            Output::SpeakerChanged { character_id: Some(_) } | Output::TextChunk { .. } | Output::Audio(_) => {
                self.reply = Reply::UnderWay;
            }
            Output::SpeakerChanged { character_id: None } | Output::TurnComplete(_) | Output::Interrupted { .. } => {
                self.reply = Reply::None;
            }
            Output::Error(_) => self.hearing = false,
            _ => {}
        }
        self.has_begun |= !matches!(output, Output::SessionStarted(_) | Output::SettingsApplied(_) | Output::Error(_));
    }
}

#[cfg(test)]
#[path = "work_tests.rs"]
mod tests;
