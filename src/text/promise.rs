//! The part of a growing transcript that a listener was told will stay: it is shown again whatever comes later.

/// What was promised so far.
#[derive(Clone, Debug, Default)]
pub struct Promise {
    kept: String,
}

impl Promise {
    /// Takes the next hypothesis of the whole utterance, of which the first `stable_chars` characters are sure to stay.
    /// Gives the text to show, which begins with what was promised before, and how many of its characters are promised
    /// now.
    pub fn keep(&mut self, hypothesis: &str, stable_chars: usize) -> (String, usize) {
        let shown = if let Some(rest) = hypothesis.strip_prefix(self.kept.as_str()) {
            let more = stable_chars.saturating_sub(self.kept.chars().count());
            self.kept.extend(rest.chars().take(more));
            hypothesis.to_owned()
        } else {
            // The promise holds although the model has changed its mind: only what comes after it is new.
            let said = self.kept.split_whitespace().count();
            let rest: Vec<&str> = hypothesis.split_whitespace().skip(said).collect();
            if rest.is_empty() { self.kept.clone() } else { format!("{} {}", self.kept, rest.join(" ")) }
        };
        (shown, self.kept.chars().count())
    }
}

#[cfg(test)]
#[path = "promise_tests.rs"]
mod tests;
