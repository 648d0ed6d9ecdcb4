//! A character's own lines: small models like to write the whole scene, `Max: …` and all.
//!
//! What comes is held back where it might be a name with a colon, at the reply's beginning, after the end of a line and
//! of a sentence. The speaker's own name is taken away; anybody else's ends the reply.

use super::Company;

/// Nobody's name, but what models call the other side.
const USER: [&str; 3] = ["user", "human", "you"];
/// What may stand around a name.
const MARKS: [char; 5] = ['*', '_', '"', '[', '#'];

#[derive(Debug)]
pub(super) struct OwnLines {
    /// Lower case, with the colon.
    own: Vec<String>,
    others: Vec<String>,
    held: String,
    /// Whether a name may begin where `held` begins.
    at_start: bool,
    /// The own name was just taken away, and what follows it up to the first word goes too.
    skips: bool,
    last: Option<char>,
    is_over: bool,
}

impl OwnLines {
    pub(super) fn new(company: &Company) -> Self {
        let others = company.others.iter().flat_map(|name| labels(name));
        let own = labels(&company.name);
        let others = others.chain(USER.map(|name| format!("{name}:"))).filter(|label| !own.contains(label)).collect();
        Self { own, others, held: String::new(), at_start: true, skips: false, last: None, is_over: false }
    }

    /// Somebody else speaks from here on.
    pub(super) const fn is_over(&self) -> bool {
        self.is_over
    }

    /// What of the text is the character's own, as far as that is known.
    pub(super) fn push(&mut self, text: &str) -> String {
        self.held.push_str(text);
        let mut passed = String::new();
        while !self.is_over && !self.held.is_empty() {
            if self.at_start {
                match self.label() {
                    Label::Others => {
                        self.is_over = true;
                        self.held.clear();
                        passed.truncate(passed.trim_end().len());
                    }
                    Label::Own(end) => {
                        let rest = self.held.split_off(end);
                        self.held = rest;
                        self.skips = true;
                        self.at_start = false;
                    }
                    Label::Unknown => break,
                    Label::None => self.at_start = false,
                }
                continue;
            }
            if self.skips {
                let rest = self.held.trim_start_matches(|c: char| c.is_whitespace() || MARKS.contains(&c));
                self.held = rest.to_owned();
                self.skips = self.held.is_empty();
                continue;
            }
            passed.push_str(&self.up_to_start());
        }
        passed
    }

    /// The rest, where the reply has ended by itself.
    pub(super) fn finish(self) -> String {
        self.held
    }

    /// Takes the held text up to where the next name may begin.
    fn up_to_start(&mut self) -> String {
        let mut end = self.held.len();
        for (at, c) in self.held.char_indices() {
            let starts = c == '\n' || (c.is_whitespace() && self.last.is_some_and(is_end));
            if !(c == '"' || c == '*') {
                self.last = Some(c);
            }
            if starts {
                end = at + c.len_utf8();
                self.at_start = true;
                break;
            }
        }
        let rest = self.held.split_off(end);
        std::mem::replace(&mut self.held, rest)
    }

    fn label(&self) -> Label {
        let skipped = self.held.len() - self.held.trim_start().trim_start_matches(MARKS).len();
        let text = self.held[skipped..].to_lowercase();
        let plain: String = text.chars().filter(|c| !MARKS.contains(c) && *c != ']').collect();
        if self.others.iter().any(|label| plain.starts_with(label.as_str())) {
            return Label::Others;
        }
        if self.own.iter().any(|label| plain.starts_with(label.as_str())) {
            let colon = self.held.find(':').map_or(self.held.len(), |at| at + 1);
            return Label::Own(colon);
        }
        let mut all = self.own.iter().chain(&self.others);
        if all.any(|label| label.starts_with(plain.as_str())) { Label::Unknown } else { Label::None }
    }
}

enum Label {
    Others,
    /// Its length.
    Own(usize),
    /// It may become one.
    Unknown,
    None,
}

/// The full name and the first one.
fn labels(name: &str) -> Vec<String> {
    let name = name.trim().to_lowercase();
    let first = name.split_whitespace().next().unwrap_or_default();
    let mut labels = vec![format!("{name}:"), format!("{first}:")];
    labels.dedup();
    labels
}

fn is_end(c: char) -> bool {
    matches!(c, '.' | '!' | '?' | '…' | '。' | '！' | '？')
}

#[cfg(test)]
#[path = "own_lines_tests.rs"]
mod tests;
