use std::time::Duration;

use tokio::time::Instant;

use super::{Heard, Playback};
use crate::audio::{Samples, Speech};
use crate::session::event::{AudioPiece, Turn};
use crate::session::settings::AudioFormat;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// 100 ms of a sentence.
pub(in crate::api::ws::call) fn piece(item_id: &str, sequence_number: u64, pts: u64, last: bool) -> AudioPiece {
    AudioPiece {
        turn: Turn(1),
        character_id: "c".into(),
        item_id: item_id.into(),
        sequence_number,
        pts: ms(pts),
        audio: Speech::silence(Samples::from_millis(100)),
        words: vec![],
        last,
        format: AudioFormat::Pcm,
    }
}

fn two_sentences(now: Instant) -> Playback {
    let mut playback = Playback::default();
    for (sentence, pts, last) in [(4, 0, false), (4, 100, true), (5, 200, false)] {
        playback.send(now, &piece("i", sentence, pts, last));
    }
    playback
}

#[test]
fn without_a_word_of_the_listener_the_pace_counts() {
    let now = Instant::now();
    let mut playback = two_sentences(now);
    assert_eq!(playback.played_by(now), Some(("i".into(), ms(0))));
    assert_eq!(playback.played_by(now + ms(250)), Some(("i".into(), ms(200))), "whole pieces");
    assert_eq!(playback.heard(now + ms(199)), None);
    let heard = Heard { item_id: "i".into(), sentence: 4, end: ms(200) };
    assert_eq!(playback.heard(now + ms(200)).as_ref(), Some(&heard));
    assert_eq!(playback.heard(now + ms(900)).as_ref(), Some(&heard), "more of the second one may come");
    // After a pause the pace begins anew.
    playback.send(now + ms(5_000), &piece("i", 5, 300, true));
    assert_eq!(playback.heard(now + ms(5_050)), Some(heard));
    assert_eq!(playback.heard(now + ms(5_100)).unwrap().sentence, 5);
}

#[test]
fn a_listener_who_says_what_was_played_is_believed() {
    let now = Instant::now();
    let mut playback = two_sentences(now);
    playback.acknowledge("other", ms(900));
    assert_eq!((playback.played_by(now + ms(900)), playback.heard(now + ms(900))), (None, None));
    playback.acknowledge("i", ms(210));
    playback.acknowledge("i", ms(50));
    assert_eq!(playback.heard(now).unwrap().sentence, 4, "a late one changes nothing");
}

#[test]
fn an_end_that_a_client_has_not_seen_is_none_for_it() {
    let mut playback = two_sentences(Instant::now());
    assert!(playback.is_open("i", 7));
    playback.end("i", 8);
    assert!(playback.is_open("i", 7) && !playback.is_open("i", 8));
    assert_eq!(playback.heard(Instant::now() + ms(900)), None, "nothing is under way");
}
