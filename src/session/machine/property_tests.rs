//! Whatever happens in whatever order, and what must hold.
//!
//! Happenings drive a simulated mind, mouth, client and database around the machine and a real outbox. What was heard
//! of a reply is worked out here a second time, from the pieces that were sent and what the client acknowledged.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestError, TestRng, TestRunner};
use tokio::sync::mpsc;

use super::tests::{
    asked, began, company, done, line, machine_with, ms, nothing, partial, progress, said, thought, whole, wrote,
};
use super::*;
use crate::audio::{Samples, Speech};
use crate::provider::fake::marks;
use crate::session::event::{AudioPiece, Input};
use crate::session::mouth::SentPiece;
use crate::session::outbox::{AUDIO_LANE, Outbox};
use crate::session::settings::{AudioFormat, OutputKind, SettingsPatch, TurnTaking, VadPatch};
use crate::testing;

/// What can happen.
#[derive(Clone, Copy, Debug)]
enum Kind {
    VoiceBegins,
    VoiceGoesOn,
    VoiceIsHeard,
    VoiceIsNothing,
    VoiceFails,
    Committed,
    Text,
    SpeakUp,
    NextSpeaker,
    Regenerate,
    Interrupt,
    Acknowledge,
    Settings,
    Characters,
    LookedUp,
    MindWrites,
    MindEnds,
    MindFails,
    MouthSends,
    MouthEnds,
    MouthFails,
    Noted,
    Titled,
    Stored,
    Woken,
}

/// How often each is drawn: a reply needs much to come to its end.
const WEIGHTS: [(u32, Kind); 25] = [
    (3, Kind::VoiceBegins),
    (3, Kind::VoiceGoesOn),
    (3, Kind::VoiceIsHeard),
    (1, Kind::VoiceIsNothing),
    (1, Kind::VoiceFails),
    (1, Kind::Committed),
    (3, Kind::Text),
    (1, Kind::SpeakUp),
    (1, Kind::NextSpeaker),
    (2, Kind::Regenerate),
    (1, Kind::Interrupt),
    (4, Kind::Acknowledge),
    (1, Kind::Settings),
    (1, Kind::Characters),
    (2, Kind::LookedUp),
    (14, Kind::MindWrites),
    (5, Kind::MindEnds),
    (1, Kind::MindFails),
    (14, Kind::MouthSends),
    (5, Kind::MouthEnds),
    (1, Kind::MouthFails),
    (2, Kind::Noted),
    (2, Kind::Titled),
    (4, Kind::Stored),
    (1, Kind::Woken),
];

/// One thing that happens, and which of its kind, as numbers.
#[derive(Clone, Copy, Debug)]
struct Happening {
    kind: Kind,
    /// Which reply: 0 is the audible one, 1 the one that waits, more are older ones.
    which: usize,
    number: u64,
    /// Milliseconds since what happened before.
    passed: u64,
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let kinds = prop::sample::select(
        WEIGHTS.iter().flat_map(|(weight, kind)| std::iter::repeat_n(*kind, *weight as usize)).collect::<Vec<_>>(),
    );
    let which = prop_oneof![10 => Just(0_usize), 5 => Just(1), 1 => 2_usize..5];
    let passed = prop_oneof![4 => 0_u64..60, 2 => 60_u64..400, 1 => 400_u64..2500];
    let one = (kinds, which, 0_u64..1500, passed);
    let one = one.prop_map(|(kind, which, number, passed)| Happening { kind, which, number, passed });
    prop::collection::vec(one, 1..80)
}

const POLICIES: [TurnTaking; 4] = [TurnTaking::Mention, TurnTaking::All, TurnTaking::Natural, TurnTaking::Manual];

fn terms(number: u64) -> Terms {
    let output = number.is_multiple_of(4).then_some(OutputKind::Text);
    SettingsPatch { output, ..SettingsPatch::default() }.into()
}

fn ids(number: u64) -> Vec<String> {
    let all = ["olivia-001", "max-001", "zoe-001", "nobody"].map(str::to_owned);
    all.into_iter().cycle().skip(number as usize % 4).take(number as usize / 4 % 3).collect()
}

fn failed(what: &str) -> ProviderError {
    ProviderError::Failed { what: what.to_owned() }
}

/// A sentence that the mouth was given.
struct ToSpeak {
    number: u64,
    /// Lengths of its pieces to come.
    pieces: VecDeque<Duration>,
    words: Vec<crate::provider::WordMark>,
    /// Where the words end in the reply's text.
    ends: Vec<usize>,
}

/// A reply, as its mind and mouth and its listener see it.
#[expect(clippy::struct_excessive_bools, reason = "several tasks' states, one beside the other")]
struct Played {
    turn: u64,
    item_id: String,
    is_written_only: bool,
    /// What stood under its id before.
    replaces: Option<String>,
    /// All that was written of it in time, and where in it each sentence begins.
    text: String,
    sentences: Vec<usize>,
    /// Its last sentence goes on.
    is_open: bool,
    /// The mind has ended.
    is_over: bool,
    has_failed: bool,
    to_speak: VecDeque<ToSpeak>,
    /// No more sentences will come.
    is_spoken: bool,
    /// The mouth has ended.
    is_mute: bool,
    /// Audio that was sent: where it begins, how long it is, when it plays.
    pieces: Vec<(Duration, Duration, Instant)>,
    /// The words of that audio: when they end, and where in the text.
    words: Vec<(Duration, usize)>,
    acknowledged: Option<(Duration, Instant)>,
}

impl Played {
    fn sent(&self) -> Duration {
        self.pieces.last().map_or(Duration::ZERO, |(pts, length, _)| *pts + *length)
    }

    fn playhead(&self) -> Option<Instant> {
        self.pieces.last().map(|(_, length, plays_at)| *plays_at + *length)
    }

    fn acknowledge(&mut self, now: Instant, played: Duration) {
        let known = self.acknowledged.map_or(Duration::ZERO, |(known, _)| known);
        if played >= known && played <= self.sent() + ms(100) {
            self.acknowledged = Some((played, now));
        }
    }

    /// What was played of it by now, and the words that ended by then.
    fn heard(&self, now: Instant, says: Option<Duration>) -> (Duration, &str) {
        let begun = self.pieces.iter().filter(|(_, _, plays_at)| *plays_at <= now);
        let pace = begun.map(|(pts, length, plays_at)| *pts + (now - *plays_at).min(*length)).max();
        let pace = pace.unwrap_or_default();
        let since = |(played, at): (Duration, Instant)| played.max((played + (now - at).min(ms(500))).min(pace));
        let played = says.or(self.acknowledged.map(since)).unwrap_or(pace).min(self.sent());
        let end = self.words.iter().filter(|(end, _)| *end <= played).map(|(_, end)| *end).max().unwrap_or(0);
        (played, &self.text[..end])
    }

    /// What remains of it in the history and in the records, where it ends as it is now: its text, and how much of it
    /// was heard. None: nothing new.
    fn remains(&self, heard: Option<&str>) -> Option<(&str, String)> {
        let is_void = self.has_failed || self.text.is_empty();
        let stands = is_void || heard.is_some_and(|heard| self.is_written_only || heard.is_empty());
        if self.replaces.is_some() && stands {
            return None;
        }
        let heard = heard.filter(|_| !self.is_written_only).unwrap_or(&self.text);
        Some((&self.text, heard.to_owned()))
    }
}

/// A session played with the machine and a real outbox, and what must hold.
struct World {
    machine: Machine,
    outbox: Outbox,
    control: mpsc::Sender<Told>,
    audio: mpsc::Sender<AudioPiece>,
    log: Rc<RefCell<Vec<String>>>,
    now: Instant,
    alarm: Option<Instant>,
    utterances: Vec<String>,
    replies: Vec<Played>,
    /// Ids of messages, oldest first.
    said: Vec<String>,
    #[expect(clippy::vec_box, reason = "they go back as they came")]
    saves: Vec<Box<Save>>,
    running: Option<Turn>,
    waiting: Option<Turn>,
    note: Option<u64>,
    titles: Vec<(String, String)>,
    is_looking_up: bool,
    /// What the client says it has played, with an interruption.
    says: Option<Duration>,
    /// What the database holds.
    records: BTreeMap<String, Message>,
    /// What was said and heard, by id, in order.
    history: Vec<(String, String)>,
    speaker: Option<String>,
    ducked: Option<(String, Instant)>,
    last_turn: Turn,
    sequence_number: u64,
    /// The turn of which something was told and not yet its end.
    audible: Option<Turn>,
    begun: BTreeSet<Turn>,
    ends: BTreeMap<Turn, usize>,
    gone: BTreeSet<Turn>,
    counts: Counts,
}

/// That the happenings come to what they are meant to.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    completed: usize,
    cut_in_a_word: usize,
    cut_by_voice: usize,
    ducked: usize,
    unducked: usize,
    acknowledged: usize,
    waited: usize,
    restored: usize,
    rewritten: usize,
    recast: usize,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.completed += other.completed;
        self.cut_in_a_word += other.cut_in_a_word;
        self.cut_by_voice += other.cut_by_voice;
        self.ducked += other.ducked;
        self.unducked += other.unducked;
        self.acknowledged += other.acknowledged;
        self.waited += other.waited;
        self.restored += other.restored;
        self.rewritten += other.rewritten;
        self.recast += other.recast;
    }

    fn least(&self) -> usize {
        let voice = [self.cut_in_a_word, self.cut_by_voice, self.ducked, self.unducked, self.acknowledged];
        let rest = [self.completed, self.waited, self.restored, self.rewritten, self.recast];
        voice.into_iter().chain(rest).min().unwrap_or(0)
    }
}

impl World {
    fn new(cast: usize, turn_taking: TurnTaking, log: Rc<RefCell<Vec<String>>>) -> Self {
        let mut machine = machine_with(&company()[..cast], Some(64), "", Vec::new());
        machine.settings.turn_taking = turn_taking;
        machine.settings.summarize_history = true;
        let (control, control_lane) = mpsc::channel(1024);
        let (audio, audio_lane) = mpsc::channel(AUDIO_LANE);
        Self {
            machine,
            outbox: Outbox::new(control_lane, audio_lane),
            control,
            audio,
            log,
            now: Instant::now(),
            alarm: None,
            utterances: Vec::new(),
            replies: Vec::new(),
            said: Vec::new(),
            saves: Vec::new(),
            running: None,
            waiting: None,
            note: None,
            titles: Vec::new(),
            is_looking_up: false,
            says: None,
            records: BTreeMap::new(),
            history: Vec::new(),
            speaker: None,
            ducked: None,
            last_turn: Turn(0),
            sequence_number: 0,
            audible: None,
            begun: BTreeSet::new(),
            ends: BTreeMap::new(),
            gone: BTreeSet::new(),
            counts: Counts::default(),
        }
    }

    fn happens(&mut self, it: Happening) {
        let then = self.now + ms(it.passed);
        while let Some(alarm) = self.alarm.filter(|alarm| *alarm <= then) {
            self.now = self.now.max(alarm);
            self.alarm = None;
            self.step(Event::Woken);
            let ducked = self.ducked.as_ref();
            assert!(ducked.is_none_or(|(_, since)| self.now < *since + ms(2000)), "ducked for too long");
        }
        self.now = then;
        let doubtful = self.is_speaking_aloud();
        let Some(event) = self.event(it) else { return };
        self.step(event);
        if doubtful && matches!(it.kind, Kind::VoiceBegins) {
            assert!(self.ducked.is_some(), "a voice begins, and the reply is not ducked");
        }
    }

    fn step(&mut self, event: Event) {
        self.log.borrow_mut().push(format!("-- {event:?}"));
        let effects = self.machine.step(self.now, event);
        self.perform(effects);
        self.says = None;
    }

    /// Somebody can be heard who would be interrupted by a voice.
    fn is_speaking_aloud(&self) -> bool {
        let running = self.replies.iter().find(|reply| Some(Turn(reply.turn)) == self.running);
        running.is_some_and(|reply| !reply.is_mute && !reply.pieces.is_empty()) && self.machine.settings.vad.is_some()
    }

    /// The reply that is meant, by its place in `replies`.
    fn reply(&self, which: usize) -> Option<usize> {
        let place = |turn: Option<Turn>| self.replies.iter().position(|reply| Some(Turn(reply.turn)) == turn);
        match which {
            0 => place(self.running),
            1 => place(self.waiting.or(self.running)),
            older => self.replies.len().checked_sub(older - 1),
        }
    }

    fn event(&mut self, it: Happening) -> Option<Event> {
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
            Kind::Acknowledge => {
                // Near the truth, behind it, long past, or of something else.
                let reply = &mut self.replies[at?];
                let truth = reply.heard(self.now, None).0.as_millis() as u64;
                let played = [truth, truth, truth.saturating_sub(number % 300), number * 5][number as usize % 4];
                if Some(Turn(reply.turn)) == self.running {
                    reply.acknowledge(self.now, ms(played));
                    self.counts.acknowledged += 1;
                } else if let Some(running) = self.running {
                    // Another version of the same message.
                    let now = self.now;
                    let same = self.replies.iter_mut().find(|reply| Turn(reply.turn) == running);
                    if let Some(same) = same.filter(|reply| reply.item_id == item) {
                        same.acknowledge(now, ms(played));
                    }
                }
                asked(Input::PlaybackAck { item_id: item, played_ms: played })
            }
            Kind::Settings => {
                let vad = [None, Some(None), Some(Some(VadPatch::default()))][number as usize % 3];
                let turn_taking = number.is_multiple_of(4).then(|| POLICIES[number as usize / 4 % 4]);
                let patch = SettingsPatch { vad, turn_taking, lead_ms: Some(number), ..SettingsPatch::default() };
                asked(Input::Settings(patch))
            }
            Kind::Characters => asked(Input::Characters { character_ids: ids(number | 4) }),
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
            Kind::Noted => {
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
    fn known(&self, id: &str) -> Option<String> {
        self.history.iter().find(|(known, _)| known == id).map(|(_, text)| text.clone())
    }

    fn remember(&mut self, id: &str, text: &str) {
        match self.history.iter_mut().find(|(old, _)| old == id) {
            Some((_, old)) => text.clone_into(old),
            None => self.history.push((id.to_owned(), text.to_owned())),
        }
    }

    fn perform(&mut self, effects: Effects) {
        for effect in effects {
            self.log.borrow_mut().push(line(&effect));
            match effect {
                Effect::Think { turn, request, waits, .. } => self.begins(turn, &request, waits),
                Effect::Stop => (self.running, self.waiting) = (None, None),
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

    /// What the client sees of it.
    fn listen(&mut self) {
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
    fn ends(mut self) -> Counts {
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

/// Whatever happens in whatever order: never two audible turns, every reply that was begun ends exactly once and nothing
/// of it follows, the floor is taken and given alternately; the history, the records and what the client is told hold the
/// words that were heard.
#[test]
fn every_reply_ends_once_and_leaves_what_was_heard() {
    let cases = testing::rounds("MACHINE_CASES", 10_000);
    let config = ProptestConfig {
        cases: u32::try_from(cases).unwrap(),
        source_file: Some(file!()),
        ..ProptestConfig::default()
    };
    let log = Rc::new(RefCell::new(Vec::new()));
    let all = Cell::new(Counts::default());
    let play = |cast: usize, policy: TurnTaking, happenings: &[Happening]| {
        log.borrow_mut().clear();
        let mut world = World::new(cast, policy, Rc::clone(&log));
        for it in happenings {
            world.happens(*it);
        }
        let mut counts = all.get();
        counts.add(world.ends());
        all.set(counts);
    };
    let sequences = (1_usize..4, prop::sample::select(POLICIES.to_vec()), happenings());
    // The same sequences in every run; other ones by a seed.
    let seed = testing::rounds("MACHINE_SEED", 0) as u64;
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let outcome = TestRunner::new_with_rng(config, random).run(&sequences, |(cast, policy, happenings)| {
        play(cast, policy, &happenings);
        Ok(())
    });
    if let Err(TestError::Fail(why, (cast, policy, happenings))) = &outcome {
        let again = std::panic::AssertUnwindSafe(|| play(*cast, *policy, happenings));
        drop(std::panic::catch_unwind(again));
        panic!("{why}\n{cast} characters, {policy:?}\n{}", log.borrow().join("\n"));
    }
    outcome.unwrap();
    // A tenth of the sequences, say, come to each of what is meant here.
    let counts = all.get();
    assert!(counts.least() >= cases / 100, "{counts:?}");
}
