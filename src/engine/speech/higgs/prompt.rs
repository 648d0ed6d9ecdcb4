//! The turns that tell the model who speaks what: one layout per kind of voice.
//!
//! The wording is the one of Boson's training and examples; a word more or less makes another voice. Speech in an
//! assistant's turn was spoken by it, speech in the system's is only heard. Whatever the voice, the answer is begun by
//! force (`<|audio_out_bos|>`), so that the model never chooses to write text instead.

use super::text::{description, fit_to_speak};
use crate::nn::higgs::{Codes, HiggsConfig, Segment};

/// What the model takes for granted where nobody says anything.
pub const QUIET_ROOM: &str = "Audio is recorded from a quiet room.";
const INSTRUCTION: &str = "Generate audio following instruction.";
const CAST_INSTRUCTION: &str = "You are an AI assistant designed to convert text into speech.\n\
    If the user's message includes a [SPEAKER*] tag, do not read out the tag and generate speech for the following text, \
    using the specified voice.\n\
    If no speaker tag is present, select a suitable voice on your own.";

/// A voice as somebody recorded it: its frames, and the words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    pub transcript: String,
    speech: Segment,
}

impl Reference {
    /// `columns`: what the codec made of the recording.
    pub fn new(config: &HiggsConfig, transcript: &str, columns: &Codes) -> Self {
        Self { transcript: transcript.to_owned(), speech: Segment::speech(config, columns) }
    }
}

/// Whose voice it is. In a cast, speaker i says the lines that begin with `[SPEAKERi]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Voice {
    /// The model chooses.
    #[default]
    Free,
    /// In words, as `masculine;moderate pitch;mature`.
    Described(String),
    /// As it was recorded: the most reliable.
    Cloned(Reference),
    DescribedCast(Vec<String>),
    ClonedCast(Vec<Reference>),
    /// Recordings without their words. One speaker's lines per answer are steadier than a dialogue.
    HeardCast(Vec<Reference>),
}

impl Voice {
    /// Without a recording a voice is another one every time, unless what it said is kept.
    pub fn is_recorded(&self) -> bool {
        matches!(self, Self::Cloned(_) | Self::ClonedCast(_) | Self::HeardCast(_))
    }
}

/// Whose voice, and where it is heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    pub voice: Voice,
    /// As [`QUIET_ROOM`].
    pub scene: Option<String>,
}

/// What the assistant has said before, and the text for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub text: String,
    pub speech: Segment,
}

/// A prompt in words, with speech where it belongs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The markers in it are the prompt's.
    Words(String),
    /// [`Segment::Audio`].
    Speech(Segment),
}

impl Script {
    /// Everything up to where the model begins to speak `text`.
    pub fn new(setting: &Setting, said: &[Said], text: &str) -> Self {
        let mut script = Self::default();
        script.words("<|begin_of_text|>");
        script.system(setting);
        match &setting.voice {
            Voice::Cloned(reference) => script.spoken(&fit_to_speak(&reference.transcript), &reference.speech),
            Voice::ClonedCast(references) => {
                for (speaker, reference) in references.iter().enumerate() {
                    let transcript = fit_to_speak(&reference.transcript);
                    script.spoken(&format!("[SPEAKER{speaker}] {transcript}"), &reference.speech);
                }
            }
            Voice::Free | Voice::Described(_) | Voice::DescribedCast(_) | Voice::HeardCast(_) => {}
        }
        for Said { text, speech } in said {
            script.spoken(&fit_to_speak(text), speech);
        }
        script.turn("user", &fit_to_speak(text));
        script.words("<|start_header_id|>assistant<|end_header_id|>\n\n<|audio_out_bos|>");
        script
    }

    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    fn words(&mut self, words: &str) {
        if let Some(Part::Words(before)) = self.parts.last_mut() {
            before.push_str(words);
        } else {
            self.parts.push(Part::Words(words.to_owned()));
        }
    }

    fn turn(&mut self, role: &str, content: &str) {
        self.words(&format!("<|start_header_id|>{role}<|end_header_id|>\n\n{content}<|eot_id|>"));
    }

    /// A text, and the assistant's speech for it.
    fn spoken(&mut self, text: &str, speech: &Segment) {
        self.turn("user", text);
        self.words("<|start_header_id|>assistant<|end_header_id|>\n\n<|audio_out_bos|>");
        self.parts.push(Part::Speech(speech.clone()));
        self.words("<|audio_eos|><|eot_id|>");
    }

    /// A clone has its turn only where there is a scene: its recording says the rest.
    fn system(&mut self, setting: &Setting) {
        let scene = setting.scene.as_deref().map(description).filter(|scene| !scene.is_empty());
        let instruction = match &setting.voice {
            Voice::Cloned(_) | Voice::ClonedCast(_) if scene.is_none() => return,
            Voice::DescribedCast(_) => CAST_INSTRUCTION,
            _ => INSTRUCTION,
        };
        self.words(&format!("<|start_header_id|>system<|end_header_id|>\n\n{instruction}"));
        let speakers = self::speakers(&setting.voice);
        if scene.is_some() || !speakers.is_empty() {
            self.words("\n\n<|scene_desc_start|>\n");
            let blank = if speakers.is_empty() || scene.is_none() { "" } else { "\n\n" };
            self.words(&format!("{}{blank}", scene.unwrap_or_default()));
            for (speaker, who) in speakers.into_iter().enumerate() {
                let line = if speaker == 0 { "" } else { "\n" };
                self.words(&format!("{line}SPEAKER{speaker}: "));
                match who {
                    Who::Described(words) => self.words(&words),
                    Who::Heard(speech) => {
                        self.words("<|audio_bos|>");
                        self.parts.push(Part::Speech(speech));
                        self.words("<|audio_eos|>");
                    }
                }
            }
            self.words("\n<|scene_desc_end|>");
        }
        self.words("<|eot_id|>");
    }
}

/// A speaker as the scene tells of it.
enum Who {
    Described(String),
    Heard(Segment),
}

fn speakers(voice: &Voice) -> Vec<Who> {
    match voice {
        Voice::Described(words) => vec![Who::Described(description(words))],
        Voice::DescribedCast(cast) => cast.iter().map(|words| Who::Described(description(words))).collect(),
        Voice::HeardCast(cast) => cast.iter().map(|reference| Who::Heard(reference.speech.clone())).collect(),
        Voice::Free | Voice::Cloned(_) | Voice::ClonedCast(_) => Vec::new(),
    }
}

impl Said {
    /// `columns`: what was spoken, as [`crate::nn::higgs::Utterance::speech`] has it.
    pub fn new(config: &HiggsConfig, text: &str, columns: &Codes) -> Self {
        Self { text: text.to_owned(), speech: Segment::speech(config, columns) }
    }

    /// Positions of its speech.
    pub fn frames(&self) -> usize {
        self.speech.len()
    }
}
