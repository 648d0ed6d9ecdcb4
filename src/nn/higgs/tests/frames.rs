//! The delay and back.

use proptest::prelude::*;

use crate::nn::higgs::{Codes, Edges, revert};

const EDGES: Edges = Edges { begin: 1024, end: 1025 };

#[test]
fn a_reference_is_delayed_as_transformers_delays_it() {
    let expected = super::expected();
    let delayed = Edges { begin: 16, end: 17 }.delay(&expected.columns());
    assert_eq!(delayed.rows().map(<[u32]>::to_vec).collect::<Vec<_>>(), expected.delayed);
}

#[test]
fn a_column_without_codes_around_it_takes_nine_more_frames() {
    for columns in 0..5 {
        let codes = Codes::from_rows(8, (0..columns * 8).collect()).unwrap();
        assert_eq!(EDGES.delay(&codes).len(), columns as usize + 9);
    }
    let three = Codes::from_codebooks(&[vec![1, 2], vec![3, 4], vec![5, 6]]).unwrap();
    let delayed = EDGES.delay(&three);
    let (b, e) = (1024, 1025);
    assert_eq!(delayed.codebook(0).collect::<Vec<_>>(), [b, 1, 2, e, e, e]);
    assert_eq!(delayed.codebook(1).collect::<Vec<_>>(), [b, b, 3, 4, e, e]);
    assert_eq!(delayed.codebook(2).collect::<Vec<_>>(), [b, b, b, 5, 6, e]);
}

#[test]
fn codes_of_unequal_length_are_none() {
    assert_eq!(Codes::from_codebooks(&[vec![1, 2], vec![3]]), None);
    assert_eq!(Codes::from_codebooks(&[]), None);
    assert_eq!(Codes::from_rows(8, vec![1; 9]), None);
    assert_eq!(Codes::from_rows(0, vec![]), None);
    let codes = Codes::from_rows(2, vec![1, 2, 3, 4]).unwrap();
    assert_eq!(codes.as_arrays::<2>(), Some([[1, 2], [3, 4]].as_slice()));
    assert_eq!(codes.as_arrays::<3>(), None);
    assert_eq!(Codes::from_arrays(&[[1, 2], [3, 4]]), codes);
    assert_eq!(codes.last(1).values(), [3, 4]);
    assert_eq!(codes.last(9), codes);
}

proptest! {
    #[test]
    fn what_is_delayed_comes_back(codebooks in 1usize..=8, columns in 0usize..40, seed in 0u32..1000) {
        let values = (0..(codebooks * columns) as u32).map(|index| (index * 31 + seed) % 1024).collect();
        let codes = Codes::from_rows(codebooks, values).unwrap();
        let back = revert(&EDGES.delay(&codes));
        prop_assert_eq!(back.len(), columns + 2);
        prop_assert!(back.row(0).iter().all(|code| *code == EDGES.begin));
        prop_assert!(back.row(columns + 1).iter().all(|code| *code == EDGES.end));
        for column in 0..columns {
            prop_assert_eq!(back.row(column + 1), codes.row(column));
        }
    }
}
