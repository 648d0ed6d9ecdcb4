//! Replies from their beginning to their end. One is audible; while it plays, the next one is written and its first
//! audio made, and all that it would tell is held back until it has the floor. Its client never learns of one that an
//! interruption took back before that.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::reply::{Cause, Part, Reply};
use super::{Effect, Machine, Save};
use crate::provider::{ProviderError, Role, Urgency};
use crate::session::event::{Complaint, Output, Turn};
use crate::session::history::Entry;
use crate::session::mind::{Company, Thought};
use crate::session::mouth::{Progress, Sentence};
use crate::session::record::{MessageStatus, Recording};
use crate::session::settings::OutputKind;

/// The reply that is audible; the next one comes after it.
const AUDIBLE: usize = 0;

impl Machine {
    /// Begins the first reply that a cause asks for; the others follow it. There is none.
    pub(super) fn begin(&mut self, now: Instant, mut cause: Cause) {
        let Some(speaker) = cause.speakers.pop_front() else { return };
        self.queue = std::mem::take(&mut cause.speakers);
        self.has_floor(Some(speaker));
        self.start(now, cause, speaker);
    }

    /// One that is not the first waits for the floor.
    fn start(&mut self, now: Instant, cause: Cause, speaker: usize) {
        self.turn = self.turn.next();
        let player = self.cast.player(speaker);
        // A patch was checked when it came.
        let settings = player.settings.patched(&cause.terms).unwrap_or_else(|_| player.settings.clone());
        let item_id = cause.again.clone().unwrap_or_else(|| (self.new_id)());
        let others = self.cast.others(speaker);
        let request = Box::new(self.request(&player.character, &settings, cause.again.as_deref(), &others));
        let waits = !self.replies.is_empty();
        let replaces = self.history.reply(&item_id).cloned();
        let part = Part { player, speaker, settings, replaces, is_recorded: self.scene.keeps_recordings };
        let mut reply = Reply::new(self.turn, item_id, part, cause, now, self.sequence_number + 1);
        reply.held = waits.then(Vec::new);
        let voicing = reply.voicing(&self.scene);
        let name = reply.character().name.clone();
        let company = (!others.is_empty()).then_some(Company { name, others });
        self.replies.push_back(reply);
        if !waits {
            self.save_progress();
        }
        self.stop_note();
        self.effects.push(Effect::Think { turn: self.turn, request, voicing, company, waits });
    }

    /// Begins the reply after the audible one, where that is written and somebody follows.
    fn line_up(&mut self, now: Instant) {
        let Some(reply) = self.replies.front().filter(|reply| reply.is_written && self.replies.len() == 1) else {
            return;
        };
        let (speaker, text, id) = (reply.speaker, reply.ledger.text().to_owned(), reply.item_id.clone());
        let cause = reply.cause.to_follow(now);
        let Some(next) = self.next_speaker(speaker, &text) else { return };
        // What it answers will have been heard by then.
        self.remember(AUDIBLE, id, text);
        self.start(now, cause, next);
    }

    fn next_speaker(&mut self, speaker: usize, text: &str) -> Option<usize> {
        let policy = self.settings.turn_taking;
        self.queue.pop_front().or_else(|| self.cast.follow(policy, speaker, text))
    }

    pub(super) fn thought(&mut self, now: Instant, turn: Turn, thought: Thought) {
        let Some(at) = self.replies.iter().position(|reply| reply.turn == turn && !reply.is_written) else { return };
        let reply = &mut self.replies[at];
        match thought {
            Thought::Began { served_by } => reply.served_by.llm = Some(served_by),
            Thought::Text { sentence, text } => self.wrote(now, at, sentence, text),
            Thought::Sentence { sentence, speakable } => {
                if reply.is_spoken && !speakable.is_empty() {
                    let urgency = if sentence == 0 { Urgency::First } else { Urgency::Later };
                    let sequence_number = reply.first_sentence + sentence;
                    let sentence = Sentence { sequence_number, text: speakable, urgency };
                    self.effects.push(Effect::Speak { turn, sentence });
                }
            }
            Thought::Done { .. } if reply.replaces.is_some() && reply.ledger.text().is_empty() => {
                let error = ProviderError::Failed { what: "the language model".to_owned() };
                self.thought(now, turn, Thought::Failed(error));
            }
            Thought::Done { usage } => {
                reply.usage = usage;
                let (character_id, item_id) = (reply.character().id.clone(), reply.item_id.clone());
                let text = reply.ledger.text().to_owned();
                self.tell_of(at, Output::TextDone { turn, character_id, item_id, text });
                self.written(now, at);
            }
            Thought::Failed(error) => {
                reply.failure = Some(error.to_string());
                self.complain_of(at, &error);
                self.written(now, at);
            }
        }
    }

    fn wrote(&mut self, now: Instant, at: usize, sentence: u64, text: String) {
        let reply = &mut self.replies[at];
        let sequence_number = reply.first_sentence + sentence;
        let is_first = reply.write(now, sequence_number, &text);
        self.sequence_number = sequence_number;
        let (turn, item_id, character_id) = (reply.turn, reply.item_id.clone(), reply.character().id.clone());
        let is_audible = reply.held.is_none();
        self.tell_of(at, Output::TextChunk { turn, character_id, item_id, sequence_number, text });
        if is_first && is_audible {
            self.save_progress();
        }
    }

    /// No more text will come. What there is of it is still spoken.
    fn written(&mut self, now: Instant, at: usize) {
        let reply = &mut self.replies[at];
        reply.is_written = true;
        if reply.is_spoken {
            self.effects.push(Effect::Spoken { turn: reply.turn });
            self.line_up(now);
        } else if at == AUDIBLE {
            self.complete(now);
        }
    }

    pub(super) fn progress(&mut self, now: Instant, turn: Turn, progress: Progress) {
        let Some(at) = self.replies.iter().position(|reply| reply.turn == turn) else { return };
        let reply = &mut self.replies[at];
        match progress {
            Progress::Sent(piece) => reply.send(now, piece),
            Progress::Failed(error) => {
                if !std::mem::replace(&mut reply.is_voice_broken, true) {
                    self.complain_of(at, &error);
                }
            }
            Progress::Finished => {
                // A mouth that ends first has failed: the text goes on alone.
                reply.is_spoken = false;
                if reply.is_written && at == AUDIBLE {
                    self.complete(now);
                }
            }
        }
    }

    pub(super) fn complete(&mut self, now: Instant) {
        let Some(reply) = self.replies.front() else { return };
        let status = if reply.failure.is_some() { MessageStatus::Failed } else { MessageStatus::Completed };
        let text = reply.ledger.text().to_owned();
        if !reply.is_void() {
            self.keep_reply(status, text.clone(), None, None);
        }
        self.unduck();
        let Some(reply) = self.replies.pop_front() else { return };
        self.doubts.outlast(reply.said_last(reply.ledger.sent()));
        self.effects.push(Effect::End);
        let (speaker, next) = (reply.speaker, reply.cause.to_follow(now));
        let last_sentence = self.replies.front().map_or(self.sequence_number, |waiting| waiting.first_sentence - 1);
        self.tell(Output::TurnComplete(Box::new(reply.report(last_sentence))));
        if !self.replies.is_empty() {
            return self.give_floor(now);
        }
        match self.next_speaker(speaker, &text) {
            Some(speaker) => {
                self.queue.push_front(speaker);
                let speakers = std::mem::take(&mut self.queue);
                self.begin(now, Cause { speakers, ..next });
            }
            None => self.has_floor(None),
        }
    }

    fn has_floor(&mut self, speaker: Option<usize>) {
        if let Some(speaker) = speaker {
            self.cast.takes_floor(speaker);
        }
        if std::mem::replace(&mut self.floor, speaker) != speaker {
            let character_id = speaker.map(|speaker| self.cast.player(speaker).character.id.clone());
            self.tell(Output::SpeakerChanged { character_id });
        }
    }

    /// The reply that waited is audible now.
    fn give_floor(&mut self, now: Instant) {
        let Some(reply) = self.replies.front_mut() else { return };
        let held = reply.held.take().unwrap_or_default();
        reply.cause.since = now;
        let (turn, speaker) = (reply.turn, reply.speaker);
        let (is_written, is_over) = (reply.is_written, reply.is_written && !reply.is_spoken);
        self.has_floor(Some(speaker));
        for output in held {
            self.tell(output);
        }
        self.save_progress();
        self.effects.push(Effect::GiveFloor { turn });
        if is_over {
            self.complete(now);
        } else if is_written {
            self.line_up(now);
        }
    }

    /// Ends the reply where it is, and whatever would follow it. Answers its cause, where nothing of the reply was heard
    /// or read.
    pub(super) fn interrupt(&mut self, now: Instant, played: Option<Duration>) -> Option<Cause> {
        let reply = self.replies.front()?;
        self.turn = self.turn.next();
        self.effects.push(Effect::Stop);
        let heard = reply.played(now, played);
        self.doubts.outlast_cut(reply.said_last(heard));
        let is_read = reply.settings.output == OutputKind::Text;
        let heard_text = if is_read { reply.ledger.text() } else { reply.ledger.heard(heard) }.to_owned();
        let is_unheard = heard_text.is_empty();
        let stands = reply.is_void() || reply.replaces.is_some() && (is_read || is_unheard);
        let earlier = reply.replaces.clone().filter(|_| stands);
        let told_text = earlier.as_ref().map_or_else(|| heard_text.clone(), |entry| entry.text.clone());
        if let Some(earlier) = earlier {
            self.history.restore(earlier);
        } else if reply.ledger.text().is_empty() {
            self.effects.push(Effect::Forget { message_id: reply.item_id.clone() });
        } else {
            let heard_chars = (!is_read).then(|| heard_text.chars().count());
            self.keep_reply(MessageStatus::Completed, heard_text, heard_chars, Some(heard));
        }
        let waiting = self.forget_waiting();
        let Reply { turn, item_id, speaker, cause, .. } = self.replies.pop_front()?;
        let mut speakers: VecDeque<usize> = std::iter::once(speaker).chain(waiting).collect();
        speakers.append(&mut self.queue);
        self.tell(Output::Interrupted { turn, item_id, heard_text: told_text, heard });
        self.has_floor(None);
        is_unheard.then_some(Cause { speakers, ..cause })
    }

    /// Whoever waits for the floor says nothing after all; whoever follows is next.
    pub(super) fn take_back(&mut self, now: Instant) {
        self.forget_waiting();
        self.effects.push(Effect::TakeBack);
        self.line_up(now);
    }

    /// Nobody was told of the reply that waits. Answers whose it is.
    fn forget_waiting(&mut self) -> Option<usize> {
        let waiting = self.replies.remove(AUDIBLE + 1)?;
        self.sequence_number = waiting.first_sentence - 1;
        Some(waiting.speaker)
    }

    fn remember(&mut self, at: usize, id: String, text: String) {
        let reply = &self.replies[at];
        if !reply.ledger.text().is_empty() && !reply.is_void() {
            let speaker = Some(reply.speaker_name());
            let entry = Entry { id, role: Role::Assistant, speaker, text, client_message_id: None, is_stored: false };
            self.history.put(entry);
        }
    }

    /// Stores how far the audible reply is. What it replaces stands until its end.
    fn save_progress(&mut self) {
        let Some(reply) = self.replies.front().filter(|reply| reply.replaces.is_none()) else { return };
        let is_begun = !reply.ledger.text().is_empty();
        self.save_reply(if is_begun { MessageStatus::Processing } else { MessageStatus::Pending }, None);
    }

    /// Stores the audible reply as it is in the end, its `heard_text` and the sound that was `heard`.
    fn keep_reply(
        &mut self,
        status: MessageStatus,
        heard_text: String,
        heard_chars: Option<usize>,
        heard: Option<Duration>,
    ) {
        self.save_reply(status, heard_chars);
        let Some(reply) = self.replies.front_mut() else { return };
        let id = reply.item_id.clone();
        if let Some(sound) = reply.recording(heard) {
            let sound = Box::new(Recording::Heard(sound));
            self.effects.push(Effect::Record { message_id: id.clone(), sound });
        }
        self.remember(AUDIBLE, id, heard_text);
        self.give_title();
    }

    fn save_reply(&mut self, status: MessageStatus, heard_chars: Option<usize>) {
        if let Some(reply) = self.replies.front() {
            let message = reply.message(&self.scene.conversation_id, status, heard_chars);
            self.effects.push(Effect::Save(Box::new(Save { message, reference: None })));
        }
    }

    fn complain_of(&mut self, at: usize, error: &ProviderError) {
        let complaint = Complaint::of(error, Some(self.replies[at].item_id.clone()));
        self.tell_of(at, Output::Error(complaint));
    }

    /// Tells something of a reply, now or when it has the floor.
    fn tell_of(&mut self, at: usize, output: Output) {
        match &mut self.replies[at].held {
            Some(held) => held.push(output),
            None => self.tell(output),
        }
    }
}
