use proptest::prelude::*;

use super::*;
use crate::audio::vad::FRAME;

const SPEECH: f32 = 0.9;
const NOTHING: f32 = 0.05;

fn settings(mode: VadMode, silence_ms: u64) -> Settings {
    Settings {
        vad: Some(settings::VadSettings { silence_ms, mode, ..settings::VadSettings::default() }),
        ..Settings::default()
    }
}

fn frames(length: Samples<MIC_HZ>) -> usize {
    length.0.div_ceil(FRAME.0) as usize
}

/// Pushes so many frames; gives the steps and at which frame each came.
fn push(endpoint: &mut Endpoint, probability: f32, count: usize) -> Vec<(usize, Step)> {
    (1..=count).filter_map(|at| endpoint.push(probability).map(|step| (at, step))).collect()
}

fn speaking(mode: VadMode) -> Endpoint {
    let mut endpoint = Endpoint::new(&settings(mode, 300), Samples(0), LONGEST_UTTERANCE);
    assert!(matches!(push(&mut endpoint, SPEECH, 30)[..], [(3, Step::Began { at: Samples(0) })]));
    endpoint
}

const PAUSE: usize = 2;
const AT: Position = Samples(30 * FRAME.0);

#[test]
fn a_finished_sentence_ends_soon_and_an_unfinished_one_late() {
    for (doubt, wait) in [(Doubt::NONE, Samples::from_millis(200)), (Doubt::FULL, PATIENCE)] {
        let mut endpoint = speaking(VadMode::Semantic);
        assert_eq!(push(&mut endpoint, NOTHING, PAUSE), [(PAUSE, Step::Paused)]);
        assert_eq!(endpoint.understood(doubt), None);
        let left = frames(wait) - PAUSE;
        assert_eq!(push(&mut endpoint, NOTHING, left + 9)[0], (left, Step::Ended { at: AT }));
    }
}

#[test]
fn what_is_understood_late_ends_the_utterance_at_once() {
    let mut endpoint = speaking(VadMode::Semantic);
    assert_eq!(push(&mut endpoint, NOTHING, 20).len(), 1);
    assert_eq!(endpoint.understood(Doubt::NONE), Some(Step::Ended { at: AT }));
    assert_eq!(endpoint.understood(Doubt::NONE), None);
    assert!(!endpoint.commit());
}

#[test]
fn what_was_understood_in_one_pause_does_not_count_in_the_next() {
    let mut endpoint = speaking(VadMode::Semantic);
    push(&mut endpoint, NOTHING, PAUSE);
    endpoint.understood(Doubt::NONE);
    assert_eq!(push(&mut endpoint, SPEECH, 5), [(1, Step::Resumed)]);
    assert_eq!(endpoint.understood(Doubt::NONE), None, "too late");
    assert_eq!(push(&mut endpoint, NOTHING, 30), [(PAUSE, Step::Paused)]);
}

#[test]
fn silence_alone_counts_in_the_servers_mode() {
    let mut endpoint = speaking(VadMode::Server);
    assert_eq!(push(&mut endpoint, NOTHING, PAUSE), [(PAUSE, Step::Paused)]);
    endpoint.understood(Doubt::FULL);
    let left = frames(Samples::from_millis(300)) - PAUSE;
    assert_eq!(push(&mut endpoint, NOTHING, left), [(left, Step::Ended { at: AT })]);
}

proptest! {
    #[test]
    fn steps_come_in_turn_and_no_silence_lasts_longer_than_patience(
        script in prop::collection::vec((0f32..1.0, 1_usize..50, 0_u8..5), 1..60),
        silence_ms in 100_u64..3000,
        semantic in any::<bool>(),
        from in 0_u64..1_000_000,
    ) {
        let mode = if semantic { VadMode::Semantic } else { VadMode::Server };
        let mut endpoint = Endpoint::new(&settings(mode, silence_ms), Samples(from), LONGEST_UTTERANCE);
        let (mut open, mut paused, mut quiet) = (None, false, 0_usize);
        let mut position = Samples(from);
        for (probability, count, act) in script {
            for at in 0..=count {
                let step = if at < count {
                    position += FRAME;
                    quiet = if probability < 0.35 { quiet + 1 } else { 0 };
                    endpoint.push(probability)
                } else {
                    match act {
                        0 => endpoint.understood(Doubt::NONE),
                        1 => endpoint.understood(Doubt::FULL),
                        2 => {
                            prop_assert_eq!(endpoint.commit(), open.is_some());
                            (open, paused) = (None, false);
                            None
                        }
                        _ => None,
                    }
                };
                match step {
                    Some(Step::Began { at }) => {
                        prop_assert!(open.is_none() && at >= Samples(from) && at < position);
                        open = Some(at);
                    }
                    Some(Step::Paused) => {
                        prop_assert!(open.is_some() && !paused);
                        paused = true;
                    }
                    Some(Step::Resumed) => {
                        prop_assert!(open.is_some() && paused);
                        paused = false;
                    }
                    Some(Step::Ended { at }) => {
                        let began = open.take();
                        prop_assert!(began.is_some_and(|began| began <= at));
                        prop_assert!(at <= position);
                        let silent = position.saturating_sub(at);
                        let soonest = if semantic { silence_ms * 2 / 3 } else { silence_ms };
                        prop_assert!(silent == Samples(0) || silent.millis() >= soonest, "{silent:?}");
                        paused = false;
                    }
                    None => {}
                }
                let longest = Samples::from_millis(silence_ms.max(if semantic { PATIENCE.millis() } else { 0 }));
                prop_assert!(open.is_none() || quiet <= frames(longest), "{quiet} frames of silence");
            }
        }
    }
}
