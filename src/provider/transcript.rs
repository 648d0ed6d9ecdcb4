//! What a speech recogniser is asked and what it answers.

use std::sync::Arc;
use std::time::Duration;

use super::Caller;

/// How to listen.
#[derive(Clone, Debug, Default)]
pub struct SttOptions {
    /// Languages to choose from, as ISO 639-1 codes. One: no detection. None: all that the model knows.
    pub languages: Vec<String>,
    /// Text that came before, or words to expect.
    pub prompt: Option<String>,
    pub task: SttTask,
    /// Yield [`Transcript::Partial`] while the utterance goes on.
    pub partials: bool,
    /// Fill [`Segment::words`] of the final transcript.
    pub word_times: bool,
    /// 0 is exact; where it fails the model may choose higher ones by itself.
    pub temperature: f32,
    /// A model's name. None: the server's own.
    pub model: Option<String>,
    pub caller: Caller,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SttTask {
    #[default]
    Transcribe,
    /// Into English.
    Translate,
}

/// One item of a transcription.
#[derive(Clone, Debug)]
pub enum Transcript {
    /// The whole utterance so far. Its first `stable_chars` characters will not change.
    Partial { text: String, stable_chars: usize, served_by: Arc<str> },
    /// All of it, once the audio has ended: what follows may be written better.
    Draft(FinalTranscript),
    /// The terminal item.
    Final(FinalTranscript),
}

#[derive(Clone, Debug)]
pub struct FinalTranscript {
    /// Trimmed; empty where nothing was said.
    pub text: String,
    /// ISO 639-1.
    pub language: String,
    /// In order. Empty where nothing was said.
    pub segments: Vec<Segment>,
    /// Length of what was heard.
    pub audio: Duration,
    /// Time from the end of the audio to this item.
    pub latency: Duration,
    /// How the text could go on. None where the recogniser does not tell, was not asked for partials, or nothing was said.
    pub ending: Option<Ending>,
    pub served_by: Arc<str>,
}

/// What a recogniser expects after the last word it heard, as probabilities: of what is said and of how it sounds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ending {
    /// A full stop.
    pub stop: f32,
    /// A question or exclamation mark.
    pub question: f32,
    /// A comma, a colon, a semicolon.
    pub comma: f32,
    /// An ellipsis or a dash.
    pub break_off: f32,
    /// Nothing: the text ends without a mark.
    pub nothing: f32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    pub text: String,
    pub start: Duration,
    pub end: Duration,
    pub words: Vec<Word>,
    /// Mean log probability of its tokens.
    pub log_probability: f32,
    /// Probability that there is no speech in it.
    pub no_speech: f32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Word {
    pub text: String,
    pub start: Duration,
    pub end: Duration,
}
