use super::*;

const HZ: usize = SPEECH_HZ as usize;

/// Sound as [(seconds, is voice)].
fn sound(parts: &[(f64, bool)]) -> Vec<f32> {
    let part = |(length, is_voice): &(f64, bool)| {
        let loudness = if *is_voice { 0.3 } else { 0.0005 };
        (0..(length * HZ as f64) as usize).map(move |at| loudness * (at as f32 * 0.1).sin()).collect::<Vec<f32>>()
    };
    parts.iter().flat_map(part).collect()
}

/// What is told of `samples` that come `step` at a time, as (text, start, end); each within its chunk.
fn told(words: &mut Words, samples: &[f32], step: usize, is_last: bool, from: f64) -> Vec<(String, f64, f64)> {
    let mut all = Vec::new();
    let mut heard = 0;
    for (index, chunk) in samples.chunks(step).enumerate() {
        words.hear(chunk);
        heard += chunk.len();
        let is_end = (index + 1) * step >= samples.len();
        if is_end {
            words.end_piece(None);
        }
        let begin = from + (heard - chunk.len()) as f64 / HZ as f64;
        let end = from + heard as f64 / HZ as f64;
        for mark in words.take(end, is_end && is_last) {
            let (start, stop) = (mark.start.as_secs_f64(), mark.end.as_secs_f64());
            assert!(start >= begin - 1e-6 && stop <= end + 1e-6 && start <= stop, "{mark:?} in {begin}..{end}");
            all.push((mark.text, start, stop));
        }
    }
    assert!(all.windows(2).all(|pair| pair[0].2 <= pair[1].1 + 1e-6), "{all:?}");
    all
}

fn starts(told: &[(String, f64, f64)]) -> Vec<f64> {
    told.iter().map(|(_, start, _)| *start).collect()
}

#[test]
fn words_lie_along_the_voice_by_their_length() {
    let text = "One considerably longer word.";
    let samples = sound(&[(0.5, false), (2.0, true), (0.4, false)]);
    let told = told(&mut Words::new(text, 1.0), &samples, samples.len(), true, 0.0);
    let texts: Vec<&str> = told.iter().map(|(text, ..)| text.as_str()).collect();
    assert_eq!(texts, ["One", "considerably", "longer", "word."]);
    assert!((told[0].1 - 0.5).abs() < 0.03, "the first begins with the voice: {told:?}");
    assert!(told[3].2 <= 2.5 + 0.03, "the last ends with it: {told:?}");
    let length = |index: usize| told[index + 1].1 - told[index].1;
    assert!(length(1) > 2.0 * length(0), "{told:?}");
}

#[test]
fn a_pause_is_where_the_next_clause_begins() {
    // The speaker is much slower, or much faster, than expected: the second clause begins after the pause all the same.
    let text = "First of all, here is another thing.";
    for first in [0.5, 0.75, 0.95] {
        let samples = sound(&[(first, true), (0.5, false), (1.5, true)]);
        let told = told(&mut Words::new(text, 1.0), &samples, HZ / 5, true, 0.0);
        assert_eq!(told.len(), 7);
        assert!((told[3].1 - (first + 0.5)).abs() < 0.05, "{first}: {told:?}");
        assert!(told[2].1 < first + 0.2, "{first}: {told:?}");
    }
}

#[test]
fn a_pause_for_breath_within_a_clause_moves_what_follows() {
    let text = "These words are said without any mark between them";
    let plain = sound(&[(3.0, true)]);
    let halting = sound(&[(1.0, true), (1.0, false), (2.0, true)]);
    let [plain, halting] =
        [plain, halting].map(|samples| starts(&told(&mut Words::new(text, 1.0), &samples, samples.len(), true, 0.0)));
    for (plain, halting) in plain.iter().zip(&halting) {
        let moved = if *plain < 1.0 - 1e-6 { 0.0 } else { 1.0 };
        assert!((halting - plain - moved).abs() < 0.05, "{plain} {halting}");
    }
}

#[test]
fn the_pace_is_learnt_from_the_pieces_before() {
    let text = "A few words that take their time";
    let expected: f64 = text.chars().map(seconds_of).sum();
    // Twice as slow as a usual speaker.
    let samples = sound(&[(expected * USUAL * 2.0, true)]);
    let mut words = Words::new(text, 1.0);
    let first = told(&mut words, &samples, samples.len(), false, 0.0);
    words.begin(text);
    let from = samples.len() as f64 / HZ as f64;
    let second = told(&mut words, &samples, samples.len(), true, from);
    assert_eq!((first.len(), second.len()), (7, 7));
    // Now they fill the piece.
    let last = second[6].1 - from;
    assert!(last > 0.75 * from && last < from, "{last} of {from}");
    assert!(second[0].1 >= first[6].2);
}

#[test]
fn nothing_is_lost_however_the_sound_is() {
    let text = "Hello there — you, 42 \"friends\" of mine!";
    let wanted = ["Hello", "there —", "you,", "42", "\"friends\"", "of", "mine!"];
    for parts in [&[(0.1, true)][..], &[(2.0, false)], &[(30.0, true)], &[(0.02, true), (9.0, false)], &[]] {
        let samples = sound(parts);
        for (step, speed) in [(480, 1.0), (4800, 1.0), (7777, 1.0), (960_000, 1.0)] {
            let mut words = Words::new(text, speed);
            let told = if samples.is_empty() {
                words.end_piece(None);
                words.take(0.0, true).into_iter().map(|mark| (mark.text, 0.0, 0.0)).collect()
            } else {
                told(&mut words, &samples, step, true, 0.0)
            };
            let texts: Vec<&str> = told.iter().map(|(text, ..)| text.as_str()).collect();
            assert_eq!(texts, wanted, "{parts:?} by {step}");
        }
    }
}

#[test]
fn another_speed_moves_all_of_it() {
    let text = "One, two, three, four, five, six, seven.";
    let samples = sound(&[(4.0, true)]);
    let at = |speed: f32| {
        let mut words = Words::new(text, speed);
        words.hear(&samples);
        words.end_piece(None);
        let marks = words.take(4.0 / f64::from(speed), true);
        marks.into_iter().map(|mark| mark.start.as_secs_f64()).collect::<Vec<_>>()
    };
    for (natural, fast) in at(1.0).into_iter().zip(at(2.0)) {
        assert!((natural - 2.0 * fast).abs() < 1e-6);
    }
}
