//! A reply while it is written and spoken: what it answers, what there is of it, and what it took.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::heard::Ledger;
use crate::provider::{Caller, Role, Usage};
use crate::session::event::{ServedBy, Timings, Turn, TurnReport};
use crate::session::mouth::{SentPiece, Voicing};
use crate::session::record::{Character, Message, MessageStatus};
use crate::session::settings::{OutputKind, Settings};

/// What a reply answers.
#[derive(Clone, Debug)]
pub(super) struct Cause {
    /// When it came; of an utterance, when its end was decided.
    pub(super) since: Instant,
    /// Of an utterance: from the end of speech to that decision.
    pub(super) endpoint: Option<Duration>,
    pub(super) stt: Option<Duration>,
    pub(super) stt_served_by: Option<Arc<str>>,
    /// The reply's own settings.
    pub(super) settings: Settings,
    /// The reply to write again. None: a new one.
    pub(super) again: Option<String>,
}

#[derive(Debug)]
pub(super) struct Reply {
    pub(super) turn: Turn,
    pub(super) item_id: String,
    pub(super) cause: Cause,
    asked: Instant,
    /// The sequence number of its first sentence.
    pub(super) first_sentence: u64,
    /// Its audio is not over.
    pub(super) is_spoken: bool,
    /// Its text is over.
    pub(super) is_written: bool,
    pub(super) failure: Option<String>,
    /// That its voice failed was told.
    pub(super) is_voice_broken: bool,
    pub(super) ledger: Ledger,
    /// What the client says it has played.
    pub(super) acknowledged: Option<Duration>,
    timings: Timings,
    pub(super) served_by: ServedBy,
    pub(super) usage: Usage,
}

impl Reply {
    pub(super) fn new(turn: Turn, item_id: String, cause: Cause, now: Instant, first_sentence: u64) -> Self {
        let timings =
            Timings { endpoint_ms: cause.endpoint.map(millis), stt_ms: cause.stt.map(millis), ..Timings::default() };
        let served_by = ServedBy { stt: cause.stt_served_by.clone(), ..ServedBy::default() };
        Self {
            turn,
            item_id,
            asked: now,
            first_sentence,
            is_spoken: cause.settings.output == OutputKind::Audio,
            is_written: false,
            failure: None,
            is_voice_broken: false,
            ledger: Ledger::default(),
            acknowledged: None,
            timings,
            served_by,
            usage: Usage::default(),
            cause,
        }
    }

    /// How to speak it. None: it is only written.
    pub(super) fn voicing(&self, character: &Character, paced: bool, caller: &Caller) -> Option<Box<Voicing>> {
        let settings = &self.cause.settings;
        self.is_spoken.then(|| {
            Box::new(Voicing {
                turn: self.turn,
                character_id: character.id.clone(),
                item_id: self.item_id.clone(),
                voice: character.voice.clone(),
                language: character.languages.first().cloned(),
                speed: settings.speed,
                seed: settings.seed,
                format: settings.audio_format,
                caller: caller.clone(),
                lead: paced.then(|| Duration::from_millis(settings.lead_ms)),
            })
        })
    }

    /// Takes in more text. Answers whether it is the first.
    pub(super) fn write(&mut self, now: Instant, sequence_number: u64, text: &str) -> bool {
        let is_first = self.ledger.text().is_empty();
        self.ledger.write(sequence_number, text);
        if is_first {
            self.timings.llm_first_token_ms = Some(millis(now - self.asked));
            if !self.is_spoken {
                self.timings.total_ms = Some(self.since_speech_ended(now));
            }
        }
        is_first
    }

    /// Takes in that a piece of audio was sent.
    pub(super) fn send(&mut self, now: Instant, piece: SentPiece) {
        if self.served_by.tts.is_none() {
            self.served_by.tts = Some(Arc::clone(&piece.served_by));
            self.timings.tts_first_audio_ms = Some(millis(piece.first_audio));
            self.timings.total_ms = Some(self.since_speech_ended(now));
        }
        self.ledger.send(piece);
    }

    fn since_speech_ended(&self, now: Instant) -> u64 {
        millis(self.cause.endpoint.unwrap_or_default() + (now - self.cause.since))
    }

    /// How much of it was played by `now`: what the client says, else what the pace says, but no more than was sent.
    pub(super) fn played(&self, now: Instant, says: Option<Duration>) -> Duration {
        let played = says.or(self.acknowledged).unwrap_or_else(|| self.ledger.played_by(now));
        played.min(self.ledger.sent())
    }

    pub(super) fn message(
        &self,
        conversation_id: &str,
        character: &Character,
        status: MessageStatus,
        heard_chars: Option<usize>,
    ) -> Message {
        let mut metadata = json!({ "timings": self.timings, "served_by": self.served_by, "usage": self.usage });
        if let Some(failure) = &self.failure {
            metadata["error"] = json!(failure);
        }
        Message {
            id: self.item_id.clone(),
            conversation_id: conversation_id.to_owned(),
            role: Role::Assistant,
            character_id: Some(character.id.clone()),
            character_name: Some(character.name.clone()),
            content: self.ledger.text().to_owned(),
            status,
            heard_chars,
            metadata,
            client_message_id: None,
        }
    }

    pub(super) fn report(self, character_id: String, sequence_number: u64) -> TurnReport {
        let Self { turn, item_id, timings, served_by, usage, .. } = self;
        TurnReport { turn, character_id, item_id, sequence_number, timings, served_by, usage }
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}
