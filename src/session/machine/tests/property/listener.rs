//! What the client is told, and what must hold of it.

use super::*;

impl World {
    /// What the client sees of it.
    pub(super) fn listen(&mut self) {
        while let Some(Some(told)) = self.outbox.recv().now_or_never() {
            if let Some(turn) = told.output.turn() {
                assert!(!self.ends.contains_key(&turn), "{:?} came after its end", told.output);
                let is_alone = self.audible.is_none_or(|audible| audible == turn);
                assert!(is_alone, "{turn:?} is audible beside {:?}", self.audible);
                assert!(self.ends.last_key_value().is_none_or(|(ended, _)| turn > *ended), "an old turn spoke");
                self.audible = Some(turn);
            }
            match told.output {
                Output::TextChunk { sequence_number, character_id, .. } => {
                    let next = self.sequence_number..=self.sequence_number + 1;
                    assert!(next.contains(&sequence_number), "sentence numbers grow by one");
                    self.sequence_number = sequence_number;
                    assert_eq!(Some(character_id), self.speaker, "who has not the floor wrote");
                }
                Output::Audio(piece) => {
                    assert!(piece.sequence_number <= self.sequence_number, "audio came before its text");
                    assert_eq!(Some(piece.character_id), self.speaker, "who has not the floor spoke");
                }
                Output::Interrupted { turn, item_id, heard_text, heard } => {
                    self.ended(turn, &item_id, Some((&heard_text, heard)));
                    self.gone.insert(turn);
                }
                Output::TurnComplete(report) => {
                    assert_eq!(self.ducked, None, "a reply ended ducked");
                    self.ended(report.turn, &report.item_id, None);
                }
                Output::SpeakerChanged { character_id } => {
                    assert_ne!(character_id, self.speaker, "the floor went to who had it");
                    self.speaker = character_id;
                }
                Output::Duck { item_id } => {
                    assert_eq!(self.ducked, None, "ducked twice");
                    self.ducked = Some((item_id, self.now));
                    self.counts.ducked += 1;
                }
                Output::Unduck { item_id } => {
                    assert_eq!(self.ducked.take().map(|(item, _)| item), Some(item_id));
                    self.counts.unducked += 1;
                }
                _ => {}
            }
        }
    }

    /// A reply has ended; what was heard of it is what stays of it, everywhere.
    fn ended(&mut self, turn: Turn, item_id: &str, interrupted: Option<(&str, Duration)>) {
        *self.ends.entry(turn).or_default() += 1;
        self.begun.insert(turn);
        self.audible = None;
        let by_voice = self.ducked.take().is_some();
        let at = self.replies.iter().position(|reply| Turn(reply.turn) == turn).unwrap();
        if self.replies[at].item_id.is_empty() {
            self.replies[at].replaces = self.known(item_id);
        }
        let reply = &self.replies[at];
        let heard = interrupted.map(|_| reply.heard(self.now, self.says));
        let remains = reply.remains(heard.map(|(_, text)| text));
        match &remains {
            None => self.counts.restored += 1,
            Some(_) if reply.replaces.is_some() => self.counts.rewritten += 1,
            Some((text, heard)) if !heard.is_empty() && heard.len() < text.trim_end().len() => {
                self.counts.cut_in_a_word += 1;
                self.counts.cut_by_voice += usize::from(by_voice);
            }
            Some(_) => self.counts.completed += usize::from(interrupted.is_none()),
        }
        let kept = remains.as_ref().map_or_else(|| reply.replaces.clone(), |(_, heard)| Some(heard.clone()));
        let kept = kept.unwrap_or_default();
        if let (Some((told, told_for)), Some((played, _))) = (interrupted, heard) {
            assert_eq!((told.trim_end(), told_for), (kept.trim_end(), played), "what is told as heard");
        }
        if let Some((text, heard)) = remains {
            let stored = self.records.get(item_id).map(|message| {
                let chars = message.heard_chars.unwrap_or(usize::MAX);
                (message.content.as_str(), message.content.chars().take(chars).collect::<String>())
            });
            let expected = (interrupted.is_none() || !text.is_empty()).then_some((text, heard));
            // One of which nothing was written may be begun anew at once, under its id.
            let is_begun_anew = expected.is_none() && self.machine.replies.iter().any(|it| it.item_id == item_id);
            if !is_begun_anew {
                assert_eq!(stored, expected, "what is stored as heard");
            }
        }
        if self.known(item_id).is_some() {
            self.remember(item_id, &kept);
        }
        let known = self.machine.history.reply(item_id).map(|entry| entry.text.as_str());
        assert_eq!(known.unwrap_or_default(), kept, "what the history holds as heard");
    }

    /// The client leaves.
    pub(super) fn ends(mut self) -> Counts {
        let effects = self.machine.leave(self.now);
        self.perform(effects);
        assert_eq!((self.running, &self.speaker, &self.ducked), (None, &None, &None));
        let open = |message: &&Message| matches!(message.status, MessageStatus::Pending | MessageStatus::Processing);
        assert_eq!(self.records.values().find(open), None, "a reply is stored as begun for ever");
        assert!(self.ends.values().all(|ends| *ends == 1), "a reply ended twice");
        let lines = self.history.iter().filter(|(_, text)| !text.is_empty());
        let lines: Vec<&str> = lines.map(|(_, text)| text.trim_end()).collect();
        let told = self.machine.history.messages(String::new(), None, false, Some(""));
        let told: Vec<_> = told.iter().flat_map(|message| message.content.lines()).collect();
        let told: Vec<_> = told.iter().map(|line| line.split_once(": ").map_or(*line, |(_, line)| line)).collect();
        let told: Vec<&str> = told.into_iter().map(str::trim_end).collect();
        assert_eq!(told, lines, "the history, from its beginning");
        self.counts
    }
}
