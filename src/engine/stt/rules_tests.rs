use super::*;
use crate::nn::whisper::Config;
use crate::testing::model;

fn tokens() -> Tokens {
    let folder = model("whisper-base");
    let config = Config::parse(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    Tokens::parse(&std::fs::read(folder.join("tokenizer.json")).unwrap(), &config).unwrap()
}

/// Which of `ids` may follow `written`, where all text is equally likely and timestamps are unlikely.
fn allowed(tokens: &Tokens, written: &[u32], ids: &[u32]) -> Vec<bool> {
    let mut logits = vec![0.0; 51_865];
    logits[tokens.first_timestamp as usize..].fill(-20.0);
    restrict(tokens, &mut logits, written);
    ids.iter().map(|&id| logits[id as usize].is_finite()).collect()
}

#[test]
fn timestamps_come_in_pairs_and_never_run_back() {
    let tokens = tokens();
    let (zero, text, end) = (tokens.first_timestamp, 1_000, tokens.end);
    // First a timestamp, within the first second.
    assert_eq!(allowed(&tokens, &[], &[text, zero, zero + 50, zero + 51]), [false, true, true, false]);
    // A segment has begun.
    assert_eq!(allowed(&tokens, &[zero], &[text, zero + 5, end]), [true, false, true]);
    // In a segment: more text, or its end, which is later than its beginning.
    assert_eq!(allowed(&tokens, &[zero + 5, text], &[text, zero + 5, zero + 6]), [true, false, true]);
    // A segment has ended: the next one's beginning or the end.
    assert_eq!(allowed(&tokens, &[zero, text, zero + 9], &[text, zero + 8, zero + 9, end]), [false, false, true, true]);
}

#[test]
fn a_timestamp_is_forced_where_timestamps_together_are_likelier_than_any_text() {
    let tokens = tokens();
    let mut logits = vec![0.0; 51_865];
    restrict(&tokens, &mut logits, &[tokens.first_timestamp, 1_000]);
    assert!(logits[..tokens.first_timestamp as usize].iter().all(|logit| *logit == f32::NEG_INFINITY));
}

#[test]
fn symbols_and_special_tokens_are_never_written() {
    let tokens = tokens();
    let written = [tokens.first_timestamp, 1_000];
    let special = [tokens.start, tokens.previous, tokens.no_speech, tokens.no_timestamps, tokens.first_timestamp];
    assert_eq!(allowed(&tokens, &written, &special), [false; 5]);
    assert_eq!(allowed(&tokens, &written, &[1, 2, tokens.end]), [false, false, true]);
}

#[test]
fn circles_are_noticed_and_repeated_words_are_not() {
    assert!(repeats(&[5; 16]));
    assert!(!repeats(&[5; 15]));
    assert!(repeats(&[9, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3]));
    assert!(!repeats(&[1, 2, 3, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]));
}

#[test]
fn of_circles_the_first_round_is_kept() {
    assert_eq!(first_round(&[5; 16]), [5]);
    assert_eq!(first_round(&[9, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2]), [9, 1, 2, 3]);
    assert_eq!(first_round(&[7, 7, 8, 9]), [7, 7, 8, 9]);
    assert_eq!(first_round(&[]), [0; 0]);
}

#[test]
fn special_tokens_in_a_prompt_are_plain_text() {
    let tokens = tokens();
    let ids = tokens.encode(" hello<|endoftext|>");
    assert!(ids.iter().all(|&id| id < tokens.end), "{ids:?}");
    assert_eq!(tokens.decode(&ids), " hello<|endoftext|>");
}
