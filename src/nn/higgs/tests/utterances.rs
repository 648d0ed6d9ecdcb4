//! The rules of generation with logits made by hand.

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::nn::higgs::{Codes, EndPolicy, HiggsConfig, Outcome, RepetitionRule, SpeechSettings, Utterance, revert};

const BOOK: usize = 1026;
const END: u32 = 1025;
const BEGIN: u32 = 1024;

fn settings(ending: EndPolicy) -> SpeechSettings {
    SpeechSettings { temperature: 0.0, repetition: None, most_frames: 100, ending, ..SpeechSettings::default() }
}

fn utterance(settings: SpeechSettings, seed: u64) -> Utterance {
    Utterance::new(&HiggsConfig::published(), settings, seed, &Codes::new(8))
}

/// Logits whose likeliest codes are these.
fn peaked(codes: &[u32]) -> Vec<f32> {
    let mut logits = vec![0.0; codes.len() * BOOK];
    for (codebook, code) in codes.iter().enumerate() {
        logits[codebook * BOOK + *code as usize] = 50.0;
    }
    logits
}

/// Codes that tell where they are.
fn code(frame: usize, codebook: usize) -> u32 {
    (frame * 8 + codebook) as u32
}

/// Draws `code(frame, codebook)`, and `ends` where it says so, until it is over.
fn run(settings: SpeechSettings, ends: &[(usize, usize)]) -> Utterance {
    let mut utterance = utterance(settings, 1);
    while utterance.outcome().is_none() {
        let frame = utterance.frames().len();
        let drawn: Vec<u32> = (0..8)
            .map(|codebook| if ends.contains(&(frame, codebook)) { END } else { code(frame, codebook) })
            .collect();
        utterance.advance(&mut peaked(&drawn));
    }
    utterance
}

/// Boson's own words for it, frame by frame to its own stop; then its way to cut: revert, drop the first column and the
/// last.
fn boson(ends: &[(usize, usize)], most: usize) -> Vec<Vec<u32>> {
    let mut frames = Codes::new(8);
    frames.push(&[BEGIN; 8]);
    let mut delays = 0;
    let mut remaining: Option<usize> = None;
    while frames.len() < most {
        let frame = frames.len();
        let mut next: Vec<u32> = (0..8)
            .map(|codebook| if ends.contains(&(frame, codebook)) { END } else { code(frame, codebook) })
            .collect();
        if delays + 1 < 8 {
            next[delays + 1..].fill(BEGIN);
            delays += 1;
        }
        if let Some(left) = remaining {
            next[..8 - left].fill(END);
            remaining = Some(left - 1);
        } else if let Some(first) = next.iter().position(|code| *code == END) {
            next[..first].fill(END);
            remaining = Some(8 - first - 1);
        }
        frames.push(&next);
        if remaining == Some(0) {
            break;
        }
    }
    let all: Vec<Vec<u32>> = revert(&frames).rows().map(<[u32]>::to_vec).collect();
    let last = all.len().saturating_sub(1).max(1);
    all[1.min(all.len())..last.min(all.len())].to_vec()
}

#[test]
fn the_first_frame_is_given_and_codebooks_join_one_by_one() {
    let mut utterance = utterance(settings(EndPolicy::Boson), 1);
    assert_eq!(utterance.frames().row(0), [BEGIN; 8]);
    for frame in 1..12 {
        utterance.advance(&mut peaked(&[7; 8]));
        let expected: Vec<u32> = (0..8).map(|codebook| if codebook < frame { 7 } else { BEGIN }).collect();
        assert_eq!(utterance.frames().row(frame), expected);
        assert_eq!(utterance.columns(), frame.saturating_sub(7));
    }
}

/// The boundary of each codebook, in the ramp and after it.
#[test]
fn an_end_in_any_codebook_ends_the_same_column_everywhere() {
    for codebook in 0..8 {
        for frame in codebook + 1..25 {
            let end = frame - codebook;
            let ours = run(settings(EndPolicy::Boson), &[(frame, codebook)]);
            let theirs = run(settings(EndPolicy::Transformers), &[(frame, codebook)]);
            let columns = end - 1;
            let outcome = if columns == 0 { Outcome::Empty } else { Outcome::Spoken };
            for utterance in [&ours, &theirs] {
                assert_eq!(utterance.outcome(), Some(outcome), "frame {frame}, codebook {codebook}");
                assert_eq!(utterance.columns(), columns, "frame {frame}, codebook {codebook}");
                // The codes of a column are those that were drawn for it, a frame later in each codebook.
                let speech = utterance.speech(0, columns);
                for (index, row) in speech.rows().enumerate() {
                    let drawn: Vec<u32> = (0..8).map(|k| code(index + 1 + k, k).min(1023)).collect();
                    assert_eq!(row, drawn, "column {index}");
                }
            }
            // It stops with the frame that completes the last column, but not before it has seen the end.
            if columns > 0 {
                assert_eq!(ours.frames().len(), (end + 7).max(frame + 1));
            }
            // Eight frames of ends, whichever codebook was first.
            assert_eq!(theirs.frames().len(), frame + 9);
            assert_eq!(theirs.frames().row(frame + 8), [END; 8]);
        }
    }
}

#[test]
fn the_last_codebooks_end_stops_at_once() {
    let utterance = run(settings(EndPolicy::Boson), &[(20, 7)]);
    assert_eq!(utterance.frames().len(), 21);
    assert_eq!(utterance.frames().row(20), [END; 8]);
    assert_eq!(utterance.columns(), 12);
}

#[test]
fn of_two_ends_in_a_frame_the_lowest_codebook_says_where() {
    let utterance = run(settings(EndPolicy::Boson), &[(20, 5), (20, 2)]);
    assert_eq!(utterance.columns(), 17);
    assert_eq!(&utterance.frames().row(20)[..3], [END; 3]);
}

proptest! {
    /// Any set of ends gives the columns of Boson's own procedure.
    #[test]
    fn the_columns_are_bosons(ends in proptest::collection::vec((1usize..40, 0usize..8), 0..6)) {
        let ours = run(SpeechSettings { most_frames: 40, ..settings(EndPolicy::Boson) }, &ends);
        // Boson stops a frame later, and drops the last column where it is stopped before that.
        let most = if ours.outcome() == Some(Outcome::CutOff) { 40 } else { 60 };
        let expected: Vec<Vec<u32>> =
            boson(&ends, most).iter().map(|row| row.iter().map(|code| (*code).min(1023)).collect()).collect();
        let speech: Vec<Vec<u32>> = ours.speech(0, ours.columns()).rows().map(<[u32]>::to_vec).collect();
        match ours.outcome() {
            Some(Outcome::CutOff) => prop_assert_eq!(&speech[..expected.len()], &expected[..]),
            Some(Outcome::Empty) => prop_assert!(speech.is_empty()),
            _ => prop_assert_eq!(speech, expected),
        }
    }

    /// Columns only grow, and what was given out stays.
    #[test]
    fn nothing_is_ever_taken_back(seed in 0u64..200, policy in prop_oneof![Just(EndPolicy::Boson), Just(EndPolicy::Transformers)]) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut utterance = utterance(settings(policy), seed);
        let mut so_far = Codes::new(8);
        while utterance.outcome().is_none() {
            let drawn: Vec<u32> = (0..8).map(|_| if random.random_bool(0.01) { END } else { random.random_range(0..1026) }).collect();
            utterance.advance(&mut peaked(&drawn));
            prop_assert!(utterance.columns() >= so_far.len());
            prop_assert_eq!(&utterance.speech(0, so_far.len()), &so_far);
            so_far = utterance.speech(0, utterance.columns());
            prop_assert!(so_far.values().iter().all(|code| *code < 1024));
        }
        prop_assert!(utterance.frames().len() <= 108);
    }
}

#[test]
fn without_an_end_it_is_cut_off_and_its_columns_are_whole() {
    let utterance = run(SpeechSettings { most_frames: 30, ..settings(EndPolicy::Boson) }, &[]);
    assert_eq!(utterance.outcome(), Some(Outcome::CutOff));
    assert_eq!((utterance.frames().len(), utterance.columns()), (30, 22));
}

#[test]
fn nothing_follows_an_outcome() {
    let mut utterance = run(settings(EndPolicy::Boson), &[(9, 0)]);
    let frames = utterance.frames().clone();
    assert_eq!(utterance.advance(&mut peaked(&[1; 8])), Some(Outcome::Spoken));
    utterance.cut_off();
    assert_eq!((utterance.outcome(), utterance.frames()), (Some(Outcome::Spoken), &frames));
}

#[test]
fn numbers_that_are_not_finite_break_it() {
    let mut utterance = utterance(settings(EndPolicy::Boson), 1);
    assert_eq!(utterance.advance(&mut vec![f32::NAN; 8 * BOOK]), Some(Outcome::Broken));
}

#[test]
fn the_same_seed_draws_the_same_and_another_another() {
    let settings = SpeechSettings { temperature: 1.0, most_frames: 40, ..SpeechSettings::default() };
    let spoken = |seed| {
        let mut random = StdRng::seed_from_u64(3);
        let mut utterance = utterance(settings, seed);
        while utterance.outcome().is_none() {
            let mut logits: Vec<f32> = (0..8 * BOOK).map(|_| random.random_range(-3.0..3.0)).collect();
            utterance.advance(&mut logits);
        }
        utterance.frames().clone()
    };
    assert_eq!(spoken(5), spoken(5));
    assert_ne!(spoken(5), spoken(6));
}

/// How often each code of codebook 0 comes in so many draws of the second frame.
fn counts(settings: SpeechSettings, logits: &[f32], heard: &Codes, draws: u64) -> std::collections::BTreeMap<u32, u64> {
    let mut counts = std::collections::BTreeMap::new();
    for seed in 0..draws {
        let mut utterance = Utterance::new(&HiggsConfig::published(), settings, seed, heard);
        utterance.advance(&mut logits.to_vec());
        *counts.entry(utterance.frames().row(1)[0]).or_default() += 1;
    }
    counts
}

/// ln of these weights at the codes 0, 1, 2, …, and nothing anywhere else.
fn weighted(weights: &[f32]) -> Vec<f32> {
    let mut logits = vec![-1e9; 8 * BOOK];
    for (code, weight) in weights.iter().enumerate() {
        logits[code] = weight.ln();
    }
    logits
}

#[test]
fn top_k_and_top_p_cut_each_codebook_by_itself() {
    let logits = weighted(&[0.1, 0.4, 0.2, 0.3]);
    let free = SpeechSettings { temperature: 1.0, top_k: 0, top_p: 1.0, repetition: None, ..SpeechSettings::default() };
    let seen = |settings| counts(settings, &logits, &Codes::new(8), 400).into_keys().collect::<Vec<_>>();
    assert_eq!(seen(free), [0, 1, 2, 3]);
    assert_eq!(seen(SpeechSettings { top_k: 2, ..free }), [1, 3]);
    assert_eq!(seen(SpeechSettings { top_k: 1, ..free }), [1]);
    // The fewest that reach the mass.
    assert_eq!(seen(SpeechSettings { top_p: 0.69, ..free }), [1, 3]);
    assert_eq!(seen(SpeechSettings { top_p: 0.71, ..free }), [1, 2, 3]);
    // The likeliest is always kept.
    assert_eq!(seen(SpeechSettings { top_p: 0.0, ..free }), [1]);
    // The mass is of what top-k left: 0.4 of 0.7 is more than a half.
    assert_eq!(seen(SpeechSettings { top_k: 2, top_p: 0.55, ..free }), [1]);
    assert_eq!(seen(SpeechSettings { temperature: 0.0, ..free }), [1]);
    let drawn = counts(free, &logits, &Codes::new(8), 4000);
    for (code, share) in [(0, 0.1), (1, 0.4), (2, 0.2), (3, 0.3)] {
        let found = drawn[&code] as f64 / 4000.0;
        assert!((found - share).abs() < 0.03, "{code}: {found}");
    }
}

/// A history in which codebook 0 had `code` in these of the last eight frames, counted from the last, 1.
fn heard(code: u32, places: &[usize]) -> Codes {
    let mut codes = Codes::new(8);
    for back in (1..=8).rev() {
        codes.push(&[if places.contains(&back) { code } else { 900 }, 901, 902, 903, 904, 905, 906, 907]);
    }
    codes
}

#[test]
fn a_code_that_came_twice_in_the_window_is_drawn_anew() {
    // Greedily 1; of the plain distribution every tenth is 0.
    let logits = weighted(&[0.1, 0.9]);
    let rule =
        SpeechSettings { temperature: 0.0, repetition: Some(RepetitionRule::default()), ..SpeechSettings::default() };
    let redrawn = |settings, heard: &Codes| counts(settings, &logits, heard, 300).contains_key(&0);
    // The frame that is given, frame 0, is one of the seven.
    assert!(redrawn(rule, &heard(1, &[1, 6])));
    assert!(redrawn(rule, &heard(1, &[2, 3, 4])));
    assert!(!redrawn(rule, &heard(1, &[1, 7])), "the window is seven frames");
    assert!(!redrawn(rule, &heard(1, &[3])));
    assert!(!redrawn(rule, &heard(0, &[1, 2, 3])));
    assert!(!redrawn(SpeechSettings { repetition: None, ..rule }, &heard(1, &[1, 2, 3])));
    let strict = RepetitionRule { window: 3, most: 1 };
    assert!(redrawn(SpeechSettings { repetition: Some(strict), ..rule }, &heard(1, &[2])));
    assert!(!redrawn(SpeechSettings { repetition: Some(strict), ..rule }, &heard(1, &[3])));
    // What is drawn anew is of the whole distribution, whatever top-k says, and may be the same.
    let cut = SpeechSettings { temperature: 1.0, top_k: 1, ..rule };
    let drawn = counts(cut, &logits, &heard(1, &[1, 2]), 2000);
    let share = drawn[&0] as f64 / 2000.0;
    assert!((share - 0.1).abs() < 0.03, "{share}");
}

/// Ends repeat in every frame at the end; drawing anew would take them back.
#[test]
fn begins_and_ends_are_never_drawn_anew() {
    let mut logits = vec![-1e9; 8 * BOOK];
    for codebook in 0..8 {
        logits[codebook * BOOK + END as usize] = 0.9f32.ln();
        logits[codebook * BOOK] = 0.1f32.ln();
    }
    let rule = SpeechSettings { temperature: 0.0, ..SpeechSettings::default() };
    let drawn = counts(rule, &logits, &heard(END, &[1, 2, 3, 4]), 300);
    assert_eq!(drawn.into_keys().collect::<Vec<_>>(), [END]);
}

/// Other codebooks' codes do not count.
#[test]
fn the_window_is_each_codebooks_own() {
    let logits = weighted(&[0.1, 0.9]);
    let mut codes = Codes::new(8);
    for _ in 0..7 {
        codes.push(&[900, 1, 1, 1, 1, 1, 1, 1]);
    }
    let rule = SpeechSettings { temperature: 0.0, ..SpeechSettings::default() };
    assert!(!counts(rule, &logits, &codes, 300).contains_key(&0));
}
