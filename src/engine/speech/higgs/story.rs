//! One voice through many sentences: what it said last goes before what it says next.
//!
//! The model's voices drift; what keeps them is to hear themselves. A voice with a recording hears that and what it said
//! last. One without keeps the first thing it ever said in the recording's place. All of that stands before the text in
//! the prompt, the part that changes last, so that a slot that has read it need not read it again.

use std::collections::VecDeque;

use super::limits;
use super::prompt::{Said, Script, Setting};
use super::text::fit_to_speak;
use crate::nn::higgs::{Codes, HiggsConfig, Outcome};
use crate::text::Chunker;

/// What was said so many times last is context. More would cost memory and time and change nothing that is heard.
const KEPT: usize = 2;
/// What a slow speaker takes for a piece of a long text, in seconds: sixty words of English. Shorter pieces are less
/// steady; with longer ones there is no room in a prompt for those before them, without which a voice is another in each.
const PIECE_SECONDS: f64 = 30.0;
/// Speech shorter than this tells nothing about a voice: two seconds.
const TELLING_COLUMNS: usize = 50;

/// A voice in the course of a conversation, or of a book.
#[derive(Clone, Debug)]
pub struct Story {
    setting: Setting,
    /// Of a voice without a recording.
    first: Option<Said>,
    last: VecDeque<Said>,
}

impl Story {
    pub fn new(setting: Setting) -> Self {
        Self { setting, first: None, last: VecDeque::new() }
    }

    pub fn setting(&self) -> &Setting {
        &self.setting
    }

    /// The prompt for `text`, with as much context as there is room for: `most_frames` of earlier speech, the first said
    /// and the latest before the others.
    pub fn script(&self, text: &str, most_frames: usize) -> Script {
        let mut room = most_frames;
        let mut fits = |said: &&Said| match room.checked_sub(said.frames()) {
            Some(left) => {
                room = left;
                true
            }
            None => false,
        };
        let first = self.first.as_ref().filter(&mut fits);
        let mut last: Vec<&Said> = self.last.iter().rev().take_while(&mut fits).collect();
        last.reverse();
        let said: Vec<Said> = first.into_iter().chain(last).cloned().collect();
        Script::new(&self.setting, &said, text)
    }

    /// Keeps what was said. Only what the model ended itself is worth hearing again: speech that ran away would teach the
    /// next to do so.
    pub fn keep(&mut self, config: &HiggsConfig, text: &str, columns: &Codes, outcome: Outcome) {
        if outcome != Outcome::Spoken || columns.is_empty() {
            return;
        }
        let said = Said::new(config, text, columns);
        if self.first.is_none() && !self.setting.voice.is_recorded() && columns.len() >= TELLING_COLUMNS {
            self.first = Some(said);
            return;
        }
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(said);
    }
}

/// Cuts a long text at the ends of sentences, and between paragraphs wherever there is one. All pieces together are the
/// text, but for the blanks between them.
pub fn pieces(text: &str) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    for paragraph in text.split("\n\n") {
        let mut seconds = PIECE_SECONDS;
        for sentence in sentences(paragraph) {
            let more = limits::seconds(&fit_to_speak(&sentence));
            seconds += more;
            match pieces.last_mut() {
                Some(piece) if seconds <= PIECE_SECONDS => piece.push_str(&sentence),
                _ => {
                    seconds = more;
                    pieces.push(sentence);
                }
            }
        }
    }
    let trimmed = pieces.iter().map(|piece| piece.trim().to_owned());
    trimmed.filter(|piece| !piece.is_empty()).collect()
}

fn sentences(paragraph: &str) -> Vec<String> {
    let mut chunker = Chunker::default();
    let mut cut = chunker.push(paragraph);
    cut.extend(chunker.finish());
    cut.into_iter().filter_map(|piece| piece.whole).collect()
}
