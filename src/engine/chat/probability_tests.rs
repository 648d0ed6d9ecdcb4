use super::*;

#[test]
fn the_likeliest_come_first_and_all_sum_to_one() {
    let logits = [1.0, 3.0, -2.0, 3.0, 0.5];
    let told = of(&logits, 4, 5, |token| vec![token as u8]);
    let order: Vec<u8> = told.top.iter().map(|(bytes, _)| bytes[0]).collect();
    assert_eq!(order, [1, 3, 0, 4, 2], "of equals the lower id");
    let sum: f32 = told.top.iter().map(|(_, logprob)| logprob.exp()).sum();
    assert!((sum - 1.0).abs() < 1e-5, "{sum}");
    assert_eq!((told.bytes, told.logprob), (vec![4], told.top[3].1));
    // ln(e^0.5 / (e + 2 e^3 + e^-2 + e^0.5))
    assert!((told.logprob - -3.2994).abs() < 1e-3, "{}", told.logprob);
}

#[test]
fn as_many_as_asked_for() {
    let logits = [1.0, 3.0, -2.0];
    for (most, count) in [(0, 0), (1, 1), (3, 3), (9, 3)] {
        assert_eq!(of(&logits, 0, most, |_| Vec::new()).top.len(), count);
    }
    // What a grammar forbids has no weight.
    let told = of(&[0.0, f32::NEG_INFINITY], 1, 1, |_| Vec::new());
    assert_eq!((told.logprob, told.top[0].1), (f32::NEG_INFINITY, 0.0));
}
