use super::*;

#[test]
fn the_path_follows_what_is_cheap() {
    // Three rows, each attending to its own third of nine columns.
    let cost: Vec<f32> = (0..27).map(|index| if index % 9 / 3 == index / 9 { -1.0 } else { 1.0 }).collect();
    assert_eq!(begin_times(&cost, 3, 9), [0.0, 3.0 * POSITION, 6.0 * POSITION]);
}

#[test]
fn punctuation_joins_its_word() {
    let word = |text: &str| TimedWord { text: text.to_owned(), tokens: 1, start: 0.0, end: 0.0 };
    let joined = join_punctuation(vec![word(" \""), word(" Go"), word(","), word(" forward"), word("!")]);
    let text: Vec<_> = joined.iter().map(|word| (word.text.as_str(), word.tokens)).collect();
    assert_eq!(text, [("\"Go,", 3), ("forward!", 2)]);
}

#[test]
fn pauses_beside_a_word_are_not_its() {
    let mut samples = vec![0.001; 16_000];
    samples[6_400..9_600].fill(0.5);
    let mut words = [TimedWord { text: "go".to_owned(), tokens: 1, start: 0.0, end: 0.9 }];
    trim_pauses(&mut words, &samples);
    assert!((words[0].start - 0.4).abs() < 0.021 && (words[0].end - 0.6).abs() < 0.021, "{words:?}");
}
