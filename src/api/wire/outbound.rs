//! What a client gets: one JSON object per message, numbered.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use std::time::Duration;

use utoipa::ToSchema;

use super::Refusal;
use crate::audio::{SPEECH_HZ, wav};
use crate::provider::{Role, Usage, Word, WordMark};
use crate::session::event::{
    AudioPiece, Complaint, Output, Participant, Started, Timings, Told, Transcription, TurnReport,
};
use crate::session::record::MessageStatus;
use crate::session::settings::{AudioFormat, Settings};
use crate::store::BudgetReport;

/// What `session_started` announces.
const PROTOCOL_VERSION: u8 = 1;

/// One message on its way to a client.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::api) enum Notice {
    Told(Told),
    Refused(Refusal),
    Pong {
        reference: Option<String>,
    },
    /// The answer to `resume`: begin anew from here.
    ResyncRequired {
        reference: Option<String>,
    },
    ServerDraining,
    BudgetWarning(BudgetReport),
}

/// Numbers one client's messages and writes them.
pub(in crate::api) struct Encoder {
    last_seq: u64,
    resume_token: String,
}

impl Encoder {
    pub(in crate::api) fn new(resume_token: String) -> Self {
        Self { last_seq: 0, resume_token }
    }

    /// The text of one frame.
    ///
    /// # Errors
    /// Those of JSON's writer; none of our types has them.
    pub(in crate::api) fn encode(&mut self, notice: &Notice) -> Result<String, serde_json::Error> {
        let next = self.last_seq + 1;
        let (body, reference) = match notice {
            Notice::Told(told) => (self.body_of(&told.output), told.reference.as_deref()),
            Notice::Refused(refusal) => (Body::refused(refusal), refusal.reference.as_deref()),
            Notice::Pong { reference } => (Body::Pong, reference.as_deref()),
            Notice::ResyncRequired { reference } => (Body::ResyncRequired { from_seq: next }, reference.as_deref()),
            Notice::ServerDraining => (Body::ServerDraining, None),
            Notice::BudgetWarning(report) => (Body::BudgetWarning(report), None),
        };
        let numbered = !matches!(body, Body::AudioChunk(_) | Body::Pong | Body::Duck { .. } | Body::Unduck { .. });
        let text = serde_json::to_string(&Envelope { body, seq: numbered.then_some(next), reference })?;
        self.last_seq += u64::from(numbered);
        Ok(text)
    }

    fn body_of<'a>(&'a self, output: &'a Output) -> Body<'a> {
        match output {
            Output::SessionStarted(started) => self.started(started),
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
            Output::Audio(piece) => Body::AudioChunk(AudioBody::of(piece)),
            Output::Duck { item_id } => Body::Duck { item_id },
            Output::Unduck { item_id } => Body::Unduck { item_id },
            Output::Characters(characters) => Body::ConversationUpdated { characters: Some(characters), title: None },
            Output::Titled { title, .. } => Body::ConversationUpdated { characters: None, title: Some(title) },
            Output::SpeakerChanged { character_id } => Body::SpeakerChanged { character_id: character_id.as_deref() },
            Output::Interrupted { turn, item_id, heard_text, heard } => {
                Body::Interrupted { item_id, heard_text, heard_ms: millis(*heard), turn: turn.0 }
            }
            Output::TurnComplete(report) => Body::complete(report),
            Output::SettingsApplied(settings) => Body::SettingsApplied(settings),
            Output::Error(complaint) => Body::complaint(complaint),
        }
    }

    fn started<'a>(&'a self, started: &'a Started) -> Body<'a> {
        Body::SessionStarted {
            protocol_version: PROTOCOL_VERSION,
            session_id: &started.session_id,
            resume_token: &self.resume_token,
            conversation_id: &started.conversation_id,
            characters: &started.characters,
            audio: AudioShape {
                format: format_name(started.settings.audio_format),
                sample_rate: SPEECH_HZ,
                channels: 1,
            },
            settings: &started.settings,
        }
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
    ResyncRequired {
        from_seq: u64,
    },
    ConversationUpdated {
        #[serde(skip_serializing_if = "Option::is_none")]
        characters: Option<&'a [Participant]>,
        #[serde(skip_serializing_if = "Option::is_none")]
        title: Option<&'a str>,
    },
    Duck {
        item_id: &'a str,
    },
    Unduck {
        item_id: &'a str,
    },
    BudgetWarning(&'a BudgetReport),
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

/// A piece of a reply's sound.
#[derive(Serialize, ToSchema)]
#[schema(as = AudioChunk)]
pub(in crate::api) struct AudioBody<'a> {
    character_id: &'a str,
    audio_data: String,
    sequence_number: u64,
    format: &'static str,
    sample_rate: u32,
    item_id: &'a str,
    turn: u64,
    pts_ms: u64,
    words: Vec<TimedWord<'a>>,
}

impl<'a> AudioBody<'a> {
    pub(in crate::api) fn of(piece: &'a AudioPiece) -> Self {
        Self {
            character_id: &piece.character_id,
            audio_data: match piece.format {
                AudioFormat::Pcm => STANDARD.encode(piece.audio.to_s16le()),
                AudioFormat::Wav => STANDARD.encode(wav::encode(&piece.audio)),
            },
            sequence_number: piece.sequence_number,
            format: format_name(piece.format),
            sample_rate: SPEECH_HZ,
            item_id: &piece.item_id,
            turn: piece.turn.0,
            pts_ms: millis(piece.pts),
            words: piece.words.iter().map(TimedWord::spoken).collect(),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = SpokenWord)]
struct TimedWord<'a> {
    text: &'a str,
    start_ms: u64,
    end_ms: u64,
}

impl<'a> TimedWord<'a> {
    fn heard(word: &'a Word) -> Self {
        Self { text: &word.text, start_ms: millis(word.start), end_ms: millis(word.end) }
    }

    fn spoken(word: &'a WordMark) -> Self {
        Self { text: &word.text, start_ms: millis(word.start), end_ms: millis(word.end) }
    }
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

fn format_name(format: AudioFormat) -> &'static str {
    match format {
        AudioFormat::Pcm => "pcm",
        AudioFormat::Wav => "wav",
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
