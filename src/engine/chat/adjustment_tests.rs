use super::super::model::tests::tiny;
use super::*;
use crate::nn::decoder::GgufFile;

const ENDS: &[u32] = &[2, 3];

fn adjustment() -> Adjustment {
    Adjustment { bias: Vec::new(), presence: 0.0, frequency: 0.0, counts: HashMap::new(), least: 0 }
}

fn applied(adjustment: &Adjustment, logits: [f32; 4], written: usize) -> [f32; 4] {
    let mut logits = logits;
    adjustment.apply(&mut logits, ENDS, written);
    logits
}

#[track_caller]
fn assert_same(one: [f32; 4], other: [f32; 4]) {
    assert_eq!(one.map(f32::to_bits), other.map(f32::to_bits), "{one:?} {other:?}");
}

#[test]
fn biases_are_added_and_penalties_taken_off() {
    let biased = Adjustment { bias: vec![(0, -100.0), (1, 2.5), (99, 1.0)], ..adjustment() };
    assert_same(applied(&biased, [1.0, 2.0, 3.0, 4.0], 0), [-99.0, 4.5, 3.0, 4.0]);
    let mut penalised = Adjustment { presence: 1.0, frequency: 0.5, ..adjustment() };
    assert_same(applied(&penalised, [1.0; 4], 0), [1.0; 4]);
    for token in [1, 3, 1] {
        penalised.count(token);
    }
    assert_same(applied(&penalised, [1.0; 4], 3), [1.0, -1.0, 1.0, -0.5]);
    // Below zero they reward.
    penalised.presence = -1.0;
    assert_same(applied(&penalised, [1.0; 4], 3), [1.0, 1.0, 1.0, 1.5]);
}

#[test]
fn a_turn_ends_no_sooner_than_it_may() {
    let infinite = f32::NEG_INFINITY;
    let least = Adjustment { least: 2, ..adjustment() };
    for written in 0..2 {
        assert_same(applied(&least, [1.0, 2.0, 3.0, 4.0], written), [1.0, 2.0, infinite, infinite]);
    }
    assert_same(applied(&least, [1.0, 2.0, 3.0, 4.0], 2), [1.0, 2.0, 3.0, 4.0]);
    // A complete shape leaves nothing else.
    assert_same(applied(&least, [infinite, infinite, 3.0, infinite], 0), [infinite, infinite, 3.0, infinite]);
}

#[test]
fn nothing_is_kept_where_nothing_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, tiny("llama")).unwrap();
    let tokenizer = Tokenizer::read(&GgufFile::open(&path).unwrap()).unwrap();
    let new = |sampling: &Sampling| Adjustment::new(sampling, &tokenizer);
    assert!(new(&Sampling::default()).unwrap().is_none());
    let mut endless = new(&Sampling { ignore_eos: true, ..Sampling::default() }).unwrap().unwrap();
    endless.count(7);
    assert!(endless.least == usize::MAX && endless.counts.is_empty());
    let last = tokenizer.len() as u32 - 1;
    let biased = |token| Sampling { logit_bias: vec![(0, 1.0), (token, 1.0)], ..Sampling::default() };
    assert!(new(&biased(last)).unwrap().is_some());
    let error = new(&biased(last + 1)).err().unwrap();
    assert!(matches!(error, ProviderError::InvalidRequest { field: "logit_bias", .. }), "{error}");
}
