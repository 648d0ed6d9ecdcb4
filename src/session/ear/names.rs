//! What a client names is looked at before anybody applies it: languages, models, characters.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::watch;

use super::Ear;
use crate::provider::{Capability, ChatModel, SpeechSynthesizer};
use crate::session::Parts;
use crate::session::event::{Complaint, ErrorCode, Input};
use crate::session::record::Character;
use crate::session::settings::SettingsPatch;

/// Ids of characters that were asked to take part, of whom nobody may know yet that they do.
const COMING: usize = 64;

/// Whoever knows the names in a patch.
pub(in crate::session) struct Names {
    chat: Arc<dyn ChatModel>,
    speech: Arc<dyn SpeechSynthesizer>,
    /// Who takes part.
    present: watch::Receiver<Vec<String>>,
    /// Who was asked to, the latest last.
    coming: VecDeque<String>,
}

impl Names {
    /// And where to tell who takes part.
    pub(in crate::session) fn new(parts: &Parts, characters: &[Character]) -> (watch::Sender<Vec<String>>, Self) {
        let (sender, present) = watch::channel(characters.iter().map(|it| it.id.clone()).collect());
        let (chat, speech) = (Arc::clone(&parts.chat), Arc::clone(&parts.speech));
        (sender, Self { chat, speech, present, coming: VecDeque::new() })
    }
}

impl Ear {
    pub(in crate::session) fn knowing(self, names: Names) -> Self {
        Self { names: Some(names), ..self }
    }

    /// Notes who is asked to take part.
    pub(super) fn note(&mut self, input: &Input) {
        let (Input::Characters { character_ids } | Input::Recast { character_ids }) = input else { return };
        if let Some(names) = &mut self.names {
            names.coming.extend(character_ids.iter().cloned());
            names.coming.drain(..names.coming.len().saturating_sub(COMING));
        }
    }

    /// What can be refused at once, so that nobody applies a part of it.
    pub(super) fn check(&self, input: &Input) -> Result<(), Complaint> {
        let (Input::Settings(patch)
        | Input::Regenerate { terms: patch, .. }
        | Input::Text { terms: patch, .. }
        | Input::SpeakUp { terms: patch, .. }) = input
        else {
            return Ok(());
        };
        let refused = |code, message: String| Complaint { code, message, retryable: false, item_id: None };
        patch
            .check_languages(&self.stt.languages())
            .map_err(|error| refused(ErrorCode::LanguageUnsupported, error.to_string()))?;
        let Some(names) = self.names.as_ref().filter(|_| matches!(input, Input::Settings(_))) else { return Ok(()) };
        let takes_part = |id: &str| names.present.borrow().iter().chain(&names.coming).any(|known| known == id);
        patch.check_characters(takes_part).map_err(|error| refused(ErrorCode::BadField, error.to_string()))?;
        self.check_models(names, patch)
    }

    fn check_models(&self, names: &Names, patch: &SettingsPatch) -> Result<(), Complaint> {
        for (field, of, name) in patch.models() {
            let known = match of {
                Capability::Transcription => self.stt.check_model(name),
                Capability::Speech => names.speech.check_model(name),
                Capability::Chat | Capability::Embedding => names.chat.check_model(name),
            };
            known.map_err(|error| {
                let complaint = Complaint::of(&error, None);
                Complaint { message: format!("{field}: {}", complaint.message), ..complaint }
            })?;
        }
        Ok(())
    }
}
