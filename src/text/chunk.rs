//! Cuts a language model's stream of text into what is spoken in one breath.
//!
//! The first chunk is short, a clause, because somebody waits in silence; the others are sentences. Where a sentence
//! ends is Unicode's rule (UAX 29), narrowed by abbreviations, initials, numbers and addresses. Tiny sentences go with
//! the next one, since a voice hurries through them; long ones are cut at a clause, then at a word.
//!
//! Every cut is decided at the first character *after* it and never changes, so that no text is held back: each
//! character's chunk is known when it comes. That makes the chunks independent of how the stream is split into deltas,
//! and all pieces together are the input, character by character.
//!
//! ```
//! # use aichat::text::Chunker;
//! let mut chunker = Chunker::default();
//! let mut pieces = chunker.push("Well, it depends on Dr. Who. And on");
//! pieces.extend(chunker.push(" you.").into_iter().chain(chunker.finish()));
//! let spoken: Vec<_> = pieces.iter().filter_map(|piece| piece.whole.as_deref()).collect();
//! assert_eq!(spoken, ["Well, it depends on Dr. Who. ", "And on you."]);
//! ```

use unicode_segmentation::UnicodeSegmentation;

use super::abbreviation::{Dot, after_dot};

/// Widths are in letters: what is wide or is read out longer than it looks counts more.
///
/// The first chunk is not shorter than this, and has three words or is longer.
const FIRST_WIDTH: usize = 14;
const FIRST_WORDS: usize = 3;
const FIRST_LONG: usize = 24;
/// Without a mark it is cut after a word: a long one, which seldom leans on what follows,
const FIRST_PHRASE: usize = 30;
const LONG_WORD: usize = 6;
/// or, from here on, any.
const FIRST_CAP: usize = 48;
/// Kokoro sounds rushed under 10 to 20 phonemes.
const SENTENCE_WIDTH: usize = 25;
/// From here on a clause's end will do,
const CLAUSE_CAP: usize = 160;
/// from here on a word's,
const WORD_CAP: usize = 240;
/// and from here on any place between two characters. Kokoro takes 510 phonemes.
const HARD_CAP: usize = 400;
/// What stands between asterisks is not cut up to this width: it may be a stage direction.
const EMPHASIS_WIDTH: usize = 200;
/// How far back a sentence's end is looked for, in bytes.
const WINDOW: usize = 96;

/// A part of the stream that lies in one chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The chunk's number, from 0.
    pub chunk: usize,
    /// What is new of it. Empty where the chunk turned out to have ended before this delta.
    pub text: String,
    /// The chunk's whole text, on its last piece.
    pub whole: Option<String>,
}

/// Cuts one reply. [`Chunker::default`] begins one.
#[derive(Clone, Debug, Default)]
pub struct Chunker {
    number: usize,
    /// The open chunk and what is known of it.
    open: String,
    width: usize,
    words: usize,
    /// Bytes of `open` that [`Chunker::push`] gave out.
    given: usize,
    line: Line,
    emphasis: Emphasis,
}

/// Where in a line of Markdown the stream is.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    /// Something other than blanks and backticks came.
    begun: bool,
    backticks: usize,
    in_fence: bool,
    /// The line that closes a fence is open, or was the last one.
    fence_closed: bool,
}

/// Whether the stream is between asterisks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Emphasis {
    #[default]
    Outside,
    /// Asterisks came that may open.
    Opening,
    /// Since this width of the chunk.
    Inside(usize),
    /// Asterisks came that close.
    Closing,
}

impl Chunker {
    /// Takes the next part of the stream, and says to which chunks it belongs.
    pub fn push(&mut self, delta: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for next in delta.chars() {
            if !self.open.is_empty() && self.ends_before(next) {
                pieces.extend(self.finish());
            }
            self.take(next);
        }
        if self.given < self.open.len() {
            let text = self.open[self.given..].to_owned();
            self.given = self.open.len();
            pieces.push(Piece { chunk: self.number, text, whole: None });
        }
        pieces
    }

    /// Ends the open chunk. None where there is none.
    pub fn finish(&mut self) -> Option<Piece> {
        if self.open.is_empty() {
            return None;
        }
        let whole = std::mem::take(&mut self.open);
        let piece = Piece { chunk: self.number, text: whole[self.given..].to_owned(), whole: Some(whole) };
        (self.number, self.width, self.words, self.given) = (self.number + 1, 0, 0, 0);
        if let Emphasis::Inside(_) = self.emphasis {
            self.emphasis = Emphasis::Inside(0);
        }
        Some(piece)
    }

    fn take(&mut self, next: char) {
        let before = self.open.chars().next_back();
        if next.is_alphanumeric() && !before.is_some_and(char::is_alphanumeric) {
            self.words += 1;
        }
        self.emphasis = self.emphasis.after(before, next, self.width);
        self.line.take(next);
        self.width += width(next);
        self.open.push(next);
    }

    /// Whether the open chunk, which is not empty, ends before `next`.
    fn ends_before(&self, next: char) -> bool {
        // Blanks go with what they follow.
        if next.is_whitespace() || self.line.in_fence {
            return false;
        }
        if self.width >= HARD_CAP {
            return is_boundary(&self.open, "", next, |window| {
                window.grapheme_indices(true).map(|(at, _)| at).collect()
            });
        }
        let Some(before) = self.open.chars().next_back().filter(|before| !before.is_alphanumeric()) else {
            return false;
        };
        if before.is_whitespace() && self.line.fence_closed && !self.line.begun {
            return true;
        }
        if self.width >= WORD_CAP && before.is_whitespace() {
            return true;
        }
        if let Emphasis::Inside(since) = self.emphasis
            && self.width.saturating_sub(since) < EMPHASIS_WIDTH
        {
            return false;
        }
        let (enough, clauses) = if self.number == 0 {
            let enough = self.width >= FIRST_WIDTH && (self.words >= FIRST_WORDS || self.width >= FIRST_LONG);
            (enough, enough)
        } else {
            (self.width >= SENTENCE_WIDTH, self.width >= CLAUSE_CAP)
        };
        let phrase = self.number == 0 && before.is_whitespace() && self.ends_phrase();
        phrase || (enough && ((clauses && self.ends_clause(next)) || self.ends_sentence(next)))
    }

    /// Whether a first chunk that ends in blanks has run on for long enough.
    fn ends_phrase(&self) -> bool {
        let last_word = self.open.split_whitespace().next_back().unwrap_or_default();
        let letters = last_word.chars().filter(|letter| letter.is_alphabetic()).count();
        self.width >= FIRST_CAP || (self.width >= FIRST_PHRASE && letters >= LONG_WORD)
    }

    fn ends_clause(&self, next: char) -> bool {
        let text = self.open.trim_end();
        let spaced = text.len() < self.open.len();
        if !spaced && is_closing(next) {
            return false;
        }
        match text.trim_end_matches(is_closing).chars().next_back() {
            // A dash stands between words; a hyphen with blanks around it does the same.
            Some('—') => true,
            Some('–' | '-') => spaced && text.chars().rev().nth(1).is_some_and(char::is_whitespace),
            Some(',' | ';' | ':') => spaced,
            Some(mark) => "，、；：،؛".contains(mark),
            None => false,
        }
    }

    fn ends_sentence(&self, next: char) -> bool {
        let text = self.open.trim_end();
        let blanks = &self.open[text.len()..];
        if text.is_empty() || (blanks.is_empty() && is_closing(next)) {
            return false;
        }
        let closed = text.trim_end_matches(is_closing);
        let Some(mark) = closed.chars().next_back() else { return false };
        if blanks.contains(['\n', '\r', '\u{2028}', '\u{2029}']) {
            return true;
        }
        // By Unicode's rules alone. They do not know Markdown's closing marks, and ask for no others.
        if !is_boundary(closed, blanks, next, |window| {
            window.split_sentence_bound_indices().map(|(at, _)| at).collect()
        }) {
            return false;
        }
        let spaced = !blanks.is_empty();
        match mark {
            '.' => spaced && after_dot(closed, next) == Dot::EndsSentence,
            // "What?" he asked.
            '!' | '?' | '…' => spaced && !(next.is_lowercase() && (mark == '…' || closed.len() < text.len())),
            _ => true,
        }
    }
}

impl Line {
    fn take(&mut self, next: char) {
        if next == '\n' {
            let fence = self.backticks >= 3;
            self.fence_closed = (fence && !self.in_fence) || (self.fence_closed && !self.begun);
            (self.begun, self.backticks) = (false, 0);
        } else if next == '`' && !self.begun {
            self.backticks += 1;
            if self.backticks == 3 {
                self.in_fence = !self.in_fence;
                self.fence_closed = false;
            }
        } else if !next.is_whitespace() {
            self.begun = true;
            self.fence_closed = self.fence_closed && self.backticks >= 3;
        }
    }
}

impl Emphasis {
    /// Asterisks open when something follows them at once and nothing of a word comes before.
    fn after(self, before: Option<char>, next: char, width: usize) -> Self {
        match (self, next) {
            (_, '\n') => Self::Outside,
            (Self::Outside, '*') if !before.is_some_and(char::is_alphanumeric) => Self::Opening,
            (Self::Opening | Self::Closing, '*') => self,
            (Self::Opening, _) if next.is_whitespace() => Self::Outside,
            (Self::Opening, _) => Self::Inside(width),
            (Self::Inside(_), '*') => Self::Closing,
            (Self::Closing, _) => Self::Outside,
            _ => self,
        }
    }
}

/// Whether `next` begins something new by the `bounds` of the text around it.
fn is_boundary(text: &str, blanks: &str, next: char, bounds: impl Fn(&str) -> Vec<usize>) -> bool {
    let start = (text.len().saturating_sub(WINDOW)..text.len()).find(|at| text.is_char_boundary(*at));
    let mut window = text[start.unwrap_or(text.len())..].to_owned();
    window.push_str(blanks);
    let boundary = window.len();
    window.push(next);
    bounds(&window).contains(&boundary)
}

/// How much of a breath a character takes, in letters.
fn width(character: char) -> usize {
    match character {
        // Digits are read as words.
        '0'..='9' => 3,
        '\u{1100}'..='\u{115F}'
        | '\u{2E80}'..='\u{A4CF}'
        | '\u{AC00}'..='\u{D7A3}'
        | '\u{F900}'..='\u{FAFF}'
        | '\u{FF00}'..='\u{FF60}'
        | '\u{20000}'..='\u{3FFFD}' => 2,
        _ => 1,
    }
}

/// What may stand between a sentence's last mark and the blank.
fn is_closing(character: char) -> bool {
    ")]}\"'”’»›」』）】》〉*_~".contains(character)
}

#[cfg(test)]
#[path = "chunk_tests.rs"]
mod tests;
