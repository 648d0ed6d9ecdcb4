//! Whether a voice during a reply means it. At its onset the client is told to lower the reply's volume (`duck`); words
//! that are no agreement, no noise and not the reply's own ones stop the reply; otherwise it goes on (`unduck`).

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::{Effect, Machine};
use crate::session::event::{Output, Transcription};
use crate::text::backchannel::{is_backchannel, is_echo};
use crate::text::word_count;

/// Who has said nothing by then is not waited for with a lowered voice.
const LONGEST_DUCK: Duration = Duration::from_secs(2);

/// Whether this is a single word that was guessed once: so is many a hum, and the next guess will tell.
fn is_guessed_word(transcription: &Transcription) -> bool {
    transcription.stable_chars == 0 && word_count(&transcription.text) < 2
}

/// Voices that may mean to interrupt.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// Utterances of which no word is known that would interrupt.
    utterances: HashSet<String>,
    /// The item whose volume is lowered, and since when.
    ducked: Option<(String, Instant)>,
}

impl Machine {
    /// A voice begins. False: nobody speaks aloud, and it has the floor at once.
    pub(super) fn doubts(&mut self, now: Instant, utterance: &str) -> bool {
        // A client that pushes to talk means it.
        let Some(reply) = self.replies.front().filter(|reply| reply.is_audible() && self.settings.vad.is_some()) else {
            return false;
        };
        let item_id = reply.item_id.clone();
        self.doubts.utterances.insert(utterance.to_owned());
        if self.doubts.ducked.is_none() {
            self.doubts.ducked = Some((item_id.clone(), now));
            self.tell(Output::Duck { item_id });
            self.effects.push(Effect::WakeAt(now + LONGEST_DUCK));
        }
        true
    }

    /// Takes in what an utterance probably says so far.
    pub(super) fn guessed(&mut self, now: Instant, transcription: Transcription) {
        if !is_guessed_word(&transcription) {
            self.judge(now, &transcription.item_id, &transcription.text);
        }
        self.tell(Output::Transcription(transcription));
    }

    /// Takes in what an utterance says so far. It interrupts where it means it.
    pub(super) fn judge(&mut self, now: Instant, utterance: &str, text: &str) {
        if self.doubts.utterances.contains(utterance) && self.means_it(now, text) {
            self.doubts.utterances.clear();
            // Its end says more than an `unduck`.
            self.doubts.ducked = None;
            let unheard = self.interrupt(now, None);
            self.owed = self.owed.take().or(unheard);
            self.prepare();
        }
    }

    /// Whether a whole utterance was in doubt to its end: then it is no turn.
    pub(super) fn acquits(&mut self, utterance: &str) -> bool {
        let was_doubted = self.doubts.utterances.remove(utterance);
        if self.doubts.utterances.is_empty() {
            self.unduck();
        }
        was_doubted
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

    fn means_it(&self, now: Instant, text: &str) -> bool {
        let said = self.replies.front().map(|reply| reply.ledger.around(reply.played(now, None)));
        !is_backchannel(text) && !said.is_some_and(|said| is_echo(text, said))
    }
}
