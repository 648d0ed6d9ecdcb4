//! How much of a reply its listener heard: from how much was played to a place in the text, at the end of a word.
//!
//! Keeps which audio belongs to which sentence and when each piece was due to play. A listener that reports its
//! playback is believed, up to what was sent; for one that does not, the pace of sending stands in.

use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

use crate::provider::WordMark;
use crate::session::mouth::SentPiece;

/// A word of the audio is looked for in so many words of the text: numbers and signs are more words when spoken.
const WORDS_APART: usize = 8;
/// An echo comes late, and a recogniser later: so many words back it may be.
const WORDS_BEFORE: usize = 40;
/// And so many ahead, since audio runs ahead of what was acknowledged.
const WORDS_AFTER: usize = 10;
/// Where a voice marks no words and a sentence's length is not known yet: the usual rate of speech.
const CHARS_PER_SECOND: f64 = 14.0;

/// A reply's text and what was sent of its audio.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    text: String,
    sentences: Vec<Sentence>,
    /// Pieces that play without a gap are one run.
    runs: Vec<Run>,
}

#[derive(Debug)]
struct Sentence {
    sequence_number: u64,
    /// Bytes of the text.
    text: Range<usize>,
    /// From the item's first sample. None: nothing of it was sent yet, or there is nothing to speak in it.
    audio: Option<Range<Duration>>,
    /// All of its audio was sent.
    whole: bool,
    words: Vec<WordMark>,
}

#[derive(Debug)]
struct Run {
    plays_at: Instant,
    audio: Range<Duration>,
}

impl Ledger {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// How much audio was sent.
    pub(super) fn sent(&self) -> Duration {
        self.runs.last().map_or(Duration::ZERO, |run| run.audio.end)
    }

    /// Appends to the text. Sentence numbers never go back.
    pub(super) fn write(&mut self, sequence_number: u64, text: &str) {
        let start = self.text.len();
        self.text.push_str(text);
        let end = self.text.len();
        match self.sentences.last_mut() {
            Some(sentence) if sentence.sequence_number == sequence_number => sentence.text.end = end,
            _ => self.sentences.push(Sentence {
                sequence_number,
                text: start..end,
                audio: None,
                whole: false,
                words: Vec::new(),
            }),
        }
    }

    /// Notes that a sentence was heard before, when what was heard in all ended at `end`.
    pub(super) fn was_heard(&mut self, sequence_number: u64, end: Duration, now: Instant) {
        if let Some(sentence) = self.sentences.iter_mut().rfind(|it| it.sequence_number == sequence_number) {
            (sentence.audio, sentence.whole) = (Some(Duration::ZERO..end), true);
            self.runs = vec![Run { plays_at: now, audio: end..end }];
        }
    }

    /// Notes a piece of audio that was sent.
    pub(super) fn send(&mut self, piece: SentPiece) {
        let audio = piece.pts..piece.pts + piece.length;
        match self.runs.last_mut() {
            Some(run) if run.plays_at + run.audio.end.saturating_sub(run.audio.start) == piece.plays_at => {
                run.audio.end = audio.end;
            }
            _ => self.runs.push(Run { plays_at: piece.plays_at, audio: audio.clone() }),
        }
        let Some(sentence) = self.sentences.iter_mut().rfind(|it| it.sequence_number == piece.sequence_number) else {
            return;
        };
        match &mut sentence.audio {
            Some(known) => known.end = audio.end,
            None => sentence.audio = Some(audio),
        }
        sentence.words.extend(piece.words);
        sentence.whole |= piece.last;
    }

    /// How much was played by `now`, going by the pace.
    pub(super) fn played_by(&self, now: Instant) -> Duration {
        let Some(run) = self.runs.iter().rfind(|run| run.plays_at <= now) else { return Duration::ZERO };
        (run.audio.start + (now - run.plays_at)).min(run.audio.end)
    }

    /// The text that was heard when so much was played: whole words from its beginning.
    pub(super) fn heard(&self, played: Duration) -> &str {
        let mut end = 0;
        for sentence in &self.sentences {
            // What cannot be spoken counts as heard when what follows it is.
            let Some(audio) = &sentence.audio else { continue };
            if played <= audio.start {
                break;
            }
            if sentence.whole && played >= audio.end {
                end = sentence.text.end;
                continue;
            }
            let words = self.heard_of(sentence, audio, played);
            if words > 0 {
                end = sentence.text.start + words;
            }
            // Beyond what there is of a sentence that failed half-way the next one plays.
            if played < audio.end {
                break;
            }
        }
        self.text[..end].trim_end()
    }

    /// The words that a loudspeaker may be saying when so much was played: the latest, and a few more.
    pub(super) fn around(&self, played: Duration) -> &str {
        let end = self.heard(played).len();
        let after =
            self.text[end..].split_inclusive(char::is_whitespace).take(WORDS_AFTER).map(str::len).sum::<usize>();
        let before = self.text[..end].split_inclusive(char::is_whitespace).rev().take(WORDS_BEFORE);
        let start = end - before.map(str::len).sum::<usize>();
        &self.text[start..end + after]
    }

    /// How many bytes of a sentence were heard where only a part of it was.
    fn heard_of(&self, sentence: &Sentence, audio: &Range<Duration>, played: Duration) -> usize {
        let text = &self.text[sentence.text.clone()];
        if sentence.words.is_empty() {
            let chars = text.chars().count() as f64;
            let part = played.saturating_sub(audio.start).as_secs_f64();
            let heard = if sentence.whole {
                chars * part / audio.end.saturating_sub(audio.start).as_secs_f64()
            } else {
                part * CHARS_PER_SECOND
            };
            return words_of(text)
                .take_while(|word| text[..word.end].chars().count() as f64 <= heard)
                .last()
                .map_or(0, |word| word.end);
        }
        let written: Vec<Range<usize>> = words_of(text).collect();
        let mut next = 0;
        for spoken in sentence.words.iter().filter(|word| word.end <= played) {
            let spoken = plain(&spoken.text);
            let near = written.iter().skip(next).take(WORDS_APART);
            if let Some(apart) = near.map(|word| plain(&text[word.clone()])).position(|word| word == spoken) {
                next += apart + 1;
            }
        }
        next.checked_sub(1).map_or(0, |last| written[last].end)
    }
}

/// The words of a text with their punctuation, as bytes.
fn words_of(text: &str) -> impl Iterator<Item = Range<usize>> {
    text.split_whitespace().map(|word| {
        let start = word.as_ptr() as usize - text.as_ptr() as usize;
        start..start + word.len()
    })
}

fn plain(word: &str) -> String {
    word.chars().filter(|char| char.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
#[path = "heard_tests.rs"]
mod tests;
