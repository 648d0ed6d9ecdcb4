//! What comes into a session and what leaves it, in no wire's terms.
//!
//! `api` translates between these and its clients' JSON. It numbers what it sends (`seq`), encodes audio, and repeats
//! a client's `ref`, which travels through the session as `reference`. Nothing here decides anything.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::record::{Character, Message, MessageStatus};
use super::settings::{AudioFormat, Settings, SettingsPatch};
use crate::audio::{MIC_HZ, Mic, Samples, Speech};
use crate::provider::{ProviderError, Role, Usage, Word, WordMark};

/// Counts replies and interruptions. It only grows: whatever carries an older number than the session's is stale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Turn(pub u64);

impl Turn {
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// One message from a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub input: Input,
    /// The client's `ref`, repeated by what answers this request.
    pub reference: Option<String>,
}

impl From<Input> for Request {
    fn from(input: Input) -> Self {
        Self { input, reference: None }
    }
}

/// What a client may ask of a session.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Microphone audio, resampled already; any length.
    Audio(Mic),
    Text {
        text: String,
        client_message_id: Option<String>,
        /// What is asked of these replies only, over what holds otherwise.
        terms: SettingsPatch,
        /// Who answers, in this order. Empty: as the text and the settings say.
        character_ids: Vec<String>,
    },
    /// These speak up by themselves, in this order. Empty: whoever would answer.
    SpeakUp {
        character_ids: Vec<String>,
        terms: SettingsPatch,
    },
    /// These take part from now on, in this order. At least one.
    Characters {
        character_ids: Vec<String>,
    },
    /// These take part from now on, as the records say already. Empty: whoever stands in where a conversation that has
    /// nobody is opened.
    Recast {
        character_ids: Vec<String>,
    },
    /// The conversation's own settings, as the records have them by now.
    Stored(serde_json::Value),
    /// Somebody else has written or changed these messages, as the records say already.
    Noted(Vec<Message>),
    /// Somebody else has deleted this message.
    Dropped {
        message_id: String,
    },
    /// This character speaks next, once.
    NextSpeaker {
        character_id: String,
    },
    /// The open utterance ends here.
    Commit,
    /// The open utterance is forgotten.
    CancelInput,
    /// The reply stops at once.
    Interrupt {
        /// None: whichever is being spoken. One that is not being spoken is ignored.
        item_id: Option<String>,
        /// How much of the item was played.
        played_ms: Option<u64>,
    },
    /// The reply stops at once, and nothing is written for the session's own sake any more: it is about to end.
    Close,
    PlaybackAck {
        item_id: String,
        played_ms: u64,
    },
    /// Writes an earlier reply again, under the same item; the reply to a message of the user's, where that is named.
    /// What there was stands until the new one is written.
    Regenerate {
        item_id: String,
        terms: SettingsPatch,
    },
    Settings(SettingsPatch),
}

/// One message to a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub output: Output,
    /// The `ref` of the request that this answers.
    pub reference: Option<String>,
}

impl From<Output> for Told {
    fn from(output: Output) -> Self {
        Self { output, reference: None }
    }
}

/// What a session tells its client.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// The first one, always.
    SessionStarted(Box<Started>),
    Transcription(Transcription),
    /// `at`: where in the session's audio.
    SpeechStarted {
        at: Samples<MIC_HZ>,
    },
    SpeechStopped {
        at: Samples<MIC_HZ>,
    },
    /// What this names survives a crash.
    MessageSaved {
        message_id: String,
        client_message_id: Option<String>,
        role: Role,
        status: MessageStatus,
    },
    /// More of a reply's text.
    TextChunk {
        turn: Turn,
        character_id: String,
        item_id: String,
        sequence_number: u64,
        text: String,
    },
    /// The whole text of a reply that is written to its end.
    TextDone {
        turn: Turn,
        character_id: String,
        item_id: String,
        text: String,
    },
    Audio(AudioPiece),
    /// The user may be interrupting this item: lower its volume.
    Duck {
        item_id: String,
    },
    /// It was a false alarm.
    Unduck {
        item_id: String,
    },
    /// Who takes part from now on.
    Characters(Vec<Participant>),
    /// The conversation has this title now.
    Titled {
        title: String,
        /// No better one will be looked for.
        is_final: bool,
    },
    /// Who has the floor.
    SpeakerChanged {
        character_id: Option<String>,
    },
    /// The end of a reply that was cut short.
    Interrupted {
        /// The turn of the reply, not the one that the interruption began.
        turn: Turn,
        item_id: String,
        heard_text: String,
        heard: Duration,
    },
    /// The end of every other reply, after its last audio.
    TurnComplete(Box<TurnReport>),
    SettingsApplied(Box<AppliedSettings>),
    Error(Complaint),
}

impl Output {
    /// The reply this belongs to, where it belongs to one.
    pub const fn turn(&self) -> Option<Turn> {
        match self {
            Self::TextChunk { turn, .. } | Self::TextDone { turn, .. } | Self::Interrupted { turn, .. } => Some(*turn),
            Self::Audio(piece) => Some(piece.turn),
            Self::TurnComplete(report) => Some(report.turn),
            _ => None,
        }
    }
}

/// What a client's settings came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AppliedSettings {
    /// All effective values.
    pub settings: Settings,
    /// What clients have set so far, and is among them.
    pub changed: SettingsPatch,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Started {
    pub session_id: String,
    pub conversation_id: String,
    /// It has no title, or one that may become a better one.
    pub awaits_title: bool,
    pub characters: Vec<Participant>,
    pub settings: Settings,
}

impl Participant {
    pub(super) fn new((index, character): (u16, &Character)) -> Self {
        Self { id: character.id.clone(), name: character.name.clone(), voice: character.voice.clone(), index }
    }
}

/// A character as its client sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Participant {
    pub id: String,
    pub name: String,
    pub voice: Option<String>,
    /// Its number in this session, from 0.
    pub index: u16,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Transcription {
    /// The id of the message that the utterance becomes.
    pub item_id: String,
    pub is_final: bool,
    /// The whole utterance so far. A final one may be empty: nothing was said after all, and nothing is stored.
    pub text: String,
    /// So many characters will not change.
    pub stable_chars: usize,
    /// How far into the session's audio it reaches.
    pub at: Samples<MIC_HZ>,
    /// ISO 639-1. Known with the final one.
    pub language: Option<String>,
    /// Of the final one, timed from the beginning of the utterance's audio.
    pub words: Vec<Word>,
}

/// Up to 100 ms of a reply's audio. Only a sentence's last piece may be empty.
#[derive(Clone, Debug, PartialEq)]
pub struct AudioPiece {
    pub turn: Turn,
    pub character_id: String,
    pub item_id: String,
    pub sequence_number: u64,
    /// Where it begins, from the item's first sample.
    pub pts: Duration,
    pub audio: Speech,
    /// Words of the sentence, on its first piece, timed from the item's first sample like `pts`.
    pub words: Vec<WordMark>,
    /// No more of this sentence follows.
    pub last: bool,
    /// How the client wants it encoded.
    pub format: AudioFormat,
}

/// What a reply took.
#[derive(Clone, Debug, PartialEq)]
pub struct TurnReport {
    pub turn: Turn,
    pub character_id: String,
    pub item_id: String,
    /// Of the reply's last sentence; of the last one before it where the reply is empty.
    pub sequence_number: u64,
    pub timings: Timings,
    pub served_by: ServedBy,
    pub usage: Usage,
}

/// In milliseconds. None where the turn had no such stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Timings {
    /// From the end of speech to the decision that it was the end, in samples received.
    pub endpoint_ms: Option<u64>,
    /// From that decision to the transcript.
    pub stt_ms: Option<u64>,
    /// From asking the language model to its first text.
    pub llm_first_token_ms: Option<u64>,
    /// From asking for the first sentence to its first sample.
    pub tts_first_audio_ms: Option<u64>,
    /// From the end of speech, or the text message, to the reply's first audio; without audio, to its first text.
    pub total_ms: Option<u64>,
}

/// Who did the work. None where the turn had no such stage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ServedBy {
    pub stt: Option<Arc<str>>,
    pub llm: Option<Arc<str>>,
    pub tts: Option<Arc<str>>,
}

/// What went wrong. The session goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    pub code: ErrorCode,
    pub message: String,
    /// The same request may succeed later.
    pub retryable: bool,
    pub item_id: Option<String>,
}

impl Complaint {
    /// What a provider's error is to a client.
    pub fn of(error: &ProviderError, item_id: Option<String>) -> Self {
        let (code, retryable) = match error {
            ProviderError::Overloaded { .. } => (ErrorCode::ModelUnavailable, true),
            ProviderError::Unavailable { .. } | ProviderError::UnknownModel { .. } => {
                (ErrorCode::ModelUnavailable, false)
            }
            ProviderError::VoiceUnavailable { .. } => (ErrorCode::VoiceUnavailable, false),
            ProviderError::LanguageUnsupported { .. } => (ErrorCode::LanguageUnsupported, false),
            ProviderError::InvalidRequest { .. } => (ErrorCode::BadField, false),
            ProviderError::TimedOut { .. } | ProviderError::Failed { .. } => (ErrorCode::ProviderFailed, true),
            ProviderError::Refused { .. } => (ErrorCode::ProviderFailed, false),
            ProviderError::OverBudget { .. } => (ErrorCode::BudgetExceeded, false),
            ProviderError::Filtered { .. } => (ErrorCode::Filtered, false),
            ProviderError::OutOfMemory { .. } => (ErrorCode::OutOfMemory, true),
        };
        Self { code, message: error.to_string(), retryable, item_id }
    }
}

/// The codes of `error` that a session gives. Its text is the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    BadField,
    BadAudio,
    CharacterNotFound,
    ItemNotFound,
    ModelUnavailable,
    VoiceUnavailable,
    LanguageUnsupported,
    ProviderFailed,
    BudgetExceeded,
    Filtered,
    OutOfMemory,
    /// The disk is full.
    StorageFull,
    Internal,
}

impl ErrorCode {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadField => "bad_field",
            Self::BadAudio => "bad_audio",
            Self::CharacterNotFound => "character_not_found",
            Self::ItemNotFound => "item_not_found",
            Self::ModelUnavailable => "model_unavailable",
            Self::VoiceUnavailable => "voice_unavailable",
            Self::LanguageUnsupported => "language_unsupported",
            Self::ProviderFailed => "provider_failed",
            Self::BudgetExceeded => "budget_exceeded",
            Self::Filtered => "content_filtered",
            Self::OutOfMemory => "out_of_memory",
            Self::StorageFull => "storage_full",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}
