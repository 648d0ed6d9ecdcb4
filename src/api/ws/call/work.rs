//! What a call has under way, by what its session tells.

use crate::provider::Role;
use crate::session::event::Output;

#[derive(Debug, Default)]
pub(super) struct Work {
    /// Speech has ended and is not written down yet.
    hearing: bool,
    /// Something was said and its reply has not ended.
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
            Output::SpeechStopped { .. } => self.hearing = true,
            Output::Transcription(heard) if heard.is_final => {
                self.hearing = false;
                self.replying |= !heard.text.is_empty();
            }
            Output::MessageSaved { role: Role::User, .. } | Output::TextChunk { .. } | Output::Audio(_) => {
                self.replying = true;
            }
            Output::TurnComplete(_) | Output::Interrupted { .. } => self.replying = false,
            Output::Error(_) => self.hearing = false,
            _ => {}
        }
        self.has_begun |= !matches!(output, Output::SessionStarted(_) | Output::SettingsApplied(_) | Output::Error(_));
    }
}
