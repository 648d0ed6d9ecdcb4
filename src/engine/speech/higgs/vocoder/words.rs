//! When each word is said: an estimate, made while the sound comes.
//!
//! The model says nothing about time, so words are laid along the sound by how long they take to say. Only where there is
//! voice does a word's time pass; the pace is what the speaker needed for the pieces before. Where somebody pauses, the
//! next clause begins: that is where the estimate is set right. Within a clause it may be a syllable or two off.
//!
//! Words come in order, none begins before what was handed over nor ends after it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::audio::SPEECH_HZ;
use crate::engine::speech::higgs::limits::seconds_of;
use crate::provider::WordMark;

/// Samples whose loudness is taken together: 20 ms.
const WINDOW: usize = SPEECH_HZ as usize / 50;
/// Of the loudest so far: what is softer is no voice.
const VOICE: f64 = 0.06;
/// What is softer is none anywhere.
const SILENCE: f64 = 1e-3;
/// Silence of this length, in seconds, is a pause.
const PAUSE: f64 = 0.16;
/// A pause belongs to the next clause that is at most so far away, in seconds.
const REACH: f64 = 0.9;
/// The first word of a clause waits so long for its pause.
const SLACK: f64 = 0.3;
/// What a usual speaker needs of the time of a slow one.
const USUAL: f64 = 0.75;
/// A speaker's pace differs by at most so many times from the usual.
const WIDEST: f64 = 2.0;

/// The words of a stream, piece by piece. All times are in seconds of sound at its natural speed.
pub(super) struct Words {
    speed: f64,
    /// Seconds of voice per second of [`seconds_of`].
    pace: f64,
    /// Of the piece that is heard, those that were not placed.
    waiting: VecDeque<Word>,
    placed: VecDeque<Placed>,
    /// Samples heard.
    heard: usize,
    /// Of the window that is not full yet: samples, and their squares' sum.
    window: (usize, f64),
    loudest: f64,
    /// Where in the piece's words the voice is.
    clock: f64,
    /// Silence since the last voice, once there was one in this piece.
    silence: Option<f64>,
    /// A pause was heard after the last word.
    has_paused: bool,
    /// When the last word began, and when the voice was heard last.
    last: f64,
    voice: f64,
    /// What was handed over: no word begins before.
    floor: f64,
    /// Of all pieces: voice in seconds, and what it was expected to be.
    spoken: (f64, f64),
    /// Of this piece, the same.
    piece: (f64, f64),
}

struct Word {
    text: String,
    /// Of the words before it in its piece, and its own, by [`seconds_of`].
    before: f64,
    length: f64,
    begins_clause: bool,
}

struct Placed {
    text: String,
    start: f64,
    end: f64,
}

impl Words {
    /// `piece` is the first that is spoken; `speed` what its sound is played at.
    pub(super) fn new(piece: &str, speed: f32) -> Self {
        let mut words = Self {
            speed: f64::from(speed),
            pace: USUAL,
            waiting: VecDeque::new(),
            placed: VecDeque::new(),
            heard: 0,
            window: (0, 0.0),
            loudest: 0.0,
            clock: 0.0,
            silence: None,
            has_paused: false,
            last: 0.0,
            voice: 0.0,
            floor: 0.0,
            spoken: (0.0, 0.0),
            piece: (0.0, 0.0),
        };
        words.begin(piece);
        words
    }

    /// The sound goes on with `samples`.
    pub(super) fn hear(&mut self, samples: &[f32]) {
        self.floor = seconds(self.heard);
        for sample in samples {
            self.heard += 1;
            self.window.0 += 1;
            self.window.1 += f64::from(sample * sample);
            if self.window.0 == WINDOW {
                let loudness = (self.window.1 / WINDOW as f64).sqrt();
                self.window = (0, 0.0);
                self.pass(seconds(self.heard - WINDOW), loudness);
            }
        }
        self.clip();
    }

    /// The piece is over; `next` follows, or nothing. What was not placed of it is laid along the rest of its voice.
    pub(super) fn end_piece(&mut self, next: Option<&str>) {
        let end = if self.silence.is_some() { self.voice } else { seconds(self.heard) };
        self.squeeze(self.waiting.len(), end);
        self.clip();
        self.spoken.0 += self.piece.0;
        self.spoken.1 += self.piece.1;
        let (voice, expected) = self.spoken;
        if expected > 0.0 && voice > 0.0 {
            self.pace = (voice / expected).clamp(USUAL / WIDEST, USUAL * WIDEST);
        }
        if let Some(next) = next {
            self.begin(next);
        }
    }

    /// The words that begin before `end`, in seconds of sound as it is played; all of them where nothing comes after it.
    pub(super) fn take(&mut self, end: f64, is_last: bool) -> Vec<WordMark> {
        let mut marks = Vec::new();
        while let Some(word) = self.placed.front()
            && (is_last || word.start / self.speed < end)
        {
            let at = |moment: f64| Duration::from_secs_f64((moment / self.speed).clamp(0.0, end));
            let (start, end) = (at(word.start), at(word.end));
            marks.extend(self.placed.pop_front().map(|word| WordMark { text: word.text, start, end }));
        }
        marks
    }

    fn begin(&mut self, piece: &str) {
        self.clock = 0.0;
        self.silence = None;
        self.has_paused = false;
        let mut before = 0.0;
        for text in piece.split_whitespace() {
            let length: f64 = text.chars().map(seconds_of).sum();
            // A lone sign belongs to the word before it.
            if !text.contains(char::is_alphanumeric)
                && let Some(word) = self.waiting.back_mut()
            {
                word.text.extend([" ", text]);
                continue;
            }
            let begins_clause = self.waiting.back().is_some_and(|word| ends_clause(&word.text));
            self.waiting.push_back(Word { text: text.to_owned(), before, length, begins_clause });
            before += length;
        }
        self.piece = (0.0, before);
    }

    /// A window of sound.
    fn pass(&mut self, at: f64, loudness: f64) {
        let length = seconds(WINDOW);
        self.loudest = self.loudest.max(loudness);
        if loudness < SILENCE.max(VOICE * self.loudest) {
            if let Some(silence) = &mut self.silence {
                *silence += length;
            }
            return;
        }
        if self.silence.replace(0.0).is_some_and(|silence| silence >= PAUSE) {
            self.resume();
        }
        while self.waiting.front().is_some_and(|word| self.is_due(word)) {
            self.place(at);
        }
        self.clock += length;
        self.piece.0 += length;
        self.voice = at + length;
    }

    fn is_due(&self, word: &Word) -> bool {
        let slack = if word.begins_clause && !self.has_paused { SLACK } else { 0.0 };
        self.clock >= word.before * self.pace + slack
    }

    /// After a pause: the next clause begins, if it is not far away. What is left of the one before lies before the pause.
    fn resume(&mut self) {
        let Some(next) = self.waiting.iter().position(|word| word.begins_clause) else { return };
        let expected = self.waiting[next].before * self.pace;
        if expected - self.clock <= REACH {
            self.squeeze(next, self.voice);
            self.clock = expected;
            self.has_paused = true;
        }
    }

    /// The next word begins.
    fn place(&mut self, at: f64) {
        let Some(word) = self.waiting.pop_front() else { return };
        let start = at.max(self.floor).max(self.last);
        if let Some(before) = self.placed.back_mut() {
            before.end = before.end.min(start);
        }
        if word.begins_clause && !self.has_paused {
            // It has waited in vain.
            self.clock = word.before * self.pace;
        }
        self.has_paused = false;
        self.last = start;
        self.placed.push_back(Placed { text: word.text, start, end: start + word.length * self.pace });
    }

    /// The next `count` words begin before `end`, each in its turn.
    fn squeeze(&mut self, count: usize, end: f64) {
        let begin = self.last.max(self.floor);
        let room = (end - begin).max(0.0);
        // The last word that was placed takes its part.
        let words = self.waiting.iter().take(count);
        let first = self.placed.back().map_or(0.0, |word| (word.end - word.start) / self.pace);
        let whole = first + words.map(|word| word.length).sum::<f64>();
        let mut passed = first;
        for _ in 0..count {
            let length = self.waiting.front().map_or(0.0, |word| word.length);
            self.has_paused = true;
            self.place(begin + room * passed / whole.max(f64::EPSILON));
            passed += length;
        }
        if let Some(word) = self.placed.back_mut().filter(|_| count > 0) {
            word.end = word.end.min(end.max(word.start));
        }
    }

    /// No word ends after what was heard.
    fn clip(&mut self) {
        let heard = seconds(self.heard);
        for word in &mut self.placed {
            word.start = word.start.min(heard);
            word.end = word.end.clamp(word.start, heard);
        }
    }
}

fn seconds(samples: usize) -> f64 {
    samples as f64 / f64::from(SPEECH_HZ)
}

/// Whether a speaker would breathe after `word`.
fn ends_clause(word: &str) -> bool {
    let closing = |character: char| matches!(character, '"' | '”' | '\'' | '’' | ')' | ']' | '»');
    let marks = ['.', '!', '?', '…', ':', ';', ',', '—', '–', '。', '，', '、', '！', '？', '；', '：'];
    word.trim_end_matches(closing).ends_with(marks)
}

#[cfg(test)]
#[path = "words_tests.rs"]
mod tests;
