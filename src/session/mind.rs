//! The mind writes one reply: the language model's text, cut into sentences as it comes.
//!
//! Each delta goes on at once, cut where a sentence ends, so that text and audio of a sentence carry the same number;
//! each sentence is made speakable when it is complete. Dropping the task cancels the model's work.

use std::sync::Arc;

use futures::StreamExt;
use tokio::sync::mpsc;

use super::event::Turn;
use super::guard::guarded;
use super::machine::Event;
use super::settings::OutputKind;
use crate::provider::{ChatModel, ChatRequest, Delta, ProviderError, Usage};
use crate::text::{Chunker, Piece, speakable};

/// Added to a character's prompt where its replies are spoken.
/// Short, and without a word of what not to write: small models take such words up.
const VOICE_STYLE: &str = "You are talking aloud. Answer in one to three short sentences of plain text.";

/// What the mind tells.
#[derive(Clone, Debug)]
pub(super) enum Thought {
    Began {
        served_by: Arc<str>,
    },
    /// More of a sentence; the reply's sentences count from 0.
    Text {
        sentence: u64,
        text: String,
    },
    /// A sentence is complete. What is to be spoken of it may be nothing.
    Sentence {
        sentence: u64,
        speakable: String,
    },
    Done {
        usage: Usage,
    },
    Failed(ProviderError),
}

/// A character's prompt for one kind of output.
pub(super) fn system_prompt(prompt: &str, output: OutputKind) -> String {
    match output {
        OutputKind::Audio => format!("{prompt}\n\n{VOICE_STYLE}").trim_start().to_owned(),
        OutputKind::Text => prompt.to_owned(),
    }
}

/// Writes a reply to its end.
///
/// `language` is what it is to be spoken in.
pub(super) async fn think(
    chat: Arc<dyn ChatModel>,
    turn: Turn,
    request: ChatRequest,
    language: String,
    inbox: mpsc::Sender<Event>,
) {
    let mut flow = guarded("the language model", || chat.reply(request), |delta| matches!(delta, Delta::Done { .. }));
    let mut sentences = Chunker::default();
    let last = |end: Thought, piece: Option<Piece>| thoughts(piece, &language).into_iter().chain([end]).collect();
    while let Some(delta) = flow.next().await {
        let next: Vec<Thought> = match delta {
            Ok(Delta::Begin { served_by }) => vec![Thought::Began { served_by }],
            Ok(Delta::Text(text)) => thoughts(sentences.push(&text), &language),
            // Thoughts are neither spoken nor written, and a session asks for no tools and no probabilities.
            Ok(Delta::Thought(_) | Delta::ToolCall(_) | Delta::Logprobs(_)) => continue,
            Ok(Delta::Done { usage, .. }) => last(Thought::Done { usage }, sentences.finish()),
            // What was written so far is still spoken.
            Err(error) => last(Thought::Failed(error), sentences.finish()),
        };
        for thought in next {
            if inbox.send(Event::Thought { turn, thought }).await.is_err() {
                return;
            }
        }
    }
}

fn thoughts(pieces: impl IntoIterator<Item = Piece>, language: &str) -> Vec<Thought> {
    let mut thoughts = Vec::new();
    for Piece { chunk, text, whole } in pieces {
        let sentence = chunk as u64;
        if !text.is_empty() {
            thoughts.push(Thought::Text { sentence, text });
        }
        if let Some(whole) = whole {
            thoughts.push(Thought::Sentence { sentence, speakable: speakable(&whole, language) });
        }
    }
    thoughts
}
