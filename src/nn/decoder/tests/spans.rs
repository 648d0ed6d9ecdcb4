//! How a text is cut into calls, and what else is in them, does not change what comes out.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{FAMILIES, alone, largest_difference, last, oracle, text};
use crate::nn::decoder::{DecoderError, Span, Wants};

/// Products of another number of rows add up in another order.
const ROUNDING: f32 = 2e-4;

#[test]
fn chunks_give_what_the_whole_gives() {
    for family in FAMILIES {
        let mut decoder = oracle(family);
        let tokens = text(1, 41);
        let mut cache = decoder.cache(1, 48).unwrap();
        let span = Span { slot: 0, start: 0, tokens: &tokens, wants: Wants::All };
        let whole = decoder.forward(&mut cache, &[span]).unwrap();
        assert_eq!(whole.rows(), tokens.len());
        let whole: Vec<Vec<f32>> = (0..whole.rows()).map(|row| whole.row(row).to_vec()).collect();
        for borders in [vec![0, 1, 8, 9, 41], vec![0, 20, 40, 41], (0..=41).collect()] {
            for cut in borders.windows(2) {
                let tokens = &tokens[cut[0]..cut[1]];
                let logits = last(&mut decoder, &mut cache, 0, cut[0], tokens);
                let difference = largest_difference(&logits, &whole[cut[1] - 1]);
                assert!(difference < ROUNDING, "{family}, {cut:?}: {difference}");
            }
        }
    }
}

/// More rows than attend at once.
#[test]
fn a_long_span_gives_what_short_ones_give() {
    for family in ["llama3", "gemma3"] {
        let mut decoder = oracle(family);
        let tokens = text(2, 300);
        let whole = alone(&mut decoder, &tokens);
        let mut cache = decoder.cache(1, 300).unwrap();
        for start in (0..300).step_by(60) {
            let logits = last(&mut decoder, &mut cache, 0, start, &tokens[start..start + 60]);
            if start == 240 {
                assert!(largest_difference(&logits, &whole) < ROUNDING, "{family}");
            }
        }
    }
}

#[test]
fn rows_come_in_the_order_of_the_spans() {
    let mut decoder = oracle("qwen3");
    let (one, two, three) = (text(1, 9), text(2, 3), text(3, 6));
    let alone = [&one, &two, &three].map(|tokens| alone(&mut decoder, tokens));
    let mut cache = decoder.cache(4, 32).unwrap();
    let spans = [
        Span { slot: 3, start: 0, tokens: &one, wants: Wants::Last },
        Span { slot: 0, start: 0, tokens: &two, wants: Wants::All },
        Span { slot: 2, start: 0, tokens: &three, wants: Wants::Nothing },
    ];
    let logits = decoder.forward(&mut cache, &spans).unwrap();
    assert_eq!(logits.rows(), 1 + 3);
    assert!(largest_difference(logits.row(0), &alone[0]) < ROUNDING);
    assert!(largest_difference(logits.row(3), &alone[1]) < ROUNDING);
    assert_eq!([0, 1, 2, 3].map(|slot| cache.length(slot)), [3, 0, 6, 9]);
    let logits = decoder.forward(&mut cache, &[Span { wants: Wants::Nothing, ..spans[1] }]).unwrap();
    assert_eq!(logits.rows(), 0);
    // What was read without wanting anything is there.
    let again = last(&mut decoder, &mut cache, 2, 5, &three[5..]);
    assert!(largest_difference(&again, &alone[2]) < ROUNDING);
}

#[test]
fn a_copy_goes_on_as_its_original() {
    for family in ["llama3", "mistral", "gemma3"] {
        let mut decoder = oracle(family);
        let (tokens, other) = (text(5, 30), text(6, 12));
        let expected = [&tokens[..], &[&tokens[..20], &other[..]].concat()].map(|tokens| alone(&mut decoder, tokens));
        let mut cache = decoder.cache(3, 40).unwrap();
        last(&mut decoder, &mut cache, 0, 0, &tokens[..25]);
        last(&mut decoder, &mut cache, 2, 0, &other);
        cache.copy(0, 2, 20).unwrap();
        assert_eq!([0, 1, 2].map(|slot| cache.length(slot)), [25, 0, 20]);
        let copied = last(&mut decoder, &mut cache, 2, 20, &other);
        let original = last(&mut decoder, &mut cache, 0, 25, &tokens[25..]);
        assert!(largest_difference(&original, &expected[0]) < ROUNDING, "{family}");
        assert!(largest_difference(&copied, &expected[1]) < ROUNDING, "{family}");
    }
}

/// What a slot holds, and a model that reads it anew, agree after any sequence of calls.
#[test]
fn no_slot_reads_another() {
    let mut random = StdRng::seed_from_u64(3);
    for family in FAMILIES {
        let mut decoder = oracle(family);
        let (slots, positions) = (4, 40);
        let mut cache = decoder.cache(slots, positions).unwrap();
        let mut held: Vec<Vec<u32>> = vec![Vec::new(); slots];
        for round in 0..40 {
            if random.random_bool(0.15) {
                let (from, to) = (random.random_range(0..slots), random.random_range(0..slots));
                let kept = random.random_range(0..=held[from].len());
                cache.copy(from, to, kept).unwrap();
                held[to] = held[from][..kept].to_vec();
            }
            // Single tokens go another way than chunks.
            let singles = random.random_bool(0.5);
            let mut reads = Vec::new();
            for slot in (0..slots).rev() {
                let most = if singles { 1 } else { 7 };
                let start =
                    if random.random_bool(0.7) { held[slot].len() } else { random.random_range(0..=held[slot].len()) };
                let room = positions - start;
                if random.random_bool(0.7) && room > 0 {
                    let tokens = text(random.random(), random.random_range(1..=most.min(room)));
                    held[slot].truncate(start);
                    held[slot].extend(&tokens);
                    reads.push((slot, start, tokens));
                }
            }
            let spans: Vec<Span> = reads
                .iter()
                .map(|(slot, start, tokens)| Span { slot: *slot, start: *start, tokens, wants: Wants::Last })
                .collect();
            let logits = decoder.forward(&mut cache, &spans).unwrap();
            let rows: Vec<Vec<f32>> = (0..logits.rows()).map(|row| logits.row(row).to_vec()).collect();
            for (span, row) in spans.iter().zip(rows) {
                let anew = alone(&mut decoder, &held[span.slot]);
                let difference = largest_difference(&row, &anew);
                assert!(difference < ROUNDING, "{family}, round {round}, slot {}: {difference}", span.slot);
            }
        }
    }
}

#[test]
fn what_breaks_the_rules_reads_nothing() {
    let mut decoder = oracle("llama3");
    let mut cache = decoder.cache(2, 16).unwrap();
    let tokens = text(1, 8);
    let expected = alone(&mut decoder, &tokens);
    last(&mut decoder, &mut cache, 0, 0, &tokens[..7]);
    let good = Span { slot: 0, start: 7, tokens: &tokens[7..], wants: Wants::Last };
    let long = text(1, 17);
    let bad = [
        (Span { slot: 2, ..good }, "there are 2 slots"),
        (Span { slot: 1, ..good }, "it holds 0 positions"),
        (Span { start: 8, ..good }, "it holds 7 positions"),
        (Span { tokens: &[], ..good }, "no tokens"),
        (Span { start: 0, tokens: &long, ..good }, "exceed its 16 positions"),
        (Span { tokens: &[256], ..good }, "beyond the vocabulary of 256"),
        (Span { start: usize::MAX, ..good }, "it holds 7 positions"),
    ];
    for (span, reason) in bad {
        let error = decoder.forward(&mut cache, &[span]).unwrap_err();
        assert!(matches!(&error, DecoderError::BadSpan { .. }) && error.to_string().contains(reason), "{error}");
        assert_eq!(cache.length(0), 7);
    }
    let twice = decoder.forward(&mut cache, &[good, good]).unwrap_err();
    assert!(twice.to_string().contains("twice"), "{twice}");
    assert!(cache.copy(0, 1, 8).is_err());
    assert!(cache.copy(0, 2, 1).is_err());
    assert!(cache.copy(2, 0, 0).is_err());
    assert_eq!(decoder.forward(&mut cache, &[]).unwrap().rows(), 0);
    let logits = decoder.forward(&mut cache, &[good]).unwrap();
    assert!(largest_difference(logits.row(0), &expected) < ROUNDING);
}

#[test]
fn the_cache_says_what_it_takes() {
    let decoder = oracle("gemma3");
    let cache = decoder.cache(3, 10).unwrap();
    // Keys and values, 7 layers, 2 heads of 16, f32.
    assert_eq!((cache.slots(), cache.positions(), cache.bytes_per_position()), (3, 10, 2 * 7 * 2 * 16 * 4));
}
