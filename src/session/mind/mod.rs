//! The mind writes one reply: the language model's text, cut into sentences as it comes.
//!
//! Each delta goes on at once, cut where a sentence ends, so that text and audio of a sentence carry the same number;
//! each sentence is made speakable when it is complete. Between replies it may write notes: a title, a summary. Dropping the task
//! cancels the model's work.

mod own_lines;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::event::Turn;
use super::guard::guarded;
use super::machine::Event;
use super::record::Character;
use super::settings::OutputKind;
use crate::provider::{ChatModel, ChatRequest, Delta, FinishReason, ProviderError, Usage};
use crate::text::{Chunker, Piece, speakable};
use own_lines::OwnLines;

/// What errors name it.
const LANGUAGE_MODEL: &str = "the language model";
/// Added to a character's prompt where its replies are spoken.
/// Short, and without a word of what not to write: small models take such words up.
const VOICE_STYLE: &str = "You are talking aloud. Answer in one to three short sentences of plain text.";

/// Who answers at once does so within this time: only then is the model free for a note.
const PAUSE: Duration = Duration::from_secs(1);

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

/// Who else takes part in a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Company {
    /// The speaker's own name.
    pub(super) name: String,
    pub(super) others: Vec<String>,
}

/// A character's own prompt: what it was told to be, and how it is.
pub(super) fn own_prompt(character: &Character) -> String {
    let (prompt, personality) = (&character.system_prompt, character.personality.trim());
    if personality.is_empty() {
        return prompt.clone();
    }
    format!("{prompt}\n\nYour personality: {personality}").trim_start().to_owned()
}

/// A character's prompt for one kind of output, and for the company of `others`.
pub(super) fn system_prompt(prompt: &str, output: OutputKind, name: &str, others: &[String]) -> String {
    let mut prompt = prompt.to_owned();
    if !others.is_empty() {
        let others = others.join(", ");
        prompt =
            format!("{prompt}\n\nYou are {name}. You are talking with the user and {others}. Say only your own words.");
    }
    match output {
        OutputKind::Audio => format!("{prompt}\n\n{VOICE_STYLE}").trim_start().to_owned(),
        OutputKind::Text => prompt.trim_start().to_owned(),
    }
}

/// Writes a reply to its end.
///
/// `language` is what it is to be spoken in. A reply that begins to speak for somebody of its `company` ends there.
pub(super) async fn think(
    chat: Arc<dyn ChatModel>,
    turn: Turn,
    request: ChatRequest,
    language: String,
    company: Option<Company>,
    inbox: mpsc::Sender<Event>,
) {
    let mut flow = guarded(LANGUAGE_MODEL, || chat.reply(request), is_last);
    let mut sentences = Chunker::default();
    let mut own = company.as_ref().map(OwnLines::new);
    let last = |end: Thought, piece: Option<Piece>| -> Vec<Thought> {
        thoughts(piece, &language).into_iter().chain([end]).collect()
    };
    while let Some(delta) = flow.next().await {
        let next: Vec<Thought> = match delta {
            Ok(Delta::Begin { served_by }) => vec![Thought::Began { served_by }],
            Ok(Delta::Text(text)) => {
                let text = own.as_mut().map_or(text.clone(), |own| own.push(&text));
                let next = thoughts(sentences.push(&text), &language);
                if own.as_ref().is_some_and(OwnLines::is_over) {
                    // What follows is somebody else's. Dropping the flow stops the model.
                    let usage = Usage::default();
                    next.into_iter().chain(last(Thought::Done { usage }, sentences.finish())).collect()
                } else {
                    next
                }
            }
            // Thoughts are neither spoken nor written, and a session asks for no tools and no probabilities.
            Ok(Delta::Thought(_) | Delta::ToolCall(_) | Delta::Logprobs(_)) => continue,
            Ok(Delta::Done { usage, .. }) => {
                let rest = own.take().map(OwnLines::finish).unwrap_or_default();
                let mut next = thoughts(sentences.push(&rest), &language);
                next.extend(last(Thought::Done { usage }, sentences.finish()));
                next
            }
            // What was written so far is still spoken.
            Err(error) => last(Thought::Failed(error), sentences.finish()),
        };
        let is_over = next.iter().any(|thought| matches!(thought, Thought::Done { .. } | Thought::Failed(_)));
        for thought in next {
            if inbox.send(Event::Thought { turn, thought }).await.is_err() {
                return;
            }
        }
        if is_over {
            return;
        }
    }
}

/// Writes a note, unless it is stopped within [`PAUSE`] or before its end.
pub(super) async fn note(chat: Arc<dyn ChatModel>, number: u64, request: ChatRequest, inbox: mpsc::Sender<Event>) {
    sleep(PAUSE).await;
    let outcome = whole_text(&*chat, request).await;
    // Where nobody is left to tell the session is over.
    let _ = inbox.send(Event::Noted { number, outcome }).await;
}

/// A text that is something, and ends with a sentence where it can.
async fn whole_text(chat: &dyn ChatModel, request: ChatRequest) -> Result<String, ProviderError> {
    let mut flow = guarded(LANGUAGE_MODEL, || chat.reply(request), is_last);
    let mut text = String::new();
    while let Some(delta) = flow.next().await {
        match delta? {
            Delta::Text(more) => text.push_str(&more),
            Delta::Done { reason: FinishReason::Length, .. } => {
                let ends =
                    text.rmatch_indices(['.', '!', '?', '。', '！', '？']).map(|(at, end)| at + end.len()).next();
                text.truncate(ends.unwrap_or(text.len()));
            }
            Delta::Begin { .. } | Delta::Thought(_) | Delta::ToolCall(_) | Delta::Logprobs(_) | Delta::Done { .. } => {}
        }
    }
    let text = text.trim();
    if text.is_empty() { Err(ProviderError::Failed { what: "a note".to_owned() }) } else { Ok(text.to_owned()) }
}

fn is_last(delta: &Delta) -> bool {
    matches!(delta, Delta::Done { .. })
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
