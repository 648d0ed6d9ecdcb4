//! The conversation: a microphone frame's way to the speaker.
//!
//! Four rooms, each one file, one task, one bounded inbox and one outbox:
//! `ear` (voice activity, then speech to text), `turn` (the pure machine that decides), `mind` (language model, then
//! chunker), `mouth` (speech synthesis, sequence, pace). This module cannot name a model, a socket or a database:
//! models stand behind `provider`'s traits, the database behind [`record::Records`], the socket behind a [`Handle`].

pub mod event;
mod outbox;
pub mod record;
pub mod settings;

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::provider::{ChatModel, SpeechSynthesizer, SpeechToText, VoiceActivity};
use event::Request;
pub use outbox::Outbox;
use record::{RecordError, Records};
use settings::Settings;

/// What a session is made of.
#[derive(Clone)]
pub struct Parts {
    pub stt: Arc<dyn SpeechToText>,
    pub chat: Arc<dyn ChatModel>,
    pub speech: Arc<dyn SpeechSynthesizer>,
    pub vad: Arc<dyn VoiceActivity>,
    pub records: Arc<dyn Records>,
}

/// Which conversation, with whom, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Opening {
    /// None: a new one.
    pub conversation_id: Option<String>,
    /// Empty: the conversation's own, else the default character.
    pub character_ids: Vec<String>,
    pub settings: Settings,
    /// Send audio at the pace of its playback. Without it audio leaves as fast as it is made and taken, for listeners
    /// that keep it: files.
    pub paced: bool,
}

/// A running session. It ends, reply and all, when its inbox or its outbox is dropped; what was said is still saved.
pub struct Handle {
    pub inbox: mpsc::Sender<Request>,
    pub outbox: Outbox,
}

/// Why a session could not begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    #[error("the conversation {0} was not found")]
    ConversationNotFound(String),
    #[error("the character {0} was not found")]
    CharacterNotFound(String),
    #[error(transparent)]
    Records(#[from] RecordError),
}

/// Requests that may wait for the ear: a second and more of 20 ms frames. A client that sends faster than its session
/// hears waits in its socket.
const INBOX: usize = 64;
