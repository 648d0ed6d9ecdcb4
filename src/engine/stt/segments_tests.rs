use super::*;
use crate::nn::whisper::Config;
use crate::testing::model;

fn tokens() -> Tokens {
    let folder = model("whisper-tiny.en");
    let config = Config::parse(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    Tokens::parse(&std::fs::read(folder.join("tokenizer.json")).unwrap(), &config).unwrap()
}

fn piece(start: f64, end: f64, tokens: &[u32]) -> Piece {
    Piece { start, end, tokens: tokens.to_vec() }
}

#[test]
fn a_window_is_cut_where_two_timestamps_meet() {
    let tokens = tokens();
    let at = |seconds: f64| tokens.first_timestamp + (seconds / STEP).round() as u32;
    let written = [at(0.0), 7, 8, at(2.0), at(2.5), 9, at(4.0)];
    let (pieces, settled) = cut(&tokens, &written, 10.0);
    assert_eq!(pieces, [piece(0.0, 2.0, &[7, 8]), piece(2.5, 4.0, &[9])]);
    assert!((settled - 10.0).abs() < 1e-9);
}

#[test]
fn what_is_cut_off_is_heard_again() {
    let tokens = tokens();
    let at = |seconds: f64| tokens.first_timestamp + (seconds / STEP).round() as u32;
    let written = [at(0.0), 7, at(20.0), at(20.0), 9, 10];
    assert_eq!(cut(&tokens, &written, 30.0), (vec![piece(0.0, 20.0, &[7])], 20.0));
}

#[test]
fn a_cut_moves_into_the_pause_before_it() {
    // Two seconds of noise, a pause from 1.7 s to 1.9 s.
    let mut samples: Vec<f32> = (0..32_000).map(|index| if index % 2 == 0 { 0.5 } else { -0.5 }).collect();
    samples[27_200..30_400].fill(0.0);
    assert!((into_pause(&samples, 1.98) - 1.87).abs() < 1e-6, "the latest of the pause");
    assert!((into_pause(&samples, 1.8) - 1.77).abs() < 1e-6, "within the pause a little before");
    for without in [1.5, 0.5, 0.0] {
        assert!((into_pause(&samples, without) - without).abs() < 1e-9, "no pause before {without}");
    }
    assert!((into_pause(&vec![0.0; 32_000], 0.4) - 0.4).abs() < 1e-9, "a window goes on");
}

#[test]
fn a_single_segment_settles_the_whole_window() {
    let tokens = tokens();
    let at = |seconds: f64| tokens.first_timestamp + (seconds / STEP).round() as u32;
    assert_eq!(cut(&tokens, &[at(0.2), 7, at(2.0)], 3.0), (vec![piece(0.2, 2.0, &[7])], 3.0));
    assert_eq!(cut(&tokens, &[at(0.2), 7], 3.0), (vec![piece(0.2, 3.0, &[7])], 3.0));
    assert_eq!(cut(&tokens, &[], 3.0), (vec![], 3.0));
    assert_eq!(cut(&tokens, &[at(0.0)], 3.0), (vec![], 3.0));
}
