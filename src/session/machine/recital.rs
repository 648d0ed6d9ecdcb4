//! A reply that was cut off is said to its end: what was written of it, from the first sentence that was not heard.

use tokio::time::Instant;

use super::reply::{Cause, Part, Reply};
use super::{Effect, Effects, Machine};
use crate::provider::Urgency;
use crate::session::event::{Output, Turn};
use crate::session::mouth::{Sentence, Voicing};
use crate::session::resumption::Unfinished;

impl Machine {
    /// The session goes on from these numbers.
    pub(in crate::session) const fn count_on(&mut self, turn: Turn, sequence_number: u64) {
        (self.turn, self.sequence_number) = (turn, sequence_number);
    }

    /// Says a reply to its end. One that others have answered meanwhile, or whose character has left, stays as it is; so
    /// does one that was being written again.
    pub(in crate::session) fn recite(&mut self, now: Instant, unfinished: Unfinished) -> Effects {
        let Unfinished { item_id, character_id, sentences, is_written, heard } = unfinished;
        let turn = self.turn;
        let written: String = sentences.iter().map(|(_, text)| text.as_str()).collect();
        // What it replaces stands until it is written.
        let replaces = self.history.reply(&item_id).filter(|entry| !written.starts_with(&entry.text)).cloned();
        let is_kept = self.history.is_latest(&item_id) && (is_written || replaces.is_none());
        let speaker = self.cast.find(&character_id).filter(|_| is_kept);
        let Some((speaker, first)) = speaker.zip(sentences.first().map(|(number, _)| *number)) else {
            let (heard_text, heard) = (self.history.text_of(&item_id), heard.unwrap_or_default().1);
            self.tell(Output::Interrupted { turn, item_id, heard_text, heard });
            self.tell(Output::SpeakerChanged { character_id: None });
            return std::mem::take(&mut self.effects);
        };
        let player = self.cast.player(speaker);
        let settings = player.settings.clone();
        let part = Part { player, speaker, settings, replaces, is_recorded: false };
        let mut reply = Reply::new(turn, item_id.clone(), part, Cause::new(now), now, first);
        let (heard_through, begins) = heard.unwrap_or_default();
        let is_heard = |number: u64| heard.is_some() && number <= heard_through;
        for (number, text) in &sentences {
            reply.write(now, *number, text);
            if is_heard(*number) {
                reply.ledger.was_heard(*number, begins, now);
            }
        }
        reply.is_written = true;
        let rest: Vec<Sentence> = sentences
            .into_iter()
            .filter(|(number, _)| !is_heard(*number))
            .zip(std::iter::once(Urgency::First).chain(std::iter::repeat(Urgency::Later)))
            .map(|((sequence_number, text), urgency)| Sentence { sequence_number, text, urgency })
            .collect();
        reply.is_spoken &= !rest.is_empty();
        let voicing = reply.voicing(&self.scene).map(|voicing| Box::new(Voicing { begins, ..*voicing }));
        let text = reply.ledger.text().to_owned();
        self.replies.push_back(reply);
        self.floor = Some(speaker);
        self.cast.takes_floor(speaker);
        if !is_written {
            self.tell(Output::TextDone { turn, character_id, item_id, text });
        }
        match voicing {
            Some(voicing) => self.effects.push(Effect::Recite { turn, voicing, sentences: rest }),
            None => self.complete(now),
        }
        std::mem::take(&mut self.effects)
    }
}

#[cfg(test)]
#[path = "recital_tests.rs"]
mod tests;
