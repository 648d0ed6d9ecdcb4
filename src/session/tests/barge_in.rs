//! Interruptions at random moments, of clients that say what they have played in time, late, or never.

use std::collections::VecDeque;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::time::sleep_until;

use super::*;
use crate::provider::WordMark;
use crate::session::event::Turn;

const WORDS: [&str; 16] = [
    "the", "harbour", "was", "small", "and", "every", "ship", "brought", "two", "letters", "from", "friends", "who",
    "wrote", "about", "songs",
];
/// What the client does next, it does at one of these.
const TICK: Duration = Duration::from_millis(10);
/// Less than audio runs ahead.
const DEAF: Duration = Duration::from_millis(250);
/// Of the microphone.
const FRAME: Duration = Duration::from_millis(20);
const VAD_FRAME: u64 = crate::provider::VAD_FRAME as u64;

/// When a client says what it has played.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Acks {
    Never,
    /// Every 250 ms.
    InTime,
    /// And it takes up to 200 ms until that is known.
    Late,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    /// Words by voice.
    Voice(&'static str),
    /// By voice, and it is nothing that interrupts.
    Mhm,
    Interrupt,
    /// Its message says what was played.
    InterruptSaying,
    Text,
    PushToTalk,
}

/// A client's loudspeaker: what came of one reply, and when it plays.
#[derive(Default)]
struct Loudspeaker {
    /// From the first piece's arrival to its playback.
    buffer: Duration,
    /// When it plays, where in the item it begins, how long it is.
    pieces: Vec<(Instant, Duration, Duration)>,
    words: Vec<WordMark>,
}

impl Loudspeaker {
    fn take(&mut self, piece: &AudioPiece) {
        let now = Instant::now();
        let ends = self.pieces.last().map(|(plays_at, _, length)| *plays_at + *length);
        let plays_at = ends.map_or(now + self.buffer, |ends| ends.max(now));
        self.pieces.push((plays_at, piece.pts, piece.audio.duration()));
        self.words.extend(piece.words.iter().cloned());
    }

    fn played(&self, now: Instant) -> Duration {
        let begun = self.pieces.iter().rfind(|(plays_at, ..)| *plays_at <= now);
        begun.map_or(Duration::ZERO, |(plays_at, pts, length)| *pts + (now - *plays_at).min(*length))
    }

    /// How many words were heard to their end.
    fn words(&self, now: Instant) -> usize {
        let played = self.played(now);
        self.words.iter().filter(|word| word.end <= played).count()
    }

    /// The longest time without sound between two pieces.
    fn longest_gap(&self) -> Duration {
        let gaps = self.pieces.windows(2).map(|pair| pair[1].0 - (pair[0].0 + pair[0].2));
        gaps.max().unwrap_or_default()
    }
}

/// What came of one interruption.
struct Outcome {
    told: Vec<(Instant, Output)>,
    house: House,
    loudspeaker: Loudspeaker,
    /// When the frame was sent by which the voice is a voice, or what interrupts by itself.
    onset: Instant,
    /// So many words were heard when `interrupted` came.
    words: usize,
}

fn story(rng: &mut StdRng) -> String {
    let sentence = |rng: &mut StdRng| {
        let count = rng.random_range(4..10);
        let words: Vec<&str> = (0..count).map(|_| *WORDS.choose(rng).unwrap()).collect();
        format!("{}.", words.join(" "))
    };
    let count = rng.random_range(4..7);
    (0..count).map(|_| sentence(rng)).collect::<Vec<_>>().join(" ")
}

/// A microphone that is silent but for one noise.
struct Microphone {
    start: Instant,
    sent: u64,
    /// Of the noise, in samples.
    loud: std::ops::Range<u64>,
}

impl Microphone {
    /// The next frame, where all of it was recorded by now.
    fn next(&mut self, now: Instant) -> Option<Mic> {
        let samples = Samples::<MIC_HZ>::from_millis(FRAME.as_millis() as u64).0;
        if now < self.start + FRAME * (self.sent / samples + 1) as u32 {
            return None;
        }
        let frame = self.sent..self.sent + samples;
        self.sent = frame.end;
        Some(Mic::new(frame.map(|at| if self.loud.contains(&at) { 0.5 } else { 0.0 }).collect()))
    }

    /// When the frame is sent that holds the last sample of the voice's first 96 ms, in the detector's frames.
    fn onset(&self) -> Instant {
        // A frame is loud that is loud for a fifth.
        let first = (self.loud.start + VAD_FRAME / 5) / VAD_FRAME;
        let needed = (first + 3) * VAD_FRAME;
        self.start + FRAME * needed.div_ceil(320) as u32
    }
}

/// Plays one conversation: a reply, an interruption somewhere in it, and what follows.
async fn play(seed: u64, how: How, acks: Acks) -> Outcome {
    let mut rng = StdRng::seed_from_u64(seed);
    let heard = if let How::Voice(text) = how { text } else { "Mhm." };
    let mut house = House::new(&[]);
    house.stt = Arc::new(FakeHearing { usual: Some(heard), ..FakeHearing::new(&[]) });
    let text = story(&mut rng);
    let moment = |rng: &mut StdRng, millis| Duration::from_millis(rng.random_range(millis));
    house.chat.say(&text, moment(&mut rng, 50..400), moment(&mut rng, 5..40));
    house.chat.say("All right.", moment(&mut rng, 50..400), moment(&mut rng, 5..40));
    let mut client = house.open().await;
    if how == How::PushToTalk {
        let push = SettingsPatch { vad: Some(None), ..SettingsPatch::default() };
        client.ask(Input::Settings(push)).await;
    }
    client.say("Tell me a story.").await;
    let length = text.chars().count() as u64 * 60;
    // Seldom within the first word, and with enough of the reply left to notice.
    let after = moment(&mut rng, 200..length - 2000);
    let buffer = if acks == Acks::Never { Duration::ZERO } else { moment(&mut rng, 0..150) };
    let mut loudspeaker = Loudspeaker { buffer, ..Loudspeaker::default() };
    let mut microphone = Microphone { start: Instant::now(), sent: 0, loud: 0..0 };
    let (mut told, mut said, mut onset, mut words) = (Vec::new(), VecDeque::new(), None, None);
    let (mut interrupts_at, mut next_ack, mut first_turn) = (None, Instant::now(), None);
    let mut tick = Instant::now();
    loop {
        // One that interrupts by itself has not read for a while, so that audio waits for it.
        let is_deaf = !matches!(how, How::Voice(_) | How::Mhm)
            && onset.is_none()
            && interrupts_at.is_some_and(|at| tick + DEAF >= at);
        tokio::select! {
            biased;
            output = client.next(), if !is_deaf => {
                let now = Instant::now();
                if let Output::Audio(piece) = &output {
                    let first = *first_turn.get_or_insert(piece.turn);
                    if piece.turn == first && words.is_none() {
                        loudspeaker.take(piece);
                        interrupts_at.get_or_insert(now + after);
                    }
                }
                if matches!(output, Output::Interrupted { .. }) {
                    words = Some(loudspeaker.words(now));
                }
                let is_last = is_complete(&output);
                told.push((now, output));
                if is_last {
                    break;
                }
            }
            () = sleep_until(tick) => {
                let now = tick;
                tick += TICK;
                let has_the_time_come = interrupts_at.is_some_and(|at| now >= at) && onset.is_none();
                if has_the_time_come {
                    let from = microphone.sent + rng.random_range(0..320);
                    microphone.loud = from..from + if how == How::Mhm { 6400 } else { 24_000 };
                    onset = Some(microphone.onset());
                }
                while let Some(frame) = microphone.next(now) {
                    client.ask(Input::Audio(frame)).await;
                }
                if has_the_time_come && !matches!(how, How::Voice(_) | How::Mhm) {
                    onset = Some(now);
                    let says = (how == How::InterruptSaying).then(|| loudspeaker.played(now).as_millis() as u64);
                    match how {
                        How::Text => client.say("Stop.").await,
                        How::PushToTalk => client.ask(Input::Commit).await,
                        _ => client.ask(Input::Interrupt { item_id: None, played_ms: says }).await,
                    }
                }
                if acks != Acks::Never && now >= next_ack && !loudspeaker.pieces.is_empty() {
                    next_ack = now + Duration::from_millis(250);
                    let late = if acks == Acks::Late { moment(&mut rng, 0..200) } else { Duration::ZERO };
                    let item_id = told.iter().find_map(|(_, it)| match it {
                        Output::Audio(piece) => Some(piece.item_id.clone()),
                        _ => None,
                    });
                    let played_ms = loudspeaker.played(now).as_millis() as u64;
                    said.push_back((now + late, Input::PlaybackAck { item_id: item_id.unwrap(), played_ms }));
                }
                while said.front().is_some_and(|(due, _)| *due <= now) {
                    client.ask(said.pop_front().unwrap().1).await;
                }
                let is_over = matches!(how, How::Interrupt | How::InterruptSaying) && words.is_some();
                if is_over && onset.is_some_and(|onset| now > onset + Duration::from_secs(3)) {
                    break;
                }
            }
        }
    }
    Outcome { told, house, loudspeaker, onset: onset.unwrap(), words: words.unwrap_or_default() }
}

impl Outcome {
    fn at(&self, wanted: impl Fn(&Output) -> bool) -> Option<usize> {
        self.told.iter().position(|(_, it)| wanted(it))
    }

    fn is_duck(output: &Output) -> bool {
        matches!(output, Output::Duck { .. })
    }

    /// What must hold wherever a reply was interrupted. Answers by how many words the server was wrong.
    fn check(&self) -> usize {
        let cut = self.at(|it| matches!(it, Output::Interrupted { .. })).expect("an interruption");
        let Output::Interrupted { turn, heard_text, .. } = &self.told[cut].1 else { unreachable!() };
        let late = self.told[cut..].iter().filter(|(_, it)| is_audio(it) && it.turn() == Some(*turn)).count();
        assert_eq!(late, 0, "audio of a turn after its end");
        assert!(!self.told[cut..].iter().any(|(_, it)| matches!(it, Output::Unduck { .. })));
        let messages = self.house.records.messages.lock().unwrap().clone();
        let reply = messages.iter().find(|message| message.heard_chars.is_some()).expect("a stored reply");
        let kept: String = reply.content.chars().take(reply.heard_chars.unwrap()).collect();
        assert_eq!(kept, *heard_text);
        let asked = self.house.chat.asked.lock().unwrap();
        if let Some(next) = asked.get(1).filter(|_| !heard_text.is_empty()) {
            assert!(next.messages.iter().any(|message| message.content == *heard_text), "{:?}", next.messages);
        }
        heard_text.split_whitespace().count().abs_diff(self.words)
    }
}

/// 50 of them. The reply is lowered within a frame of the onset, nothing of it follows its end, and what is kept of it is
/// within a word of what was heard.
#[tokio::test(start_paused = true)]
async fn fifty_voices_interrupt() {
    for seed in 0..50 {
        let text = ["Stop it now, please.", "Mhm, wait a moment.", "But why is that?"][seed as usize % 3];
        for acks in [Acks::Never, Acks::InTime, Acks::Late] {
            let outcome = play(seed, How::Voice(text), acks).await;
            let duck = outcome.at(Outcome::is_duck).expect("a duck");
            let wait = outcome.told[duck].0.saturating_duration_since(outcome.onset);
            assert!(wait <= FRAME, "{seed} {acks:?}: ducked {wait:?} after the onset");
            assert!(outcome.told[duck].0 + FRAME >= outcome.onset, "{seed}: ducked before anybody spoke");
            let wrong = outcome.check();
            assert!(wrong <= 1, "{seed} {acks:?}: {wrong} words beside the truth, {}", outcome.words);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_interrupts_by_itself_does_so_at_once() {
    for seed in 100..150 {
        let hows = [How::Interrupt, How::InterruptSaying, How::Text, How::PushToTalk];
        let how = hows[seed as usize % 4];
        let acks = [Acks::Never, Acks::InTime, Acks::Late][seed as usize % 3];
        let outcome = play(seed, how, acks).await;
        assert_eq!(outcome.at(Outcome::is_duck), None, "{seed} {how:?}");
        let wrong = outcome.check();
        assert!(wrong <= 1, "{seed} {how:?} {acks:?}: {wrong} words beside the truth, {}", outcome.words);
        let cut = outcome.at(|it| matches!(it, Output::Interrupted { .. })).unwrap();
        let wait = outcome.told[cut].0 - outcome.onset;
        assert!(wait <= FRAME, "{seed} {how:?}: interrupted after {wait:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_agrees_does_not_interrupt() {
    for seed in 200..220 {
        let outcome = play(seed, How::Mhm, [Acks::Never, Acks::InTime, Acks::Late][seed as usize % 3]).await;
        let duck = outcome.at(Outcome::is_duck).expect("a duck");
        let unduck = outcome.at(|it| matches!(it, Output::Unduck { .. })).expect("an unduck");
        let lowered = outcome.told[unduck].0 - outcome.told[duck].0;
        assert!(lowered <= Duration::from_secs(2), "{seed}: lowered for {lowered:?}");
        assert_eq!(outcome.at(|it| matches!(it, Output::Interrupted { .. })), None, "{seed}");
        assert_eq!(outcome.loudspeaker.longest_gap(), Duration::ZERO, "{seed}: it went on without a gap");
        let turns: std::collections::BTreeSet<Turn> = outcome.told.iter().filter_map(|(_, it)| it.turn()).collect();
        assert_eq!(turns.len(), 1, "{seed}: nobody answers an agreement");
    }
}

#[tokio::test(start_paused = true)]
async fn an_interruption_stops_the_audio_at_once() {
    let house = House::new(&[]);
    house.chat.say(FORTY_WORDS, Duration::from_millis(100), Duration::from_millis(10));
    let mut client = house.open().await;
    client.say("Tell me a story").await;
    let mut pieces = 0;
    while pieces < 20 {
        pieces += usize::from(is_audio(&client.next().await));
    }
    client.ask(Input::Interrupt { item_id: None, played_ms: None }).await;
    let all = client.for_a_while(Duration::from_mins(1)).await;
    let cut = all.iter().position(|it| matches!(it, Output::Interrupted { .. })).unwrap();
    assert!(all[..cut].iter().filter(|it| is_audio(it)).count() <= 1, "one piece at most");
    assert!(!all[cut..].iter().any(|it| is_audio(it) || is_complete(it)));
    assert_eq!((house.chat.load.now(), house.speech.load.now()), (0, 0), "nothing is made any more");
    let Output::Interrupted { heard_text, heard, .. } = &all[cut] else { panic!() };
    assert!(FORTY_WORDS.starts_with(heard_text) && !heard_text.is_empty());
    assert!((1500..=2100).contains(&heard.as_millis()), "{heard:?}");
    let stored = house.records.message(Role::Assistant);
    assert_eq!(stored.heard_chars, Some(heard_text.chars().count()));
    assert!(stored.content.len() > heard_text.len(), "the full text stays beside it");
}

#[tokio::test(start_paused = true)]
async fn who_speaks_up_is_listened_to_and_the_history_is_what_was_heard() {
    let house = House::new(&["Stop, please."]);
    house.chat.say(FORTY_WORDS, Duration::from_millis(100), Duration::from_millis(10));
    house.chat.say("All right.", Duration::from_millis(100), Duration::from_millis(10));
    let mut client = house.open().await;
    client.say("Tell me a story").await;
    while !is_audio(&client.next().await) {}
    sleep(Duration::from_millis(1200)).await;
    let microphone = speak(client.handle.inbox.clone(), microphone(600, 3000));
    let (all, ()) = tokio::join!(client.until(is_complete), microphone);
    let onset = all.iter().position(|(_, it)| matches!(it, Output::SpeechStarted { .. })).unwrap();
    assert!(matches!(all[onset + 1].1, Output::Duck { .. }), "{:?}", all[onset + 1]);
    let cut = all.iter().position(|(_, it)| matches!(it, Output::Interrupted { .. })).unwrap();
    let Output::Interrupted { heard_text, .. } = &all[cut].1 else { panic!() };
    assert!(!heard_text.is_empty());
    let asked = house.chat.asked.lock().unwrap()[1].messages.clone();
    let contents: Vec<_> = asked[1..].iter().map(|it| it.content.as_str()).collect();
    assert_eq!(contents, ["Tell me a story", heard_text, "Stop, please."]);
    let turns: Vec<_> = audio_of(&all).iter().map(|piece| piece.turn).collect();
    assert!(turns.is_sorted());
    assert_eq!(audio_of(&all).last().unwrap().pts.as_millis(), 60 * "All right.".len() as u128 - 100);
}
