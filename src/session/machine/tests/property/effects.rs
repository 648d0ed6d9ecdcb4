//! The machine's effects, done to the simulated mind, mouth, database and history.

use super::*;

impl World {
    fn begins(&mut self, turn: Turn, request: &ChatRequest, waits: bool) {
        assert_eq!(self.running.is_some(), waits, "a reply began while another went on");
        assert_eq!(self.waiting, None, "two replies wait");
        assert_eq!(self.note, None, "a reply began while a note was written");
        assert!(turn > self.last_turn, "a turn that does not grow");
        self.last_turn = turn;
        let audible = self.running.and_then(|turn| self.replies.iter().find(|reply| Turn(reply.turn) == turn));
        let written = audible.filter(|_| waits).and_then(|reply| Some((reply.item_id.clone(), reply.remains(None)?.1)));
        if let Some((item, text)) = written.filter(|(_, text)| !text.is_empty()) {
            self.remember(&item, &text);
        }
        *(if waits { &mut self.waiting } else { &mut self.running }) = Some(turn);
        let reply = self.machine.replies.iter().find(|reply| reply.turn == turn);
        // One that is begun and ended in one step is named by its end.
        let item_id = reply.map_or_else(String::new, |reply| reply.item_id.clone());
        let replaces = self.known(&item_id);
        self.replies.push(Played {
            turn: turn.0,
            is_written_only: reply.is_some_and(|reply| reply.settings.output == OutputKind::Text),
            item_id,
            replaces,
            text: String::new(),
            sentences: Vec::new(),
            is_open: false,
            is_over: false,
            has_failed: false,
            to_speak: VecDeque::new(),
            is_spoken: false,
            is_mute: false,
            pieces: Vec::new(),
            words: Vec::new(),
            acknowledged: None,
        });
        let roles: Vec<_> = request.messages.iter().map(|message| message.role).collect();
        assert_eq!(roles[0], Role::System);
        let expected = [Role::User, Role::Assistant].into_iter().cycle().take(roles.len() - 1);
        assert_eq!(roles[1..], expected.collect::<Vec<_>>());
    }

    /// What the history should hold of it.
    pub(super) fn known(&self, id: &str) -> Option<String> {
        self.history.iter().find(|(known, _)| known == id).map(|(_, text)| text.clone())
    }

    pub(super) fn remember(&mut self, id: &str, text: &str) {
        match self.history.iter_mut().find(|(old, _)| old == id) {
            Some((_, old)) => text.clone_into(old),
            None => self.history.push((id.to_owned(), text.to_owned())),
        }
    }

    pub(super) fn perform(&mut self, effects: Effects) {
        for effect in effects {
            self.log.borrow_mut().push(line(&effect));
            match effect {
                Effect::Think { turn, request, waits, .. } => self.begins(turn, &request, waits),
                Effect::Stop => (self.running, self.waiting) = (None, None),
                Effect::TakeBack => assert!(self.waiting.take().is_some()),
                Effect::End => assert!(self.running.take().is_some()),
                Effect::GiveFloor { turn } => {
                    assert_eq!((self.running, self.waiting.take()), (None, Some(turn)));
                    self.running = Some(turn);
                    self.counts.waited += 1;
                }
                Effect::Note { number, request } => {
                    assert_eq!((self.running, self.note), (None, None), "the model is not idle");
                    assert_eq!(request.messages.len(), 2);
                    self.note = Some(number);
                }
                Effect::StopNote => self.note = None,
                Effect::Title { title, instead_of } => {
                    assert!(!title.is_empty() && title != instead_of);
                    assert!(self.titles.is_empty(), "one title at a time");
                    self.titles.push((title, instead_of));
                }
                Effect::Forget { message_id } => {
                    let forgotten = self.records.remove(&message_id);
                    let status = forgotten.map(|message| message.status);
                    assert_eq!(status, Some(MessageStatus::Pending), "only what was begun is forgotten");
                }
                Effect::Record { .. } => panic!("nobody wants recordings"),
                Effect::Recite { .. } => panic!("nothing was cut off"),
                Effect::WakeAt(instant) => self.alarm = Some(instant),
                Effect::Cast { .. } => self.is_looking_up = true,
                Effect::Prepare(request) => assert_eq!(request.messages[0].role, Role::System),
                Effect::Speak { turn, sentence } => self.speaks(turn, &sentence),
                Effect::Spoken { turn } => {
                    assert!([self.running, self.waiting].contains(&Some(turn)));
                    let reply = self.replies.iter_mut().rfind(|reply| reply.turn == turn.0).unwrap();
                    reply.is_spoken = true;
                }
                Effect::Save(save) => self.stores(save),
                Effect::Tell(told) => self.control.try_send(told).unwrap(),
            }
        }
        self.listen();
    }

    fn speaks(&mut self, turn: Turn, sentence: &Sentence) {
        assert!([self.running, self.waiting].contains(&Some(turn)));
        let reply = self.replies.iter_mut().rfind(|reply| reply.turn == turn.0).unwrap();
        let start = reply.sentences.last().copied().unwrap_or_default();
        assert!(reply.text[start..].starts_with(&sentence.text), "{sentence:?} is not what was written");
        let words = marks(&sentence.text);
        let mut end = start;
        let ends = sentence.text.split_inclusive(' ').map(|word| {
            end += word.len();
            end - word.len() + word.trim_end().len()
        });
        let ends = ends.collect();
        let mut left = words.last().map_or(Duration::ZERO, |word| word.end);
        let mut pieces = VecDeque::new();
        while !left.is_zero() {
            let piece = left.min(ms(300));
            left -= piece;
            pieces.push_back(piece);
        }
        reply.to_speak.push_back(ToSpeak { number: sentence.sequence_number, pieces, words, ends });
    }

    fn stores(&mut self, save: Box<Save>) {
        let message = &save.message;
        if message.role == Role::User {
            self.said.push(message.id.clone());
            self.remember(&message.id.clone(), &message.content.clone());
        }
        let message = &save.message;
        let begun = |status| matches!(status, MessageStatus::Pending | MessageStatus::Processing);
        let stands = self.records.get(&message.id).is_some_and(|old| !begun(old.status));
        assert!(!(stands && begun(message.status)), "what stands is stored as begun");
        self.records.insert(message.id.clone(), message.clone());
        if message.role == Role::Assistant && !begun(message.status) && !message.content.is_empty() {
            // Its place in the history is here; that this is what was heard is checked at its end.
            let heard: String = message.content.chars().take(message.heard_chars.unwrap_or(usize::MAX)).collect();
            self.remember(&message.id.clone(), &heard);
        }
        self.saves.push(save);
    }
}
