//! A prompt's positions.

use std::sync::Arc;

use crate::nn::higgs::prompt::{Prompt, Segment};
use crate::nn::higgs::{Codes, HiggsConfig};

fn audio(rows: u32, code: u32) -> Segment {
    Segment::Audio(Arc::new(Codes::from_rows(8, (0..rows * 8).map(|index| (index + code) % 1024).collect()).unwrap()))
}

fn text(ids: &[u32]) -> Segment {
    Segment::Text(ids.to_vec())
}

#[test]
fn neighbouring_texts_are_one_run() {
    let prompt = Prompt::new([text(&[1, 2]), text(&[]), text(&[3]), audio(4, 0), text(&[4, 5])]);
    assert_eq!(prompt.len(), 9);
    assert_eq!(prompt.segments(), [text(&[1, 2, 3]), audio(4, 0), text(&[4, 5])]);
    let parts: Vec<_> = prompt.parts(2..8).map(|(segment, within)| (segment.len(), within)).collect();
    assert_eq!(parts, [(3, 2..3), (4, 0..4), (2, 0..1)]);
    let (_, within) = prompt.parts(4..5).next().unwrap();
    assert_eq!(within, 1..2);
}

#[test]
fn what_two_prompts_share_is_counted_in_positions() {
    let voice = audio(12, 7);
    let one = Prompt::new([text(&[1, 2, 3]), voice.clone(), text(&[4, 5, 6])]);
    let cases = [
        (one.clone(), 18),
        (Prompt::new([text(&[1, 2, 3]), voice.clone(), text(&[4, 9, 6])]), 16),
        (Prompt::new([text(&[1, 2, 3]), voice.clone(), text(&[4])]), 16),
        (Prompt::new([text(&[1, 2, 3]), audio(12, 8), text(&[4, 5, 6])]), 3),
        // The same codes, held elsewhere.
        (Prompt::new([text(&[1, 2, 3]), audio(12, 7), text(&[4])]), 16),
        (Prompt::new([text(&[1, 2, 3]), audio(5, 7), text(&[4, 5, 6])]), 8),
        (Prompt::new([text(&[1, 2, 3, 4])]), 3),
        (Prompt::new([voice]), 0),
        (Prompt::default(), 0),
    ];
    for (other, shared) in cases {
        assert_eq!(one.shared(&other), shared, "{other:?}");
        assert_eq!(other.shared(&one), shared, "{other:?}");
    }
}

#[test]
fn the_last_frames_heard_are_the_last_references() {
    let config = HiggsConfig::published();
    let prompt = Prompt::new([audio(3, 100), text(&[1]), audio(20, 0), text(&[2])]);
    assert_eq!(prompt.heard(&config, 7).values(), (104..160).collect::<Vec<u32>>());
    assert!(Prompt::new([text(&[1])]).heard(&config, 7).is_empty());
}

#[test]
fn a_reference_takes_its_columns_and_nine() {
    let config = HiggsConfig::published();
    let columns = Codes::from_rows(8, vec![5; 8 * 100]).unwrap();
    assert_eq!(Segment::speech(&config, &columns).len(), 109);
}
