//! From a reply's bytes to what may be shown: whole characters only, thoughts and tool calls apart, nothing of a stop
//! string.

use super::tokenizer::THINK;
use super::tools::{Parsed, ToolParser, overlap};
use crate::provider::ToolCall;

/// The four filters in a row.
pub(super) struct ReplyText {
    characters: Characters,
    /// None: they are text like any other.
    thoughts: Option<Thoughts>,
    /// None: nothing can be called.
    tools: Option<ToolParser>,
    stops: Stops,
}

/// What one token added.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) text: String,
    /// Empty where thoughts are not told.
    pub(super) thought: String,
    /// They come after the text.
    pub(super) calls: Vec<ToolCall>,
    /// A stop string has come: the reply is over.
    pub(super) stopped: bool,
}

impl ReplyText {
    /// `thinks_first`: the prompt has opened the thoughts already. `pads_first_word`: the reply's first space is none.
    pub(super) fn new(thinks_first: bool, pads_first_word: bool, stop: Vec<String>) -> Self {
        Self {
            characters: Characters { pending: Vec::new(), drop_space: pads_first_word },
            thoughts: Some(Thoughts { inside: thinks_first, told: false, held: String::new(), trim: thinks_first }),
            tools: None,
            stops: Stops { stops: stop.into_iter().filter(|stop| !stop.is_empty()).collect(), held: String::new() },
        }
    }

    /// Thoughts are told, apart from the text.
    pub(super) fn telling_thoughts(mut self, told: bool) -> Self {
        if let Some(thoughts) = &mut self.thoughts {
            thoughts.told = told;
        }
        self
    }

    /// Thoughts are no matter of their own, as where a text is continued that is no conversation.
    pub(super) fn keeping_thoughts(mut self) -> Self {
        self.thoughts = None;
        self
    }

    /// Calls are found in the text.
    pub(super) fn with_tools(mut self, tools: Option<ToolParser>) -> Self {
        self.tools = tools;
        self
    }

    /// Takes a token's bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Shown {
        let text = self.characters.push(bytes);
        let mut shown = Shown::default();
        let text = match &mut self.thoughts {
            Some(thoughts) => thoughts.push(&text, &mut shown.thought),
            None => text,
        };
        let Parsed { text, calls } = match &mut self.tools {
            Some(tools) => tools.push(&text),
            None => Parsed { text, calls: Vec::new() },
        };
        shown.calls = calls;
        (shown.text, shown.stopped) = self.stops.push(&text);
        shown
    }

    /// What was held back, once no more comes.
    pub(super) fn finish(mut self) -> Shown {
        let mut shown = Shown::default();
        let mut text = self.characters.finish();
        if let Some(thoughts) = &mut self.thoughts {
            text = thoughts.push(&text, &mut shown.thought);
            text.push_str(&thoughts.finish(&mut shown.thought));
        }
        if let Some(tools) = &mut self.tools {
            let pushed = tools.push(&text);
            let last = tools.finish();
            shown.calls = pushed.calls.into_iter().chain(last.calls).collect();
            text = pushed.text + &last.text;
        }
        (shown.text, shown.stopped) = self.stops.push(&text);
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

/// Takes `<think>…</think>` out of the text, tags and space after each included. A tag may come in pieces.
struct Thoughts {
    inside: bool,
    /// What is inside is kept for those who ask.
    told: bool,
    held: String,
    /// Space is dropped until text comes.
    trim: bool,
}

impl Thoughts {
    /// The text; what was thought goes to `thought`.
    fn push(&mut self, text: &str, thought: &mut String) -> String {
        self.held.push_str(text);
        let mut out = String::new();
        loop {
            let opening = self.held.find(THINK.0).filter(|_| !self.inside).map(|at| (at, THINK.0, true));
            let closing = self.held.find(THINK.1).map(|at| (at, THINK.1, false));
            let Some((at, tag, inside)) = [opening, closing].into_iter().flatten().min() else { break };
            self.show(&mut out, thought, at);
            self.held.drain(..tag.len());
            self.inside = inside;
            self.trim = true;
        }
        let safe = self.held.len() - held_back(&self.held, [THINK.0, THINK.1].into_iter());
        self.show(&mut out, thought, safe);
        out
    }

    /// Moves the first `length` bytes of what is held to where they belong.
    fn show(&mut self, out: &mut String, thought: &mut String, length: usize) {
        let text: String = self.held.drain(..length).collect();
        let text = if self.trim { text.trim_start() } else { &text };
        if text.is_empty() {
            return;
        }
        self.trim = false;
        match (self.inside, self.told) {
            (false, _) => out.push_str(text),
            (true, true) => thought.push_str(text),
            (true, false) => {}
        }
    }

    fn finish(&mut self, thought: &mut String) -> String {
        let mut out = String::new();
        self.show(&mut out, thought, self.held.len());
        out
    }
}

/// Ends the text before the first stop string.
struct Stops {
    stops: Vec<String>,
    held: String,
}

impl Stops {
    /// What may be shown, and whether a stop string has come.
    fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let safe = self.held.len() - held_back(&self.held, self.stops.iter().map(String::as_str));
        (self.held.drain(..safe).collect(), false)
    }
}

/// Bytes at the end of `text` that may be the beginning of one of `wanted`.
fn held_back<'a>(text: &str, wanted: impl Iterator<Item = &'a str>) -> usize {
    wanted.map(|wanted| overlap(text, wanted)).max().unwrap_or(0)
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
