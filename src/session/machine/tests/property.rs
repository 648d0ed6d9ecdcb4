//! Whatever happens in whatever order, and what must hold.
//!
//! Happenings drive a simulated mind, mouth, client and database around the machine and a real outbox. What was heard
//! of a reply is worked out here a second time, from the pieces that were sent and what the client acknowledged.

mod acts;
mod effects;
mod happenings;
mod listener;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestError, TestRng, TestRunner};
use tokio::sync::mpsc;

use self::happenings::{Happening, Kind, POLICIES, failed, happenings, ids, terms};
use super::*;
use crate::audio::{Samples, Speech};
use crate::provider::fake::marks;
use crate::session::event::{AudioPiece, Input};
use crate::session::mouth::SentPiece;
use crate::session::outbox::{AUDIO_LANE, Outbox};
use crate::session::settings::{AudioFormat, OutputKind, SettingsPatch, TurnTaking, VadPatch};
use crate::testing;

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
    elsewhere: usize,
    deleted: usize,
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
        self.elsewhere += other.elsewhere;
        self.deleted += other.deleted;
    }

    fn least(&self) -> usize {
        let voice = [self.cut_in_a_word, self.cut_by_voice, self.ducked, self.unducked, self.acknowledged];
        let rest =
            [self.completed, self.waited, self.restored, self.rewritten, self.recast, self.elsewhere, self.deleted];
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
