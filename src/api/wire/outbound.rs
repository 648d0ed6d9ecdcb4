//! What a client gets: one JSON object per message, numbered.

use std::time::Duration;

use axum::extract::ws::Message;
use serde::Serialize;
use serde_json::Value;

use super::binary::{Packing, SpeechHeader};
use super::speech::{AudioBody, Packer, TimedWord, format_name};
use super::{Notice, Protocol, Refusal, journal};
use crate::api::access::Standing;
use crate::audio::{EncodeError, SPEECH_HZ};
use crate::provider::{Role, Usage};
use crate::session::event::{
    AudioPiece, Complaint, Output, Participant, Started, Timings, Told, Transcription, TurnReport,
};
use crate::session::record::MessageStatus;
use crate::session::settings::{AudioFormat, Settings};
use crate::store::BudgetReport;

/// What `session_started` announces.
const PROTOCOL_VERSION: u8 = 1;

/// Writes one client's messages as its protocol has them.
pub(in crate::api) struct Encoder {
    resume_token: String,
    protocol: Protocol,
    packer: Packer,
    /// The characters' numbers in the session, of those who left, too.
    characters: Vec<(String, u16)>,
    /// The sentence whose binary frames are under way.
    announced: Option<u64>,
}

/// Why a message cannot be written.
#[derive(Debug, thiserror::Error)]
pub(in crate::api) enum WriteError {
    /// None of our types has it.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Sound(#[from] EncodeError),
}

impl Encoder {
    pub(in crate::api) fn new(protocol: Protocol) -> Self {
        let (packer, resume_token) = (Packer::default(), String::new());
        Self { resume_token, protocol, packer, characters: Vec::new(), announced: None }
    }

    /// The client has joined a session, with those who take part.
    pub(in crate::api) fn join(&mut self, resume_token: String, participants: &[Participant]) {
        self.resume_token = resume_token;
        self.meet(participants);
    }

    /// The frames that say it, with its number, in order. A piece of audio may need several, or none until more of it
    /// comes.
    ///
    /// # Errors
    /// What this notice would have said is lost; the next one can be written.
    pub(in crate::api) fn encode(&mut self, notice: &Notice, seq: Option<u64>) -> Result<Vec<Message>, WriteError> {
        match notice {
            Notice::Told(Told { output: Output::Audio(piece), .. }) => self.sound(piece),
            notice => {
                self.learn(notice);
                Ok(vec![Message::Text(text(notice, seq, &self.resume_token)?.into())])
            }
        }
    }

    /// Who has which number.
    fn learn(&mut self, notice: &Notice) {
        let Notice::Told(told) = notice else { return };
        let participants = match &told.output {
            Output::SessionStarted(started) => &started.characters,
            Output::Characters(characters) => characters,
            _ => return,
        };
        self.meet(participants);
    }

    fn meet(&mut self, participants: &[Participant]) {
        for Participant { id, index, .. } in participants {
            self.characters.retain(|(known, _)| known != id);
            self.characters.push((id.clone(), *index));
        }
    }

    fn sound(&mut self, piece: &AudioPiece) -> Result<Vec<Message>, WriteError> {
        let packing = match (self.protocol, piece.format) {
            (Protocol::Json, _) | (_, AudioFormat::Mp3) => None,
            (_, AudioFormat::Pcm | AudioFormat::Wav) => Some(Packing::Pcm),
            (_, AudioFormat::Opus) => Some(Packing::Opus),
        };
        // A frame's header says all that a RIFF header could.
        let bare = packing == Some(Packing::Pcm) && piece.format == AudioFormat::Wav;
        let unwrapped = bare.then(|| AudioPiece { format: AudioFormat::Pcm, ..piece.clone() });
        let piece = unwrapped.as_ref().unwrap_or(piece);
        let mut messages = Vec::new();
        if packing.is_some() {
            let is_new = self.announced.replace(piece.sequence_number) != Some(piece.sequence_number);
            if is_new || !piece.words.is_empty() {
                messages.push(unnumbered(AudioBody::before(piece))?);
            }
        }
        for chunk in self.packer.pack(piece)? {
            let Some(packing) = packing else {
                messages.push(unnumbered(AudioBody::of(piece, &chunk))?);
                continue;
            };
            let named = self.characters.iter().find(|(id, _)| *id == piece.character_id);
            let header = SpeechHeader {
                packing,
                character: named.map_or(u16::MAX, |(_, index)| *index),
                turn: piece.turn.0,
                sequence_number: piece.sequence_number,
                pts_ms: millis(chunk.pts),
            };
            messages.push(Message::Binary(header.before(&chunk.bytes).into()));
        }
        Ok(messages)
    }
}

/// A message as text, with its number.
///
/// # Errors
/// Those of JSON's writer; none of our types has them.
pub(in crate::api) fn text(notice: &Notice, seq: Option<u64>, resume_token: &str) -> Result<String, serde_json::Error> {
    let from_seq = seq.unwrap_or_default();
    let (body, reference) = match notice {
        Notice::Told(told) => (body_of(&told.output, resume_token), told.reference.as_deref()),
        Notice::Refused(refusal) => (Body::refused(refusal), refusal.reference.as_deref()),
        Notice::Pong { reference } => (Body::Pong, reference.as_deref()),
        Notice::Resumed { from_seq, reference } => (Body::Resumed { from_seq: *from_seq }, reference.as_deref()),
        Notice::ResyncRequired { reference } => (Body::ResyncRequired { from_seq }, reference.as_deref()),
        Notice::SessionReplaced => (Body::SessionReplaced, None),
        Notice::ConversationChanged { conversation, is_deleted } => {
            let (title, deleted) = (conversation["title"].as_str(), is_deleted.then_some(true));
            let conversation = (!is_deleted).then_some(conversation);
            (Body::ConversationUpdated { characters: None, title, conversation, deleted }, None)
        }
        Notice::MessageCreated(message) => (Body::MessageCreated { message }, None),
        Notice::MessageUpdated { message, is_deleted } => {
            (Body::MessageUpdated { message, deleted: is_deleted.then_some(true) }, None)
        }
        Notice::ServerDraining => (Body::ServerDraining, None),
        Notice::BudgetWarning(report) => (Body::BudgetWarning(report), None),
        Notice::QueuePosition(Standing { position, wait }) => {
            (Body::QueuePosition { position: *position, retry_after_ms: millis(*wait) }, None)
        }
        Notice::Recalled(message) => return journal::told_again(message, resume_token),
    };
    serde_json::to_string(&Envelope { body, seq, reference })
}

fn body_of<'a>(output: &'a Output, resume_token: &'a str) -> Body<'a> {
    match output {
        Output::SessionStarted(started) => begun(started, resume_token),
        Output::Transcription(transcription) => Body::transcription(transcription),
        Output::SpeechStarted { at } => Body::SpeechStarted { timestamp: at.seconds() },
        Output::SpeechStopped { at } => Body::SpeechStopped { timestamp: at.seconds() },
        Output::MessageSaved { message_id, client_message_id, role, status } => Body::MessageSaved {
            message_id,
            client_message_id: client_message_id.as_deref(),
            role: *role,
            status: *status,
        },
        Output::TextChunk { turn, character_id, item_id, sequence_number, text } => {
            Body::TextChunk { character_id, text, sequence_number: *sequence_number, item_id, turn: turn.0 }
        }
        Output::TextDone { character_id, item_id, text, turn } => {
            Body::TextDone { character_id, item_id, text, turn: turn.0 }
        }
        Output::Audio(piece) => Body::AudioChunk(AudioBody::before(piece)),
        Output::Duck { item_id } => Body::Duck { item_id },
        Output::Unduck { item_id } => Body::Unduck { item_id },
        Output::Characters(characters) => Body::updated(Some(characters), None),
        Output::Titled { title, .. } => Body::updated(None, Some(title)),
        Output::SpeakerChanged { character_id } => Body::SpeakerChanged { character_id: character_id.as_deref() },
        Output::Interrupted { turn, item_id, heard_text, heard } => {
            Body::Interrupted { item_id, heard_text, heard_ms: millis(*heard), turn: turn.0 }
        }
        Output::TurnComplete(report) => Body::complete(report),
        Output::SettingsApplied(applied) => Body::SettingsApplied(&applied.settings),
        Output::Error(complaint) => Body::complaint(complaint),
    }
}

fn begun<'a>(started: &'a Started, resume_token: &'a str) -> Body<'a> {
    Body::SessionStarted {
        protocol_version: PROTOCOL_VERSION,
        session_id: &started.session_id,
        resume_token,
        conversation_id: &started.conversation_id,
        characters: &started.characters,
        audio: AudioShape { format: format_name(started.settings.audio_format), sample_rate: SPEECH_HZ, channels: 1 },
        settings: &started.settings,
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    #[serde(flatten)]
    body: Body<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    reference: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Body<'a> {
    SessionStarted {
        protocol_version: u8,
        session_id: &'a str,
        resume_token: &'a str,
        conversation_id: &'a str,
        characters: &'a [Participant],
        audio: AudioShape,
        settings: &'a Settings,
    },
    TranscriptionChunk {
        is_final: bool,
        text: &'a str,
        stable_chars: usize,
        timestamp: f64,
        item_id: &'a str,
        language: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        words: Option<Vec<TimedWord<'a>>>,
    },
    SpeechStarted {
        timestamp: f64,
    },
    SpeechStopped {
        timestamp: f64,
    },
    MessageSaved {
        message_id: &'a str,
        client_message_id: Option<&'a str>,
        role: Role,
        status: MessageStatus,
    },
    TextChunk {
        character_id: &'a str,
        text: &'a str,
        sequence_number: u64,
        item_id: &'a str,
        turn: u64,
    },
    TextDone {
        character_id: &'a str,
        item_id: &'a str,
        text: &'a str,
        turn: u64,
    },
    AudioChunk(AudioBody<'a>),
    SpeakerChanged {
        character_id: Option<&'a str>,
    },
    Interrupted {
        item_id: &'a str,
        heard_text: &'a str,
        heard_ms: u64,
        turn: u64,
    },
    TurnComplete {
        character_id: &'a str,
        sequence_number: u64,
        item_id: &'a str,
        turn: u64,
        timings: Timings,
        served_by: Servants<'a>,
        usage: Tokens,
    },
    SettingsApplied(&'a Settings),
    Resumed {
        from_seq: u64,
    },
    ResyncRequired {
        from_seq: u64,
    },
    SessionReplaced,
    ConversationUpdated {
        #[serde(skip_serializing_if = "Option::is_none")]
        characters: Option<&'a [Participant]>,
        #[serde(skip_serializing_if = "Option::is_none")]
        title: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        conversation: Option<&'a Value>,
        #[serde(skip_serializing_if = "Option::is_none")]
        deleted: Option<bool>,
    },
    MessageCreated {
        message: &'a Value,
    },
    MessageUpdated {
        message: &'a Value,
        #[serde(skip_serializing_if = "Option::is_none")]
        deleted: Option<bool>,
    },
    Duck {
        item_id: &'a str,
    },
    Unduck {
        item_id: &'a str,
    },
    BudgetWarning(&'a BudgetReport),
    QueuePosition {
        position: usize,
        retry_after_ms: u64,
    },
    ServerDraining,
    Pong,
    Error {
        message: &'a str,
        code: &'a str,
        retryable: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        item_id: Option<&'a str>,
    },
}

impl<'a> Body<'a> {
    const fn updated(characters: Option<&'a [Participant]>, title: Option<&'a str>) -> Self {
        Self::ConversationUpdated { characters, title, conversation: None, deleted: None }
    }

    fn transcription(heard: &'a Transcription) -> Self {
        Self::TranscriptionChunk {
            is_final: heard.is_final,
            text: &heard.text,
            stable_chars: heard.stable_chars,
            timestamp: heard.at.seconds(),
            item_id: &heard.item_id,
            language: heard.language.as_deref(),
            words: heard.is_final.then(|| heard.words.iter().map(TimedWord::heard).collect()),
        }
    }

    fn complete(report: &'a TurnReport) -> Self {
        let served_by = &report.served_by;
        Self::TurnComplete {
            character_id: &report.character_id,
            sequence_number: report.sequence_number,
            item_id: &report.item_id,
            turn: report.turn.0,
            timings: report.timings,
            served_by: Servants {
                stt: served_by.stt.as_deref(),
                llm: served_by.llm.as_deref(),
                tts: served_by.tts.as_deref(),
            },
            usage: Tokens::of(&report.usage),
        }
    }

    fn complaint(complaint: &'a Complaint) -> Self {
        Self::Error {
            message: &complaint.message,
            code: complaint.code.as_str(),
            retryable: complaint.retryable,
            item_id: complaint.item_id.as_deref(),
        }
    }

    fn refused(refusal: &'a Refusal) -> Self {
        Self::Error { message: &refusal.message, code: refusal.code, retryable: refusal.retryable, item_id: None }
    }
}

#[derive(Serialize)]
struct AudioShape {
    format: &'static str,
    sample_rate: u32,
    channels: u8,
}

#[derive(Serialize)]
struct Servants<'a> {
    stt: Option<&'a str>,
    llm: Option<&'a str>,
    tts: Option<&'a str>,
}

#[derive(Serialize)]
struct Tokens {
    #[serde(rename = "prompt_tokens")]
    prompt: usize,
    #[serde(rename = "cached_tokens")]
    cached: usize,
    #[serde(rename = "completion_tokens")]
    completion: usize,
}

impl Tokens {
    fn of(usage: &Usage) -> Self {
        Self { prompt: usage.prompt_tokens, cached: usage.cached_tokens, completion: usage.completion_tokens }
    }
}

/// Audio is not journalled.
fn unnumbered(body: AudioBody<'_>) -> Result<Message, serde_json::Error> {
    let envelope = Envelope { body: Body::AudioChunk(body), seq: None, reference: None };
    Ok(Message::Text(serde_json::to_string(&envelope)?.into()))
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
