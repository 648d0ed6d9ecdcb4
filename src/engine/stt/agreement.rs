//! Which part of a growing transcript will stay: what two successive hypotheses agree on (LocalAgreement-2, Liu et al.
//! 2020), cut back to whole words. Pure.

use crate::text::promise::Promise;

/// The hypotheses of one utterance.
#[derive(Default)]
pub(super) struct Agreement {
    promise: Promise,
    last: String,
}

impl Agreement {
    /// Takes the next hypothesis of the whole utterance. Gives the text to show, which begins with what was promised
    /// before, and how many of its characters are promised now.
    pub(super) fn update(&mut self, hypothesis: &str) -> (String, usize) {
        let agreed = agreed_prefix(&self.last, hypothesis).chars().count();
        hypothesis.clone_into(&mut self.last);
        self.promise.keep(hypothesis, agreed)
    }

    /// Takes what the whole utterance is so far and stays. Gives the same as [`Agreement::update`].
    pub(super) fn settle(&mut self, whole: &str) -> (String, usize) {
        whole.clone_into(&mut self.last);
        self.update(whole)
    }
}

/// What both begin with, without a word that has only begun.
fn agreed_prefix<'a>(a: &str, b: &'a str) -> &'a str {
    let same = a.char_indices().zip(b.chars()).take_while(|((_, a), b)| a == b).last();
    let end = same.map_or(0, |((at, character), _)| at + character.len_utf8());
    let prefix = &b[..end];
    let whole = |text: &str| text[end..].chars().next().is_none_or(char::is_whitespace);
    if (whole(a) && whole(b)) || !b.contains(char::is_whitespace) {
        return prefix.trim_end();
    }
    prefix.rfind(char::is_whitespace).map_or("", |space| prefix[..space].trim_end())
}

#[cfg(test)]
#[path = "agreement_tests.rs"]
mod tests;
