//! Whatever happens in whatever order, and what must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::FutureExt;
use proptest::prelude::*;
use tokio::sync::mpsc;

use super::tests::{
    asked, began, company, done, machine_with, ms, nothing, progress, said, sent, thought, whole, wrote,
};
use super::*;
use crate::audio::{Samples, Speech};
use crate::session::event::{AudioPiece, Input};
use crate::session::outbox::{AUDIO_LANE, Outbox};
use crate::session::settings::{AudioFormat, OutputKind, SettingsPatch, TurnTaking};

/// One of the things that can happen, as numbers.
#[derive(Clone, Copy, Debug)]
struct Happening {
    kind: u8,
    /// Which turn, utterance or item, from the newest.
    which: usize,
    number: u64,
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = (0_u8..29, prop_oneof![4 => Just(0_usize), 1 => 1_usize..4], 0_u64..1500);
    prop::collection::vec(one.prop_map(|(kind, which, number)| Happening { kind, which, number }), 1..80)
}

fn terms(number: u64) -> Terms {
    let output = number.is_multiple_of(4).then_some(OutputKind::Text);
    SettingsPatch { output, ..SettingsPatch::default() }.into()
}

/// A reply, as its mind and mouth see it.
struct Played {
    turn: u64,
    /// The number of its first sentence.
    first: u64,
    /// So many of its sentences have text.
    sentences: u64,
    sent: Duration,
    /// It has, or had, the floor.
    is_begun: bool,
}

/// A session played with the machine and a real outbox, and what must hold.
struct World {
    machine: Machine,
    outbox: Outbox,
    control: mpsc::Sender<Told>,
    audio: mpsc::Sender<AudioPiece>,
    now: Instant,
    utterances: Vec<String>,
    replies: Vec<Played>,
    items: Vec<String>,
    /// The user's messages.
    said: Vec<String>,
    #[expect(clippy::vec_box, reason = "they go back as they came")]
    saves: Vec<Box<Save>>,
    running: Option<Turn>,
    waiting: Option<Turn>,
    note: Option<u64>,
    titles: Vec<(String, String)>,
    /// Messages that are stored as begun.
    open: BTreeSet<String>,
    speaker: Option<String>,
    last_turn: Turn,
    sequence_number: u64,
    ends: BTreeMap<Turn, usize>,
    gone: BTreeSet<Turn>,
    /// What was last stored as heard of a reply that was cut short.
    heard: BTreeMap<String, Option<String>>,
}

impl World {
    fn new(cast: usize, turn_taking: TurnTaking) -> Self {
        let mut machine = machine_with(&company()[..cast], Some(64), "", Vec::new());
        machine.settings.turn_taking = turn_taking;
        machine.settings.summarize_history = true;
        let (control, control_lane) = mpsc::channel(512);
        let (audio, audio_lane) = mpsc::channel(AUDIO_LANE);
        Self {
            machine,
            outbox: Outbox::new(control_lane, audio_lane),
            control,
            audio,
            now: Instant::now(),
            utterances: Vec::new(),
            replies: Vec::new(),
            items: Vec::new(),
            said: Vec::new(),
            saves: Vec::new(),
            running: None,
            waiting: None,
            note: None,
            titles: Vec::new(),
            open: BTreeSet::new(),
            speaker: None,
            last_turn: Turn(0),
            sequence_number: 0,
            ends: BTreeMap::new(),
            gone: BTreeSet::new(),
            heard: BTreeMap::new(),
        }
    }

    fn event(&mut self, it: Happening) -> Option<Event> {
        let reply =
            self.replies.iter().rev().nth(it.which).map(|reply| (reply.turn, reply.sentences.saturating_sub(1)));
        let item = self.items.iter().rev().nth(it.which).cloned().unwrap_or_else(|| "unknown".to_owned());
        let utterance = (!self.utterances.is_empty()).then(|| it.number as usize % self.utterances.len());
        Some(match it.kind {
            0 | 1 => {
                let id = format!("u{}-{}", it.number, self.now.elapsed().as_nanos());
                self.utterances.push(id.clone());
                began(&id)
            }
            2 | 3 => {
                let text = ["Hello.", "Max and Zoe, hello.", "Mhm.", "one two"][it.which % 4];
                said(&self.utterances.remove(utterance?), text, self.now)
            }
            4 => nothing(&self.utterances.remove(utterance?)),
            5 => {
                let error = ProviderError::Failed { what: "ear".to_owned() };
                Event::Heard(Heard::Failed { item_id: self.utterances.remove(utterance?), error })
            }
            6 => Event::Heard(Heard::Committed),
            7 | 8 => {
                let client_message_id = (it.number.is_multiple_of(3)).then(|| format!("client-{}", it.number % 5));
                let output = (it.number.is_multiple_of(4)).then_some(OutputKind::Text);
                let terms = SettingsPatch { output, ..SettingsPatch::default() }.into();
                asked(Input::Text { text: "Hello".to_owned(), client_message_id, terms, character_ids: Vec::new() })
            }
            9 => asked(Input::Interrupt { item_id: (it.which > 0).then_some(item), played_ms: Some(it.number) }),
            10 => asked(Input::PlaybackAck { item_id: item, played_ms: it.number }),
            11 => asked(Input::Regenerate { item_id: item, terms: terms(it.number) }),
            12 if it.which == 2 => Event::Woken,
            12 if it.which == 3 => {
                let all = company().into_iter().cycle().skip(it.number as usize % 3);
                let outcome = Ok(all.take(1 + it.number as usize % 2).collect());
                Event::Cast { reference: None, outcome }
            }
            12 if it.which == 1 => asked(Input::NextSpeaker {
                character_id: ["olivia-001", "max-001", "nobody"][it.number as usize % 3].to_owned(),
            }),
            12 => asked(Input::Settings(SettingsPatch { lead_ms: Some(it.number), ..SettingsPatch::default() })),
            13..=15 => {
                let reply = self.replies.iter_mut().rev().nth(it.which)?;
                reply.sentences += u64::from(reply.sentences == 0 || it.number.is_multiple_of(3));
                let text = if it.number.is_multiple_of(5) { "Zoe, two " } else { "one two " };
                wrote(reply.turn, reply.sentences - 1, text)
            }
            16 => whole(reply?.0, reply?.1, "one two"),
            17 => done(reply?.0),
            18 => thought(reply?.0, Thought::Failed(ProviderError::Failed { what: "mind".to_owned() })),
            19..=21 => {
                let reply = self.replies.iter_mut().rev().nth(it.which).filter(|reply| reply.is_begun)?;
                let (turn, pts) = (reply.turn, reply.sent);
                let number = reply.first + reply.sentences.saturating_sub(1);
                reply.sent += ms(60 * 7);
                self.push_audio(Turn(turn));
                sent(turn, number, pts, "one two", self.now)
            }
            22 => progress(reply?.0, Progress::Finished),
            23 | 24 => {
                let number = self.note?.saturating_sub(it.which as u64);
                self.note = self.note.filter(|note| *note != number);
                let failed = ProviderError::Failed { what: "mind".to_owned() };
                let outcome = if it.number.is_multiple_of(3) { Err(failed) } else { Ok("They talked.".to_owned()) };
                Event::Noted { number, outcome }
            }
            25 => asked(Input::SpeakUp {
                character_ids: ["olivia-001", "max-001", "nobody"][..it.which.min(3)]
                    .iter()
                    .map(|id| (*id).to_owned())
                    .collect(),
                terms: terms(it.number),
            }),
            26 => {
                let (title, instead_of) = self.titles.pop()?;
                let outcome = [Ok(true), Ok(false), Err(RecordError::Failed)][it.number as usize % 3].clone();
                Event::Titled { title, instead_of, outcome }
            }
            27 => {
                let item_id = self.said.iter().rev().nth(it.which).cloned()?;
                asked(Input::Regenerate { item_id, terms: terms(it.number) })
            }
            _ => {
                if self.saves.is_empty() {
                    return None;
                }
                let save = self.saves.remove(0);
                let id = save.message.id.clone();
                let outcome = if it.number.is_multiple_of(7) { Err(RecordError::Failed) } else { Ok(id) };
                Event::Stored { save, outcome }
            }
        })
    }

    /// A mouth that does not know yet that its reply has ended still sends; one that has finished does not.
    fn push_audio(&mut self, turn: Turn) {
        let completed = self.ends.contains_key(&turn) && !self.gone.contains(&turn);
        if !completed {
            let _ = self.audio.try_send(AudioPiece {
                turn,
                character_id: "c".to_owned(),
                item_id: "i".to_owned(),
                sequence_number: 1,
                pts: Duration::ZERO,
                audio: Speech::silence(Samples::from_millis(20)),
                words: Vec::new(),
                last: false,
                format: AudioFormat::Pcm,
            });
        }
    }

    fn perform(&mut self, effects: Effects) {
        for effect in effects {
            match effect {
                Effect::Think { turn, request, waits, .. } => {
                    assert_eq!(self.running.is_some(), waits, "a reply began while another went on");
                    assert_eq!(self.waiting, None, "two replies wait");
                    assert_eq!(self.note, None, "a reply began while a note was written");
                    assert!(turn > self.last_turn, "a turn that does not grow");
                    self.last_turn = turn;
                    *(if waits { &mut self.waiting } else { &mut self.running }) = Some(turn);
                    let first = self.sequence_number + 1;
                    let is_begun = !waits;
                    self.replies.push(Played { turn: turn.0, first, sentences: 0, sent: Duration::ZERO, is_begun });
                    let roles: Vec<_> = request.messages.iter().map(|message| message.role).collect();
                    assert_eq!(roles[0], Role::System);
                    let expected = [Role::User, Role::Assistant].into_iter().cycle().take(roles.len() - 1);
                    assert_eq!(roles[1..], expected.collect::<Vec<_>>());
                }
                Effect::Stop => (self.running, self.waiting) = (None, None),
                Effect::End => assert!(self.running.take().is_some()),
                Effect::GiveFloor { turn } => {
                    assert_eq!((self.running, self.waiting.take()), (None, Some(turn)));
                    self.running = Some(turn);
                    self.replies.iter_mut().rfind(|reply| reply.turn == turn.0).unwrap().is_begun = true;
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
                    assert!(self.open.remove(&message_id), "only what was begun is forgotten");
                }
                Effect::Record { .. } => panic!("nobody wants recordings"),
                Effect::Recite { .. } => panic!("nothing was cut off"),
                Effect::WakeAt(_) | Effect::Cast { .. } => {}
                Effect::Prepare(request) => assert_eq!(request.messages[0].role, Role::System),
                Effect::Speak { turn, .. } | Effect::Spoken { turn } => {
                    assert!([self.running, self.waiting].contains(&Some(turn)));
                }
                Effect::Save(save) => {
                    if save.message.role == Role::Assistant && !self.items.contains(&save.message.id) {
                        self.items.push(save.message.id.clone());
                    }
                    if save.message.role == Role::User {
                        self.said.push(save.message.id.clone());
                    }
                    if matches!(save.message.status, MessageStatus::Pending | MessageStatus::Processing) {
                        self.open.insert(save.message.id.clone());
                        assert!(!self.heard.contains_key(&save.message.id), "what stands is stored as begun");
                    } else {
                        self.open.remove(&save.message.id);
                        let heard =
                            save.message.heard_chars.map(|chars| save.message.content.chars().take(chars).collect());
                        self.heard.insert(save.message.id.clone(), heard);
                    }
                    self.saves.push(save);
                }
                Effect::Tell(told) => self.control.try_send(told).unwrap(),
            }
        }
        self.listen();
    }

    /// What the client sees of it.
    fn listen(&mut self) {
        while let Some(Some(told)) = self.outbox.recv().now_or_never() {
            if let Some(turn) = told.output.turn() {
                assert!(!self.ends.contains_key(&turn), "{:?} came after its end", told.output);
                assert!(self.ends.last_key_value().is_none_or(|(ended, _)| turn > *ended), "an old turn spoke");
            }
            match told.output {
                Output::TextChunk { sequence_number, .. } => {
                    let next = self.sequence_number..=self.sequence_number + 1;
                    assert!(next.contains(&sequence_number), "sentence numbers grow by one");
                    self.sequence_number = sequence_number;
                }
                Output::Interrupted { turn, item_id, heard_text, .. } => {
                    *self.ends.entry(turn).or_default() += 1;
                    self.gone.insert(turn);
                    if let Some(Some(heard)) = self.heard.get(&item_id).filter(|_| !heard_text.is_empty()) {
                        assert_eq!(*heard, heard_text, "what is told and what is stored as heard");
                    }
                }
                Output::TurnComplete(report) => *self.ends.entry(report.turn).or_default() += 1,
                Output::SpeakerChanged { character_id } => {
                    assert_ne!(character_id, self.speaker, "the floor went to who had it");
                    self.speaker = character_id;
                }
                _ => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: never two audible turns, every reply ends exactly once, nothing of a turn
    /// after its end, the floor is taken and given alternately, and nobody has it in the end.
    #[test]
    fn every_reply_ends_once_and_is_then_silent(
        happenings in happenings(),
        cast in 1_usize..4,
        turn_taking in prop_oneof![
            Just(TurnTaking::All), Just(TurnTaking::Natural), Just(TurnTaking::Mention), Just(TurnTaking::Manual)
        ],
    ) {
        let mut world = World::new(cast, turn_taking);
        for it in happenings {
            world.now += ms(it.number % 97);
            if let Some(event) = world.event(it) {
                let effects = world.machine.step(world.now, event);
                world.perform(effects);
            }
        }
        let effects = world.machine.leave(world.now);
        world.perform(effects);
        prop_assert_eq!(world.running, None);
        prop_assert_eq!(world.speaker, None);
        prop_assert_eq!(world.open, BTreeSet::new(), "a reply is stored as begun for ever");
        let begun = world.replies.iter().filter(|reply| reply.is_begun).map(|reply| (Turn(reply.turn), 1));
        let begun: Vec<_> = begun.collect();
        prop_assert_eq!(world.ends.into_iter().collect::<Vec<_>>(), begun);
    }
}
