//! From a reply's bytes to the text that may be shown: whole characters only, no thoughts, nothing of a stop string.

use super::tokenizer::THINK;

/// The three filters in a row.
pub(super) struct ReplyText {
    characters: Characters,
    thoughts: Thoughts,
    stops: Stops,
}

/// What one token added.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) text: String,
    /// A stop string has come: the reply is over.
    pub(super) stopped: bool,
}

impl ReplyText {
    /// `thinks_first`: the prompt has opened the thoughts already. `pads_first_word`: the reply's first space is none.
    pub(super) fn new(thinks_first: bool, pads_first_word: bool, stop: Vec<String>) -> Self {
        Self {
            characters: Characters { pending: Vec::new(), drop_space: pads_first_word },
            thoughts: Thoughts { inside: thinks_first, held: String::new(), trim: false },
            stops: Stops { stops: stop.into_iter().filter(|stop| !stop.is_empty()).collect(), held: String::new() },
        }
    }

    /// Takes a token's bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Shown {
        let text = self.characters.push(bytes);
        let text = self.thoughts.push(&text);
        self.stops.push(&text)
    }

    /// What was held back, once no more comes.
    pub(super) fn finish(mut self) -> Shown {
        let mut text = self.characters.finish();
        text = self.thoughts.push(&text);
        text.push_str(&self.thoughts.finish());
        let mut shown = self.stops.push(&text);
        if !shown.stopped {
            shown.text.push_str(&self.stops.held);
        }
        shown
    }
}

/// Joins bytes to characters; what is not UTF-8 becomes U+FFFD.
struct Characters {
    pending: Vec<u8>,
    drop_space: bool,
}

impl Characters {
    fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let whole = self.pending.len() - unfinished(&self.pending);
        let mut text = String::from_utf8_lossy(&self.pending[..whole]).into_owned();
        self.pending.drain(..whole);
        if self.drop_space && !text.is_empty() {
            self.drop_space = false;
            if text.starts_with(' ') {
                text.remove(0);
            }
        }
        text
    }

    fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }
}

/// Bytes at the end that may be the beginning of a character.
fn unfinished(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let lead = bytes[bytes.len() - back];
        let length = match lead {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            0x80..=0xBF => continue,
            _ => 1,
        };
        if length <= back {
            return 0;
        }
        // Not where the bytes so far are wrong already, as in an overlong form.
        let so_far = std::str::from_utf8(&bytes[bytes.len() - back..]);
        return if so_far.is_err_and(|error| error.error_len().is_none()) { back } else { 0 };
    }
    0
}

/// Removes `<think>…</think>`, tags and space after them included. A tag may come in pieces.
struct Thoughts {
    inside: bool,
    held: String,
    /// Space is dropped until text comes.
    trim: bool,
}

impl Thoughts {
    fn push(&mut self, text: &str) -> String {
        self.held.push_str(text);
        let mut out = String::new();
        loop {
            let opening = self.held.find(THINK.0).filter(|_| !self.inside).map(|at| (at, THINK.0, true));
            let closing = self.held.find(THINK.1).map(|at| (at, THINK.1, false));
            let Some((at, tag, inside)) = [opening, closing].into_iter().flatten().min() else { break };
            if !self.inside {
                self.show(&mut out, at);
            }
            self.held.drain(..self.held.find(tag).unwrap_or(0) + tag.len());
            self.inside = inside;
            self.trim = !inside;
        }
        let safe = self.held.len() - held_back(&self.held, [THINK.0, THINK.1].into_iter());
        if self.inside {
            self.held.drain(..safe);
        } else {
            self.show(&mut out, safe);
        }
        out
    }

    /// Moves the first `length` bytes of what is held to `out`.
    fn show(&mut self, out: &mut String, length: usize) {
        let text: String = self.held.drain(..length).collect();
        let text = if self.trim { text.trim_start() } else { &text };
        if !text.is_empty() {
            self.trim = false;
            out.push_str(text);
        }
    }

    fn finish(&mut self) -> String {
        let mut out = String::new();
        if !self.inside {
            self.show(&mut out, self.held.len());
        }
        out
    }
}

/// Ends the text before the first stop string.
struct Stops {
    stops: Vec<String>,
    held: String,
}

impl Stops {
    fn push(&mut self, text: &str) -> Shown {
        self.held.push_str(text);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(at);
            return Shown { text: std::mem::take(&mut self.held), stopped: true };
        }
        let safe = self.held.len() - held_back(&self.held, self.stops.iter().map(String::as_str));
        Shown { text: self.held.drain(..safe).collect(), stopped: false }
    }
}

/// Bytes at the end of `text` that may be the beginning of one of `wanted`.
fn held_back<'a>(text: &str, wanted: impl Iterator<Item = &'a str>) -> usize {
    wanted.map(|wanted| overlap(text, wanted)).max().unwrap_or(0)
}

/// The longest end of `text` that `wanted` begins with, short of all of it.
fn overlap(text: &str, wanted: &str) -> usize {
    let most = wanted.len().saturating_sub(1).min(text.len());
    (1..=most).rev().find(|length| text.as_bytes().ends_with(&wanted.as_bytes()[..*length])).unwrap_or(0)
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
