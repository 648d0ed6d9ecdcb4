//! A reply while it is written and spoken: what it answers, what there is of it, and what it took.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::Scene;
use super::cast::Player;
use super::heard::Ledger;
use crate::audio::{SPEECH_HZ, Samples, Speech};
use crate::provider::{Role, Usage};
use crate::session::event::{Output, ServedBy, Timings, Turn, TurnReport};
use crate::session::history::{Entry, Speaker};
use crate::session::mouth::{SentPiece, Voicing};
use crate::session::record::{Character, Message, MessageStatus};
use crate::session::settings::{OutputKind, Settings, SettingsPatch};

/// A reply that is longer is recorded up to here: more than ten minutes of samples are not kept in memory.
const LONGEST_RECORDING: Samples<SPEECH_HZ> = Samples::from_millis(600_000);

/// Clients say about every 250 ms what they have played. Twice as long they are taken to play on, then to have stopped.
const LONGEST_PLAYING_ON: Duration = Duration::from_millis(500);
/// By so much a client may round what it has played: a piece.
const ROUNDING: Duration = Duration::from_millis(100);

/// What a reply answers.
#[derive(Clone, Debug)]
pub(super) struct Cause {
    /// When it came; of an utterance, when its end was decided.
    pub(super) since: Instant,
    /// Of an utterance: from the end of speech to that decision.
    pub(super) endpoint: Option<Duration>,
    pub(super) stt: Option<Duration>,
    pub(super) stt_served_by: Option<Arc<str>>,
    /// What is asked for these replies only. It was checked.
    pub(super) terms: SettingsPatch,
    /// Who answers, in this order.
    pub(super) speakers: VecDeque<usize>,
    /// The reply to write again. None: a new one.
    pub(super) again: Option<String>,
}

impl Cause {
    /// Something that came at `now` and was not spoken.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            endpoint: None,
            stt: None,
            stt_served_by: None,
            terms: SettingsPatch::default(),
            speakers: VecDeque::new(),
            again: None,
        }
    }

    /// Of the reply that follows one with this cause.
    pub(super) fn to_follow(&self, now: Instant) -> Self {
        Self { terms: self.terms.clone(), ..Self::new(now) }
    }
}

/// Who speaks a reply, and how.
pub(super) struct Part {
    pub(super) player: Arc<Player>,
    /// The player's place in the cast.
    pub(super) speaker: usize,
    pub(super) settings: Settings,
    /// The earlier version, which stands until this one is written.
    pub(super) replaces: Option<Entry>,
    /// Its sound is kept.
    pub(super) is_recorded: bool,
}

#[derive(Debug)]
pub(super) struct Reply {
    pub(super) turn: Turn,
    pub(super) item_id: String,
    player: Arc<Player>,
    pub(super) speaker: usize,
    pub(super) settings: Settings,
    pub(super) cause: Cause,
    /// The earlier version, which stands until this one is written.
    pub(super) replaces: Option<Entry>,
    /// What is told when it has the floor. None: it has.
    pub(super) held: Option<Vec<Output>>,
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
    /// What was sent of its sound. None: it is not kept.
    recording: Option<Speech>,
    /// What the client said it had played, and when.
    acknowledged: Option<(Duration, Instant)>,
    timings: Timings,
    pub(super) served_by: ServedBy,
    pub(super) usage: Usage,
}

impl Reply {
    pub(super) fn new(
        turn: Turn,
        item_id: String,
        part: Part,
        cause: Cause,
        now: Instant,
        first_sentence: u64,
    ) -> Self {
        let Part { player, speaker, settings, replaces, is_recorded } = part;
        let timings =
            Timings { endpoint_ms: cause.endpoint.map(millis), stt_ms: cause.stt.map(millis), ..Timings::default() };
        let served_by = ServedBy { stt: cause.stt_served_by.clone(), ..ServedBy::default() };
        Self {
            turn,
            item_id,
            asked: now,
            first_sentence,
            is_spoken: settings.output == OutputKind::Audio,
            is_written: false,
            failure: None,
            is_voice_broken: false,
            ledger: Ledger::default(),
            recording: is_recorded.then(Speech::default),
            acknowledged: None,
            timings,
            served_by,
            usage: Usage::default(),
            player,
            speaker,
            settings,
            cause,
            replaces,
            held: None,
        }
    }

    /// Some of it was sent to be heard.
    pub(super) fn is_audible(&self) -> bool {
        self.is_spoken && !self.ledger.sent().is_zero()
    }

    /// Its client has begun to hear it or, where no voice is to come, to read it.
    pub(super) fn is_perceived(&self) -> bool {
        let is_to_be_heard = self.is_spoken && !self.is_voice_broken;
        self.is_audible() || !is_to_be_heard && !self.ledger.text().is_empty()
    }

    /// Nothing of it is kept, where it ends as it is now: the earlier version stands.
    pub(super) fn is_void(&self) -> bool {
        self.replaces.is_some() && (self.failure.is_some() || self.ledger.text().is_empty())
    }

    pub(super) fn character(&self) -> &Character {
        &self.player.character
    }

    /// As the history knows it.
    pub(super) fn speaker_name(&self) -> Speaker {
        Speaker { id: self.character().id.clone(), name: self.character().name.clone() }
    }

    /// How to speak it. None: it is only written.
    pub(super) fn voicing(&self, scene: &Scene) -> Option<Box<Voicing>> {
        let (settings, character) = (&self.settings, self.character());
        self.is_spoken.then(|| {
            Box::new(Voicing {
                turn: self.turn,
                character_id: character.id.clone(),
                item_id: self.item_id.clone(),
                model: settings.tts_model.clone(),
                voice: character.voice.clone(),
                language: character.languages.first().cloned(),
                speed: settings.speed,
                seed: settings.seed,
                format: settings.audio_format,
                lead: scene.paced.then(|| Duration::from_millis(settings.lead_ms)),
                keeps_audio: self.recording.is_some(),
                begins: Duration::ZERO,
                caller: scene.caller.clone(),
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
    pub(super) fn send(&mut self, now: Instant, mut piece: SentPiece) {
        if let (Some(recording), Some(audio)) = (&mut self.recording, piece.audio.take())
            && recording.len() < LONGEST_RECORDING
        {
            recording.extend(&audio);
        }
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

    /// Takes in what the client says it has played. What is less than it said before comes late, and what is more than
    /// was sent was another reply's: of the same item, before it was written again.
    pub(super) fn acknowledge(&mut self, now: Instant, played: Duration) {
        let is_later = self.acknowledged.is_none_or(|(known, _)| played >= known);
        if is_later && played <= self.ledger.sent() + ROUNDING {
            self.acknowledged = Some((played, now));
        }
    }

    /// How much of it was played by `now`: what the client says; what it said last and, going by the pace, has played
    /// since; else what the pace says; but no more than was sent.
    pub(super) fn played(&self, now: Instant, says: Option<Duration>) -> Duration {
        let pace = self.ledger.played_by(now);
        let played_on = |(played, at): (Duration, Instant)| {
            let by_now = played + (now - at).min(LONGEST_PLAYING_ON);
            played.max(by_now.min(pace))
        };
        let played = says.or(self.acknowledged.map(played_on)).unwrap_or(pace);
        played.min(self.ledger.sent())
    }

    /// What a loudspeaker may still be saying of it when so much of it was heard. Empty: none of it has sound.
    pub(super) fn said_last(&self, heard: Duration) -> &str {
        if self.ledger.sent().is_zero() { "" } else { self.ledger.around(heard) }
    }

    /// The sound of it that is kept: what was `heard`, or all of it. None where nothing is.
    pub(super) fn recording(&mut self, heard: Option<Duration>) -> Option<Speech> {
        let all = self.recording.take()?;
        let end = heard.map_or(all.len(), |heard| Samples::from_millis(millis(heard)));
        let kept = all.slice(Samples(0), end.min(all.len()));
        (!kept.is_empty()).then_some(kept)
    }

    pub(super) fn message(&self, conversation_id: &str, status: MessageStatus, heard_chars: Option<usize>) -> Message {
        let mut metadata = json!({ "timings": self.timings, "served_by": self.served_by, "usage": self.usage });
        if let Some(failure) = &self.failure {
            metadata["error"] = json!(failure);
        }
        let character = self.character();
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

    pub(super) fn report(self, sequence_number: u64) -> TurnReport {
        let character_id = self.character().id.clone();
        let Self { turn, item_id, timings, served_by, usage, .. } = self;
        TurnReport { turn, character_id, item_id, sequence_number, timings, served_by, usage }
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}
