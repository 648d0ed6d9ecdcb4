//! How far a reply was played: by what its listener says, or by the pace of sending where it never says anything. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::session::event::AudioPiece;

/// Replies whose end is remembered: those that a client that comes back may not have seen the end of.
const ENDS: usize = 16;

/// The playback of one call.
#[derive(Debug, Default)]
pub(in crate::api::ws) struct Playback {
    /// The latest reply with sound.
    item: Option<Item>,
    /// When all that was sent will have been played.
    playhead: Option<Instant>,
    /// Its listener says what was played.
    is_acknowledged: bool,
    /// Replies that ended, and the number of that message.
    ends: VecDeque<(String, u64)>,
}

#[derive(Debug)]
struct Item {
    id: String,
    /// Of each piece: where it ends, from the item's first sample, and when its playback does.
    pieces: VecDeque<(Duration, Instant)>,
    /// Of each sentence that was sent to its end: its number and where it ends.
    sentences: Vec<(u64, Duration)>,
    acknowledged: Duration,
    is_over: bool,
}

/// Pieces that are looked at: as many seconds as a client may hold back, and more.
const PIECES: usize = 512;

/// What was heard of a reply that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::api::ws) struct Heard {
    pub item_id: String,
    /// The last sentence that was heard to its end.
    pub sentence: u64,
    /// Where that ends.
    pub end: Duration,
}

impl Playback {
    /// Takes in a piece that leaves now.
    pub(super) fn send(&mut self, now: Instant, piece: &AudioPiece) {
        let length = piece.audio.duration();
        let ends_at = self.playhead.map_or(now, |playhead| playhead.max(now)) + length;
        self.playhead = Some(ends_at);
        let end = piece.pts + length;
        let is_same = self.item.as_ref().is_some_and(|item| item.id == piece.item_id && !item.is_over);
        if !is_same {
            let (pieces, sentences) = (VecDeque::new(), Vec::new());
            let id = piece.item_id.clone();
            self.item = Some(Item { id, pieces, sentences, acknowledged: Duration::ZERO, is_over: false });
        }
        let Some(item) = &mut self.item else { return };
        item.pieces.push_back((end, ends_at));
        if item.pieces.len() > PIECES {
            item.pieces.pop_front();
        }
        if piece.last {
            item.sentences.push((piece.sequence_number, end));
        }
    }

    /// Takes in what a listener says.
    pub(super) fn acknowledge(&mut self, item_id: &str, played: Duration) {
        self.is_acknowledged = true;
        if let Some(item) = self.item.as_mut().filter(|item| item.id == item_id) {
            item.acknowledged = item.acknowledged.max(played);
        }
    }

    /// Takes in that a reply has ended with the message `seq`.
    pub(super) fn end(&mut self, item_id: &str, seq: u64) {
        if let Some(item) = self.item.as_mut().filter(|item| item.id == item_id) {
            item.is_over = true;
        }
        self.ends.push_back((item_id.to_owned(), seq));
        if self.ends.len() > ENDS {
            self.ends.pop_front();
        }
    }

    /// Whether a client that has seen everything up to `seq` has not seen the end of a reply.
    pub(super) fn is_open(&self, item_id: &str, seq: u64) -> bool {
        self.ends.iter().rfind(|(id, _)| id == item_id).is_none_or(|(_, end)| *end > seq)
    }

    /// What the pace says was played by `now`, where no listener says it.
    pub(super) fn played_by(&self, now: Instant) -> Option<(String, Duration)> {
        let item = self.item.as_ref().filter(|_| !self.is_acknowledged)?;
        Some((item.id.clone(), item.paced(now)))
    }

    /// What was heard by `now` of the reply that is under way. None: no whole sentence.
    pub(super) fn heard(&self, now: Instant) -> Option<Heard> {
        let item = self.item.as_ref().filter(|item| !item.is_over)?;
        let played = if self.is_acknowledged { item.acknowledged } else { item.paced(now) };
        let (sentence, end) = item.sentences.iter().copied().rfind(|(_, end)| *end <= played)?;
        Some(Heard { item_id: item.id.clone(), sentence, end })
    }
}

impl Item {
    fn paced(&self, now: Instant) -> Duration {
        self.pieces.iter().rfind(|(_, ends_at)| *ends_at <= now).map_or(Duration::ZERO, |(end, _)| *end)
    }
}

#[cfg(test)]
#[path = "playback_tests.rs"]
pub(super) mod tests;
