use super::*;
use crate::provider::fake::FaultyActivity;

const LOUD: [f32; VAD_FRAME] = [0.5; VAD_FRAME];

/// How many of `frames` loud frames were heard, and how many faults were told.
fn listen(detector: &mut Detector, frames: usize) -> (usize, usize) {
    let scores: Vec<_> = (0..frames).map(|_| detector.score(&LOUD)).collect();
    let heard = scores.iter().filter(|score| matches!(score, Ok(probability) if *probability > 0.5)).count();
    (heard, scores.iter().filter(|score| score.is_err()).count())
}

#[test]
fn one_fault_costs_one_frame() {
    let mut detector = Detector::new(Arc::new(FaultyActivity::new(4..5)));
    assert_eq!(listen(&mut detector, 10), (9, 1));
}

#[test]
fn a_detector_broken_for_good_is_told_once_and_left_alone() {
    let faulty = Arc::new(FaultyActivity::new(0..usize::MAX));
    let mut detector = Detector::new(Arc::<FaultyActivity>::clone(&faulty));
    // An hour.
    assert_eq!(listen(&mut detector, 112_500), (0, 1));
    assert!(faulty.asked() < 400, "{}", faulty.asked());
}

#[test]
fn one_that_works_again_is_heard_again_and_its_next_fault_is_told() {
    let mut detector = Detector::new(Arc::new(FaultyActivity::new(0..3)));
    // Two faults, a rest, the third fault, a rest, and then it works.
    assert_eq!(listen(&mut detector, 3 + 2 * REST), (0, 1));
    assert_eq!(listen(&mut detector, 50), (50, 0));
    let mut detector = Detector::new(Arc::new(FaultyActivity::new(2 * SOUND..2 * SOUND + 1)));
    detector.good = 0;
    assert_eq!(listen(&mut detector, 3 * SOUND), (3 * SOUND - 1, 1));
}
