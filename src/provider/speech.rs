//! What a speech synthesiser is asked and what it answers.

use std::sync::Arc;
use std::time::Duration;

use super::Caller;
use crate::audio::Speech;

/// One sentence or clause to speak. The text is speakable already (`text::speakable`).
#[derive(Clone, Debug)]
pub struct SpeakRequest {
    pub text: String,
    /// A voice's name. None is the engine's default voice.
    pub voice: Option<String>,
    /// ISO 639-1 with optional region, as `en-gb`. None is the voice's own.
    pub language: Option<Language>,
    /// 1 is natural; 0.5 to 2.
    pub speed: f32,
    pub urgency: Urgency,
    /// The same seed gives the same audio. None draws one.
    pub seed: Option<u64>,
    /// A model's name. None: the server's own.
    pub model: Option<String>,
    pub caller: Caller,
}

impl Default for SpeakRequest {
    fn default() -> Self {
        Self {
            text: String::new(),
            voice: None,
            language: None,
            speed: 1.0,
            urgency: Urgency::default(),
            seed: None,
            model: None,
            caller: Caller::default(),
        }
    }
}

/// A language tag in lower case.
pub type Language = String;

/// Who goes first where several wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Later audio of a turn, and files.
    #[default]
    Later,
    /// The first audio of a turn: somebody is waiting in silence.
    First,
}

/// Part of the audio of one request, in order.
#[derive(Clone, Debug)]
pub struct SpeechChunk {
    pub audio: Speech,
    /// Words that begin in this chunk, timed from the request's first sample.
    pub words: Vec<WordMark>,
    /// No more will come.
    pub last: bool,
    pub served_by: Arc<str>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct WordMark {
    pub text: String,
    pub start: Duration,
    pub end: Duration,
}

/// A voice that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoiceInfo {
    pub name: String,
    pub language: Language,
}
