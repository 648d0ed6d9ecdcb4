//! The task around the machine: it feeds events in, one at a time, and does what the machine says.
//!
//! It owns what a reply has under way: dropping that stops the language model, the voice and the audio. It owns the
//! ear. It stores messages one after another, beside everything else, so that only the word that one is stored waits
//! for the store. It waits for nobody but the socket; a socket that takes nothing for long ends the session.

use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, TryFutureExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::Parts;
use super::event::{AudioPiece, Output, Told, Turn};
use super::machine::{Effect, Effects, Event, Machine};
use super::mind::{self, Company, Thought};
use super::mouth::{self, Progress, Sentence, Voice, Voicing};
use super::resumption::Unfinished;
use super::saves::{Errand, Saves};
use crate::provider::task::Task;
use crate::provider::{ChatRequest, Language, ProviderError, VoiceInfo};
use crate::text::speakable;

/// Events that may wait for the machine. Each room waits when it is full; the machine needs microseconds for one.
pub(super) const INBOX: usize = 128;
/// A socket that takes no message for so long is dead or too slow.
const LONGEST_SEND: Duration = Duration::from_secs(10);
/// How long the store may take for what is left when the session ends.
const LAST_SAVES: Duration = Duration::from_secs(20);

/// The room's state.
pub(super) struct Room {
    pub(super) machine: Machine,
    pub(super) parts: Parts,
    pub(super) ear: Task,
    /// Its own inbox, for the rooms it starts.
    pub(super) events: mpsc::Sender<Event>,
    pub(super) control: mpsc::Sender<Told>,
    pub(super) audio: mpsc::Sender<AudioPiece>,
    pub(super) voice: Voice,
    /// The audible one.
    pub(super) reply: Option<Running>,
    /// The one after it.
    pub(super) waiting: Option<Running>,
    /// The note that is being written.
    pub(super) note: Option<Task>,
    pub(super) saves: Saves,
    /// That a task of the reply has ended, until all that the rooms said before is dealt with.
    pub(super) late: Option<Event>,
    /// When the machine wants to be woken.
    pub(super) alarm: Option<Instant>,
    pub(super) conversation_id: String,
    /// Tells the ear who takes part.
    pub(super) present: watch::Sender<Vec<String>>,
    /// The characters that are being looked up.
    pub(super) casting: Option<Task>,
    /// The reply that is said to its end first.
    pub(super) unfinished: Option<Unfinished>,
}

/// What a reply has under way.
pub(super) struct Running {
    turn: Turn,
    mind: Option<Task>,
    mouth: Option<Task>,
    sentences: Option<mpsc::Sender<Sentence>>,
    /// Lets the mouth speak.
    floor: Option<oneshot::Sender<()>>,
}

/// The client is gone.
struct Gone;

impl Room {
    /// Runs the session until the client is gone; then stores what is left.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Event>) {
        let mut opening = self.machine.open();
        if let Some(unfinished) = self.unfinished.take() {
            opening.extend(self.machine.recite(Instant::now(), unfinished));
        }
        if self.perform(opening).await.is_err() {
            return;
        }
        while let Some(event) = self.next(&mut inbox).await {
            let effects = self.machine.step(Instant::now(), event);
            if self.perform(effects).await.is_err() {
                break;
            }
        }
        for effect in self.machine.leave(Instant::now()) {
            if let Ok(errand) = Errand::of(effect) {
                self.saves.push(errand);
            }
        }
        (self.reply, self.waiting) = (None, None);
        self.note = None;
        if timeout(LAST_SAVES, self.saves.finish()).await.is_err() {
            tracing::error!("the store did not take a session's last messages");
        }
    }

    /// What happens next. None: the client is gone.
    async fn next(&mut self, inbox: &mut mpsc::Receiver<Event>) -> Option<Event> {
        if self.late.is_some() && inbox.is_empty() {
            return self.late.take();
        }
        let room = !self.saves.is_full();
        tokio::select! {
            biased;
            () = self.control.closed() => None,
            event = self.saves.next() => Some(event),
            event = inbox.recv(), if room => event,
            () = sleep_until(self.alarm.unwrap_or_else(Instant::now)), if self.alarm.is_some() => {
                self.alarm = None;
                Some(Event::Woken)
            }
            // This comes after all that the rooms had to say, and matters only where that was not all.
            event = one_ended(&mut self.reply, &mut self.waiting), if room && self.late.is_none() => match inbox.try_recv() {
                Ok(sooner) => {
                    self.late = Some(event);
                    Some(sooner)
                }
                Err(_) => Some(event),
            },
            () = self.ear.ended() => None,
        }
    }

    async fn perform(&mut self, effects: Effects) -> Result<(), Gone> {
        for effect in effects {
            let effect = match Errand::of(effect) {
                Ok(errand) => {
                    self.saves.push(errand);
                    continue;
                }
                Err(effect) => effect,
            };
            match effect {
                Effect::Tell(told) => self.tell(told).await?,
                Effect::Think { turn, request, voicing, company, waits } => {
                    let place = if waits { Place::Waiting } else { Place::Audible };
                    self.think(turn, *request, voicing, company, place);
                }
                Effect::Speak { turn, sentence } => self.speak(turn, sentence),
                Effect::Recite { turn, voicing, sentences } => self.recite(turn, *voicing, sentences),
                Effect::Spoken { turn } => {
                    if let Some(reply) = self.running(turn) {
                        reply.sentences = None;
                    }
                }
                Effect::End => self.reply = None,
                Effect::GiveFloor { turn } => {
                    self.reply = self.waiting.take();
                    if let Some(floor) = self.running(turn).and_then(|reply| reply.floor.take()) {
                        // A mouth that is gone has told so.
                        let _ = floor.send(());
                    }
                }
                Effect::Stop => {
                    (self.reply, self.waiting) = (None, None);
                    self.voice.loopback.stop();
                }
                Effect::TakeBack => self.waiting = None,
                Effect::Prepare(request) => self.prepare(*request),
                Effect::Note { number, request } => {
                    let (chat, events) = (Arc::clone(&self.parts.chat), self.events.clone());
                    self.note = Some(Task::spawn("note", mind::note(chat, number, *request, events)));
                }
                Effect::Cast { character_ids, reference, is_stored } => self.cast(character_ids, reference, is_stored),
                Effect::WakeAt(instant) => self.alarm = Some(instant),
                Effect::StopNote => self.note = None,
                // Errands, all of them done above.
                Effect::Save(_) | Effect::Forget { .. } | Effect::Record { .. } | Effect::Title { .. } => {}
            }
        }
        Ok(())
    }

    async fn tell(&mut self, told: Told) -> Result<(), Gone> {
        if let Output::Characters(characters) = &told.output {
            // Before any client can know it.
            self.present.send_replace(characters.iter().map(|it| it.id.clone()).collect());
        }
        match timeout(LONGEST_SEND, self.control.send(told)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Gone),
            Err(_) => {
                tracing::warn!("the client takes no messages; its session ends");
                Err(Gone)
            }
        }
    }

    fn running(&mut self, turn: Turn) -> Option<&mut Running> {
        [&mut self.reply, &mut self.waiting].into_iter().flatten().find(|running| running.turn == turn)
    }

    fn think(
        &mut self,
        turn: Turn,
        request: ChatRequest,
        voicing: Option<Box<Voicing>>,
        company: Option<Company>,
        place: Place,
    ) {
        let chat = Arc::clone(&self.parts.chat);
        let language = voicing.as_deref().map(|voicing| self.language(voicing)).unwrap_or_default();
        let mind = Task::spawn("mind", mind::think(chat, turn, request, language, company, self.events.clone()));
        let (give, floor) = matches!(place, Place::Waiting).then(oneshot::channel).unzip();
        let (mouth, sentences) = voicing.map(|voicing| self.mouth(*voicing, floor)).unzip();
        let running = Some(Running { turn, mind: Some(mind), mouth, sentences, floor: give });
        match place {
            Place::Audible => self.reply = running,
            Place::Waiting => self.waiting = running,
        }
    }

    fn mouth(&self, voicing: Voicing, floor: Option<oneshot::Receiver<()>>) -> (Task, mpsc::Sender<Sentence>) {
        let (sentences, inbox) = mpsc::channel(mouth::INBOX);
        let (lane, events) = (self.audio.clone(), self.events.clone());
        let speak = mouth::speak(self.voice.clone(), voicing, floor, inbox, lane, events);
        (Task::spawn("mouth", speak), sentences)
    }

    /// Speaks what is written already.
    fn recite(&mut self, turn: Turn, voicing: Voicing, sentences: Vec<Sentence>) {
        let language = self.language(&voicing);
        let (mouth, sender) = self.mouth(voicing, None);
        self.reply = Some(Running { turn, mind: None, mouth: Some(mouth), sentences: Some(sender), floor: None });
        for sentence in sentences {
            let text = speakable(&sentence.text, &language);
            if !text.is_empty() {
                self.speak(turn, Sentence { text, ..sentence });
            }
        }
        if let Some(reply) = self.running(turn) {
            reply.sentences = None;
        }
    }

    /// What a voice speaks. Empty: nobody knows.
    fn language(&self, voicing: &Voicing) -> Language {
        let own = |voice: VoiceInfo| (voicing.voice.as_ref() == Some(&voice.name)).then_some(voice.language);
        let language = voicing.language.clone();
        language.or_else(|| self.parts.speech.voices().into_iter().find_map(own)).unwrap_or_default()
    }

    fn cast(&mut self, character_ids: Vec<String>, reference: Option<String>, is_stored: bool) {
        let records = &self.parts.records;
        let id = self.conversation_id.clone();
        let asked = match (is_stored, character_ids.is_empty()) {
            (false, _) => records.set_characters(id, character_ids),
            (true, false) => records.characters(character_ids),
            (true, true) => records.open_conversation(id, 0).map_ok(|opened| opened.characters).boxed(),
        };
        let events = self.events.clone();
        // A later request takes the place of one that was not answered.
        self.casting = Some(Task::spawn("cast", async move {
            let outcome = asked.await;
            // Where nobody is left to tell the session is over.
            let _ = events.send(Event::Cast { reference, outcome }).await;
        }));
    }

    fn prepare(&self, request: ChatRequest) {
        // It is a favour: a fault in it costs time, no answer.
        if catch_unwind(AssertUnwindSafe(|| self.parts.chat.prepare(request))).is_err() {
            tracing::error!("the language model panicked while it got ready");
        }
    }

    fn speak(&mut self, turn: Turn, sentence: Sentence) {
        let Some(reply) = self.running(turn) else { return };
        let Some(sentences) = &reply.sentences else { return };
        if sentences.try_send(sentence).is_err() {
            tracing::warn!("a reply has more sentences than can wait to be spoken; the rest is only written");
            reply.sentences = None;
        }
    }
}

/// Which reply.
#[derive(Clone, Copy)]
enum Place {
    Audible,
    Waiting,
}

/// What it means that a task of one of two replies has ended.
async fn one_ended(reply: &mut Option<Running>, waiting: &mut Option<Running>) -> Event {
    tokio::select! {
        biased;
        event = Running::ended(reply.as_mut()) => event,
        event = Running::ended(waiting.as_mut()) => event,
    }
}

impl Running {
    /// What it means that one of a reply's tasks has ended. Waits for ever where there is no reply.
    async fn ended(reply: Option<&mut Self>) -> Event {
        let Some(Self { turn, mind, mouth, .. }) = reply else { return pending().await };
        tokio::select! {
            biased;
            () = ended(mind.as_mut()) => {
                *mind = None;
                let error = ProviderError::Failed { what: "the reply".to_owned() };
                Event::Thought { turn: *turn, thought: Thought::Failed(error) }
            }
            () = ended(mouth.as_mut()) => {
                *mouth = None;
                Event::Progress { turn: *turn, progress: Progress::Finished }
            }
        }
    }
}

async fn ended(task: Option<&mut Task>) {
    match task {
        Some(task) => task.ended().await,
        None => pending().await,
    }
}
