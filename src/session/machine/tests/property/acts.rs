//! What a happening makes of the simulated world: an event for the machine, or nothing where it cannot happen now.

use super::*;

impl World {
    pub(super) fn event(&mut self, it: Happening) -> Option<Event> {
        let (which, number) = (it.which, it.number);
        let at = self.reply(which);
        let item = at.map_or_else(|| "unknown".to_owned(), |at| self.replies[at].item_id.clone());
        Some(match it.kind {
            Kind::VoiceBegins | Kind::VoiceGoesOn | Kind::VoiceIsHeard | Kind::VoiceIsNothing | Kind::VoiceFails => {
                return self.voice(it);
            }
            Kind::Committed => Event::Heard(Heard::Committed),
            Kind::Text => {
                let client_message_id = number.is_multiple_of(3).then(|| format!("client-{}", number % 5));
                let text = ["Hello", "Max and Zoe, hello", "@Olivia"][number as usize % 3].to_owned();
                let character_ids = if number.is_multiple_of(5) { ids(number) } else { Vec::new() };
                asked(Input::Text { text, client_message_id, terms: terms(number), character_ids })
            }
            Kind::SpeakUp => asked(Input::SpeakUp { character_ids: ids(number), terms: terms(number) }),
            Kind::NextSpeaker => {
                asked(Input::NextSpeaker { character_id: ids(number | 4).pop().unwrap_or_else(|| "max-001".into()) })
            }
            Kind::Regenerate if number.is_multiple_of(3) => {
                let item_id = self.said.iter().rev().nth(which).cloned()?;
                asked(Input::Regenerate { item_id, terms: terms(number) })
            }
            Kind::Regenerate => {
                let old = self.replies.iter().rev().nth(which).map(|reply| reply.item_id.clone());
                asked(Input::Regenerate { item_id: old.unwrap_or(item), terms: terms(number) })
            }
            Kind::Interrupt => {
                let played = number.is_multiple_of(2).then_some(number * 3);
                self.says = played.map(ms);
                asked(Input::Interrupt { item_id: number.is_multiple_of(3).then_some(item), played_ms: played })
            }
            Kind::Acknowledge => self.acknowledges(at?, number),
            Kind::Settings => {
                let vad = [None, Some(None), Some(Some(VadPatch::default()))][number as usize % 3];
                let turn_taking = number.is_multiple_of(4).then(|| POLICIES[number as usize / 4 % 4]);
                let patch = SettingsPatch { vad, turn_taking, lead_ms: Some(number), ..SettingsPatch::default() };
                asked(Input::Settings(patch))
            }
            Kind::Characters => asked(Input::Characters { character_ids: ids(number | 4) }),
            Kind::Recast => asked(Input::Recast { character_ids: ids(number | 4) }),
            Kind::Elsewhere => self.elsewhere(which, number),
            Kind::Deleted => return self.deleted(number),
            Kind::LookedUp => {
                if !std::mem::take(&mut self.is_looking_up) {
                    return None;
                }
                let all = company().into_iter().cycle().skip(number as usize % 3);
                let unknown = RecordError::NotFound { what: "character", id: "nobody".to_owned() };
                let found = !number.is_multiple_of(5);
                self.counts.recast += usize::from(found);
                let outcome = found.then(|| all.take(1 + number as usize % 3).collect()).ok_or(unknown);
                Event::Cast { reference: None, outcome }
            }
            Kind::MindWrites => self.mind_writes(at?, number)?,
            Kind::MindEnds => self.mind_ends(at?, None)?,
            Kind::MindFails => self.mind_ends(at?, Some(failed("mind")))?,
            Kind::MouthSends => self.mouth_sends(at?)?,
            Kind::MouthEnds => self.mouth_ends(at?, number)?,
            Kind::MouthFails => {
                let reply = &mut self.replies[at?];
                if reply.is_mute || reply.to_speak.pop_front().is_none() {
                    return None;
                }
                progress(reply.turn, Progress::Failed(failed("mouth")))
            }
            Kind::NoteWritten => {
                let number = self.note?.saturating_sub(which as u64);
                self.note = self.note.filter(|note| *note != number);
                let outcome =
                    if it.number.is_multiple_of(3) { Err(failed("mind")) } else { Ok("They met.".to_owned()) };
                Event::Noted { number, outcome }
            }
            Kind::Titled => {
                let (title, instead_of) = self.titles.pop()?;
                let outcome = [Ok(true), Ok(false), Err(RecordError::Failed)][number as usize % 3].clone();
                Event::Titled { title, instead_of, outcome }
            }
            Kind::Stored => {
                if self.saves.is_empty() {
                    return None;
                }
                let save = self.saves.remove(0);
                let id = save.message.id.clone();
                let outcome = if number.is_multiple_of(7) { Err(RecordError::Failed) } else { Ok(id) };
                Event::Stored { save, outcome }
            }
            Kind::Woken => Event::Woken,
        })
    }

    /// A message of the user's comes, or is changed.
    fn elsewhere(&mut self, which: usize, number: u64) -> Event {
        let old = self.said.iter().rev().nth(which).filter(|_| number.is_multiple_of(2)).cloned();
        let id = old.unwrap_or_else(|| format!("e{}", self.log.borrow().len()));
        let content = format!("from elsewhere {number}");
        if !self.said.contains(&id) {
            self.said.push(id.clone());
        }
        self.remember(&id, &content);
        let message = Message {
            id: id.clone(),
            conversation_id: String::new(),
            role: Role::User,
            character_id: None,
            character_name: None,
            content,
            status: MessageStatus::Completed,
            heard_chars: None,
            metadata: Value::Null,
            client_message_id: None,
        };
        self.records.insert(id, message.clone());
        self.counts.elsewhere += 1;
        asked(Input::Noted(vec![message]))
    }

    fn acknowledges(&mut self, at: usize, number: u64) -> Event {
        // Near the truth, behind it, long past, or of something else.
        let reply = &mut self.replies[at];
        let item_id = reply.item_id.clone();
        let truth = reply.heard(self.now, None).0.as_millis() as u64;
        let played = [truth, truth, truth.saturating_sub(number % 300), number * 5][number as usize % 4];
        if Some(Turn(reply.turn)) == self.running {
            reply.acknowledge(self.now, ms(played));
            self.counts.acknowledged += 1;
        } else if let Some(running) = self.running {
            // Another version of the same message.
            let now = self.now;
            let same = self.replies.iter_mut().find(|reply| Turn(reply.turn) == running);
            if let Some(same) = same.filter(|reply| reply.item_id == item_id) {
                same.acknowledge(now, ms(played));
            }
        }
        asked(Input::PlaybackAck { item_id, played_ms: played })
    }

    fn deleted(&mut self, number: u64) -> Option<Event> {
        let message_id = self.said.get(number as usize % self.said.len().max(1))?.clone();
        self.said.retain(|id| *id != message_id);
        self.history.retain(|(id, _)| *id != message_id);
        self.records.remove(&message_id);
        self.counts.deleted += 1;
        Some(asked(Input::Dropped { message_id }))
    }

    fn voice(&mut self, it: Happening) -> Option<Event> {
        if matches!(it.kind, Kind::VoiceBegins) {
            let id = format!("u{}", self.log.borrow().len());
            self.utterances.push(id.clone());
            return Some(began(&id));
        }
        let at = (it.number as usize).checked_rem(self.utterances.len())?;
        let text = ["Hello.", "Max and Zoe, hello.", "Mhm.", "one two"][it.which % 4];
        Some(match it.kind {
            Kind::VoiceGoesOn => partial(&self.utterances[at], text),
            Kind::VoiceIsHeard => said(&self.utterances.remove(at), text, self.now),
            Kind::VoiceIsNothing => nothing(&self.utterances.remove(at)),
            _ => Event::Heard(Heard::Failed { item_id: self.utterances.remove(at), error: failed("ear") }),
        })
    }

    fn is_live(&self, at: usize) -> bool {
        [self.running, self.waiting].contains(&Some(Turn(self.replies[at].turn)))
    }

    /// One more sentence begins, goes on, or is complete. A mind that does not know that its reply has ended still
    /// writes.
    fn mind_writes(&mut self, at: usize, number: u64) -> Option<Event> {
        let is_live = self.is_live(at);
        let reply = &mut self.replies[at];
        if reply.is_over {
            return None;
        }
        if reply.is_open && number.is_multiple_of(2) {
            return Some(Self::completes(reply, number));
        }
        let text = ["one two ", "three ", "Zoe, four ", "five. "][number as usize / 2 % 4];
        if !reply.is_open {
            reply.sentences.push(reply.text.len());
            reply.is_open = true;
        }
        if is_live {
            reply.text.push_str(text);
        }
        Some(wrote(reply.turn, reply.sentences.len() as u64 - 1, text))
    }

    /// A sentence in eleven is nothing to speak.
    fn completes(reply: &mut Played, number: u64) -> Event {
        reply.is_open = false;
        let last = reply.sentences.last().map_or("", |start| reply.text[*start..].trim_end());
        let speakable = if number.is_multiple_of(11) { "" } else { last };
        whole(reply.turn, reply.sentences.len() as u64 - 1, speakable)
    }

    fn mind_ends(&mut self, at: usize, error: Option<ProviderError>) -> Option<Event> {
        let reply = &mut self.replies[at];
        if !reply.is_over && reply.is_open && error.is_none() {
            let last = Self::completes(reply, 1);
            self.step(last);
        }
        let is_live = self.is_live(at);
        let reply = &mut self.replies[at];
        let was_over = std::mem::replace(&mut reply.is_over, true);
        // That its task has ended is told as a failure, which is news only where nothing else was.
        if was_over && error.is_none() {
            return None;
        }
        let is_empty = error.is_none() && reply.text.is_empty() && reply.replaces.is_some();
        reply.has_failed |= is_live && !was_over && (error.is_some() || is_empty);
        Some(match error {
            Some(error) => thought(reply.turn, Thought::Failed(error)),
            None => done(reply.turn),
        })
    }

    /// A mouth that does not know yet that its reply was interrupted still sends; one that has finished does not, nor
    /// one that has not the floor.
    fn mouth_sends(&mut self, at: usize) -> Option<Event> {
        let reply = &self.replies[at];
        let turn = Turn(reply.turn);
        let has_floor = self.running == Some(turn) || self.gone.contains(&turn);
        let is_due = reply.playhead().is_none_or(|playhead| playhead <= self.now + ms(2000));
        if reply.is_mute || !has_floor || !is_due {
            return None;
        }
        let is_live = self.is_live(at);
        let character_id = self.speaker.clone().unwrap_or_default();
        let (now, reply) = (self.now, &mut self.replies[at]);
        let pts = reply.sent();
        let plays_at = reply.playhead().map_or(now, |playhead| playhead.max(now));
        let sentence = reply.to_speak.front_mut()?;
        let length = sentence.pieces.pop_front()?;
        let mut words = std::mem::take(&mut sentence.words);
        for word in &mut words {
            (word.start, word.end) = (word.start + pts, word.end + pts);
        }
        let last = sentence.pieces.is_empty();
        let number = sentence.number;
        if is_live {
            reply.words.extend(words.iter().map(|word| word.end).zip(sentence.ends.drain(..)));
            reply.pieces.push((pts, length, plays_at));
        }
        if last {
            reply.to_speak.pop_front();
        }
        let item_id = reply.item_id.clone();
        let _ = self.audio.try_send(AudioPiece {
            turn,
            character_id,
            item_id,
            sequence_number: number,
            pts,
            audio: Speech::silence(Samples::from_millis(20)),
            words: Vec::new(),
            last,
            format: AudioFormat::Pcm,
        });
        Some(progress(
            turn.0,
            Progress::Sent(SentPiece {
                sequence_number: number,
                pts,
                length,
                plays_at,
                words,
                last,
                served_by: "voice".into(),
                first_audio: ms(90),
                audio: None,
            }),
        ))
    }

    /// It ends when all was played; seldom, it fails before.
    fn mouth_ends(&mut self, at: usize, number: u64) -> Option<Event> {
        let has_floor = self.running == Some(Turn(self.replies[at].turn));
        let now = self.now;
        let reply = &mut self.replies[at];
        let is_played = reply.playhead().is_none_or(|playhead| playhead <= now);
        let is_done = has_floor && reply.is_spoken && reply.to_speak.is_empty() && is_played;
        if reply.is_mute || reply.is_written_only || !(is_done || number.is_multiple_of(17)) {
            return None;
        }
        reply.is_mute = true;
        Some(progress(reply.turn, Progress::Finished))
    }
}
