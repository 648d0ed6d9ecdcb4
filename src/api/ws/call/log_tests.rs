use std::sync::Arc;
use std::time::Duration;

use tokio::time::{advance, timeout};

use super::super::playback::tests::piece;
use super::{ANSWERS, CATCH_UP, Follower, KEPT, KEPT_BYTES, Log};
use crate::api::wire::{Notice, Refusal};
use crate::api::ws::Ending;
use crate::api::ws::call::Client;
use crate::provider::Usage;
use crate::session::event::{Output, ServedBy, Timings, Told, Turn, TurnReport};

const ME: Client = Client(1);
const BEHIND: u64 = 64;

fn log() -> Arc<Log> {
    Arc::new(Log::new(64))
}

fn text(log: &Log, text: &str) {
    let (turn, character_id, item_id) = (Turn(1), "c".to_owned(), "i".to_owned());
    log.tell(Output::TextChunk { turn, character_id, item_id, sequence_number: 1, text: text.into() }.into());
}

fn audio(log: &Log, pts: u64) {
    log.tell(Output::Audio(piece("i", 1, pts, false)).into());
}

fn complete(log: &Log) {
    let report = TurnReport {
        turn: Turn(1),
        character_id: "c".into(),
        item_id: "i".into(),
        sequence_number: 1,
        timings: Timings::default(),
        served_by: ServedBy::default(),
        usage: Usage::default(),
    };
    log.tell(Output::TurnComplete(Box::new(report)).into());
}

/// What waits for a client: numbers, and where audio begins.
fn waiting(follower: &mut Follower) -> Vec<String> {
    let mut found = vec![];
    while let Some(Ok(line)) = follower.waiting() {
        found.push(match (&line.seq, &line.notice) {
            (_, Notice::Told(Told { output: Output::Audio(piece), .. })) => format!("a{}", piece.pts.as_millis()),
            (Some(seq), _) => seq.to_string(),
            (None, _) => "-".to_owned(),
        });
    }
    found
}

#[tokio::test]
async fn everybody_reads_at_their_own_pace() {
    let log = log();
    let mut first = log.from_the_start(ME);
    text(&log, "One");
    audio(&log, 0);
    let mut second = log.from_now(Client(2), vec![Notice::ServerDraining]);
    log.say(ME, Notice::SessionReplaced);
    text(&log, " two");
    assert_eq!(waiting(&mut first), ["1", "a0", "3", "4"]);
    assert_eq!(waiting(&mut second), ["2", "4"], "what is for one is for nobody else");
    assert!(timeout(Duration::from_millis(10), first.next()).await.is_err(), "it waits");
    log.end(Ending::Draining);
    assert_eq!(first.next().await.unwrap_err(), Ending::Draining);
    assert_eq!(log.since(1).iter().filter_map(|line| line.seq).collect::<Vec<_>>(), [4], "what is for all");
}

#[tokio::test]
async fn who_comes_back_reads_on_and_hears_again_what_was_not_played() {
    let log = log();
    text(&log, "One");
    for pts in [0, 100, 200] {
        audio(&log, pts);
    }
    text(&log, " two");
    audio(&log, 300);
    let again = |seq: u64| waiting(&mut log.from_seq(ME, seq).unwrap());
    assert_eq!(again(0), ["1", "a0", "a100", "a200", "2", "a300"]);
    assert_eq!(again(1), ["a0", "a100", "a200", "2", "a300"]);
    log.acknowledge("i", Duration::from_millis(299));
    assert_eq!(again(2), ["a200", "a300"], "a piece that was played in part comes again");
    complete(&log);
    assert_eq!(again(2), ["a200", "a300", "3"]);
    assert!(again(3).is_empty(), "who has seen the end has heard it");
    assert!(log.from_seq(ME, 4).is_none(), "nobody has heard more than was told");
    log.tell(
        Output::Interrupted { turn: Turn(1), item_id: "i".into(), heard_text: String::new(), heard: Duration::ZERO }
            .into(),
    );
    assert_eq!(again(1), ["2", "3", "4"], "nothing of it after an interruption");
}

#[tokio::test(start_paused = true)]
async fn without_acknowledgements_what_the_pace_says_does_not_come_again() {
    let log = log();
    for pts in [0, 100, 200] {
        audio(&log, pts);
    }
    advance(Duration::from_millis(150)).await;
    log.settle(tokio::time::Instant::now());
    assert_eq!(waiting(&mut log.from_seq(ME, 0).unwrap()), ["a100", "a200"]);
}

#[tokio::test]
async fn what_is_kept_is_bounded() {
    let log = log();
    for _ in 0..KEPT + 2 {
        text(&log, "x");
    }
    assert!(log.from_seq(ME, 1).is_none());
    assert_eq!(waiting(&mut log.from_seq(ME, 2).unwrap()).len(), KEPT);
    for pts in 0..400 {
        audio(&log, pts * 100);
    }
    let kept = waiting(&mut log.from_seq(ME, KEPT as u64 + 2).unwrap());
    assert_eq!((kept.len(), kept[0].as_str()), (300, "a10000"), "30 s");
}

#[tokio::test]
async fn what_is_kept_is_bounded_in_bytes_too() {
    let log = log();
    let mut slow = log.from_the_start(ME);
    let long = "x".repeat(100_000);
    for _ in 0..100 {
        text(&log, &long);
    }
    let kept = KEPT_BYTES as u64 / 100_000 - 1..=KEPT_BYTES as u64 / 100_000;
    let first = (0..100).find(|seq| log.from_seq(ME, *seq).is_some()).unwrap();
    assert!(kept.contains(&(100 - first)), "{first}");
    assert_eq!(waiting(&mut log.from_seq(ME, first).unwrap()).len() as u64, 100 - first);
    assert_eq!(slow.waiting().unwrap().unwrap_err(), Ending::TooSlow, "no message is left out");
    text(&log, &"x".repeat(2 * KEPT_BYTES));
    assert_eq!(waiting(&mut log.from_seq(ME, 100).unwrap()), ["101"], "the newest is told, however long it is");
    text(&log, "x");
    assert_eq!(waiting(&mut log.from_seq(ME, 101).unwrap()), ["102"]);
    assert!(log.from_seq(ME, 100).is_none());
}

#[tokio::test]
async fn mistakes_without_end_leave_the_others_what_they_come_back_for() {
    let log = log();
    let other = Client(2);
    text(&log, "One");
    log.say(other, Notice::Refused(Refusal::new("bad_field", "no")));
    let mistakes = 3 * KEPT as u64;
    for _ in 0..mistakes {
        log.say(ME, Notice::Refused(Refusal::new("unknown_type", "no")));
    }
    text(&log, " two");
    let last = mistakes + 3;
    assert_eq!(waiting(&mut log.from_seq(other, 0).unwrap()), ["1", "2", &last.to_string()]);
    assert!(log.from_seq(ME, last - 2 - ANSWERS as u64).is_none(), "it has missed some");
    let own = waiting(&mut log.from_seq(ME, last - 1 - ANSWERS as u64).unwrap());
    assert_eq!(own.len(), ANSWERS + 1);
    assert_eq!(own.last(), Some(&last.to_string()));
    // These go with all else at last, and nothing of them stays.
    for _ in 0..KEPT {
        text(&log, "x");
    }
    assert!(log.lines().answers.is_empty() && log.from_seq(ME, last - 1).is_none());
    assert!(log.from_seq(ME, last).is_some());
}

#[tokio::test]
async fn what_was_played_makes_room_and_no_more_than_its_own() {
    let log = log();
    let speak = |pieces: std::ops::Range<u64>| pieces.for_each(|piece| audio(&log, piece * 100));
    let kept = || {
        let kept = waiting(&mut log.from_seq(ME, 0).unwrap());
        (kept.len(), kept.first().cloned().unwrap_or_default())
    };
    speak(0..300);
    log.acknowledge("i", Duration::from_secs(10));
    assert_eq!(kept(), (200, "a10000".to_owned()));
    speak(300..400);
    assert_eq!(kept(), (300, "a10000".to_owned()), "there was room for what was played");
    speak(400..401);
    assert_eq!(kept(), (300, "a10100".to_owned()), "for no more");
    log.acknowledge("i", Duration::from_millis(40_100));
    speak(401..701);
    assert_eq!(kept(), (300, "a40100".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn who_falls_behind_is_told_to_go_and_a_burst_is_no_fault() {
    let log = log();
    let mut quick = log.from_the_start(ME);
    let mut slow = log.from_the_start(Client(2));
    for _ in 0..=BEHIND {
        text(&log, "x");
    }
    assert!(slow.waiting().unwrap().is_ok() && quick.waiting().unwrap().is_ok());
    assert_eq!(waiting(&mut quick).len() as u64, BEHIND);
    for _ in 0..=BEHIND {
        text(&log, "x");
    }
    assert!(slow.waiting().unwrap().is_ok());
    advance(CATCH_UP + Duration::from_millis(1)).await;
    assert_eq!(slow.waiting().unwrap().unwrap_err(), Ending::TooSlow);
    assert_eq!(waiting(&mut quick).len() as u64, BEHIND + 1);
    let mut returning = log.from_seq(ME, 0).unwrap();
    advance(CATCH_UP * 2).await;
    assert_eq!(waiting(&mut returning).len() as u64, 2 * BEHIND + 2, "what was there may take its time");
}
