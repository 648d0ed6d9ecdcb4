//! What a speech synthesiser is asked and what it answers.

use std::sync::Arc;
use std::time::Duration;

use super::{Caller, OwnVoice};
use crate::audio::Speech;

/// One sentence or clause to speak. The text is speakable already (`text::speakable`).
#[derive(Clone, Debug)]
pub struct SpeakRequest {
    pub text: String,
    /// A voice's name. None is the engine's default voice.
    pub voice: Option<String>,
    /// Who that is, where it is a voice that somebody made. `provider::voices` fills it in.
    pub own_voice: Option<Arc<OwnVoice>>,
    /// ISO 639-1 with optional region, as `en-gb`. None is the voice's own.
    pub language: Option<Language>,
    /// 1 is natural; 0.5 to 2.
    pub speed: f32,
    pub urgency: Urgency,
    /// What it is part of: an engine whose voices [hear themselves](VoiceEngine::hears_itself) speaks what one voice says
    /// of one story one after the other. None: it stands alone.
    pub story: Option<StoryId>,
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
            own_voice: None,
            language: None,
            speed: 1.0,
            urgency: Urgency::default(),
            story: None,
            seed: None,
            model: None,
            caller: Caller::default(),
        }
    }
}

/// What several requests are part of, by a name of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StoryId {
    /// A character's part of a conversation, which goes on whenever it is its turn.
    Part(Arc<str>),
    /// A text that is read once.
    Text(Arc<str>),
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

/// A voice that an engine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VoiceInfo {
    pub name: String,
    pub language: Language,
    pub engine: VoiceEngine,
    /// None: neither, or unknown.
    pub gender: Option<Gender>,
    /// Other names that it answers to: those of OpenAI's voices that it stands in for.
    pub aliases: Vec<String>,
}

/// What speaks with a voice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoiceEngine {
    Higgs,
    Kokoro,
    /// A service elsewhere.
    Remote,
}

impl VoiceEngine {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Higgs => "higgs",
            Self::Kokoro => "kokoro",
            Self::Remote => "remote",
        }
    }

    /// Whether each sentence of a voice hears the one before it, so that asking for several at once gains nothing, and
    /// the time to the first audio of those behind is that of all before them.
    pub const fn hears_itself(self) -> bool {
        matches!(self, Self::Higgs)
    }
}

/// How many sentences of a text to ask for at a time, of whoever has these voices: the next one is generated while one is
/// sent, and no text takes every permit.
pub fn at_once(voices: &[VoiceInfo]) -> usize {
    if voices.iter().any(|voice| voice.engine.hears_itself()) { 1 } else { 2 }
}

/// How a voice sounds to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gender {
    Female,
    Male,
}
