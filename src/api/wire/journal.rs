//! What a journal holds, read again: messages as they were written, and what they come to for a session that goes on.

use std::collections::BTreeMap;

use serde_json::Value;

/// A message as it was written, for a client with this token.
///
/// # Errors
/// Those of JSON's writer; no value has them.
pub(super) fn told_again(message: &Value, resume_token: &str) -> Result<String, serde_json::Error> {
    if message["type"] != "session_started" {
        return serde_json::to_string(message);
    }
    let mut message = message.clone();
    message["resume_token"] = resume_token.into();
    serde_json::to_string(&message)
}

/// What the messages of a journal, read in their order, come to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::api) struct Recall {
    pub last_seq: u64,
    pub turn: u64,
    pub sequence_number: u64,
    /// Those that have not ended, by item.
    replies: BTreeMap<String, Draft>,
}

/// A reply that has not ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::api) struct Draft {
    pub turn: u64,
    pub character_id: String,
    /// The number and text of each sentence.
    pub sentences: Vec<(u64, String)>,
    /// Its text is whole.
    pub is_written: bool,
}

impl Recall {
    pub(in crate::api) fn read(&mut self, message: &Value) {
        let number = |name: &str| message[name].as_u64();
        let text = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
        self.last_seq = self.last_seq.max(number("seq").unwrap_or_default());
        self.turn = self.turn.max(number("turn").unwrap_or_default());
        self.sequence_number = self.sequence_number.max(number("sequence_number").unwrap_or_default());
        match message["type"].as_str().unwrap_or_default() {
            "text_chunk" => {
                let (turn, sentence) =
                    (number("turn").unwrap_or_default(), number("sequence_number").unwrap_or_default());
                let draft = self.replies.entry(text("item_id")).or_default();
                if draft.turn != turn {
                    // It is written again.
                    *draft = Draft { turn, character_id: text("character_id"), ..Draft::default() };
                }
                match draft.sentences.last_mut() {
                    Some((last, known)) if *last == sentence => known.push_str(&text("text")),
                    _ => draft.sentences.push((sentence, text("text"))),
                }
            }
            "text_done" => {
                if let Some(draft) = self.replies.get_mut(&text("item_id")) {
                    draft.is_written = true;
                }
            }
            "turn_complete" | "interrupted" => {
                self.replies.remove(&text("item_id"));
            }
            _ => {}
        }
    }

    /// What there is of a reply that has not ended.
    pub(in crate::api) fn draft(&self, item_id: &str) -> Option<&Draft> {
        self.replies.get(item_id)
    }

    /// The latest reply that has not ended.
    pub(in crate::api) fn unfinished(&self) -> Option<(&String, &Draft)> {
        self.replies.iter().max_by_key(|(_, draft)| draft.turn)
    }
}

impl Draft {
    pub(in crate::api) fn text(&self) -> String {
        self.sentences.iter().map(|(_, text)| text.as_str()).collect()
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
