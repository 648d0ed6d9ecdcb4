//! The decisions of a session: what to say, store, begin and stop when something happens. Pure: no clock, no await, no
//! channel; the time comes with each event.
//!
//! [`Turn`] only grows, by one per reply and per interruption. What carries an older turn than the reply's is ignored
//! here, and the outbox lets nothing through that was on its way. Every reply begins once and ends once, by
//! `turn_complete` or by `interrupted`.

mod heard;
mod reply;
mod requests;
mod summary;

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use self::reply::{Cause, Reply};
use self::summary::Summaries;
use crate::provider::{Caller, ChatRequest, ProviderError, Role, Urgency};
use crate::session::ear::{Heard, Utterance};
use crate::session::event::{Complaint, ErrorCode, Output, Told, Transcription, Turn};
use crate::session::history::{Entry, History};
use crate::session::mind::{self, Thought};
use crate::session::mouth::{Progress, Sentence, Voicing};
use crate::session::record::{Character, Conversation, Message, MessageStatus, RecordError};
use crate::session::settings::{BadField, OutputKind, Settings};

/// What happens to a session.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Heard(Heard),
    Thought { turn: Turn, thought: Thought },
    Progress { turn: Turn, progress: Progress },
    Stored { save: Box<Save>, outcome: Result<String, RecordError> },
    Summarized { number: u64, outcome: Result<String, ProviderError> },
}

/// What a session does about it, in this order.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    Tell(Told),
    /// Begin a reply. Its voicing is None where it is only written.
    Think {
        turn: Turn,
        request: Box<ChatRequest>,
        voicing: Option<Box<Voicing>>,
    },
    /// One more sentence of the reply to speak.
    Speak(Sentence),
    /// The reply has no more sentences.
    Spoken,
    /// Drop the reply and all that is under way for it.
    Stop,
    Save(Box<Save>),
    /// A reply to what follows these messages may be asked soon.
    Prepare(Box<ChatRequest>),
    /// Write a summary, after a pause.
    Summarize {
        number: u64,
        request: Box<ChatRequest>,
    },
    /// Drop the summary that is being written.
    StopSummary,
}

/// A message to store, and which request it answers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Save {
    pub(super) message: Message,
    pub(super) reference: Option<String>,
}

pub(super) type Effects = Vec<Effect>;

/// The state of a session.
pub(super) struct Machine {
    conversation_id: String,
    /// Rides with every request.
    caller: Caller,
    character: Character,
    settings: Settings,
    paced: bool,
    history: History,
    new_id: Box<dyn FnMut() -> String + Send>,
    turn: Turn,
    /// The last one given.
    sequence_number: u64,
    /// Utterances that were begun by voice and are not transcribed yet.
    speaking: HashSet<String>,
    /// The user said something that is answered when nobody speaks any more.
    owed: Option<Cause>,
    reply: Option<Reply>,
    summaries: Summaries,
    effects: Effects,
}

impl Machine {
    pub(super) fn new(
        conversation: &Conversation,
        character: Character,
        settings: Settings,
        paced: bool,
        history: History,
        new_id: Box<dyn FnMut() -> String + Send>,
    ) -> Self {
        Self {
            conversation_id: conversation.id.clone(),
            caller: conversation.caller(),
            character,
            settings,
            paced,
            history,
            new_id,
            turn: Turn::default(),
            sequence_number: 0,
            speaking: HashSet::new(),
            owed: None,
            reply: None,
            summaries: Summaries::default(),
            effects: Vec::new(),
        }
    }

    /// The session begins.
    pub(super) fn open(&mut self) -> Effects {
        self.prepare();
        self.summarize_when_idle();
        std::mem::take(&mut self.effects)
    }

    /// Takes in what happened at `now`. Time does not go back.
    pub(super) fn step(&mut self, now: Instant, event: Event) -> Effects {
        match event {
            Event::Heard(heard) => self.heard(now, heard),
            Event::Thought { turn, thought } => {
                if self.reply.as_ref().is_some_and(|reply| reply.turn == turn) {
                    self.thought(now, thought);
                }
            }
            Event::Progress { turn, progress } => {
                if self.reply.as_ref().is_some_and(|reply| reply.turn == turn) {
                    self.progress(now, progress);
                }
            }
            Event::Stored { save, outcome } => self.stored(*save, outcome),
            Event::Summarized { number, outcome } => self.summarized(number, outcome),
        }
        self.summarize_when_idle();
        std::mem::take(&mut self.effects)
    }

    /// The client has left: what it heard is kept.
    pub(super) fn leave(&mut self, now: Instant) -> Effects {
        self.interrupt(now, None);
        std::mem::take(&mut self.effects)
    }

    fn heard(&mut self, now: Instant, heard: Heard) {
        match heard {
            Heard::Began { item_id, at } => {
                self.speaking.insert(item_id);
                self.tell(Output::SpeechStarted { at });
                let unheard = self.interrupt(now, None);
                // A reply of which nothing was heard is still owed, should this turn out to be a cough.
                self.owed = self.owed.take().or(unheard);
                self.prepare();
            }
            Heard::Stopped { at } => self.tell(Output::SpeechStopped { at }),
            Heard::Committed => {
                self.interrupt(now, None);
            }
            Heard::Partial(transcription) => self.tell(Output::Transcription(transcription)),
            Heard::Final(utterance) => self.said(now, *utterance),
            Heard::Nothing { item_id, at } => {
                self.tell(Output::Transcription(Transcription {
                    item_id: item_id.clone(),
                    is_final: true,
                    text: String::new(),
                    stable_chars: 0,
                    at,
                    language: None,
                    words: Vec::new(),
                }));
                self.heard_out(now, &item_id);
            }
            Heard::Failed { item_id, error } => {
                self.complain(Complaint::of(&error, Some(item_id.clone())), None);
                self.heard_out(now, &item_id);
            }
            Heard::Refused { complaint, reference } => self.complain(complaint, reference),
            Heard::Asked(request) => self.asked(now, request),
        }
    }

    fn said(&mut self, now: Instant, utterance: Utterance) {
        let Utterance { transcription, ended, endpoint, stt, served_by } = utterance;
        let item_id = transcription.item_id.clone();
        let metadata = json!({ "spoken": true, "language": transcription.language, "served_by": served_by.as_ref() });
        self.user_message(item_id.clone(), transcription.text.clone(), None, metadata, None);
        self.tell(Output::Transcription(transcription));
        self.owed = Some(Cause {
            since: ended,
            endpoint: Some(endpoint),
            stt: Some(stt),
            stt_served_by: Some(served_by),
            settings: self.settings.clone(),
            again: None,
        });
        self.heard_out(now, &item_id);
    }

    /// An utterance is dealt with; if nobody speaks any more, what is owed is answered.
    fn heard_out(&mut self, now: Instant, item_id: &str) {
        self.speaking.remove(item_id);
        if self.speaking.is_empty()
            && let Some(cause) = self.owed.take()
        {
            self.interrupt(now, None);
            self.begin(now, cause);
        }
    }

    fn user_message(
        &mut self,
        id: String,
        text: String,
        client_message_id: Option<String>,
        metadata: Value,
        reference: Option<String>,
    ) {
        let entry = Entry {
            id: id.clone(),
            role: Role::User,
            text: text.clone(),
            client_message_id: client_message_id.clone(),
            is_stored: false,
        };
        self.history.put(entry);
        let message = Message {
            id,
            conversation_id: self.conversation_id.clone(),
            role: Role::User,
            character_id: None,
            character_name: None,
            content: text,
            status: MessageStatus::Completed,
            heard_chars: None,
            metadata,
            client_message_id,
        };
        self.effects.push(Effect::Save(Box::new(Save { message, reference })));
    }

    /// Begins a reply. There is none.
    fn begin(&mut self, now: Instant, cause: Cause) {
        self.turn = self.turn.next();
        let item_id = cause.again.clone().unwrap_or_else(|| (self.new_id)());
        let request = Box::new(self.request(&cause.settings, cause.again.as_deref()));
        let reply = Reply::new(self.turn, item_id, cause, now, self.sequence_number + 1);
        let voicing = reply.voicing(&self.character, self.paced, &self.caller);
        self.reply = Some(reply);
        self.tell(Output::SpeakerChanged { character_id: Some(self.character.id.clone()) });
        self.effects.push(Effect::Think { turn: self.turn, request, voicing });
    }

    fn prepare(&mut self) {
        let request = Box::new(self.request(&self.settings, None));
        self.effects.push(Effect::Prepare(request));
    }

    fn request(&self, settings: &Settings, until: Option<&str>) -> ChatRequest {
        let messages = self.history.messages(self.system_prompt(settings), until, settings.summarize_history);
        let (model, caller) = (self.character.model.clone(), self.caller.clone());
        ChatRequest { messages, model, caller, sampling: settings.sampling(), ..ChatRequest::default() }
    }

    fn system_prompt(&self, settings: &Settings) -> String {
        let prompt = settings.system_prompt.as_ref().unwrap_or(&self.character.system_prompt);
        mind::system_prompt(prompt, settings.output)
    }

    fn thought(&mut self, now: Instant, thought: Thought) {
        let Some(reply) = self.reply.as_mut().filter(|reply| !reply.is_written) else { return };
        match thought {
            Thought::Began { served_by } => reply.served_by.llm = Some(served_by),
            Thought::Text { sentence, text } => self.wrote(now, sentence, text),
            Thought::Sentence { sentence, speakable } => {
                if reply.is_spoken && !speakable.is_empty() {
                    let urgency = if sentence == 0 { Urgency::First } else { Urgency::Later };
                    let sequence_number = reply.first_sentence + sentence;
                    self.effects.push(Effect::Speak(Sentence { sequence_number, text: speakable, urgency }));
                }
            }
            Thought::Done { usage } => {
                reply.usage = usage;
                let (turn, item_id, text) = (reply.turn, reply.item_id.clone(), reply.ledger.text().to_owned());
                self.tell(Output::TextDone { turn, character_id: self.character.id.clone(), item_id, text });
                self.written();
            }
            Thought::Failed(error) => {
                reply.failure = Some(error.to_string());
                let complaint = Complaint::of(&error, Some(reply.item_id.clone()));
                self.complain(complaint, None);
                self.written();
            }
        }
    }

    fn wrote(&mut self, now: Instant, sentence: u64, text: String) {
        let Some(reply) = &mut self.reply else { return };
        let sequence_number = reply.first_sentence + sentence;
        let is_first = reply.write(now, sequence_number, &text);
        self.sequence_number = sequence_number;
        let (turn, item_id) = (reply.turn, reply.item_id.clone());
        let character_id = self.character.id.clone();
        self.tell(Output::TextChunk { turn, character_id, item_id, sequence_number, text });
        if is_first {
            self.save_reply(MessageStatus::Processing, None);
        }
    }

    /// No more text will come. What there is of it is still spoken.
    fn written(&mut self) {
        let Some(reply) = &mut self.reply else { return };
        reply.is_written = true;
        if reply.is_spoken {
            self.effects.push(Effect::Spoken);
        } else {
            self.complete();
        }
    }

    fn progress(&mut self, now: Instant, progress: Progress) {
        let Some(reply) = &mut self.reply else { return };
        match progress {
            Progress::Sent(piece) => reply.send(now, piece),
            Progress::Failed(error) => {
                if !std::mem::replace(&mut reply.is_voice_broken, true) {
                    let complaint = Complaint::of(&error, Some(reply.item_id.clone()));
                    self.complain(complaint, None);
                }
            }
            Progress::Finished => {
                // A mouth that ends first has failed: the text goes on alone.
                reply.is_spoken = false;
                if reply.is_written {
                    self.complete();
                }
            }
        }
    }

    fn complete(&mut self) {
        let Some(reply) = &self.reply else { return };
        let status = if reply.failure.is_some() { MessageStatus::Failed } else { MessageStatus::Completed };
        self.save_reply(status, None);
        let Some(reply) = self.reply.take() else { return };
        self.effects.push(Effect::Stop);
        self.remember(&reply, reply.ledger.text());
        let report = reply.report(self.character.id.clone(), self.sequence_number);
        self.tell(Output::TurnComplete(Box::new(report)));
        self.tell(Output::SpeakerChanged { character_id: None });
    }

    /// Ends the reply where it is. Answers its cause, where nothing of the reply was heard or read.
    fn interrupt(&mut self, now: Instant, played: Option<Duration>) -> Option<Cause> {
        let reply = self.reply.as_ref()?;
        self.turn = self.turn.next();
        self.effects.push(Effect::Stop);
        let heard = reply.played(now, played);
        let is_read = reply.cause.settings.output == OutputKind::Text;
        let heard_text = if is_read { reply.ledger.text() } else { reply.ledger.heard(heard) }.to_owned();
        self.save_reply(MessageStatus::Completed, (!is_read).then(|| heard_text.chars().count()));
        let reply = self.reply.take()?;
        self.remember(&reply, &heard_text);
        let Reply { turn, item_id, cause, .. } = reply;
        let is_unheard = heard_text.is_empty();
        self.tell(Output::Interrupted { turn, item_id, heard_text, heard });
        self.tell(Output::SpeakerChanged { character_id: None });
        is_unheard.then_some(cause)
    }

    fn remember(&mut self, reply: &Reply, text: &str) {
        // What was never begun is not kept: an earlier version of it stands.
        if !reply.ledger.text().is_empty() {
            let (id, text) = (reply.item_id.clone(), text.to_owned());
            let entry = Entry { id, role: Role::Assistant, text, client_message_id: None, is_stored: false };
            self.history.put(entry);
        }
    }

    fn save_reply(&mut self, status: MessageStatus, heard_chars: Option<usize>) {
        if let Some(reply) = &self.reply
            && !reply.ledger.text().is_empty()
        {
            let message = reply.message(&self.conversation_id, &self.character, status, heard_chars);
            self.effects.push(Effect::Save(Box::new(Save { message, reference: None })));
        }
    }

    fn stored(&mut self, save: Save, outcome: Result<String, RecordError>) {
        let Save { message, reference } = save;
        let Message { id, client_message_id, role, status, .. } = message;
        match outcome {
            Ok(message_id) => {
                self.history.stored(&id);
                self.tell_to(Output::MessageSaved { message_id, client_message_id, role, status }, reference);
            }
            Err(error) => {
                let message = format!("the message could not be saved: {error}");
                let retryable = error == RecordError::Failed;
                let complaint = Complaint { code: ErrorCode::Internal, message, retryable, item_id: Some(id) };
                self.complain(complaint, reference);
            }
        }
    }

    fn complain(&mut self, complaint: Complaint, reference: Option<String>) {
        self.tell_to(Output::Error(complaint), reference);
    }

    fn tell(&mut self, output: Output) {
        self.tell_to(output, None);
    }

    fn tell_to(&mut self, output: Output, reference: Option<String>) {
        self.effects.push(Effect::Tell(Told { output, reference }));
    }
}

fn bad_field(error: &BadField) -> Complaint {
    Complaint { code: ErrorCode::BadField, message: error.to_string(), retryable: false, item_id: None }
}

#[cfg(test)]
mod tests;
