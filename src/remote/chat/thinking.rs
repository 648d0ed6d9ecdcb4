//! Tells thoughts from speech where a service leaves both in the text, between `<think>` and `</think>`.

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// A text in pieces, of which the first part may be thoughts.
#[derive(Default)]
pub(super) struct Thinking {
    phase: Phase,
    /// What may yet turn out to be a mark.
    held: String,
}

#[derive(Default, Clone, Copy)]
enum Phase {
    /// Nothing but what a mark begins with.
    #[default]
    Opening,
    Thinking,
    Speaking,
}

/// A piece of either, never empty.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Thought(String),
    Text(String),
}

impl Thinking {
    /// Text that holds no thoughts.
    pub(super) fn none() -> Self {
        Self { phase: Phase::Speaking, held: String::new() }
    }

    pub(super) fn take(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        let mut pieces = Vec::new();
        loop {
            match self.phase {
                Phase::Opening => {
                    let start = self.held.trim_start();
                    if let Some(rest) = start.strip_prefix(OPEN) {
                        self.held = rest.to_owned();
                        self.phase = Phase::Thinking;
                    } else if OPEN.starts_with(start) {
                        return pieces;
                    } else {
                        self.phase = Phase::Speaking;
                    }
                }
                Phase::Thinking => {
                    let Some(at) = self.held.find(CLOSE) else {
                        let kept = self.held.len() - unfinished(&self.held);
                        let rest = self.held.split_off(kept);
                        pieces.extend(self.flush());
                        self.held = rest;
                        return pieces;
                    };
                    let rest = self.held[at + CLOSE.len()..].trim_start().to_owned();
                    self.held.truncate(at);
                    pieces.extend(self.flush());
                    self.held = rest;
                    self.phase = Phase::Speaking;
                }
                Phase::Speaking => {
                    pieces.extend(self.flush());
                    return pieces;
                }
            }
        }
    }

    /// What is still held when the text ends.
    pub(super) fn flush(&mut self) -> Option<Piece> {
        let held = std::mem::take(&mut self.held);
        match self.phase {
            _ if held.is_empty() => None,
            Phase::Thinking => Some(Piece::Thought(held)),
            Phase::Opening | Phase::Speaking => Some(Piece::Text(held)),
        }
    }
}

/// How many of the last bytes begin the closing mark.
fn unfinished(text: &str) -> usize {
    (1..CLOSE.len()).rev().find(|length| text.ends_with(&CLOSE[..*length])).unwrap_or(0)
}
