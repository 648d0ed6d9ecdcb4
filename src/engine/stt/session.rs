//! One utterance on its way through the model: its audio as far as it is needed, what is settled, what was promised.
//!
//! Audio is taken in by polling, never by waiting, and dropped once it is settled: a file of any length holds at most
//! [`BUFFERED`] samples.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context as Poller, Poll};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc::{OwnedPermit, Sender};

use super::agreement::Agreement;
use super::listener::{Context, Guess, Window};
use crate::audio::{MIC_HZ, Mic, Samples};
use crate::nn::whisper::WINDOW_SAMPLES;
use crate::provider::{Ending, FinalTranscript, ProviderError, Segment, SttOptions, Transcript};

/// What goes out.
pub(super) type Item = Result<Transcript, ProviderError>;

/// Samples that are taken in before they are heard: a window, and time to notice the audio's end.
const BUFFERED: usize = WINDOW_SAMPLES + 10 * MIC_HZ as usize;
/// New audio worth another guess, and the least for the first one.
const GUESS_EVERY: usize = MIC_HZ as usize * 3 / 10;
/// Shorter audio is an utterance's beginning.
const BEGINNING: usize = MIC_HZ as usize * 3 / 2;
/// A guess may use one part in so many of the time.
const GUESS_SHARE: u32 = 2;
/// Shorter audio holds no word.
const SHORTEST: usize = MIC_HZ as usize / 10;
/// Audio that is so far ahead of the clock was not spoken just now: it is a file's, whose windows come soon enough.
const AHEAD_OF_SPEECH: Duration = Duration::from_secs(2);
/// What is left after the last segment and is shorter than this is its own silence.
const LEFTOVER: usize = MIC_HZ as usize / 2;

/// What is to be done for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Job {
    /// Somebody waits for the end of this.
    Last,
    /// A whole window is there.
    Window,
    Guess,
}

pub(super) struct Session {
    audio: Option<BoxStream<'static, Mic>>,
    options: SttOptions,
    out: Sender<Item>,
    /// Room for the terminal item, kept from the beginning.
    terminal: Option<OwnedPermit<Item>>,
    /// Not settled yet; the first one is sample `settled` of the whole.
    samples: VecDeque<f32>,
    settled: usize,
    /// When the audio began, as if all that was there at first had been spoken just before.
    begun: Instant,
    ended: Option<Instant>,
    segments: Vec<Segment>,
    /// The options' prompt, as tokens.
    previous: Vec<u32>,
    language: Option<String>,
    ending: Option<Ending>,
    agreement: Agreement,
    /// What was last written for what is not settled.
    draft: Vec<u32>,
    /// Samples of the whole that the latest guess knew, when it ended and how long it took.
    guessed: usize,
    guess_ended: Instant,
    guess_took: Duration,
    /// Number of the turn in which it was served last.
    pub(super) served: u64,
}

impl Session {
    pub(super) fn new(
        audio: BoxStream<'static, Mic>,
        options: SttOptions,
        out: Sender<Item>,
        terminal: OwnedPermit<Item>,
    ) -> Self {
        Self {
            audio: Some(audio),
            options,
            out,
            terminal: Some(terminal),
            samples: VecDeque::new(),
            settled: 0,
            begun: Instant::now(),
            ended: None,
            segments: Vec::new(),
            previous: Vec::new(),
            language: None,
            ending: None,
            agreement: Agreement::default(),
            draft: Vec::new(),
            guessed: 0,
            guess_ended: Instant::now(),
            guess_took: Duration::ZERO,
            served: 0,
        }
    }

    /// Takes in what audio there is. `poller` is woken when there is more.
    pub(super) fn take_in(&mut self, poller: &mut Poller) {
        while self.samples.len() < BUFFERED
            && let Some(audio) = &mut self.audio
        {
            match audio.poll_next_unpin(poller) {
                Poll::Ready(Some(more)) => {
                    if self.samples.is_empty() && self.settled == 0 {
                        // Of an utterance that goes on after a pause, all that came before it.
                        let now = Instant::now();
                        self.begun = now.checked_sub(more.duration()).unwrap_or(now);
                    }
                    self.samples.extend(more.as_slice());
                }
                Poll::Ready(None) => {
                    self.audio = None;
                    self.ended = Some(Instant::now());
                }
                Poll::Pending => break,
            }
        }
    }

    /// Nobody listens any more, or all was said.
    pub(super) fn is_over(&self) -> bool {
        self.terminal.is_none() || self.out.is_closed()
    }

    pub(super) fn is_deserted(&self) -> bool {
        self.out.is_closed()
    }

    /// What is said so far may be meant to stop a reply.
    pub(super) fn has_just_begun(&self) -> bool {
        self.settled == 0 && self.samples.len() < BEGINNING
    }

    /// What is to be done now, if anything.
    pub(super) fn job(&self) -> Option<Job> {
        if self.ended.is_some() {
            return Some(if self.samples.len() > WINDOW_SAMPLES { Job::Window } else { Job::Last });
        }
        if self.samples.len() >= WINDOW_SAMPLES {
            return Some(Job::Window);
        }
        let due = self.next_guess().is_some_and(|due| due.is_zero());
        due.then_some(Job::Guess)
    }

    /// How long until a guess is due, if one is to be made at all.
    pub(super) fn next_guess(&self) -> Option<Duration> {
        let known = self.settled + self.samples.len();
        let waits = self.options.partials && self.ended.is_none() && known >= self.guessed + GUESS_EVERY;
        waits.then(|| {
            let rested = (self.guess_took / GUESS_SHARE).saturating_sub(self.guess_ended.elapsed());
            let ahead = Samples::<MIC_HZ>(known as u64).duration().saturating_sub(self.begun.elapsed());
            rested.max(ahead.saturating_sub(AHEAD_OF_SPEECH))
        })
    }

    /// The unsettled audio of one window.
    pub(super) fn window(&self) -> Vec<f32> {
        self.samples.iter().take(WINDOW_SAMPLES).copied().collect()
    }

    /// Where [`Session::window`] begins.
    pub(super) fn position(&self) -> Duration {
        Samples::<MIC_HZ>(self.settled as u64).duration()
    }

    pub(super) fn context(&self) -> Context {
        Context {
            languages: self.language.clone().map_or_else(|| self.options.languages.clone(), |only| vec![only]),
            task: self.options.task,
            previous: self.previous.clone(),
            temperature: self.options.temperature,
            word_times: self.options.word_times,
            ending: self.options.partials && self.job() == Some(Job::Last),
            draft: self.options.partials.then(|| self.draft.clone()),
        }
    }

    /// The options' prompt, as tokens that came before.
    pub(super) fn set_prompt(&mut self, tokens: Vec<u32>) {
        self.previous = tokens;
    }

    pub(super) fn prompt(&self) -> Option<&str> {
        self.options.prompt.as_deref().map(str::trim).filter(|prompt| !prompt.is_empty())
    }

    /// What is left is too short to hold a word.
    pub(super) fn is_done(&self) -> bool {
        let least = if self.settled == 0 { SHORTEST } else { LEFTOVER };
        self.ended.is_some() && self.samples.len() < least
    }

    /// Takes over what a window held, and tells whoever listens meanwhile.
    pub(super) fn settle(&mut self, window: Window, served_by: &Arc<str>) {
        self.samples.drain(..window.settled.min(self.samples.len()));
        self.settled += window.settled;
        self.draft.clear();
        if !window.segments.is_empty() {
            // A language heard once holds for the rest.
            self.language.get_or_insert(window.language);
        }
        let has_more = !window.segments.is_empty();
        self.ending = window.ending;
        self.segments.extend(window.segments);
        if self.options.partials && has_more && !self.is_done() {
            let (text, stable_chars) = self.agreement.settle(&self.text());
            self.say(text, stable_chars, served_by);
        }
    }

    /// Sends a guess at what is not settled yet, of which `known` samples were known.
    pub(super) fn guess(&mut self, guess: Guess, took: Duration, known: usize, served_by: &Arc<str>) {
        self.guessed = self.settled + known;
        (self.guess_ended, self.guess_took) = (Instant::now(), took);
        self.draft = guess.tokens;
        let whole = join(self.segments.iter().map(|segment| segment.text.as_str()).chain([&*guess.text]));
        if whole.is_empty() {
            return;
        }
        let (text, stable_chars) = self.agreement.update(&whole);
        self.say(text, stable_chars, served_by);
    }

    /// A listener who is slow misses an item; the next one says more.
    fn say(&self, text: String, stable_chars: usize, served_by: &Arc<str>) {
        let _ = self.out.try_send(Ok(Transcript::Partial { text, stable_chars, served_by: Arc::clone(served_by) }));
    }

    fn text(&self) -> String {
        join(self.segments.iter().map(|segment| segment.text.as_str()))
    }

    /// Tells what all of it is, which may be written better yet.
    pub(super) fn draft(&self, window: Window, served_by: &Arc<str>) {
        let language = self.language.clone().unwrap_or(window.language);
        let segments = self.segments.iter().cloned().chain(window.segments).collect();
        let draft = self.transcript(segments, language, window.ending, served_by);
        // Without it one waits for the terminal item.
        let _ = self.out.try_send(Ok(Transcript::Draft(draft)));
    }

    /// Sends the terminal item.
    pub(super) fn finish(&mut self, served_by: &Arc<str>) {
        let segments = std::mem::take(&mut self.segments);
        let language = self.language.take().or_else(|| self.options.languages.first().cloned());
        let language = language.unwrap_or_else(|| "en".to_owned());
        let transcript = self.transcript(segments, language, self.ending, served_by);
        self.say_last(Ok(Transcript::Final(transcript)));
    }

    fn transcript(
        &self,
        segments: Vec<Segment>,
        language: String,
        ending: Option<Ending>,
        served_by: &Arc<str>,
    ) -> FinalTranscript {
        FinalTranscript {
            text: join(segments.iter().map(|segment| segment.text.as_str())),
            language,
            segments,
            audio: Samples::<MIC_HZ>((self.settled + self.samples.len()) as u64).duration(),
            latency: self.ended.unwrap_or_else(Instant::now).elapsed(),
            ending,
            served_by: Arc::clone(served_by),
        }
    }

    pub(super) fn fail(&mut self, error: ProviderError) {
        self.say_last(Err(error));
    }

    fn say_last(&mut self, item: Item) {
        if let Some(terminal) = self.terminal.take() {
            terminal.send(item);
        }
    }
}

fn join<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    texts.filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
}
