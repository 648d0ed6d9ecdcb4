//! What a client asks of a session.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::reply::Cause;
use super::{Machine, bad_field};
use crate::provider::Role;
use crate::session::event::{Complaint, ErrorCode, Input, Output, Request};
use crate::session::record::MessageStatus;
use crate::session::settings::{BadField, OutputKind, SettingsPatch};

impl Machine {
    pub(super) fn asked(&mut self, now: Instant, request: Request) {
        let Request { input, reference } = request;
        match input {
            Input::Text { text, client_message_id, output } => {
                self.text(now, text, client_message_id, output, reference);
            }
            Input::Interrupt { item_id, played_ms } => {
                let current = self.reply.as_ref().map(|reply| &reply.item_id);
                if item_id.is_none() || item_id.as_ref() == current {
                    self.owed = None;
                    self.interrupt(now, played_ms.map(Duration::from_millis));
                }
            }
            Input::PlaybackAck { item_id, played_ms } => {
                if let Some(reply) = self.reply.as_mut().filter(|reply| reply.item_id == item_id) {
                    reply.acknowledged = reply.acknowledged.max(Some(Duration::from_millis(played_ms)));
                }
            }
            Input::Regenerate { item_id, settings } => self.regenerate(now, item_id, &settings, reference),
            Input::Settings(patch) => match self.settings.patched(&patch) {
                Ok(settings) => {
                    self.settings = settings.clone();
                    self.tell_to(Output::SettingsApplied(Box::new(settings)), reference);
                    self.prepare();
                }
                Err(error) => self.complain(bad_field(&error), reference),
            },
            // The ear keeps these.
            Input::Audio(_) | Input::Commit | Input::CancelInput => {}
        }
    }

    fn text(
        &mut self,
        now: Instant,
        text: String,
        client_message_id: Option<String>,
        output: Option<OutputKind>,
        reference: Option<String>,
    ) {
        if text.trim().is_empty() {
            return self.complain(bad_field(&BadField::new("text", "must not be empty")), reference);
        }
        let known = client_message_id.as_deref().and_then(|id| self.history.by_client_message(id));
        if let Some(known) = known {
            let (message_id, is_stored) = (known.id.clone(), known.is_stored);
            // One that is not stored yet is acknowledged when it is.
            if is_stored {
                let (role, status) = (Role::User, MessageStatus::Completed);
                self.tell_to(Output::MessageSaved { message_id, client_message_id, role, status }, reference);
            }
            return;
        }
        self.interrupt(now, None);
        let id = (self.new_id)();
        self.user_message(id, text, client_message_id, json!({}), reference);
        let mut cause = self.typed(now);
        cause.settings.output = output.unwrap_or(cause.settings.output);
        self.owed = None;
        self.begin(now, cause);
    }

    fn regenerate(&mut self, now: Instant, item_id: String, patch: &SettingsPatch, reference: Option<String>) {
        let settings = match self.settings.patched(patch) {
            Ok(settings) => settings,
            Err(error) => return self.complain(bad_field(&error), reference),
        };
        let is_current = self.reply.as_ref().is_some_and(|reply| reply.item_id == item_id);
        if !is_current && !self.history.is_reply(&item_id) {
            let message = format!("there is no reply {item_id} in this conversation's recent messages");
            let complaint =
                Complaint { code: ErrorCode::ItemNotFound, message, retryable: false, item_id: Some(item_id) };
            return self.complain(complaint, reference);
        }
        self.interrupt(now, None);
        self.owed = None;
        let cause = Cause { settings, again: Some(item_id), ..self.typed(now) };
        self.begin(now, cause);
    }

    fn typed(&self, now: Instant) -> Cause {
        let settings = self.settings.clone();
        Cause { since: now, endpoint: None, stt: None, stt_served_by: None, settings, again: None }
    }
}
