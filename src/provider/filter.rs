//! The content filter's hook: what goes into a model and what comes out of it passes a [`ContentFilter`] first.
//!
//! Off unless one is set. A reply is held back until a filter has seen enough of it to judge, a word or a sentence, so
//! that nothing it forbids is ever heard; the reply ends there with [`ProviderError::Filtered`].

use std::sync::Arc;

use futures::future::{self, BoxFuture, FutureExt};
use futures::stream::{self, StreamExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::task::Task;
use super::{
    Caller, ChatModel, ChatRequest, Delta, Flow, ProviderError, Role, SpeakRequest, SpeechChunk, SpeechSynthesizer,
    VoiceInfo, VoiceStudio,
};

/// Judges text.
pub trait ContentFilter: Send + Sync {
    /// # Errors
    /// [`ProviderError::Filtered`] where the text must not pass; another error where the filter cannot tell, which
    /// stops the text as well.
    fn check(&self, text: String, caller: &Caller) -> BoxFuture<'static, Result<(), ProviderError>>;

    /// How much of a stream it must see to judge.
    fn sees(&self) -> Grain;
}

/// How much of a reply is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// The word that is still being written.
    Word,
    /// The sentence that is still being written.
    Sentence,
}

/// Items between the filter and its listener.
const ITEMS: usize = 32;
/// A sentence this long, in bytes, is judged before it ends.
const LONGEST_SENTENCE: usize = 400;
/// A filter that has not judged by then cannot tell.
const LONGEST_CHECK: std::time::Duration = std::time::Duration::from_secs(10);
/// Characters that nobody sees within a word.
const INVISIBLE: [char; 9] =
    ['\u{ad}', '\u{200b}', '\u{200c}', '\u{200d}', '\u{200e}', '\u{200f}', '\u{2060}', '\u{180e}', '\u{feff}'];
/// Words before a piece that are judged with it, for phrases across two pieces.
const WORDS_BEFORE: usize = 8;

/// Words and phrases that must not pass, whatever their case and punctuation.
pub struct WordList {
    phrases: Vec<String>,
}

impl WordList {
    /// One word or phrase per line, of up to eight words; `#` begins a comment.
    pub fn new(lines: &str) -> Self {
        let lines = lines.lines().map(|line| line.split('#').next().unwrap_or_default());
        let phrases = lines.map(folded).filter(|phrase| !phrase.trim().is_empty()).collect();
        Self { phrases }
    }
}

/// The words in lower case, one space before each and after the last.
fn folded(text: &str) -> String {
    let lower: String = text.to_lowercase().chars().filter(|c| !INVISIBLE.contains(c)).collect();
    let words = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.fold(" ".to_owned(), |folded, word| folded + word + " ")
}

impl ContentFilter for WordList {
    fn check(&self, text: String, _caller: &Caller) -> BoxFuture<'static, Result<(), ProviderError>> {
        let text = folded(&text);
        let found = self.phrases.iter().any(|phrase| text.contains(phrase.as_str()));
        let reason = || "it holds a word of the server's list".to_owned();
        future::ready(if found { Err(ProviderError::Filtered { reason: reason() }) } else { Ok(()) }).boxed()
    }

    fn sees(&self) -> Grain {
        Grain::Word
    }
}

/// Several filters: what each of them lets pass.
pub struct Filters(pub Vec<Arc<dyn ContentFilter>>);

impl ContentFilter for Filters {
    fn check(&self, text: String, caller: &Caller) -> BoxFuture<'static, Result<(), ProviderError>> {
        let checks: Vec<_> = self.0.iter().map(|filter| filter.check(text.clone(), caller)).collect();
        future::try_join_all(checks).map(|passed| passed.map(|_| ())).boxed()
    }

    fn sees(&self) -> Grain {
        let sentence = self.0.iter().any(|filter| filter.sees() == Grain::Sentence);
        if sentence { Grain::Sentence } else { Grain::Word }
    }
}

/// A door behind a filter.
pub struct Filtered<D: ?Sized> {
    inner: Arc<D>,
    filter: Arc<dyn ContentFilter>,
}

impl<D: ?Sized> Filtered<D> {
    pub fn new(inner: Arc<D>, filter: Arc<dyn ContentFilter>) -> Self {
        Self { inner, filter }
    }
}

impl ChatModel for Filtered<dyn ChatModel> {
    fn reply(&self, request: ChatRequest) -> Flow<Delta> {
        let (inner, filter) = (Arc::clone(&self.inner), Arc::clone(&self.filter));
        let (items, mut listener) = mpsc::channel(ITEMS);
        let task = Task::spawn("filtered reply", async move {
            if let Err(error) = pass(&*inner, &*filter, request, &items).await {
                // Without a listener nobody is told.
                let _ = items.send(Err(error)).await;
            }
        });
        // The listener keeps the task: it ends with its listener.
        stream::poll_fn(move |context| {
            let _running = &task;
            listener.poll_recv(context)
        })
        .boxed()
    }

    fn prepare(&self, request: ChatRequest) {
        self.inner.prepare(request);
    }

    fn window(&self) -> Option<usize> {
        self.inner.window()
    }

    fn check_model(&self, name: &str) -> Result<(), ProviderError> {
        self.inner.check_model(name)
    }
}

type Items = mpsc::Sender<Result<Delta, ProviderError>>;

/// Passes a whole reply on; an error is its terminal item.
async fn pass(
    inner: &dyn ChatModel,
    filter: &dyn ContentFilter,
    request: ChatRequest,
    items: &Items,
) -> Result<(), ProviderError> {
    let caller = request.caller.clone();
    let filter = Judge { filter, caller: &caller };
    filter.judge(question(&request)).await?;
    let mut flow = inner.reply(request);
    let (mut spoken, mut thought) = (Held::default(), Held::default());
    while let Some(delta) = flow.next().await {
        let passed = match delta? {
            Delta::Text(text) => spoken.push(&filter, &text).await?.map(Delta::Text),
            Delta::Thought(text) => thought.push(&filter, &text).await?.map(Delta::Thought),
            delta @ (Delta::ToolCall(_) | Delta::Done { .. }) => {
                if let Delta::ToolCall(call) = &delta {
                    filter.judge(call.arguments.clone()).await?;
                }
                for rest in
                    [thought.finish(&filter).await?.map(Delta::Thought), spoken.finish(&filter).await?.map(Delta::Text)]
                {
                    send(items, rest).await;
                }
                Some(delta)
            }
            // Probabilities come before the text that they are in; they name its tokens.
            Delta::Logprobs(_) => None,
            delta @ Delta::Begin { .. } => Some(delta),
        };
        send(items, passed).await;
    }
    Ok(())
}

async fn send(items: &Items, delta: Option<Delta>) {
    if let Some(delta) = delta {
        // Without a listener this task is about to be cancelled.
        let _ = items.send(Ok(delta)).await;
    }
}

/// What the user asks: all that came after the last reply.
fn question(request: &ChatRequest) -> String {
    if let Some(prompt) = &request.raw_prompt {
        return prompt.clone();
    }
    let asked = request.messages.iter().rev().take_while(|message| message.role != Role::Assistant);
    let mut texts: Vec<&str> =
        asked.filter(|message| message.role != Role::System).map(|message| message.content.as_str()).collect();
    texts.reverse();
    texts.join("\n")
}

/// A filter on one request's behalf.
struct Judge<'a> {
    filter: &'a dyn ContentFilter,
    caller: &'a Caller,
}

impl Judge<'_> {
    async fn judge(&self, text: String) -> Result<(), ProviderError> {
        if text.trim().is_empty() {
            return Ok(());
        }
        let late = || ProviderError::TimedOut { what: "the content filter".to_owned(), after: LONGEST_CHECK };
        timeout(LONGEST_CHECK, self.filter.check(text, self.caller)).await.unwrap_or_else(|_| Err(late()))
    }
}

/// Text that waits for its judgement.
#[derive(Default)]
struct Held {
    text: String,
    before: String,
}

impl Held {
    /// What may pass now.
    async fn push(&mut self, filter: &Judge<'_>, more: &str) -> Result<Option<String>, ProviderError> {
        self.text.push_str(more);
        let whole = match filter.filter.sees() {
            Grain::Word => end_of_last(&self.text, |c| !c.is_alphanumeric() && !INVISIBLE.contains(&c)),
            Grain::Sentence if self.text.len() >= LONGEST_SENTENCE => {
                end_of_last(&self.text, char::is_whitespace).or(Some(self.text.len()))
            }
            Grain::Sentence => end_of_last(&self.text, |c| matches!(c, '.' | '!' | '?' | '。' | '！' | '？' | '\n')),
        };
        match whole {
            Some(end) => self.release(filter, end).await,
            None => Ok(None),
        }
    }

    async fn finish(&mut self, filter: &Judge<'_>) -> Result<Option<String>, ProviderError> {
        self.release(filter, self.text.len()).await
    }

    async fn release(&mut self, filter: &Judge<'_>, end: usize) -> Result<Option<String>, ProviderError> {
        if end == 0 {
            return Ok(None);
        }
        let rest = self.text.split_off(end);
        let piece = std::mem::replace(&mut self.text, rest);
        let context = std::mem::take(&mut self.before) + &piece;
        filter.judge(context.clone()).await?;
        let words: Vec<&str> = context.split_whitespace().rev().take(WORDS_BEFORE).collect();
        self.before = words.into_iter().rev().fold(String::new(), |before, word| before + word + " ");
        // A word that goes on after this piece must not get a space inside it.
        if !context.ends_with(char::is_whitespace) {
            self.before.pop();
        }
        Ok(Some(piece))
    }
}

fn end_of_last(text: &str, is_end: impl Fn(char) -> bool) -> Option<usize> {
    text.char_indices().rev().find(|(_, c)| is_end(*c)).map(|(at, c)| at + c.len_utf8())
}

impl SpeechSynthesizer for Filtered<dyn SpeechSynthesizer> {
    fn speak(&self, request: SpeakRequest) -> Flow<SpeechChunk> {
        let (inner, filter) = (Arc::clone(&self.inner), Arc::clone(&self.filter));
        let judged = async move {
            match (Judge { filter: &*filter, caller: &request.caller }).judge(request.text.clone()).await {
                Ok(()) => inner.speak(request),
                Err(error) => stream::once(async { Err(error) }).boxed(),
            }
        };
        stream::once(judged).flatten().boxed()
    }

    fn voices(&self) -> Vec<VoiceInfo> {
        self.inner.voices()
    }

    fn studio(&self) -> Option<Arc<dyn VoiceStudio>> {
        self.inner.studio()
    }

    fn check_model(&self, name: &str) -> Result<(), ProviderError> {
        self.inner.check_model(name)
    }
}

#[cfg(test)]
#[path = "filter_tests.rs"]
mod tests;
