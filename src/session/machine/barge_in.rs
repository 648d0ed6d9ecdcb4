//! Whether a voice during a reply means it. At its onset the client is told to lower the reply's volume (`duck`); words
//! that are no agreement, no noise and not the reply's own ones stop the reply; otherwise it goes on (`unduck`). A
//! loudspeaker's echo comes late: what began during a reply may still be that after its end.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{Effect, Machine};
use crate::session::event::{Output, Transcription};
use crate::text::backchannel::{is_backchannel, is_echo, may_be_echo};
use crate::text::word_count;

/// Who has said nothing by then is not waited for with a lowered voice.
const LONGEST_DUCK: Duration = Duration::from_secs(2);

/// Until so much of a reply was heard, an ear may not know the sound of its echo.
const UNKNOWN: Duration = Duration::from_millis(1500);
/// So long after a reply was cut off its echo may begin,
const LATE: Duration = Duration::from_secs(1);
/// and so much longer than the reply it may last.
const REVERBERATION: Duration = Duration::from_millis(300);

/// Whether the first text repeats the second.
type Echo = fn(&str, &str) -> bool;

/// Whether this is a single word that was guessed once: so is many a hum, and the next guess will tell.
fn is_guessed_word(transcription: &Transcription) -> bool {
    transcription.stable_chars == 0 && word_count(&transcription.text) < 2
}

/// Voices that may mean to interrupt.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// Utterances of which no word is known that would interrupt.
    utterances: HashMap<String, Doubt>,
    /// The item whose volume is lowered, and since when.
    ducked: Option<(String, Instant)>,
    /// What was audible while they began, and is over.
    over: String,
    /// A text that was typed cut off a reply then, of which so much had been audible.
    typed: Option<(Instant, Duration)>,
}

/// What an utterance may be, other than a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// An agreement or an echo.
    Any,
    /// An echo: what it began beside was stopped, by its own first words or otherwise.
    Echo,
    /// An echo of what was cut off by a text that was typed, when so much of it had been audible.
    Rest(Duration),
}

impl Doubts {
    /// Of what was audible this was said last; then it ended.
    pub(super) fn outlast(&mut self, said: &str) {
        if !self.utterances.is_empty() {
            self.over.push_str(said);
            self.over.push(' ');
        }
    }

    /// Of what was audible this was said last; then it was stopped.
    pub(super) fn outlast_cut(&mut self, said: &str) {
        self.ducked = None;
        self.demote(Doubt::Echo);
        self.outlast(said);
    }

    /// Those that might have interrupted cannot any more.
    fn demote(&mut self, doubt: Doubt) {
        self.utterances.values_mut().filter(|it| **it == Doubt::Any).for_each(|it| *it = doubt);
    }

    /// A text was typed that cuts off a reply of which so much was `audible`.
    fn typed(&mut self, now: Instant, audible: Duration) {
        self.typed = Some((now, audible));
        self.demote(Doubt::Rest(audible));
    }

    /// What an utterance may be that begins beside nothing audible.
    fn rest(&self, now: Instant) -> Option<Doubt> {
        self.typed.filter(|(since, _)| now <= *since + LATE).map(|(_, audible)| Doubt::Rest(audible))
    }

    /// One word may as well be an answer that takes up what was asked.
    fn is_late_echo(&self, text: &str, is_echo: Echo) -> bool {
        word_count(text) > 1 && is_echo(text, &self.over)
    }
}

impl Machine {
    /// A voice begins. False: nobody speaks or writes, nor has just been cut off, and it has the floor at once.
    pub(super) fn doubts(&mut self, now: Instant, utterance: &str) -> bool {
        // A client that pushes to talk means it.
        if self.settings.vad.is_none() {
            return false;
        }
        let Some(reply) = self.replies.front().filter(|reply| reply.is_perceived()) else {
            let Some(rest) = self.doubts.rest(now) else { return false };
            self.doubts.utterances.insert(utterance.to_owned(), rest);
            return true;
        };
        let (item_id, is_audible) = (reply.item_id.clone(), reply.is_audible());
        self.doubts.utterances.insert(utterance.to_owned(), Doubt::Any);
        if is_audible && self.doubts.ducked.is_none() {
            self.doubts.ducked = Some((item_id.clone(), now));
            self.tell(Output::Duck { item_id });
            self.effects.push(Effect::WakeAt(now + LONGEST_DUCK));
        }
        true
    }

    /// Takes in what an utterance probably says so far.
    pub(super) fn guessed(&mut self, now: Instant, transcription: Transcription) {
        if self.may_interrupt(&transcription.item_id) && !is_guessed_word(&transcription) {
            let settled: String = transcription.text.chars().take(transcription.stable_chars).collect();
            // What is guessed after the words of an echo is often made up of them.
            let begins_as_echo = word_count(&settled) > 1 && self.is_echo(now, &settled, is_echo);
            // A first guess often has an echo's sounds and not its words.
            let is_like: Echo = if settled.is_empty() { may_be_echo } else { is_echo };
            if !begins_as_echo {
                self.judge_by(now, &transcription.item_id, &transcription.text, is_like);
            }
        }
        self.tell(Output::Transcription(transcription));
    }

    /// Takes in what an utterance says so far. It interrupts where it means it.
    pub(super) fn judge(&mut self, now: Instant, utterance: &str, text: &str) {
        if self.may_interrupt(utterance) {
            self.judge_by(now, utterance, text, is_echo);
        }
    }

    fn may_interrupt(&self, utterance: &str) -> bool {
        self.doubts.utterances.get(utterance) == Some(&Doubt::Any)
    }

    fn judge_by(&mut self, now: Instant, utterance: &str, text: &str, is_echo: Echo) {
        if !is_backchannel(text) && !self.is_echo(now, text, is_echo) {
            // Its first words may have been misheard.
            self.doubts.utterances.insert(utterance.to_owned(), Doubt::Echo);
            self.interrupt_for_voice(now);
        }
    }

    /// Its end says more than an `unduck`. A reply of which nothing was heard is still owed, should this turn out to be
    /// a cough.
    pub(super) fn interrupt_for_voice(&mut self, now: Instant) {
        let unheard = self.interrupt(now, None);
        self.owed = self.owed.take().or(unheard);
        self.prepare();
    }

    /// Whoever types does not speak. What is heard just then, and no longer than what the text cuts off, is the echo of that,
    /// which the ear does not know yet.
    pub(super) fn interrupt_for_text(&mut self, now: Instant) {
        let audible = self.replies.front().filter(|reply| reply.is_audible()).map(|reply| reply.ledger.played_by(now));
        if let Some(audible) = audible.filter(|audible| *audible < UNKNOWN) {
            self.doubts.typed(now, audible);
        }
        self.interrupt(now, None);
    }

    /// Whoever speaks has said that it is a turn.
    pub(super) fn commit(&mut self, now: Instant) {
        self.doubts = Doubts::default();
        self.interrupt_for_voice(now);
    }

    /// Whether a whole utterance was in doubt to its end: then it is no turn.
    pub(super) fn acquits(&mut self, utterance: &str, text: &str, spoken: Duration) -> bool {
        let is_acquitted = match self.doubts.utterances.get(utterance) {
            Some(Doubt::Any) => true,
            Some(Doubt::Echo) => self.doubts.is_late_echo(text, is_echo),
            Some(Doubt::Rest(audible)) => spoken <= *audible + REVERBERATION || self.doubts.is_late_echo(text, is_echo),
            None => false,
        };
        self.end_doubt(utterance);
        is_acquitted
    }

    /// Nothing more will be known of an utterance.
    pub(super) fn end_doubt(&mut self, utterance: &str) {
        self.doubts.utterances.remove(utterance);
        if self.doubts.utterances.values().all(|doubt| *doubt != Doubt::Any) {
            self.unduck();
        }
        if self.doubts.utterances.is_empty() {
            self.doubts.over.clear();
        }
    }

    /// It is later.
    pub(super) fn woken(&mut self, now: Instant) {
        if self.doubts.ducked.as_ref().is_some_and(|(_, since)| now >= *since + LONGEST_DUCK) {
            self.unduck();
        }
    }

    pub(super) fn unduck(&mut self) {
        if let Some((item_id, _)) = self.doubts.ducked.take() {
            self.tell(Output::Unduck { item_id });
        }
    }

    /// Whether these are words of the reply that is audible, or of what was before.
    fn is_echo(&self, now: Instant, text: &str, is_echo: Echo) -> bool {
        let audible = self.replies.front().filter(|reply| reply.is_audible());
        let said = audible.map(|reply| reply.ledger.around(reply.played(now, None)));
        said.is_some_and(|said| is_echo(text, said)) || self.doubts.is_late_echo(text, is_echo)
    }
}
