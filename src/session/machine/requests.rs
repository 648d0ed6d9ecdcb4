//! What a client asks of a session.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::reply::{Cause, Reply};
use super::{Effect, Machine, Player, bad_field, no_item};
use crate::provider::Role;
use crate::session::event::{AppliedSettings, Complaint, ErrorCode, Input, Output, Participant, Request};
use crate::session::history::Entry;
use crate::session::record::{Character, MessageStatus, RecordError};
use crate::session::settings::{BadField, Settings, SettingsPatch};

/// Requests that wait for the database to look up characters. More come only from who does not wait for anything.
const DEFERRED: usize = 64;

impl Machine {
    pub(super) fn asked(&mut self, now: Instant, request: Request) {
        // What stops or reports a reply, or tells what the records hold already, waits for nobody.
        let is_urgent = matches!(
            request.input,
            Input::Interrupt { .. }
                | Input::Close
                | Input::PlaybackAck { .. }
                | Input::Noted(_)
                | Input::Dropped { .. }
        );
        if let Some(deferred) = self.deferred.as_mut().filter(|_| !is_urgent) {
            if deferred.len() < DEFERRED {
                return deferred.push(request);
            }
            let message = "characters are still being looked up; this message was not taken".to_owned();
            let complaint = Complaint { code: ErrorCode::Internal, message, retryable: true, item_id: None };
            return self.complain(complaint, request.reference);
        }
        let Request { input, reference } = request;
        match input {
            Input::Text { text, client_message_id, terms, character_ids } => {
                match self.cause(now, terms, &character_ids, &text) {
                    Ok(cause) => self.text(now, text, client_message_id, cause, reference),
                    Err(complaint) => self.complain(complaint, reference),
                }
            }
            Input::SpeakUp { character_ids, terms } => match self.cause(now, terms, &character_ids, "") {
                Ok(cause) if cause.speakers.is_empty() => {
                    let error = BadField::new("character_ids", "must say who speaks, where turns are given by hand");
                    self.complain(bad_field(&error), reference);
                }
                Ok(cause) => {
                    self.interrupt(now, None);
                    self.owed = None;
                    self.begin(now, cause);
                }
                Err(complaint) => self.complain(complaint, reference),
            },
            Input::Characters { character_ids } => {
                self.deferred = Some(Vec::new());
                self.effects.push(Effect::Cast { character_ids, reference, is_stored: false });
            }
            Input::Recast { character_ids } => {
                self.deferred = Some(Vec::new());
                self.effects.push(Effect::Cast { character_ids, reference, is_stored: true });
            }
            Input::Stored(settings) => {
                // Most changes of a conversation, as a title, are none of these.
                if self.base.store(&self.scene.conversation_id, &settings) {
                    self.cast.settle(&self.base);
                    self.follow_base();
                }
            }
            Input::Noted(messages) => messages.iter().for_each(|message| self.history.note(message)),
            Input::Dropped { message_id } => self.history.drop_entry(&message_id),
            Input::NextSpeaker { character_id } => match self.cast.find(&character_id) {
                Some(speaker) if self.replies.is_empty() => {
                    self.owed = None;
                    let cause = Cause { speakers: [speaker].into(), ..Cause::new(now) };
                    self.begin(now, cause);
                }
                Some(speaker) => self.queue.push_front(speaker),
                None => self.complain(no_such_character(&character_id), reference),
            },
            Input::Interrupt { item_id, played_ms } => {
                let current = self.replies.front().map(|reply| &reply.item_id);
                if item_id.is_none() || item_id.as_ref() == current {
                    self.owed = None;
                    self.interrupt(now, played_ms.map(Duration::from_millis));
                }
            }
            Input::Close => {
                self.notes.close();
                self.owed = None;
                self.interrupt(now, None);
            }
            Input::PlaybackAck { item_id, played_ms } => {
                if let Some(reply) = self.replies.front_mut().filter(|reply| reply.item_id == item_id) {
                    reply.acknowledge(now, Duration::from_millis(played_ms));
                }
            }
            Input::Regenerate { item_id, terms } => self.regenerate(now, item_id, terms, reference),
            Input::Settings(patch) => match self.set(&patch) {
                Ok(()) => {
                    self.tell_settings(reference);
                    self.prepare();
                }
                Err(error) => self.complain(bad_field(&error), reference),
            },
            // The ear keeps these.
            Input::Audio(_) | Input::Commit | Input::CancelInput => {}
        }
    }

    /// Applies a patch to everyone's settings, or to nobody's.
    fn set(&mut self, patch: &SettingsPatch) -> Result<(), BadField> {
        patch.check_characters(|id| self.cast.find(id).is_some())?;
        self.settings = self.settings.patched(patch)?;
        self.base.changed.merge(patch);
        self.cast.settle(&self.base);
        Ok(())
    }

    fn tell_settings(&mut self, reference: Option<String>) {
        let applied = AppliedSettings { settings: self.settings.clone(), changed: self.base.changed.clone() };
        self.tell_to(Output::SettingsApplied(Box::new(applied)), reference);
    }

    fn text(
        &mut self,
        now: Instant,
        text: String,
        client_message_id: Option<String>,
        cause: Cause,
        reference: Option<String>,
    ) {
        if text.trim().is_empty() {
            return self.complain(bad_field(&BadField::new("text", "must not be empty")), reference);
        }
        let known = client_message_id.as_deref().and_then(|id| self.history.by_client_message(id));
        if let Some(known) = known {
            let (message_id, text, is_stored) = (known.id.clone(), known.text.clone(), known.is_stored);
            // A crash, a failure or an interruption may have left it unanswered.
            let is_owed = self.is_idle() && self.history.is_last_word(&message_id);
            if is_stored {
                let (role, status) = (Role::User, MessageStatus::Completed);
                self.tell_to(Output::MessageSaved { message_id, client_message_id, role, status }, reference);
            } else if let Some(waiting) = self.saving.get_mut(&message_id) {
                // It is acknowledged when it is stored.
                waiting.extend(reference);
            } else {
                // It could not be stored before.
                self.save_users(message_id, text, client_message_id, json!({}), reference);
            }
            if is_owed {
                self.begin(now, cause);
            }
            return;
        }
        self.interrupt_for_text(now);
        let id = (self.new_id)();
        self.user_message(id, text, client_message_id, json!({}), reference);
        self.owed = None;
        self.begin(now, cause);
    }

    fn regenerate(&mut self, now: Instant, mut item_id: String, terms: SettingsPatch, reference: Option<String>) {
        if let Err(error) = self.settings.patched(&terms) {
            return self.complain(bad_field(&error), reference);
        }
        if self.history.is_users(&item_id) {
            let Some(reply) = self.history.reply_to(&item_id) else {
                return self.complain(no_item("nobody has answered this message".to_owned(), item_id), reference);
            };
            item_id.clone_from(&reply.id);
        }
        let current = self.replies.front().filter(|reply| reply.item_id == item_id).map(|reply| Some(reply.speaker));
        let said = || self.history.reply(&item_id).map(|entry| self.speaker_of(entry));
        let Some(speaker) = current.or_else(said) else {
            let message = format!("there is no reply {item_id} in this conversation's recent messages");
            return self.complain(no_item(message, item_id), reference);
        };
        let Some(speaker) = speaker else {
            let message = "whoever said this takes part no more".to_owned();
            let code = ErrorCode::CharacterNotFound;
            return self.complain(Complaint { code, message, retryable: false, item_id: Some(item_id) }, reference);
        };
        self.interrupt(now, None);
        self.owed = None;
        let cause = Cause { terms, speakers: [speaker].into(), again: Some(item_id), ..Cause::new(now) };
        self.begin(now, cause);
    }

    /// The characters were looked up. Then comes what was asked meanwhile.
    pub(super) fn recast(
        &mut self,
        now: Instant,
        reference: Option<String>,
        outcome: Result<Vec<Character>, RecordError>,
    ) {
        match outcome {
            Ok(characters) => self.replace_cast(now, characters, reference),
            Err(error) => self.complain(no_recast(&error), reference),
        }
        for request in self.deferred.take().unwrap_or_default() {
            self.asked(now, request);
        }
    }

    /// Others take part. Whoever has left says no more; whoever was called after them does.
    fn replace_cast(&mut self, now: Instant, characters: Vec<Character>, reference: Option<String>) {
        let players: Vec<Player> = characters.into_iter().map(|it| self.base.player(it)).collect();
        let leaves = |reply: &Reply| {
            let id = &reply.character().id;
            players.iter().all(|player| player.character.id != *id)
        };
        let mut called = VecDeque::new();
        let (does_first, does_next) =
            (self.replies.front().is_some_and(leaves), self.replies.get(1).is_some_and(leaves));
        if does_first {
            called.extend(self.replies.iter().skip(1).map(|reply| reply.speaker));
            called.append(&mut self.queue);
            self.interrupt(now, None);
        }
        let moved = self.cast.replace(players);
        for reply in &mut self.replies {
            reply.speaker = moved[reply.speaker].unwrap_or_default();
        }
        self.floor = self.floor.and_then(|speaker| moved[speaker]);
        self.queue = self.queue.iter().filter_map(|speaker| moved[*speaker]).collect();
        if does_next && !does_first {
            self.take_back(now);
        }
        if let Some(owed) = &mut self.owed {
            owed.speakers = owed.speakers.iter().filter_map(|speaker| moved[*speaker]).collect();
        }
        let all = (0..).zip(self.cast.characters()).map(Participant::new).collect();
        self.tell_to(Output::Characters(all), reference);
        self.follow_base();
        self.prepare();
        let speakers: VecDeque<usize> = called.into_iter().filter_map(|speaker| moved[speaker]).collect();
        self.begin(now, Cause { speakers, ..Cause::new(now) });
    }

    /// What holds for all is what the conversation's and the first character's own settings make of it. The ear goes on
    /// as it is.
    fn follow_base(&mut self) {
        let now = &self.settings;
        let settings = Settings {
            stt_model: now.stt_model.clone(),
            languages: now.languages.clone(),
            vad: now.vad,
            ..self.base.shared(&self.cast.player(0).character)
        };
        if settings != *now {
            self.settings = settings;
            self.tell_settings(None);
        }
    }

    /// Whose line it was; the first character's, where nobody knows. None: whoever said it takes part no more.
    fn speaker_of(&self, entry: &Entry) -> Option<usize> {
        entry.speaker.as_ref().map_or(Some(0), |speaker| self.cast.find(&speaker.id))
    }

    /// What a text or a wish to hear somebody comes to.
    fn cause(
        &mut self,
        now: Instant,
        terms: SettingsPatch,
        character_ids: &[String],
        text: &str,
    ) -> Result<Cause, Complaint> {
        self.settings.patched(&terms).map_err(|error| bad_field(&error))?;
        let speakers = self.speakers(character_ids, text)?;
        Ok(Cause { terms, speakers, ..Cause::new(now) })
    }

    /// Who answers a text: those whom its message names, else those whom it addresses.
    fn speakers(&mut self, character_ids: &[String], text: &str) -> Result<VecDeque<usize>, Complaint> {
        if character_ids.is_empty() {
            return Ok(self.cast.answer(self.settings.turn_taking, text).into());
        }
        let find = |id: &String| self.cast.find(id).ok_or_else(|| no_such_character(id));
        character_ids.iter().map(find).collect()
    }
}

fn no_recast(error: &RecordError) -> Complaint {
    let (code, retryable) = match error {
        RecordError::NotFound { .. } => (ErrorCode::CharacterNotFound, false),
        RecordError::Changed | RecordError::UnderWay | RecordError::Full | RecordError::Failed => {
            (ErrorCode::Internal, true)
        }
    };
    Complaint { code, message: error.to_string(), retryable, item_id: None }
}

fn no_such_character(id: &str) -> Complaint {
    let message = format!("the character {id} does not take part in this conversation");
    Complaint { code: ErrorCode::CharacterNotFound, message, retryable: false, item_id: None }
}
