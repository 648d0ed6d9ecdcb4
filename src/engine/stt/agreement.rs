//! Which part of a growing transcript will stay: what two successive hypotheses agree on (LocalAgreement-2, Liu et al.
//! 2020), cut back to whole words. Pure.

/// The hypotheses of one utterance.
#[derive(Default)]
pub(super) struct Agreement {
    /// What was promised to stay.
    stable: String,
    last: String,
}

impl Agreement {
    /// Takes the next hypothesis of the whole utterance. Gives the text to show, which begins with what was promised
    /// before, and how many of its characters are promised now.
    pub(super) fn update(&mut self, hypothesis: &str) -> (String, usize) {
        let agreed = agreed_prefix(&self.last, hypothesis);
        hypothesis.clone_into(&mut self.last);
        let shown = if hypothesis.starts_with(&self.stable) {
            if agreed.len() > self.stable.len() {
                agreed.clone_into(&mut self.stable);
            }
            hypothesis.to_owned()
        } else {
            // The promise holds although the model has changed its mind: only what comes after it is new.
            let said = self.stable.split_whitespace().count();
            let rest: Vec<&str> = hypothesis.split_whitespace().skip(said).collect();
            if rest.is_empty() { self.stable.clone() } else { format!("{} {}", self.stable, rest.join(" ")) }
        };
        (shown, self.stable.chars().count())
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
