use proptest::prelude::*;

use super::*;

const SPEECH: f32 = 0.9;
const FAINT: f32 = 0.4;
const NOTHING: f32 = 0.05;

fn run(settings: VadSettings, frames: &[(f32, usize)]) -> Vec<(Position, VadEvent)> {
    let mut end_pointer = EndPointer::new(settings);
    let mut events = Vec::new();
    for probability in frames.iter().flat_map(|(probability, count)| std::iter::repeat_n(*probability, *count)) {
        if let Some(event) = end_pointer.push(probability) {
            events.push((end_pointer.position(), event));
        }
    }
    events
}

fn frames(count: u64) -> Position {
    Samples(count * FRAME.0)
}

#[test]
fn one_utterance() {
    let events = run(VadSettings::default(), &[(NOTHING, 20), (SPEECH, 30), (NOTHING, 20)]);
    let start = frames(20).saturating_sub(Samples::from_millis(300));
    assert_eq!(events[0], (frames(23), VadEvent::SpeechStarted { at: start }));
    // 300 ms are 9.4 frames.
    assert_eq!(events[1], (frames(60), VadEvent::SpeechStopped { at: frames(50), why: StopReason::Silence }));
    assert_eq!(events.len(), 2);
}

#[test]
fn a_cough_is_no_speech() {
    assert_eq!(run(VadSettings::default(), &[(NOTHING, 5), (SPEECH, 2), (NOTHING, 5), (SPEECH, 2), (NOTHING, 9)]), []);
}

#[test]
fn a_faint_frame_neither_begins_nor_ends() {
    assert_eq!(run(VadSettings::default(), &[(FAINT, 100)]), []);
    let events = run(VadSettings::default(), &[(SPEECH, 1), (FAINT, 1), (SPEECH, 2), (FAINT, 100), (SPEECH, 1)]);
    assert_eq!(events, [(frames(4), VadEvent::SpeechStarted { at: Samples(0) })]);
}

#[test]
fn a_short_pause_does_not_end() {
    let events = run(VadSettings::default(), &[(SPEECH, 10), (NOTHING, 8), (SPEECH, 10), (NOTHING, 8), (SPEECH, 1)]);
    assert_eq!(events.len(), 1);
}

#[test]
fn a_long_utterance_is_cut_and_another_begins() {
    let settings = VadSettings { maximum_utterance: frames(100), ..VadSettings::default() };
    let events = run(settings, &[(SPEECH, 250)]);
    let stops: Vec<VadEvent> = events.iter().skip(1).step_by(2).map(|(_, event)| *event).collect();
    assert_eq!(stops, [100, 200].map(|at| VadEvent::SpeechStopped { at: frames(at), why: StopReason::TooLong }));
    assert_eq!(events[2].1, VadEvent::SpeechStarted { at: frames(100) });
}

#[test]
fn commit_ends_only_what_began() {
    let mut end_pointer = EndPointer::new(VadSettings::default());
    assert_eq!(end_pointer.commit(), None);
    end_pointer.push(SPEECH);
    end_pointer.push(SPEECH);
    assert_eq!(end_pointer.commit(), None);
    assert_eq!(end_pointer.push(SPEECH), None, "what came before the commit is forgotten");
    end_pointer.push(SPEECH);
    assert!(end_pointer.push(SPEECH).is_some());
    assert!(end_pointer.is_speaking());
    let stopped = VadEvent::SpeechStopped { at: frames(5), why: StopReason::Committed };
    assert_eq!(end_pointer.commit(), Some(stopped));
    assert_eq!(end_pointer.commit(), None);
}

#[test]
fn a_probability_that_is_not_a_number_is_no_speech() {
    assert_eq!(run(VadSettings::default(), &[(f32::NAN, 50)]), []);
}

proptest! {
    #[test]
    fn utterances_alternate_and_stay_in_bounds(
        probabilities in prop::collection::vec((0f32..1.0, 1usize..40), 1..60),
        threshold in 0.1f32..0.9,
        silence in 0u64..1_000,
        prefix in 0u64..1_000,
        minimum in 0u64..500,
        maximum in 2_000u64..10_000,
        commits in prop::collection::vec(any::<bool>(), 60),
    ) {
        let settings = VadSettings {
            threshold,
            silence: Samples::from_millis(silence),
            prefix: Samples::from_millis(prefix),
            minimum_speech: Samples::from_millis(minimum),
            maximum_utterance: Samples::from_millis(maximum),
        };
        let mut end_pointer = EndPointer::new(settings);
        let mut open = None;
        let mut last = Samples(0);
        for ((probability, count), commit) in probabilities.into_iter().zip(commits) {
            for step in 0..=count {
                let event = if step < count { end_pointer.push(probability) } else if commit { end_pointer.commit() } else { None };
                match event {
                    Some(VadEvent::SpeechStarted { at }) => {
                        prop_assert!(open.is_none());
                        prop_assert!(at >= last && at < end_pointer.position());
                        prop_assert!(end_pointer.is_speaking());
                        (open, last) = (Some(at), at);
                    }
                    Some(VadEvent::SpeechStopped { at, .. }) => {
                        let start = open.take();
                        prop_assert!(start.is_some_and(|start| at >= start));
                        prop_assert!(at <= end_pointer.position());
                        prop_assert!(at.saturating_sub(last) <= settings.maximum_utterance);
                        prop_assert!(!end_pointer.is_speaking());
                        last = at;
                    }
                    None => {}
                }
                if let Some(start) = open {
                    prop_assert!(end_pointer.position().saturating_sub(start) <= settings.maximum_utterance);
                }
            }
        }
    }
}

#[test]
fn what_was_forgotten_may_begin_the_next_utterance() {
    let mut end_pointer = EndPointer::new(VadSettings::default());
    assert_eq!(end_pointer.forget(), None);
    for _ in 0..20 {
        end_pointer.push(SPEECH);
    }
    assert_eq!(end_pointer.forget(), Some(Samples(0)));
    assert!(!end_pointer.is_speaking());
    let again = (0..3).find_map(|_| end_pointer.push(SPEECH));
    assert_eq!(again, Some(VadEvent::SpeechStarted { at: frames(20).saturating_sub(Samples::from_millis(300)) }));
}
